"""Initial patterns: where the connections of a new layer are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from regrow.topology.topology import Topology

Sampling = Literal["exact", "bernoulli", "replacement"]


def random_topology(
    shape: Sequence[int],
    connections: int,
    *,
    sampling: Sampling = "exact",
    generator: torch.Generator | None = None,
) -> Topology:
    """An Erdos-Renyi topology: connections placed uniformly at random, in O(connections).

    Published codes sample in three ways that share a mean but not a count; all are here.

    Args:
        shape: Dense shape of the weight.
        connections: Number of connections, in ``[1, prod(shape)]``.
        sampling: ``exact`` places that many (the default); ``bernoulli`` draws each position with
            probability ``connections / prod(shape)``; ``replacement`` draws that many positions
            with replacement and keeps the distinct ones, so a few less.
        generator: CPU generator to draw from; torch's default one if None.

    Raises:
        ValueError: The number of connections is not in range, or the sampling is unknown.

    Example:
        >>> random_topology((1000, 784), 23_192).nnz
        23192

    References:
        D. C. Mocanu, E. Mocanu, P. Stone, P. H. Nguyen, M. Gibescu, A. Liotta, "Scalable training
        of artificial neural networks with adaptive sparse connectivity inspired by network
        science", 2018.
    """
    total = math.prod(int(n) for n in shape)
    if not 1 <= connections <= total:
        raise ValueError(
            f"connections of a topology of shape {tuple(shape)} must be in [1, {total}], "
            f"got {connections}"
        )
    if sampling == "exact":
        positions = sample_distinct(total, connections, generator)
    elif sampling == "bernoulli":
        count = _binomial(total, connections / total, generator)
        positions = sample_distinct(total, count, generator)
    elif sampling == "replacement":
        positions = torch.randint(total, (connections,), generator=generator).unique()
    else:
        raise ValueError(
            f"sampling of a topology must be exact, bernoulli or replacement, got {sampling!r}"
        )
    return Topology(shape, positions)


def sample_distinct(total: int, count: int, generator: torch.Generator | None = None) -> Tensor:
    """Draw distinct integers of ``[0, total)``, uniformly, in O(count) time and memory.

    Args:
        total: Number of integers to draw from.
        count: How many to draw, in ``[0, total]``.
        generator: CPU generator to draw from; torch's default one if None.

    Returns:
        int64 ``[count]``, in no particular order.
    """
    if total <= 4 * count:
        return torch.randperm(total, generator=generator)[:count]
    drawn = torch.empty(0, dtype=torch.int64)
    while drawn.numel() < count:
        missing = count - drawn.numel()
        more = torch.randint(total, (missing + missing // 6 + 8,), generator=generator)
        drawn = torch.cat([drawn, more]).unique()
    # Every set of distinct draws of one size is equally likely, so thinning at random stays fair.
    return drawn[torch.randperm(drawn.numel(), generator=generator)[:count]]


def free_positions(topology: Topology, ranks: Tensor) -> Tensor:
    """The free positions of given ranks: rank 0 is the first position without a connection.

    Args:
        topology: The connections that are taken.
        ranks: int64, each in ``[0, prod(shape) - nnz)``.

    Returns:
        Flat positions, int64, one for each rank.

    Example:
        >>> free_positions(Topology((2, 3), torch.tensor([0, 2, 3])), torch.tensor([0, 1, 2]))
        tensor([1, 4, 5])
    """
    taken = topology.positions
    free_before = taken - torch.arange(taken.numel(), device=taken.device)
    ranks = ranks.to(taken.device)
    return ranks + torch.searchsorted(free_before, ranks, right=True)


def _binomial(total: int, probability: float, generator: torch.Generator | None) -> int:
    count = torch.tensor([float(total)], dtype=torch.float64)
    chance = torch.tensor([probability], dtype=torch.float64)
    return int(torch.binomial(count, chance, generator=generator))
