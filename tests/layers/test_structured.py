"""Linear layers whose connections have a structure: computes, state, change of the topology."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn import functional

import regrow
from regrow import SparseLinear, Topology
from regrow.kernels import dispatch
from regrow.topology import Block, NofM, block_topology, fan_in_topology, nm_topology

BLOCKS = block_topology((12, 8), 48, Block(4, 2), generator=torch.Generator().manual_seed(0))
GROUPS = nm_topology((6, 8), 2, 4, generator=torch.Generator().manual_seed(0))
CASES = [(BLOCKS, "block"), (GROUPS, "nm")]


def layer_of(topology: Topology, compute: str) -> SparseLinear:
    rows, columns = topology.shape
    generator = torch.Generator().manual_seed(0)
    return SparseLinear(columns, rows, topology=topology, compute=compute, generator=generator)


@pytest.mark.parametrize(("topology", "kind"), CASES)
@pytest.mark.parametrize("compute", ["auto", "csr", "dense", "own"])
def test_every_compute_is_the_dense_map(topology: Topology, kind: str, compute: str) -> None:
    layer = layer_of(topology, kind if compute == "own" else compute)
    x = torch.randn(2, 5, 8, requires_grad=True)
    y = layer(x)
    weight = layer.weight
    expected = functional.linear(x, weight, layer.bias)
    torch.testing.assert_close(y, expected)
    given = x, layer.values, layer.bias
    mine = torch.autograd.grad(y.square().sum(), given)
    theirs = torch.autograd.grad(expected.square().sum(), given)
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(("topology", "kind"), CASES)
def test_only_the_few_numbers_of_the_structure_are_held(topology: Topology, kind: str) -> None:
    layer = layer_of(copy.deepcopy(topology), kind)
    layer(torch.randn(3, 8)).sum().backward()
    assert layer.topology.nbytes == sum(part.nbytes for part in layer.topology.parts())
    layer.compute = "csr"
    layer(torch.randn(3, 8)).sum().backward()
    assert layer.topology.nbytes > 12 * layer.topology.nnz


@pytest.mark.parametrize(("topology", "kind"), CASES)
def test_copies_and_checkpoints_keep_the_structure(topology: Topology, kind: str) -> None:
    layer = layer_of(topology, kind)
    x = torch.randn(3, 8)
    copied = copy.deepcopy(layer)
    assert torch.equal(copied(x), layer(x))
    other = layer_of(topology, kind)
    other.load_state_dict(layer.state_dict())
    assert other.topology.structure == topology.structure
    assert torch.equal(other(x), layer(x))


def test_an_update_keeps_the_structure_or_is_refused() -> None:
    layer = layer_of(BLOCKS, "block")
    other = Topology(BLOCKS.shape, block_topology((12, 8), 48, Block(4, 2)).positions)
    assert other.structure is None
    layer.set_topology(other, torch.ones(48))
    assert layer.topology.structure == Block(4, 2)
    message = "^topology of SparseLinear must be of blocks for compute 'block', got one without"
    with pytest.raises(ValueError, match=message):
        layer.set_topology(Topology(BLOCKS.shape, torch.arange(48) * 2), torch.ones(48))
    assert layer.topology == other
    layer.compute = "auto"
    layer.set_topology(Topology(BLOCKS.shape, torch.arange(48) * 2), torch.ones(48))
    assert layer.topology.structure is None
    layer(torch.randn(3, 8)).sum().backward()


def test_a_checkpoint_without_the_structure_is_refused_and_changes_nothing() -> None:
    layer = layer_of(BLOCKS, "block")
    before = layer.topology
    state = layer_of(Topology(BLOCKS.shape, torch.arange(48) * 2), "csr").state_dict()
    with pytest.raises(RuntimeError, match="must be of blocks for compute 'block'"):
        layer.load_state_dict(state)
    assert layer.topology is before


@pytest.mark.parametrize(
    ("topology", "compute", "got"),
    [
        (regrow.Topology((4, 4), torch.arange(5)), "block", "one without a structure"),
        (fan_in_topology((4, 4), 2), "nm", "fan-in of 2"),
        (GROUPS, "block", "2:4"),
        (BLOCKS, "nm", "4x2 blocks"),
    ],
)
def test_a_compute_needs_its_structure(topology: Topology, compute: str, got: str) -> None:
    with pytest.raises(ValueError, match=f"for compute '{compute}', got {got}$"):
        layer_of(topology, compute)


def test_the_report_says_what_was_chosen() -> None:
    dispatch.forget()
    layer = layer_of(block_topology((64, 64), 1024, Block(16, 16)), "auto")
    (row,) = regrow.measure.summary(layer, torch.randn(32, 64)).layers
    assert row.compute in ("block", "csr", "dense")
    assert row.reason.startswith("measured: ")
    dispatch.forget()


@pytest.mark.parametrize(("topology", "kind"), CASES)
def test_it_compiles_without_a_break(topology: Topology, kind: str) -> None:
    layer = layer_of(topology, kind)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    x = torch.randn(3, 8)
    torch.testing.assert_close(compiled(x), layer(x))
    compiled(x).sum().backward()
    assert layer.values.grad is not None


def test_groups_survive_what_changes_their_places() -> None:
    layer = layer_of(GROUPS, "nm")
    moved = Topology(GROUPS.shape, nm_topology((6, 8), 2, 4).positions)
    layer.set_topology(moved, torch.ones(24))
    assert layer.topology.structure == NofM(2, 4)
    torch.testing.assert_close(layer(torch.ones(1, 8)), (4 + layer.bias)[None])
