"""Layers whose connections have a structure keep it under every method that can."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

import regrow
from regrow import Evolution, SparseLinear, Topology
from regrow.topology import Block, FanIn, NofM, block_topology, fan_in_topology, nm_topology
from regrow.topology.structure import Structure

STRUCTURES = [Block(4, 4), Block(2, 8), NofM(2, 4), NofM(1, 8), FanIn(3)]


def topology_of(structure: Structure, shape: tuple[int, int]) -> Topology:
    generator = torch.Generator().manual_seed(0)
    if isinstance(structure, NofM):
        return nm_topology(shape, structure.n, structure.m, generator=generator)
    if isinstance(structure, FanIn):
        return fan_in_topology(shape, structure.n, generator=generator)
    count = shape[0] * shape[1] // structure.size // 4
    return block_topology(shape, count * structure.size, structure, generator=generator)


def network(structure: Structure, compute: str) -> torch.nn.Sequential:
    generator = torch.Generator().manual_seed(1)
    shape = (32, 16)
    layer = SparseLinear(
        16, 32, topology=topology_of(structure, shape), compute=compute, generator=generator
    )
    torch.manual_seed(2)
    return torch.nn.Sequential(layer, torch.nn.ReLU(), torch.nn.Linear(32, 3))


def compute_of(structure: Structure) -> str:
    return {Block: "block", NofM: "nm", FanIn: "csr"}[type(structure)]


def trained(model: torch.nn.Module, method: str, steps: int, **options: object) -> list[float]:
    """Losses of a training on one batch; updates every second step."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(64, 16, generator=generator)
    target = (x[:, 0] > 0).long() + (x[:, 1] > 0.5).long()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    evolution = Evolution(model, optimizer, method=method, every=2, fraction=0.3, **options)
    losses = []
    for _ in range(steps):
        loss = functional.cross_entropy(model(x), target)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        evolution.step()
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize("structure", STRUCTURES, ids=str)
@pytest.mark.parametrize("method", ["set", "rigl"])
def test_training_keeps_the_structure_and_learns(method: str, structure: Structure) -> None:
    model = network(structure, compute_of(structure))
    before = model[0].topology
    losses = trained(model, method, 60)
    after = model[0].topology
    assert after.structure == structure
    assert (after.nnz, after == before) == (before.nnz, False)
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("structure", STRUCTURES[:4], ids=str)
def test_every_compute_evolves_alike(structure: Structure) -> None:
    found = []
    for compute in (compute_of(structure), "csr", "dense"):
        model = network(structure, compute).double()
        x = torch.randn(8, 16, generator=torch.Generator().manual_seed(4)).double()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        evolution = Evolution(model, optimizer, method="rigl", every=1, fraction=0.3)
        for _ in range(3):
            model(x).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
            evolution.step()
        found.append(model[0].topology)
    assert found[0] == found[1] == found[2]


def tried(name: str, structure: Structure) -> str:
    """What came of a short training: nothing, or why the method was refused before it began."""
    model = network(structure, compute_of(structure))
    try:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        Evolution(model, optimizer, method=name, every=2, until=4, fraction=0.3, total_steps=5)
    except ValueError as error:
        return str(error)
    trained(model, name, 5, until=4, total_steps=5)
    assert model[0].topology.structure == structure
    return ""


@pytest.mark.parametrize("structure", [Block(4, 4), NofM(2, 4)], ids=str)
def test_every_method_keeps_the_structure_or_is_refused_before_it_starts(
    structure: Structure,
) -> None:
    said = {name: tried(name, structure) for name in regrow.methods()}
    refused = {name: sentence for name, sentence in said.items() if sentence}
    assert not {"static", "set", "rigl"} & set(refused)
    for sentence in refused.values():
        assert "must" in sentence


def test_a_layer_that_need_not_keep_its_structure_may_lose_it() -> None:
    model = network(NofM(2, 4), "auto")
    trained(model, "granet", 5, until=4, total_steps=5)
    assert model[0].topology.structure is None
    with pytest.raises(ValueError, match=r"^method granet must keep 2:4 of 0 for its compute 'nm'"):
        trained(network(NofM(2, 4), "nm"), "granet", 5, until=4, total_steps=5)
