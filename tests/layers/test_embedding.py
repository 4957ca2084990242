"""SparseEmbedding against torch's embedding with the same table."""

from __future__ import annotations

import copy
import re

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

import regrow
from regrow import SparseEmbedding, Topology
from regrow.evolution import Candidates, Site
from regrow.kernels import capture

COMPUTES = ("csr", "dense", "auto")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def table(rows: int = 12, columns: int = 5, density: float = 0.4, **options) -> SparseEmbedding:
    options = {"dtype": torch.float64, "generator": seeded(), **options}
    return SparseEmbedding(rows, columns, density=density, **options)


def drawn(*shape: int, rows: int = 12) -> Tensor:
    return torch.randint(rows, shape, generator=seeded(1))


def test_hand_made_rows() -> None:
    # [[0 2], [0 0], [3 4]]
    layer = SparseEmbedding(3, 2, topology=Topology((3, 2), torch.tensor([1, 4, 5])), compute="csr")
    with torch.no_grad():
        layer.values.copy_(torch.tensor([2.0, 3.0, 4.0]))
    y = layer(torch.tensor([[2, 0], [1, 2]]))
    assert y.tolist() == [[[3.0, 4.0], [0.0, 2.0]], [[0.0, 0.0], [3.0, 4.0]]]
    y.backward(torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 8.0]]]))
    assert layer.values.grad.tolist() == [4.0, 8.0, 10.0]


@pytest.mark.parametrize("padding", [None, 0, -1])
@pytest.mark.parametrize("shape", [(), (1,), (7,), (2, 3), (40,), (0,), (3, 0)])
@pytest.mark.parametrize("compute", COMPUTES)
def test_equals_torchs_embedding(shape: tuple[int, ...], compute: str, padding: int | None) -> None:
    layer = table(compute=compute, padding_idx=padding)
    ids = drawn(*shape)
    weight = layer.weight.detach().requires_grad_()
    y, expected = layer(ids), functional.embedding(ids, weight, padding_idx=padding)
    assert torch.equal(y, expected)
    grad = torch.randn(y.shape, dtype=y.dtype, generator=seeded(2))
    y.backward(grad)
    expected.backward(grad)
    assert layer.values.grad.shape == (layer.topology.nnz,)
    torch.testing.assert_close(layer.values.grad, weight.grad.reshape(-1)[layer.topology.positions])


@pytest.mark.parametrize("compute", ["csr", "dense"])
def test_gradcheck(compute: str) -> None:
    layer = table(compute=compute)
    ids = drawn(3, 4)

    def apply(values: Tensor) -> Tensor:
        return torch.func.functional_call(layer, {"values": values}, (ids,))

    torch.autograd.gradcheck(apply, (layer.values,))


def test_int32_ids() -> None:
    layer = table()
    assert torch.equal(layer(drawn(6).int()), layer(drawn(6)))


def test_padding_row_has_no_connection_and_the_count_is_exact() -> None:
    layer = table(padding_idx=-2, density=0.9)
    assert layer.padding_idx == 10
    assert layer.topology.nnz == 54
    assert not layer.topology.mask()[10].any()
    assert layer(torch.tensor(10)).abs().sum() == 0
    assert table(padding_idx=3, density=1.0).topology.nnz == 55


def test_start_is_torchs_at_any_density() -> None:
    layer = table(400, 50, density=0.1)
    assert float(layer.weight.detach().var()) == pytest.approx(1, rel=0.15)


@pytest.mark.parametrize("compute", ["csr", "auto"])
def test_nothing_of_the_size_of_the_table_is_made(compute: str) -> None:
    rows, columns = 200_000, 64
    layer = SparseEmbedding(rows, columns, density=0.005, compute=compute)

    class Largest(TorchDispatchMode):
        size = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            out = func(*args, **(kwargs or {}))
            for tensor in out if isinstance(out, (tuple, list)) else [out]:
                if isinstance(tensor, Tensor):
                    self.size = max(self.size, tensor.numel())
            return out

    with Largest() as largest:
        layer(torch.arange(0, rows, 50)).square().sum().backward()
    assert largest.size <= 4000 * columns
    assert layer.values.grad.shape == (64_000,)


@pytest.mark.parametrize("bad", [-1, 12, 1000])
@pytest.mark.parametrize("compute", COMPUTES)
def test_ids_out_of_range(bad: int, compute: str) -> None:
    sentence = f"ids of an embedding with 12 rows must be in [0, 12), got {bad}"
    with pytest.raises(IndexError, match=re.escape(sentence)):
        table(compute=compute)(torch.tensor([3, bad, 4]))


def test_ids_of_another_kind() -> None:
    with pytest.raises(TypeError, match=re.escape("must be int32 or int64, got torch.float32")):
        table()(torch.ones(3))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"density": 0.0}, "density of SparseEmbedding must be in (0, 1], got 0.0"),
        ({"density": None}, "SparseEmbedding needs a density or a topology, not both or neither"),
        ({"padding_idx": 12}, "padding_idx of SparseEmbedding must be in [-12, 12), got 12"),
        ({"compute": "fast"}, "compute of SparseEmbedding must be one of auto, csr, dense"),
        (
            {"density": None, "topology": Topology((2, 5), torch.tensor([0]))},
            "topology of SparseEmbedding must have shape (12, 5), got (2, 5)",
        ),
        (
            {"density": None, "topology": Topology((12, 5), torch.tensor([0])), "padding_idx": 0},
            "topology of SparseEmbedding must have no connection in row 0, which is padding, got 1",
        ),
    ],
)
def test_bad_arguments(options: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        table(**options)


def test_connections_of_the_padding_row_cannot_come_later() -> None:
    layer, other = table(padding_idx=1), table(density=1.0)
    with pytest.raises(ValueError, match="must have no connection in row 1, which is padding"):
        layer.set_topology(other.topology, other.values)
    with pytest.raises(RuntimeError, match="must have no connection in row 1, which is padding"):
        layer.load_state_dict(other.state_dict())


def test_state_dict_takes_over_another_topology() -> None:
    layer, other = table(), table(density=0.7, generator=seeded(5))
    layer.load_state_dict(other.state_dict())
    assert layer.topology == other.topology
    assert torch.equal(layer(drawn(9)), other(drawn(9)))


def test_deep_copy_is_independent() -> None:
    layer = table()
    other = copy.deepcopy(layer)
    with torch.no_grad():
        other.values.zero_()
    assert layer(drawn(9)).abs().sum() > 0
    assert other.topology is layer.topology


def test_compiles_without_a_break() -> None:
    layer = table(compute="csr")
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    y = compiled(drawn(2, 7))
    y.sum().backward()
    grad = layer.values.grad.clone()
    layer.zero_grad()
    layer(drawn(2, 7)).sum().backward()
    assert torch.equal(y, layer(drawn(2, 7)))
    torch.testing.assert_close(grad, layer.values.grad)


def test_gradient_of_free_positions() -> None:
    layer = table()
    ids = drawn(2, 8)
    weight = layer.weight.detach().requires_grad_()
    capture.arm(layer)
    layer(ids).square().sum().backward()
    functional.embedding(ids, weight).square().sum().backward()
    site = Site("", layer, seeded(), capture.take(layer))
    everything = torch.arange(60)
    by_pairs = site.gradient(Candidates(5, positions=everything))
    by_rows = site.gradient(Candidates(5, block=slice(3, 9)))
    torch.testing.assert_close(by_pairs, weight.grad.reshape(-1))
    torch.testing.assert_close(by_rows, weight.grad[3:9].reshape(-1))


@pytest.mark.parametrize("method", ["set", "rigl"])
def test_evolves_with_an_exact_budget_and_never_into_padding(method: str) -> None:
    model = nn.Sequential(
        table(padding_idx=2, density=0.3), nn.Flatten(), nn.Linear(20, 1).double()
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    evolution = regrow.Evolution(model, optimizer, method=method, every=1, until=None, fraction=0.5)
    for step in range(30):
        ids = torch.randint(12, (16, 4), generator=seeded(step))
        model(ids).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        record = evolution.step()
        assert record.layers["0"].dropped == record.layers["0"].grown == 9
        assert model[0].topology.nnz == 18
        assert not model[0].topology.mask()[2].any()


def test_rigl_grows_the_largest_gradients() -> None:
    layer = table(padding_idx=2, density=0.3)
    model = nn.Sequential(layer)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    evolution = regrow.Evolution(
        model, optimizer, method="rigl", every=1, fraction=0.5, regrow=False
    )
    before = layer.topology
    ids, grad = drawn(6, 4), torch.randn(6, 4, 5, dtype=torch.float64, generator=seeded(3))
    weight = layer.weight.detach().requires_grad_()
    functional.embedding(ids, weight, padding_idx=2).backward(grad)
    model(ids).backward(grad)
    optimizer.step()
    evolution.step()
    score = weight.grad.abs().masked_fill(before.mask(), -1)
    score[2] = -1
    best = set(score.reshape(-1).topk(9).indices.tolist())
    grown = set(layer.topology.positions.tolist()) - set(before.positions.tolist())
    assert grown == best


@pytest.mark.parametrize("values", ["rescale", "keep", "init"])
@pytest.mark.parametrize("padding", [None, 4])
def test_conversion_there_and_back(values: str, padding: int | None) -> None:
    dense = nn.Embedding(30, 8, padding_idx=padding)
    weight = dense.weight.detach().clone()
    layer = regrow.sparsify(dense, 0.25, values=values, generator=seeded())
    assert isinstance(layer, SparseEmbedding)
    assert layer.topology.nnz == 60
    if values != "init":
        kept = weight.reshape(-1)[layer.topology.positions]
        scale = layer.density**0.5 if values == "rescale" else 1
        torch.testing.assert_close(layer.values.detach(), kept / scale)
    back = regrow.densify(layer)
    assert type(back) is nn.Embedding
    assert back.padding_idx == padding
    assert torch.equal(back(drawn(9)), layer(drawn(9)))


@pytest.mark.parametrize(
    "option", [{"max_norm": 1.0}, {"scale_grad_by_freq": True}, {"sparse": True}]
)
def test_options_that_cannot_be_sparse_are_refused(option: dict) -> None:
    ((name, value),) = option.items()
    sentence = f"layer 0: an embedding to make sparse must not have {name}={value}; exclude it"
    with pytest.raises(ValueError, match=re.escape(sentence)):
        regrow.sparsify(nn.Sequential(nn.Embedding(6, 4, **option)), 0.5)


def test_summary_counts_no_arithmetic() -> None:
    model = nn.Sequential(table(density=0.5, compute="csr", dtype=torch.float32), nn.Linear(5, 2))
    entry = regrow.measure.summary(model, drawn(3, 4)).layers[0]
    assert (entry.kind, entry.shape, entry.nnz) == ("SparseEmbedding", (12, 5), 30)
    assert (entry.flops_forward, entry.flops_backward) == (0, 0)


def test_summary_says_what_auto_chose() -> None:
    layer = table(dtype=torch.float32)
    chosen = regrow.measure.summary(nn.Sequential(layer), drawn(3)).layers[0]
    assert chosen.compute == "csr"
    assert set(chosen.milliseconds) == {"csr"}
    chosen = regrow.measure.summary(nn.Sequential(layer), drawn(30)).layers[0]
    assert set(chosen.milliseconds) == {"csr", "dense"}
