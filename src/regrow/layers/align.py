"""Bringing a second network (average, target, teacher) onto the topology of the first."""

from __future__ import annotations

import torch
from torch import nn

from regrow.layers.base import SparseLayer, sparse_layers


def align(target: nn.Module, source: nn.Module) -> bool:
    """Give the sparse layers of one model the topology of another model's.

    Averaged and target networks are combined with the online network value by value, which means
    something only while both have the same connections. Call this after an update of the online
    network. Connections that both have keep the target's value; those that are new to the target
    take the source's, as if the average had started there; the others go.

    Args:
        target: Model to change, with sparse layers at the same paths.
        source: Model to follow; it is not changed.

    Returns:
        Whether anything had to change.

    Raises:
        ValueError: The two models do not have the same sparse layers.

    Example:
        >>> import copy, regrow
        >>> online = nn.Sequential(regrow.SparseLinear(8, 4, density=0.5))
        >>> average = copy.deepcopy(online)
        >>> align(average, online)
        False
    """
    followers, leaders = sparse_layers(target), sparse_layers(source)
    shapes = [{p: tuple(m.topology.shape) for p, m in x.items()} for x in (followers, leaders)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"models to align must have the same sparse layers, got {shapes[0]} and {shapes[1]}"
        )
    changed = False
    for path, follower in followers.items():
        if follower.topology != leaders[path].topology:
            _follow(follower, leaders[path])
            changed = True
    return changed


def _follow(follower: SparseLayer, leader: SparseLayer) -> None:
    old = follower.topology.positions
    new = leader.topology.positions.to(old.device)
    values = leader.values.detach().to(follower.values, copy=True)
    shared = torch.isin(new, old)
    values[shared] = follower.values.detach()[torch.searchsorted(old, new[shared])]
    follower.set_topology(leader.topology, values)
