"""A topology a little different from another."""

from __future__ import annotations

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
