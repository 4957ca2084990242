"""Moving a share of the connections."""

from __future__ import annotations

import pytest
import torch

from regrow import Topology
from regrow.topology import random_topology, redrawn, renumbered


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 1.0])
def test_exactly_the_share_moves(share: float) -> None:
    generator = torch.Generator().manual_seed(0)
    topology = random_topology((40, 50), 300, generator=generator)
    moved = redrawn(topology, share, generator)
    stayed = int((moved.mask() & topology.mask()).sum())
    assert (moved.nnz, stayed) == (300, 300 - round(share * 300))


def test_no_more_than_there_is_room_for() -> None:
    topology = Topology((2, 5), torch.arange(9))
    moved = redrawn(topology, 1.0)
    assert moved.nnz == 9
    assert 9 in moved.positions
    full = Topology((2, 5), torch.arange(10))
    assert redrawn(full, 0.5) == full


def test_every_free_place_and_every_connection_has_its_turn() -> None:
    generator = torch.Generator().manual_seed(0)
    topology = Topology((2, 4), torch.tensor([0, 3, 5]))
    found = {tuple(redrawn(topology, 0.3, generator).positions.tolist()) for _ in range(300)}
    assert len(found) == 3 * 5


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_share_out_of_range(share: float) -> None:
    with pytest.raises(ValueError, match=r"share of connections to move must be in \[0, 1\]"):
        redrawn(Topology((2, 4), torch.tensor([0])), share)


@pytest.mark.parametrize("outputs", [True, False])
def test_a_renumbered_network_has_the_same_paths(outputs: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    chain = [random_topology(shape, 12, generator=generator) for shape in ((6, 5), (7, 6), (4, 7))]
    copy = renumbered(chain, generator, outputs=outputs)
    assert [t.mask().sum() for t in copy] == [t.mask().sum() for t in chain]
    assert all(own != other for own, other in zip(chain, copy, strict=True))
    paths, moved = (_paths(network) for network in (chain, copy))
    assert torch.equal(paths.sort(dim=0).values, moved.sort(dim=0).values)
    assert torch.equal(paths, moved) != outputs


def _paths(chain: list[Topology]) -> torch.Tensor:
    first, second, third = (topology.mask().double() for topology in chain)
    return third @ second @ first


@pytest.mark.parametrize("shape", [(2, 4), (2, 3, 1)])
def test_what_cannot_be_renumbered(shape: tuple[int, ...]) -> None:
    chain = [Topology((3, 2), torch.tensor([0])), Topology(shape, torch.tensor([0]))]
    with pytest.raises(ValueError, match=r"shape of layer 1 to renumber must be \(rows, 3\), got"):
        renumbered(chain)
