"""Topologies made from others: a little different, or the same with neurons in another order."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from regrow.topology.patterns import free_positions, sample_distinct
from regrow.topology.topology import Topology


def redrawn(topology: Topology, share: float, generator: torch.Generator | None = None) -> Topology:
    """Move a share of the connections to other places, drawn at random; their number stays.

    Args:
        topology: Where the connections are; it stays as it is.
        share: Of the connections to move, in [0, 1], rounded to a whole number; as many as there
            are free places at most.
        generator: CPU generator to draw from; torch's default one if None.

    Raises:
        ValueError: The share is out of range.

    Example:
        >>> topology = Topology((4, 4), torch.arange(8))
        >>> moved = redrawn(topology, 0.25, torch.Generator().manual_seed(0))
        >>> moved.nnz, int((moved.mask() & topology.mask()).sum())
        (8, 6)

    References:
        S. Liu, T. van der Lee, A. Yaman, Z. Atashgahi, D. Ferraro, G. Sokar, M. Pechenizkiy,
        D. C. Mocanu, "Topological insights into sparse neural networks", 2020.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share of connections to move must be in [0, 1], got {share}")
    free = topology.shape.numel() - topology.nnz
    count = min(round(share * topology.nnz), free)
    keep = torch.ones(topology.nnz, dtype=torch.bool, device=topology.device)
    keep[sample_distinct(topology.nnz, count, generator).to(topology.device)] = False
    grown = free_positions(topology, sample_distinct(free, count, generator))
    return topology.rewire(keep, grown).topology


def renumbered(
    chain: Sequence[Topology], generator: torch.Generator | None = None, *, outputs: bool = True
) -> list[Topology]:
    """The same network with its neurons in another order, drawn at random.

    Args:
        chain: Of linear layers that follow each other; they stay as they are. Inputs keep their
            order.
        generator: CPU generator to draw from; torch's default one if None.
        outputs: Whether the rows of the last layer change their order too.

    Raises:
        ValueError: A layer is not linear, or does not follow the one before.

    Example:
        >>> chain = [Topology((3, 2), torch.tensor([0, 3])), Topology((1, 3), torch.tensor([1]))]
        >>> copy = renumbered(chain, torch.Generator().manual_seed(0))
        >>> [topology.nnz for topology in copy]
        [2, 1]
    """
    found: list[Topology] = []
    before: torch.Tensor | None = None
    for number, topology in enumerate(chain):
        width = topology.shape[1] if before is None else len(before)
        if len(topology.shape) != 2 or topology.shape[1] != width:
            raise ValueError(
                f"shape of layer {number} to renumber must be (rows, {width}), "
                f"got {tuple(topology.shape)}"
            )
        rows, columns = topology.shape
        row = torch.div(topology.positions, columns, rounding_mode="floor")
        column = topology.positions % columns
        column = column if before is None else before[column]
        before = torch.arange(rows, device=topology.device)
        if outputs or number < len(chain) - 1:
            before = torch.randperm(rows, generator=generator).to(topology.device)
        found.append(Topology(topology.shape, (before[row] * columns + column).sort().values))
    return found
