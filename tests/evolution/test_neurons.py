"""Pruning of neurons by hand, in training, and out of the network in the end."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

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
    # Of three neurons, two thirds may go: two at most, whatever the step.
    assert NeuronPruning(0.67, step=1.0).drop.count(sites, 0) == [4, 4]
    assert NeuronPruning(0.3, step=1.0).drop.count(sites, 0) == [0, 0]


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
