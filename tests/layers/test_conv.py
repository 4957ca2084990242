"""Sparse convolution layers against torch's dense ones with the same weight."""

from __future__ import annotations

import copy
import math
import re

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import regrow
from regrow import SparseConv1d, SparseConv2d, SparseConv3d, Topology
from regrow.kernels import native, ops, reference
from regrow.layers.base import SparseLayer

KINDS = {1: SparseConv1d, 2: SparseConv2d, 3: SparseConv3d}
DENSE = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
SIZES = {1: (11,), 2: (9, 8), 3: (5, 6, 7)}
COMPUTES = ("csr", "dense", "auto")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def layer_of(axes: int = 2, *args: object, density: float = 0.3, **options: object) -> SparseLayer:
    arguments = args or (4, 6, 3)
    defaults = {"dtype": torch.float64, "generator": seeded(), "density": density}
    return KINDS[axes](*arguments, **defaults | options)


def dense_twin(layer: SparseLayer) -> nn.Module:
    return regrow.densify(nn.Sequential(copy.deepcopy(layer)))[0]


def randn(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 1) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=seeded(seed))


@pytest.fixture(params=["reference", "native"])
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each kernel path; the native one where it was built."""
    if request.param == "native" and not native.available():
        pytest.skip("the C++ extension was not built")
    chosen = {"reference": reference, "native": native}[request.param]
    monkeypatch.setattr(ops, "sparse_kernels", lambda values: chosen)
    return request.param


@pytest.mark.usefixtures("kernels")
def test_hand_made_convolution() -> None:
    # One output channel that takes twice the left neighbour and three times the pixel itself.
    layer = SparseConv1d(1, 1, 3, padding=1, topology=Topology((1, 1, 3), torch.tensor([0, 1])))
    with torch.no_grad():
        layer.values.copy_(torch.tensor([2.0, 3.0]))
        layer.bias.copy_(torch.tensor([0.5]))
    layer.compute = "csr"
    x = torch.tensor([[[1.0, 10.0, 100.0]]], requires_grad=True)
    y = layer(x)
    assert y.tolist() == [[[3.5, 32.5, 320.5]]]
    y.sum().backward()
    assert x.grad.tolist() == [[[5.0, 5.0, 3.0]]]
    assert layer.values.grad.tolist() == [11.0, 111.0]
    assert layer.bias.grad.tolist() == [3.0]


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("compute", COMPUTES)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"stride": 2, "padding": 1},
        {"padding": "same", "dilation": 2},
        {"padding": "valid", "groups": 2},
        {"kernel_size": 2, "padding": "same", "bias": False},
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.usefixtures("kernels")
def test_equals_the_dense_layer(axes: int, compute: str, options: dict) -> None:
    options = {"kernel_size": 3} | options
    layer = layer_of(axes, 4, 6, compute=compute, **options)
    dense = dense_twin(layer)
    assert type(dense) is DENSE[axes]
    x = randn(3, 4, *SIZES[axes]).requires_grad_()
    same = x.detach().clone().requires_grad_()
    y, expected = layer(x), dense(same)
    assert y.shape == expected.shape
    grad = randn(*y.shape, seed=2)
    y.backward(grad)
    expected.backward(grad)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(x.grad, same.grad)
    places = layer.topology.positions
    torch.testing.assert_close(layer.values.grad, dense.weight.grad.reshape(-1)[places])
    if layer.bias is not None:
        torch.testing.assert_close(layer.bias.grad, dense.bias.grad)


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("compute", COMPUTES)
def test_one_sample_without_a_batch_and_a_batch_of_none(axes: int, compute: str) -> None:
    layer = layer_of(axes, compute=compute)
    x = randn(4, *SIZES[axes])
    torch.testing.assert_close(layer(x), layer(x[None])[0])
    empty = randn(0, 4, *SIZES[axes]).requires_grad_()
    y = layer(empty)
    assert y.shape == (0, *layer(x).shape)
    y.sum().backward()
    assert not layer.values.grad.any()


@pytest.mark.parametrize("compute", COMPUTES)
def test_channels_last_inputs_give_the_same(compute: str) -> None:
    layer = layer_of(compute=compute)
    x = randn(2, 4, 9, 8)
    y = layer(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(y, layer(x))
    assert y.is_contiguous()


@pytest.mark.parametrize("compute", COMPUTES)
@pytest.mark.parametrize("density", [1e-9, 1.0])
def test_one_connection_and_all(density: float, compute: str) -> None:
    layer = layer_of(density=density, compute=compute)
    assert layer.topology.nnz == max(1, round(density * 4 * 6 * 9))
    x = randn(2, 4, 9, 8)
    torch.testing.assert_close(layer(x), functional.conv2d(x, layer.weight, layer.bias))


@pytest.mark.parametrize("compute", COMPUTES)
def test_no_connection_gives_the_bias(compute: str) -> None:
    empty = Topology((6, 4, 3, 3), torch.tensor([], dtype=torch.int64))
    layer = SparseConv2d(4, 6, 3, topology=empty, compute=compute)
    x = torch.ones(2, 4, 5, 5, requires_grad=True)
    y = layer(x)
    assert torch.equal(y, layer.bias.view(6, 1, 1).expand(2, 6, 3, 3))
    y.sum().backward()
    assert not x.grad.any()


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_starts_like_torch_corrected_for_the_density(axes: int) -> None:
    layer = KINDS[axes](16, 32, 3, density=0.5, generator=seeded())
    bound = 1 / math.sqrt(0.5 * 16 * 3**axes)
    assert 0.95 * bound < layer.values.abs().max() <= bound
    assert layer.bias.abs().max() <= bound
    again = KINDS[axes](16, 32, 3, density=0.5, generator=seeded())
    assert again.topology == layer.topology
    assert torch.equal(again.values, layer.values)


@pytest.mark.parametrize("compute", ["csr", "dense"])
def test_autocast_gives_its_dtype(compute: str) -> None:
    layer = SparseConv2d(4, 6, 3, density=0.5, compute=compute)
    x = torch.randn(2, 4, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), layer(x), rtol=0.05, atol=0.05)
    y.float().sum().backward()
    assert layer.values.grad.dtype == torch.float32


def test_copies_and_state() -> None:
    layer = layer_of()
    twin = copy.deepcopy(layer)
    x = randn(2, 4, 9, 8)
    assert torch.equal(twin(x), layer(x))
    other = layer_of(density=0.1)
    other.load_state_dict(layer.state_dict())
    assert other.topology == layer.topology
    assert torch.equal(other(x), layer(x))
    assert set(layer.state_dict()) == {"values", "bias", "shape", "indptr", "indices"}


def test_compiles_without_a_graph_break() -> None:
    layer = layer_of(compute="csr")
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    x = randn(2, 4, 9, 8)
    torch.testing.assert_close(compiled(x), layer(x))
    compiled(x).sum().backward()
    assert layer.values.grad is not None


class Block(nn.Module):
    """A residual block, as ResNet has it, with a downsampling path."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(8, 16, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.second = nn.Conv2d(16, 16, 3, padding=1, bias=False)
        self.down = nn.Conv2d(8, 16, 1, stride=2)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(self.norm(self.first(x)).relu()) + self.down(x)
        return self.head(y.relu().mean((2, 3)))


@pytest.mark.parametrize("compute", COMPUTES)
def test_a_residual_block_is_made_sparse_and_dense_again(compute: str) -> None:
    model = regrow.sparsify(
        Block(), density=0.2, allocation="uniform", exclude=["head"], compute=compute
    )
    kinds = {path: type(layer) for path, layer in regrow.sparse_layers(model).items()}
    assert kinds == dict.fromkeys(("first", "second", "down"), SparseConv2d)
    total = 8 * 16 * 9 + 16 * 16 * 9 + 8 * 16
    assert sum(m.topology.nnz for m in regrow.sparse_layers(model).values()) == round(0.2 * total)
    x = torch.randn(4, 8, 10, 10)
    y = model.eval()(x)
    dense = regrow.densify(copy.deepcopy(model))
    assert not regrow.sparse_layers(dense)
    torch.testing.assert_close(dense(x), y)
    summary = regrow.measure.summary(model, x)
    layers = {layer.path: layer for layer in summary.layers}
    assert layers["first"].shape == (16, 8, 3, 3)
    assert layers["first"].kind == "SparseConv2d"
    nnz = regrow.sparse_layers(model)["first"].topology.nnz
    assert layers["first"].flops_forward == 2 * 4 * 25 * nnz
    assert layers["first"].compute in ("csr", "dense")


def test_kept_values_keep_the_function() -> None:
    dense = nn.Conv2d(4, 6, 3, padding="same", groups=2)
    layer = regrow.sparsify(copy.deepcopy(dense), density=0.5, values="keep")
    kept = dense.weight.detach() * layer.topology.mask()
    x = torch.randn(2, 4, 7, 7)
    expected = functional.conv2d(x, kept, dense.bias, padding="same", groups=2)
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("compute", ["csr", "dense"])
def test_rigl_grows_where_the_dense_gradient_is_largest(
    axes: int, groups: int, compute: str
) -> None:
    layer = layer_of(axes, 4, 6, 3, groups=groups, padding=1, stride=2, compute=compute)
    model = nn.Sequential(layer)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    evolution = regrow.Evolution(model, optimizer, method="rigl", every=1, fraction=0.3)
    dense = dense_twin(layer)
    x, old, values = randn(5, 4, *SIZES[axes]), layer.topology, layer.values.detach().clone()
    model(x).square().sum().backward()
    dense(x).square().sum().backward()
    optimizer.step()
    record = evolution.step()
    count = record.layers["0"].grown
    assert count > 0
    scores = dense.weight.grad.reshape(-1).abs()
    kept = old.positions[values.abs().argsort(descending=True)[: old.nnz - count]]
    scores[kept] = -1
    # What has just been dropped is free too, or is not, as the method says: both are covered.
    new = set(layer.topology.positions.tolist()) - set(kept.tolist())
    assert len(new) == count
    free = scores.clone()
    free[old.positions] = -1
    for candidates in (scores, free):
        if new == set(candidates.topk(count).indices.tolist()):
            return
    raise AssertionError(f"grown {sorted(new)}")


@pytest.mark.parametrize(
    ("arguments", "options", "sentence"),
    [
        ((0, 4, 3), {}, "in_channels of SparseConv2d must be at least 1, got 0"),
        ((4, 4, 3), {"groups": 0}, "groups of SparseConv2d must be at least 1, got 0"),
        ((4, 6, 3), {"groups": 4}, "groups of SparseConv2d must divide 4 and 6 channels, got 4"),
        (
            (4, 4, (3, 0)),
            {},
            "kernel_size of SparseConv2d must be a whole number or 2 of them, each at least 1, "
            "got (3, 0)",
        ),
        (
            (4, 4, 3),
            {"stride": (1, 1, 1)},
            "stride of SparseConv2d must be a whole number or 2 of them, each at least 1, "
            "got (1, 1, 1)",
        ),
        (
            (4, 4, 3),
            {"padding": -1},
            "padding of SparseConv2d must be a whole number or 2 of them, each at least 0, got -1",
        ),
        (
            (4, 4, 3),
            {"padding": "full"},
            "padding of SparseConv2d must be numbers, 'same' or 'valid', got 'full'",
        ),
        (
            (4, 4, 3),
            {"padding": "same", "stride": 2},
            "stride of SparseConv2d must be 1 where padding is 'same', got 2",
        ),
        (
            (4, 4, 3),
            {"padding_mode": "reflect"},
            "padding_mode of SparseConv2d must be 'zeros', got 'reflect'",
        ),
        (
            (4, 4, 3),
            {"density": None},
            "SparseConv2d needs a density or a topology, not both or neither",
        ),
        ((4, 4, 3), {"density": 1.5}, "density of SparseConv2d must be in (0, 1], got 1.5"),
        (
            (4, 4, 3),
            {"density": None, "topology": Topology((4, 4), torch.tensor([0]))},
            "topology of SparseConv2d must have shape (4, 4, 3, 3), got (4, 4)",
        ),
    ],
)
def test_what_is_no_convolution_is_refused(arguments, options, sentence) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        SparseConv2d(*arguments, **{"density": 0.5} | options)


@pytest.mark.parametrize(
    ("x", "error", "sentence"),
    [
        (
            torch.ones(2, 3, 8, 8),
            ValueError,
            "input of SparseConv2d must have shape (batch, 4, height, width) or "
            "(4, height, width), got (2, 3, 8, 8)",
        ),
        (
            torch.ones(8, 8),
            ValueError,
            "input of SparseConv2d must have shape (batch, 4, height, width) or "
            "(4, height, width), got (8, 8)",
        ),
        (
            torch.ones(2, 4, 8, 2),
            ValueError,
            "input of SparseConv2d must be large enough for its kernel 3x3, got size (8, 2)",
        ),
        (
            torch.ones(2, 4, 8, 8, dtype=torch.float64),
            TypeError,
            "input of SparseConv2d must be torch.float32 as its values are, got torch.float64",
        ),
    ],
)
def test_what_is_no_input_is_refused(x: Tensor, error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=f"^{re.escape(sentence)}$"):
        SparseConv2d(4, 6, 3, density=0.5)(x)


def test_other_padding_modes_are_refused_on_conversion() -> None:
    sentence = (
        "a convolution to make sparse must have padding_mode='zeros', got 'circular'; "
        "exclude it from sparsify"
    )
    with pytest.raises(ValueError, match=re.escape(sentence)):
        regrow.sparsify(nn.Conv1d(4, 4, 3, padding_mode="circular"), density=0.5)


def test_frozen_parts_stay_frozen() -> None:
    dense = nn.Conv2d(4, 4, 3)
    dense.weight.requires_grad_(False)
    layer = regrow.sparsify(dense, density=0.5)
    assert not layer.values.requires_grad
    assert layer.bias.requires_grad
    x = torch.randn(2, 4, 6, 6, requires_grad=True)
    layer(x).sum().backward()
    assert layer.values.grad is None
    assert x.grad is not None
    assert not regrow.densify(layer).weight.requires_grad
