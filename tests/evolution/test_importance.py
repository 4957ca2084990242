"""Importance pruning against an account of it in dense matrices."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import regrow
from regrow import Evolution
from regrow.evolution.importance import MODES, ImportancePruning


def network(seed: int, density: float = 0.3, head: str = "dense") -> nn.Sequential:
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Linear(9, 12), nn.ReLU(), nn.Linear(12, 10), nn.Tanh(), nn.Linear(10, 3)
    )
    return regrow.sparsify(
        model,
        density,
        allocation="uniform",
        exclude=["4"] if head == "dense" else [],
        generator=torch.Generator().manual_seed(seed),
    )


def trained(
    model: nn.Module, steps: int, pruning: ImportancePruning | None = None, **options: Any
) -> tuple[Evolution, torch.optim.Optimizer]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    evolution = Evolution(model, optimizer, "set", **{"every": 2, "seed": 3} | options)
    train(model, optimizer, evolution, steps, pruning)
    return evolution, optimizer


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    evolution: Evolution,
    steps: int,
    pruning: ImportancePruning | None = None,
    begin: int = 0,
) -> None:
    for step in range(begin, begin + steps):
        x = torch.randn(16, 9, generator=torch.Generator().manual_seed(step))
        model(x).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        if pruning is not None:
            pruning.step(evolution)
        evolution.step()


def dense(model: nn.Module) -> list[Tensor]:
    return [model[i].weight.detach().clone() for i in (0, 2, 4)]  # type: ignore[index]


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 1000),
    percentile=st.floats(1, 99),
    mode=st.sampled_from(MODES),
    head=st.sampled_from(["dense", "sparse"]),
)
def test_what_goes_and_what_stays(seed: int, percentile: float, mode: str, head: str) -> None:
    model = network(seed, head=head)
    evolution, optimizer = trained(model, 3)
    before, sites = dense(model), {p: m.topology for p, m in regrow.sparse_layers(model).items()}
    momenta = {p: _momentum(optimizer, m) for p, m in regrow.sparse_layers(model).items()}
    expected = [w.clone() for w in before]
    for i in (0, 1):
        importance = before[i].double().abs().sum(1)
        weak = importance <= np.percentile(importance.numpy(), percentile)
        weak[importance.argmax()] = False
        expected[i][weak] = 0
        if mode == "remove_neuron":
            expected[i + 1][:, weak] = 0
            assert weak.any()
    records = ImportancePruning(percentile, every=1, mode=mode).prune(evolution)
    for found, wanted in zip(dense(model), expected, strict=True):
        assert torch.equal(found, wanted)
    for path, layer in regrow.sparse_layers(model).items():
        mask = expected[int(path) // 2].view(-1)[sites[path].positions] != 0
        assert layer.topology.nnz == int(mask.sum())
        lost = sites[path].nnz - layer.topology.nnz
        if lost:
            assert records[path] == regrow.evolution.LayerUpdate(lost, 0, layer.topology.nnz)
        assert torch.equal(_momentum(optimizer, layer), momenta[path][mask])


def _momentum(optimizer: torch.optim.Optimizer, layer: regrow.layers.SparseLayer) -> Tensor:
    return optimizer.state[layer.values]["momentum_buffer"].clone()


def test_by_hand() -> None:
    layer = regrow.SparseLinear(2, 4, topology=regrow.Topology((4, 2), torch.arange(8)))
    with torch.no_grad():
        layer.values.copy_(torch.tensor([1.0, -1.0, 0.5, 0.5, -3.0, 0.0, 2.0, 2.0]))
    model = nn.Sequential(layer, nn.ReLU(), nn.Linear(4, 1))
    evolution = Evolution(model, torch.optim.SGD(model.parameters(), lr=0.1), every=None)
    # Importances 2, 1, 3, 4: a third of the way is 2.
    ImportancePruning(100 / 3, every=1).prune(evolution)
    assert model[0].topology.positions.tolist() == [4, 5, 6, 7]
    assert bool(model[2].weight.ne(0).all())


def test_a_removed_neuron_stays_away() -> None:
    model = network(0)
    pruning = ImportancePruning(30, every=4, begin=3, until=8, mode="remove_neuron")
    trained(model, 30, pruning, grow=pruning.grow)
    removed = pruning.state_dict()["gone"]
    for i in (0, 2):
        gone = removed[str(i)][0]
        assert int(gone.sum()) >= 3
        assert not model[i].topology.degrees()[0][gone].any()
        assert bool((model[i].bias[gone] == 0).all())
        assert bool((model[i + 2].weight[:, gone] == 0).all())
    x = torch.randn(5, 9)
    before, small = model(x), regrow.compact(copy.deepcopy(model), x)
    assert small[0].out_features <= 8
    torch.testing.assert_close(small(x), before)


def test_connections_fall_and_stay_where_they_fell_to() -> None:
    model = network(1)
    nnz = model[0].topology.nnz
    pruning = ImportancePruning(25, every=4, until=4)
    evolution, optimizer = trained(model, 4, pruning)
    fewer = model[0].topology.nnz
    assert fewer < nnz
    train(model, optimizer, evolution, 6, pruning, begin=4)
    assert model[0].topology.nnz == fewer


def test_the_schedule() -> None:
    model = network(2)
    pruning = ImportancePruning(10, every=3, begin=3, until=9)
    evolution, optimizer = trained(model, 0, every=None)
    due = []
    for step in range(1, 13):
        model(torch.randn(4, 9)).sum().backward()
        optimizer.step()
        if pruning.step(evolution) is not None:
            due.append(step)
        assert pruning.step(evolution) is None  # not twice
    assert due == [6, 9]


@pytest.mark.parametrize("mode", MODES)
def test_stopped_and_continued_equals_never_stopped(mode: str) -> None:
    def parts() -> tuple[nn.Module, torch.optim.Optimizer, Evolution, ImportancePruning]:
        model, pruning = network(5), ImportancePruning(20, every=4, mode=mode)
        evolution, optimizer = trained(model, 0, grow=pruning.grow)
        return model, optimizer, evolution, pruning

    whole = parts()
    train(*whole[:3], 14, whole[3])
    first, again = parts(), parts()
    train(*first[:3], 6, first[3])
    for old, new in zip(first, again, strict=True):
        new.load_state_dict(copy.deepcopy(old.state_dict()))
    train(*again[:3], 8, again[3], begin=6)
    for found, wanted in zip(again[0].parameters(), whole[0].parameters(), strict=True):
        assert torch.equal(found, wanted)
    for found, wanted in zip(dense(again[0]), dense(whole[0]), strict=True):
        assert torch.equal(found, wanted)


def test_the_strongest_neuron_stays() -> None:
    layer = regrow.SparseLinear(2, 3, topology=regrow.Topology((3, 2), torch.arange(6)))
    with torch.no_grad():
        layer.values.fill_(1)
    model = nn.Sequential(layer, nn.ReLU(), nn.Linear(3, 1))
    evolution = Evolution(model, torch.optim.SGD(model.parameters(), lr=0.1), every=None)
    ImportancePruning(50, every=1).prune(evolution)
    assert model[0].topology.nnz == 2


@pytest.mark.parametrize(
    "options",
    [
        {"percentile": 0},
        {"percentile": 100},
        {"every": 0},
        {"begin": -1},
        {"begin": 5, "until": 4},
        {"mode": "outgoing"},
    ],
)
def test_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        ImportancePruning(**{"every": 1} | options)
