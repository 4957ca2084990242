"""Structures of connections: checked, told by few numbers, carried along, lost where they break."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from regrow import Topology
from regrow.topology import (
    Block,
    FanIn,
    NofM,
    block_topology,
    fan_in_topology,
    nm_topology,
    random_topology,
)
from regrow.topology.structure import Structure

# Two blocks of 2 x 2 in the first block row, one in the second.
HAND = torch.tensor(
    [[1, 1, 0, 0, 1, 1], [1, 1, 0, 0, 1, 1], [0, 0, 1, 1, 0, 0], [0, 0, 1, 1, 0, 0]]
)


def topology_of(mask: torch.Tensor) -> Topology:
    return Topology(mask.shape, mask.flatten().nonzero().flatten())


def test_blocks_by_hand() -> None:
    topology = topology_of(HAND).declare(Block(2, 2))
    assert topology.structure == Block(2, 2)
    starts, columns, t_starts, t_rows, t_slots = (part.tolist() for part in topology.parts())
    assert (starts, columns) == ([0, 2, 3], [0, 2, 1])
    assert (t_starts, t_rows, t_slots) == ([0, 1, 2, 3], [0, 1, 0], [0, 2, 1])
    assert [part.dtype for part in topology.parts()[:2]] == [torch.int64, torch.int32]


def test_groups_by_hand() -> None:
    topology = topology_of(torch.tensor([[1, 0, 0, 0, 0, 1], [0, 0, 1, 1, 0, 0]]))
    (places,) = topology.declare(NofM(1, 3)).parts()
    assert (places.tolist(), places.dtype) == ([0, 2, 2, 0], torch.uint8)


@pytest.mark.parametrize(
    ("structure", "mask", "fault"),
    [
        (Block(2, 2), [[1, 1, 0], [1, 1, 0]], "a weight of 2 x 3"),
        (Block(2, 2), [[1, 1, 0, 0], [1, 0, 0, 0]], "3 connections"),
        (Block(2, 2), [[1, 1, 0, 0], [0, 0, 1, 1]], "a broken block in row 1 at column 2"),
        (Block(2, 2), [[0, 1, 1, 0], [0, 1, 1, 0]], "a broken block in row 0 at column 1"),
        (Block(2, 2), [[1, 1, 1, 1], [0, 0, 0, 0]], "a broken block in row 1"),
        (Block(1, 2), [[1, 0, 1, 0], [0, 0, 0, 0]], "a broken block in row 0 at column 2"),
        (NofM(1, 2), [[1, 1, 0, 0]], "another number of them from column 2 of row 0"),
        (NofM(1, 2), [[1, 0, 0, 0]], "1 connections in row 0"),
        (NofM(1, 2), [[1, 0, 0]], "3 columns, which are no multiple of 2"),
        (FanIn(2), [[1, 1, 0], [1, 0, 0]], "1 connections in row 1"),
    ],
)
def test_what_has_no_structure_is_refused_in_a_sentence(
    structure: Structure, mask: list, fault: str
) -> None:
    topology = topology_of(torch.tensor(mask))
    with pytest.raises(
        ValueError, match=rf"^topology of shape .* must have {structure}, got {fault}$"
    ):
        topology.declare(structure)
    assert topology.structure is None
    assert topology.parts() == ()


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4), st.integers(1, 5), st.data())
def test_a_mask_is_of_blocks_where_each_is_full_or_empty(
    height: int, width: int, down: int, along: int, data: st.DataObject
) -> None:
    kept = torch.tensor(
        data.draw(st.lists(st.booleans(), min_size=down * along, max_size=down * along))
    )
    mask = kept.view(down, along).repeat_interleave(height, 0).repeat_interleave(width, 1)
    flip = data.draw(st.none() | st.integers(0, mask.numel() - 1))
    if flip is not None:
        mask.view(-1)[flip] ^= True
    topology = topology_of(mask)
    if flip is not None and height * width > 1:
        with pytest.raises(ValueError, match="must have"):
            topology.declare(Block(height, width))
        return
    declared = topology.declare(Block(height, width))
    assert declared == topology
    assert declared.parts()[1].numel() == topology.nnz // (height * width)


def structured() -> list[Topology]:
    generator = torch.Generator().manual_seed(0)
    return [
        block_topology((12, 20), 60, Block(3, 4), generator=generator),
        block_topology((8, 8), 16, Block(4, 1), generator=generator),
        nm_topology((6, 16), 2, 4, generator=generator),
        nm_topology((3, 600), 2, 300, generator=generator),
        fan_in_topology((5, 9), 3, generator=generator),
    ]


@pytest.mark.parametrize("topology", structured(), ids=lambda t: str(t.structure))
def test_rows_are_forgotten_and_formed_again(topology: Topology) -> None:
    csr, csc, bytes_ = topology.csr(), topology.csc(), topology.nbytes
    topology.forget_rows()
    assert topology.nnz == csr[1].numel()
    assert topology.device.type == "cpu"
    assert topology.nbytes < bytes_
    for mine, before in zip((*topology.csr(), *topology.csc()), (*csr, *csc), strict=True):
        assert mine.dtype == before.dtype
        assert torch.equal(mine, before)


@pytest.mark.parametrize("topology", structured(), ids=lambda t: str(t.structure))
def test_copies_keep_the_structure(topology: Topology) -> None:
    topology.forget_rows()
    for copied in (copy.deepcopy(topology), pickle.loads(pickle.dumps(topology))):
        assert copied == topology
        assert copied.structure == topology.structure


def test_a_rewiring_of_whole_units_keeps_the_structure_and_another_one_loses_it() -> None:
    topology = topology_of(HAND).declare(Block(2, 2))
    keep = torch.tensor([0, 0, 1, 1, 0, 0, 1, 1, 1, 1, 1, 1]).bool()
    whole = topology.rewire(keep, torch.tensor([12, 13, 18, 19])).topology
    assert whole.structure == Block(2, 2)
    broken = topology.rewire(keep, torch.tensor([0, 1, 12, 13])).topology
    assert broken.structure is None
    assert (
        broken.rewire(torch.ones(broken.nnz).bool(), torch.tensor([22])).topology.structure is None
    )


def test_without_a_structure_rows_are_kept() -> None:
    topology = random_topology((5, 5), 7)
    topology.forget_rows()
    assert topology.csr()[1].numel() == 7
