"""The summary of a model: connections, FLOPs, bytes, and how each layer computes."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor, nn

from regrow import SparseLinear
from regrow.kernels import dispatch
from regrow.measure import summary


def sparse(n_in: int, n_out: int, compute: str = "csr", density: float = 0.1) -> SparseLinear:
    generator = torch.Generator().manual_seed(0)
    return SparseLinear(n_in, n_out, density=density, compute=compute, generator=generator)


class Mixed(nn.Module):
    """Layers of many kinds, and a parameter of the model's own above them."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(4, 8, 8))
        self.conv = nn.Conv2d(4, 2, 3)
        self.norm = nn.LayerNorm(72)
        self.body = nn.Sequential(sparse(72, 50), nn.ReLU(), sparse(50, 20, "dense"))
        self.head = nn.Linear(20, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x + self.shift).relu().flatten(1)
        return self.head(self.body(self.norm(y)))


def test_mixed_model() -> None:
    model = Mixed()
    result = summary(model, torch.ones(5, 4, 8, 8))
    found = {layer.path: layer for layer in result.layers}
    assert list(found) == ["", "conv", "norm", "body.0", "body.2", "head"]
    first, second = found["body.0"], found["body.2"]
    assert (first.kind, first.shape, first.nnz, first.density) == (
        "SparseLinear", (50, 72), 360, 0.1,
    )  # fmt: skip
    assert first.flops_forward == 2 * 5 * 360
    assert first.flops_backward == 2 * first.flops_forward
    assert (first.compute, first.reason) == ("csr", "set by the user")
    topology = model.body[0].topology
    assert first.bytes == 4 * (360 + 50) + topology.nbytes
    assert second.compute == "dense"
    assert second.flops_forward == 2 * 5 * 100
    assert found["conv"].flops_forward == 2 * 5 * 36 * 2 * 36
    # The input needs no gradient but the shift does, so the convolution passes one on.
    assert found["conv"].flops_backward == 2 * found["conv"].flops_forward
    assert found["head"].flops_forward == 2 * 5 * 60
    assert found["head"].nnz == 60
    assert (found["norm"].nnz, found["norm"].flops_forward) == (72, 0)
    # The model's own parameter multiplies nothing: what its parts do is not counted twice.
    assert found[""].flops_forward == 0
    assert found[""].bytes == 4 * 256


def test_total_is_the_sum_and_equals_what_torch_counts() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    model, x = Mixed(), torch.ones(5, 4, 8, 8)
    result = summary(model, x)
    with FlopCounterMode(display=False) as counter:
        model(x)
    assert result.total.flops_forward == counter.get_total_flops()
    assert result.total.nnz == sum(layer.nnz for layer in result.layers)
    positions = sum(torch.Size(layer.shape).numel() for layer in result.layers)
    assert result.total.density == result.total.nnz / positions
    assert result.total.bytes == sum(layer.bytes for layer in result.layers)


def test_the_first_layer_has_one_gradient() -> None:
    result = summary(nn.Sequential(sparse(30, 20), sparse(20, 10)), torch.ones(4, 30))
    first, second = result.layers
    assert first.flops_backward == first.flops_forward
    assert second.flops_backward == 2 * second.flops_forward


def test_auto_says_what_was_measured() -> None:
    dispatch.forget()
    layer = summary(nn.Sequential(sparse(30, 20, "auto", 0.5)), torch.ones(4, 30)).layers[0]
    assert layer.compute in ("csr", "dense")
    assert layer.reason.startswith("measured: csr ")
    assert set(layer.milliseconds) == {"csr", "dense"}
    again = summary(nn.Sequential(sparse(30, 20, "auto", 0.5)), torch.ones(4, 30)).layers[0]
    assert again == layer
    dispatch.forget()


def test_a_layer_that_is_not_reached() -> None:
    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = sparse(6, 4), sparse(6, 4, "auto")

        def forward(self, x: Tensor) -> Tensor:
            return self.used(x)

    layer = summary(Unused(), torch.ones(2, 6)).layers[1]
    assert (layer.compute, layer.reason) == ("auto", "not reached by the example input")
    assert (layer.flops_forward, layer.flops_backward) == (0, 0)


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_as_it_was(training: bool) -> None:
    model = nn.Sequential(sparse(6, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), sparse(6, 2))
    model.train(training)
    model[1].eval()
    modes = [module.training for module in model.modules()]
    mean = model[1].running_mean.clone()
    with torch.no_grad():
        summary(model, torch.ones(4, 6))
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(model[1].running_mean, mean)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_the_model_may_be_one_layer() -> None:
    result = summary(sparse(6, 4), torch.ones(2, 6))
    assert [layer.path for layer in result.layers] == [""]
    assert result.layers[0].flops_forward == 2 * 2 * 2


def test_table_and_plain_values() -> None:
    result = summary(nn.Sequential(sparse(30, 20), nn.ReLU(), nn.Linear(20, 5)), torch.ones(4, 30))
    lines = str(result).splitlines()
    assert lines[0].split() == [
        "layer", "shape", "density", "nnz", "FLOPs", "fwd", "FLOPs", "bwd", "bytes", "compute",
    ]  # fmt: skip
    assert lines[1].startswith("0      20x30  0.1")
    assert lines[1].endswith("csr: set by the user")
    assert lines[-1].startswith("total")
    plain = json.loads(json.dumps(result.to_dict()))
    assert plain["layers"][0]["nnz"] == 60
    assert plain["total"]["nnz"] == 160


def test_a_tied_weight_counts_once() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.head = nn.Embedding(20, 6), nn.Linear(6, 20, bias=False)
            self.head.weight = self.table.weight

        def forward(self, ids: Tensor) -> Tensor:
            return self.head(self.table(ids))

    result = summary(Tied(), torch.arange(5))
    table, head = result.layers
    assert (table.tied_to, head.tied_to) == (None, "table")
    assert (table.bytes, head.bytes) == (480, 0)
    assert (table.nnz, head.nnz, result.total.nnz) == (120, 120, 120)
    assert result.total.shape == (120,)
    assert (table.flops_forward, head.flops_forward) == (0, 2 * 5 * 120)
    first = sparse(6, 6)
    second = SparseLinear(6, 6, topology=first.topology, compute="csr")
    second.values = first.values
    one, two = summary(nn.Sequential(first, second), torch.ones(2, 6)).layers
    assert two.tied_to == "0"
    assert two.bytes == 4 * 6  # its bias; values and places are the first one's
    assert one.flops_forward == two.flops_forward


def test_products_without_weights_have_a_row() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.into = sparse(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            y = self.into(x)
            return nn.functional.scaled_dot_product_attention(y, y, y)

    model = Attention()
    result = summary(model, torch.ones(2, 5, 8))
    own, into = result.layers
    assert (own.path, own.nnz, own.shape, own.bytes) == ("", 0, (0,), 0)
    assert own.flops_forward == 2 * (2 * 2 * 5 * 5 * 8)
    assert own.flops_backward == 2 * own.flops_forward
    assert result.total.flops_forward == own.flops_forward + into.flops_forward
    assert result.total.density == into.density


def test_frozen_weights_have_no_gradient() -> None:
    model = nn.Sequential(sparse(30, 20), nn.ReLU(), sparse(20, 10))
    for parameter in model[2].parameters():
        parameter.requires_grad_(False)
    layers = summary(model, torch.ones(4, 30)).layers
    assert layers[1].flops_backward == layers[1].flops_forward
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    assert summary(model, torch.ones(4, 30)).total.flops_backward == 0


def test_a_dense_product_multiplies_zeros_too() -> None:
    csr, dense = (
        summary(sparse(30, 20, compute), torch.ones(4, 30)) for compute in ("csr", "dense")
    )
    assert csr.layers[0].flops_executed == 2 * 2 * 4 * 60
    assert dense.layers[0].flops_executed == 2 * 2 * 4 * 600
