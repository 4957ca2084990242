"""Layers that share one weight: sparse together, changed together, saved and copied together."""

from __future__ import annotations

import copy
import pickle
import re

import pytest
import torch
from torch import nn

import regrow
from regrow import SparseEmbedding, SparseLinear, densify, sparsify
from regrow.kernels import capture
from regrow.layers import tie
from regrow.topology import Topology


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Language(nn.Module):
    """An embedding and an output head with one weight, as language models have."""

    def __init__(self, padding_idx: int | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(12, 6, padding_idx)
        self.body = nn.Linear(6, 6)
        self.head = nn.Linear(6, 12, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.body(self.embed(ids))))


def is_tied(model: Language) -> bool:
    return model.head.values is model.embed.values and (model.head.topology == model.embed.topology)


IDS = torch.tensor([[1, 5, 7], [2, 2, 11]])


def test_embedding_and_head_stay_tied() -> None:
    model = sparsify(Language(), 0.4, generator=seeded())
    assert is_tied(model)
    assert list(regrow.sparse_layers(model)) == ["embed", "body"]
    assert [name for name, _ in model.named_parameters()] == [
        "embed.values",
        "body.values",
        "body.bias",
    ]
    # The shared weight counts once in the budget.
    assert sum(x.topology.nnz for x in regrow.sparse_layers(model).values()) == 43


def test_values_and_gradient_are_those_of_the_dense_twin() -> None:
    model = sparsify(Language(), 0.4, compute="csr", generator=seeded())
    dense = densify(copy.deepcopy(model))
    assert dense.head.weight is dense.embed.weight
    for net in (model, dense):
        net(IDS).square().sum().backward()
    positions = model.embed.topology.positions
    torch.testing.assert_close(model(IDS), dense(IDS))
    torch.testing.assert_close(
        model.embed.values.grad, dense.embed.weight.grad.reshape(-1)[positions]
    )


def test_growth_by_gradient_sees_both_uses() -> None:
    model = sparsify(Language(), 0.4, compute="csr", generator=seeded())
    dense = densify(copy.deepcopy(model))
    dense(IDS).square().sum().backward()
    wanted = dense.embed.weight.grad
    capture.arm(model.embed)
    model(IDS).square().sum().backward()
    passes = capture.take(model.embed)
    assert len(passes) == 2
    rows, columns = torch.arange(12).repeat_interleave(6), torch.arange(6).repeat(12)
    for reader in (model.embed, model.head):
        block = sum(reader.gradient_block(x, grad, slice(0, 12)) for x, grad, *_ in passes)
        torch.testing.assert_close(block, wanted)
        single = sum(reader.gradient_pairs(x, grad, rows, columns) for x, grad, *_ in passes)
        torch.testing.assert_close(single.view(12, 6), wanted)


@pytest.mark.parametrize("through", ["embed", "head"])
@pytest.mark.parametrize("connections", [None, 5])
def test_a_new_topology_reaches_both(through: str, connections: int | None) -> None:
    model = sparsify(Language(), 0.4, generator=seeded())
    count = model.embed.topology.nnz if connections is None else connections
    topology = Topology((12, 6), torch.arange(count))
    getattr(model, through).set_topology(topology, torch.arange(count).float())
    assert is_tied(model)
    assert model.embed.topology == topology
    assert model.embed.values.tolist() == list(range(count))


@pytest.mark.parametrize("method", ["set", "rigl"])
def test_evolution_and_optimiser_see_one_weight(method: str) -> None:
    model = sparsify(Language(), 0.4, generator=seeded())
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    evolution = regrow.Evolution(model, optimizer, method=method, every=1, until=100)
    before = model.embed.topology
    for _ in range(5):
        model(IDS).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        record = evolution.step()
    assert set(record.layers) == {"embed", "body"}
    assert is_tied(model)
    assert model.embed.topology != before
    assert model.embed.topology.nnz == before.nnz
    assert len(optimizer.state) == 3


def test_copies_and_pickles_are_tied_to_each_other_and_not_to_the_original() -> None:
    model = sparsify(Language(), 0.4, generator=seeded())
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert is_tied(twin)
        assert twin.embed.values is not model.embed.values
        twin.head.set_topology(Topology((12, 6), torch.arange(3)), torch.ones(3))
        assert is_tied(twin)
        assert twin.embed.topology.nnz == 3
    assert model.embed.topology.nnz > 3


def test_a_state_dict_round_trip_keeps_the_tie() -> None:
    model = sparsify(Language(), 0.4, generator=seeded())
    other = sparsify(Language(), 0.3, generator=seeded(1))
    held = other.embed.values
    other.load_state_dict(model.state_dict())
    assert is_tied(other)
    assert other.embed.values is held
    assert torch.equal(other(IDS), model(IDS))
    other.load_state_dict(model.state_dict(), assign=True)
    assert is_tied(other)


def test_dtype_and_meta_device_keep_the_tie() -> None:
    model = sparsify(Language(), 0.4).double()
    assert is_tied(model)
    assert model.head.values.dtype == torch.float64
    with torch.device("meta"):
        empty = Language()
        empty.head.weight = empty.embed.weight
    sparsify(empty, 0.4).to_empty(device="cpu")
    assert is_tied(empty)


@pytest.mark.parametrize("order", [1, -1])
def test_a_padding_row_is_empty_in_both_and_stays_so(order: int) -> None:
    model = Language(padding_idx=3)
    children = list(model.named_children())
    for name, _ in children:
        delattr(model, name)
    for name, child in children[::order]:
        setattr(model, name, child)
    sparsify(model, 0.9, generator=seeded())
    lead = next(iter(regrow.sparse_layers(model).values()))
    assert model.head.closed.tolist() == model.embed.closed.tolist() == list(range(18, 24))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    evolution = regrow.Evolution(model, optimizer, method="set", every=1, fraction=0.5)
    for _ in range(3):
        model(IDS).sum().backward()
        optimizer.step()
        evolution.step()
    assert lead in (model.embed, model.head)
    assert is_tied(model)
    assert 3 not in model.head.topology.rows.tolist()
    with pytest.raises(ValueError, match="must have no connection in row 3, which is padding"):
        model.head.set_topology(Topology((12, 6), torch.arange(24)), torch.ones(24))


def test_two_linear_layers_with_one_weight() -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6))
    model[2].weight = model[0].weight
    sparsify(model, 0.5, exclude=("1",))
    assert model[2].values is model[0].values
    assert model[2].bias is not model[0].bias
    densify(model)
    assert model[2].weight is model[0].weight


def test_one_module_at_two_paths_stays_one() -> None:
    layer = nn.Linear(6, 6)
    model = sparsify(nn.Sequential(layer, nn.ReLU(), layer), 0.5)
    assert model[0] is model[2]
    assert list(regrow.sparse_layers(model)) == ["0"]
    model = densify(model)
    assert model[0] is model[2]


@pytest.mark.parametrize("exclude", ["0", "2"])
def test_half_a_tie_is_refused(exclude: str) -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6))
    model[2].weight = model[0].weight
    with pytest.raises(
        ValueError, match=r"parameter [02]\.weight is tied to [02]\.weight, and they"
    ):
        sparsify(model, 0.5, exclude=exclude)
    sparsify(model, 0.5, exclude=("0", "2"))
    assert list(regrow.sparse_layers(model)) == ["1"]


def test_weights_that_cannot_be_one_are_refused() -> None:
    convs = nn.Sequential(nn.Conv1d(4, 4, 3), nn.Conv1d(4, 4, 3, stride=2))
    convs[1].weight = convs[0].weight
    with pytest.raises(ValueError, match=r"parameter 1\.weight is tied to 0.weight, and they can"):
        sparsify(convs, 0.5)
    loose = nn.Sequential(nn.Linear(4, 4))
    loose.register_parameter("again", loose[0].weight)
    with pytest.raises(
        ValueError, match=r"parameter again is tied to 0\.weight, and they can only"
    ):
        sparsify(loose, 0.5)


def test_tie_refuses_other_shapes() -> None:
    table, head = SparseEmbedding(8, 4, density=0.5), SparseLinear(8, 4, density=0.5)
    sentence = "weights of tied layers must have one shape, got (8, 4) and (4, 8)"
    with pytest.raises(ValueError, match=re.escape(sentence)):
        tie(table, head)


def test_tie_joins_those_that_are_tied_already() -> None:
    a, b, c, d = (SparseLinear(4, 4, density=0.5) for _ in range(4))
    tie(a, b)
    tie(c, d)
    tie(b, d)
    assert a.values is b.values is c.values is d.values
    d.set_topology(Topology((4, 4), torch.arange(2)), torch.ones(2))
    assert a.topology is d.topology
    assert set(a.tied) == {b, c, d}
