"""Joining connections and positions."""

from __future__ import annotations

import torch
from torch import Tensor

from regrow.topology.topology import Topology


def with_positions(topology: Topology, positions: Tensor) -> Topology:
    """A topology with more positions, some of which it may have already.

    Args:
        topology: The connections there are.
        positions: Flat positions, int64, in any order.

    Example:
        >>> with_positions(Topology((2, 3), torch.tensor([0, 5])), torch.tensor([5, 2])).positions
        tensor([0, 2, 5])
    """
    return topology.joined(positions[~torch.isin(positions, topology.positions)].unique())
