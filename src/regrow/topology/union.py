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


def transferred(entries: Tensor, old: Topology, new: Topology) -> Tensor:
    """What belongs to connections of one topology, as far as another one has them too.

    Args:
        entries: One per connection of ``old`` ``[old nnz]``.
        old: The topology that they are of.
        new: Another of the same shape.

    Returns:
        One per connection of ``new`` ``[new nnz]``: 0 at those that ``old`` does not have.

    Example:
        >>> old, new = (Topology((2, 3), torch.tensor(at)) for at in ([0, 4, 5], [1, 4]))
        >>> transferred(torch.tensor([1.0, 2.0, 3.0]), old, new)
        tensor([0., 2.])
    """
    before, after = old.positions, new.positions
    if not before.numel() or not after.numel():
        return entries.new_zeros(after.numel())
    place = torch.searchsorted(before, after).clamp_(max=before.numel() - 1)
    return torch.where(before[place] == after, entries[place], 0)
