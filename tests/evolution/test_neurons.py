"""Pruning of neurons by hand, in training, and out of the network in the end."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import regrow
from regrow import Evolution, SparseLinear, Topology
from regrow.evolution import Site
from regrow.evolution.neurons import NeuronPruning
from regrow.topology.select import without_lowest


def dropped(scores: Tensor, count: int) -> list[int]:
    return (~without_lowest(scores, count)).nonzero().view(-1).tolist()


def chain() -> nn.Sequential:
    """Two layers with a hidden layer of three; neuron 1 is the weakest, in and out together."""
    first = SparseLinear(2, 3, topology=Topology((3, 2), torch.arange(6)), dtype=torch.float64)
    second = SparseLinear(3, 2, topology=Topology((2, 3), torch.arange(6)), dtype=torch.float64)
    with torch.no_grad():
        first.values.copy_(torch.tensor([1.0, -1.0, 0.5, 0.5, -3.0, 0.1]))
        second.values.copy_(torch.tensor([2.0, 0.5, 1.0, -2.0, 1.0, 1.0]))
    return nn.Sequential(first, nn.ReLU(), second)


def sites_of(model: nn.Module, fraction: float = 0.0) -> list[Site]:
    layers = regrow.sparse_layers(model).items()
    return [Site(path, layer, torch.Generator(), fraction=fraction) for path, layer in layers]


def test_all_of_the_weakest_neuron_goes() -> None:
    sites = sites_of(chain())
    # In: 2, 1, 3.1; out: 4, 1.5, 2. Together 6, 2.5, 5.1.
    rules = NeuronPruning(0.5, step=0.4)
    assert rules.drop.count(sites, 0) == [2, 2]
    assert dropped(rules.drop.score(sites[0]), 2) == [2, 3]
    assert dropped(rules.drop.score(sites[1]), 2) == [1, 4]
    # The fraction goes of what is left: a quarter of four connections each.
    sites = [replace(site, fraction=0.25) for site in sites]
    assert rules.drop.count(sites, 3) == [3, 3]
    # Of 1 -1 and -3 0.1, one positive and one negative are left lowest: 0.1 comes first.
    assert dropped(rules.drop.score(sites[0]), 3) == [2, 3, 5]


def test_it_stops_at_its_target() -> None:
    sites = sites_of(chain())
    # Of three neurons, two thirds may go, whatever the step; but two outputs want two of them.
    assert NeuronPruning(0.67, step=1.0).drop.count(sites, 0) == [2, 2]
    assert NeuronPruning(0.3, step=1.0).drop.count(sites, 0) == [0, 0]


def test_importance_may_be_that_of_one_side() -> None:
    # In: 2, 1, 3.1; out: 4, 1.5, 2, which is told to make the first the weakest outwards.
    model = chain()
    with torch.no_grad():
        model[2].values.copy_(torch.tensor([0.1, 0.5, 1.0, -0.1, 1.0, 1.0]))
    for importance, weakest in (("in", [2, 3]), ("out", [0, 1])):
        sites = sites_of(model)
        rules = NeuronPruning(0.5, step=0.4, importance=importance)
        assert rules.drop.count(sites, 0) == [2, 2]
        assert dropped(rules.drop.score(sites[0]), 2) == weakest


def test_a_window_removes_most_at_its_beginning() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(SparseLinear(8, 64, density=0.9), SparseLinear(64, 4, density=0.9))
    rules = NeuronPruning(0.5, begin=10, end=30)

    def removed(step: int) -> int:
        sites = [replace(site, step=step) for site in sites_of(model)]
        rules.drop.count(sites, 0)
        return int((~sites[0].notes[rules, "0"].alive[0]).sum())

    # A half of 64, and 1 - (1 - t)^3 of it: t = 0, 1/4, 1/2, 1.
    assert [removed(step) for step in (5, 10, 15, 20, 30, 99)] == [0, 0, 18, 28, 32, 32]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"target": 1.0, "step": 0.1}, "target of neuron pruning must be in"),
        ({"target": 0.5}, "either a step or a window"),
        ({"target": 0.5, "step": 0.1, "begin": 1, "end": 2}, "either a step or a window"),
        ({"target": 0.5, "begin": 1}, "either a step or a window"),
        ({"target": 0.5, "begin": 3, "end": 3}, "window of neuron pruning must begin"),
        ({"target": 0.5, "step": 0.1, "importance": "all"}, "one of in, out, both, got 'all'"),
        ({"target": 0.5, "step": 0.1, "budget": "cut"}, "one of keep, shrink, got 'cut'"),
    ],
)
def test_bad_options(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        NeuronPruning(**options)


def test_rules_hold_no_state_between_updates() -> None:
    rules = NeuronPruning(0.5, step=0.5)
    rules.drop.count(sites_of(chain()), 0)  # an update that comes to nothing
    model = chain()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    evolution = Evolution(model, optimizer, drop=rules.drop, grow=rules.grow, every=None)
    other = nn.Sequential(*(SparseLinear(5, 5, density=0.6) for _ in range(3)))
    rules.drop.count(sites_of(other), 0)  # of a model with the same paths
    # What is pruned is the weakest of each sign, with no regard to any neuron.
    assert [update.dropped for update in evolution.prune(0.34).layers.values()] == [2, 2]
    assert model[0].topology.nnz == 4
    free = rules.grow.place(sites_of(model)[0], model[0].topology, 2)
    assert len(free) == 2


@pytest.mark.parametrize("full", [False, True])
def test_a_budget_may_shrink_with_its_neurons(full: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 4))
    model = regrow.sparsify(model, allocation={"0": 0.5, "2": 1.0 if full else 0.5}, full="sparse")
    first, last = regrow.sparse_layers(model).values()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    rules = NeuronPruning(0.5, step=0.25, budget="shrink")
    evolution = Evolution(model, optimizer, "set", drop=rules.drop, grow=rules.grow, every=1)
    for update in range(1, 4):
        before = [layer.topology for layer in (first, last)]
        model(torch.randn(8, 10)).square().mean().backward()
        optimizer.step()
        evolution.step()
        gone = (first.topology.degrees()[0] + last.topology.degrees()[1] == 0).nonzero().view(-1)
        assert len(gone) == min(10, 5 * update)
        lost = [
            int(torch.isin(before[0].rows, gone).sum()),
            int(torch.isin(before[1].csr()[1].long(), gone).sum()),
        ]
        for layer, old, number in zip((first, last), before, lost, strict=True):
            assert layer.topology.nnz == old.nnz - number
            assert layer.values.shape == (layer.topology.nnz,)
    x = torch.randn(32, 10)
    expected = model(x).detach()
    torch.testing.assert_close(regrow.compact(model, x)(x), expected)


def test_a_kept_budget_ends_where_there_are_no_places() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 4))
    model = regrow.sparsify(model, allocation={"0": 0.3, "2": 1.0}, full="sparse")
    first, last = regrow.sparse_layers(model).values()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    rules = NeuronPruning(0.5, step=0.5)
    evolution = Evolution(model, optimizer, "set", drop=rules.drop, grow=rules.grow, every=None)
    evolution.update()
    assert first.topology.nnz == 60  # there is room for them among ten neurons
    assert last.topology.nnz == 40  # ten neurons with four outputs each
    assert int((last.topology.degrees()[1] == 0).sum()) == 10


def test_layers_that_do_not_follow_each_other_have_no_hidden_neurons() -> None:
    model = nn.ModuleList([SparseLinear(4, 3, density=0.9), SparseLinear(4, 3, density=0.9)])
    sites = sites_of(model, fraction=0.5)
    count = NeuronPruning(0.5, step=0.5).drop.count
    assert count(sites, 10) == [round(0.5 * s.topology.nnz) for s in sites]


def test_what_is_gone_gets_nothing_and_what_is_only_idle_may() -> None:
    first = SparseLinear(4, 3, topology=Topology((3, 4), torch.tensor([0, 1, 4])))
    second = SparseLinear(3, 2, topology=Topology((2, 3), torch.tensor([0, 5])))
    # Neuron 1 has inputs only, neuron 2 an output only, and neuron 0 both.
    sites = sites_of(nn.Sequential(first, second))
    rules = NeuronPruning(0.0, step=0.0)
    rules.drop.count(sites, 0)
    found = rules.grow.place(sites[0], first.topology, 9)
    assert sorted(found.tolist()) == [2, 3, 5, 6, 7, 8, 9, 10, 11]
    with torch.no_grad():
        first.values.copy_(torch.tensor([1.0, 1.0, 0.1]))
        second.values.fill_(1.0)
    rules = NeuronPruning(0.4, step=0.4)  # neuron 1 goes
    rules.drop.count(sites, 0)
    left = Topology((3, 4), torch.tensor([0, 1]))
    found = rules.grow.place(sites[0], left, 6)
    assert sorted(found.tolist()) == [2, 3, 8, 9, 10, 11]
    found = rules.grow.place(sites[1], second.topology, 2)
    assert sorted(found.tolist()) == [2, 3]
    rules.drop.count(sites, 0)  # no room among them: the rest elsewhere
    assert {2, 3, 8, 9, 10, 11} < set(rules.grow.place(sites[0], left, 8).tolist())


def test_half_of_the_neurons_go_during_training_and_stay_away() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 20), nn.ReLU(), nn.Linear(20, 4)
    )
    model = regrow.sparsify(model, 0.25, allocation="uniform")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    evolution = Evolution(model, optimizer, "set-neuron-pruning", every=1)
    layers = list(regrow.sparse_layers(model).values())
    before = [layer.topology.nnz for layer in layers]
    gone: list[set[int]] = [set(), set()]
    for _ in range(30):
        model(torch.randn(8, 10)).square().mean().backward()
        optimizer.step()
        evolution.step()
        for i, (one, other) in enumerate(pairwise(layers)):
            ends = one.topology.degrees()[0] + other.topology.degrees()[1]
            now = set((ends == 0).nonzero().view(-1).tolist())
            assert gone[i] <= now
            gone[i] = now
    assert [layer.topology.nnz for layer in layers] == before
    assert all(len(neurons) == 10 for neurons in gone)
    x = torch.randn(32, 10)
    expected = model(x).detach()
    small = regrow.compact(model, x)
    assert max(layer.topology.shape[0] for layer in regrow.sparse_layers(small).values()) <= 10
    torch.testing.assert_close(small(x), expected)
