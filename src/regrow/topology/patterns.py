"""Initial patterns: where the connections of a new layer are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from regrow.topology import extension
from regrow.topology.merge import rising
from regrow.topology.topology import Topology, checked_shape

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
        return _scattered(shape, connections, generator)
    if sampling == "bernoulli":
        return _scattered(shape, _binomial(total, connections / total, generator), generator)
    if sampling == "replacement":
        return Topology(shape, torch.randint(total, (connections,), generator=generator).unique())
    raise ValueError(
        f"sampling of a topology must be exact, bernoulli or replacement, got {sampling!r}"
    )


def sample_distinct(total: int, count: int, generator: torch.Generator | None = None) -> Tensor:
    """Draw distinct integers of ``[0, total)``, uniformly, in O(count) time and memory.

    Args:
        total: Number of integers to draw from.
        count: How many to draw, in ``[0, total]``.
        generator: CPU generator to draw from; torch's default one if None.

    Returns:
        int64 ``[count]``, rising.
    """
    if extension.usable():
        numbers = torch.empty(count, dtype=torch.int64)
        extension.native.draw(
            total, count, extension.seed(generator), numbers.data_ptr(), torch.get_num_threads()
        )
        return numbers
    if total <= 4 * count:
        return torch.randperm(total, generator=generator)[:count].sort().values
    drawn = torch.empty(0, dtype=torch.int64)
    while drawn.numel() < count:
        missing = count - drawn.numel()
        more = torch.randint(total, (missing + missing // 6 + 8,), generator=generator)
        drawn = torch.cat([drawn, more]).unique()
    # Every set of distinct draws of one size is equally likely, so thinning at random stays fair.
    return drawn[torch.randperm(drawn.numel(), generator=generator)[:count]].sort().values


def free_positions(topology: Topology, ranks: Tensor, *, reuse: bool = False) -> Tensor:
    """The free positions of given ranks: rank 0 is the first position without a connection.

    Args:
        topology: The connections that are taken.
        ranks: int64, each in ``[0, prod(shape) - nnz)``.
        reuse: Whether the memory of the ranks may be taken for the positions.

    Returns:
        Flat positions, int64, one for each rank.

    Example:
        >>> free_positions(Topology((2, 3), torch.tensor([0, 2, 3])), torch.tensor([0, 1, 2]))
        tensor([1, 4, 5])
    """
    ranks = ranks.to(topology.device, torch.int64)
    indptr, indices = topology.csr()
    if extension.usable(indices) and rising(ranks):
        found = ranks.contiguous() if reuse else ranks.clone(memory_format=torch.contiguous_format)
        arrays = indptr.data_ptr(), indices.data_ptr(), *topology.matrix_shape, topology.nnz
        extension.native.free_positions(
            *arrays, found.data_ptr(), found.numel(), torch.get_num_threads()
        )
        return found
    taken = topology.positions
    free_before = taken - torch.arange(taken.numel(), device=taken.device)
    return ranks + torch.searchsorted(free_before, ranks, right=True)


def _scattered(
    shape: Sequence[int], connections: int, generator: torch.Generator | None
) -> Topology:
    if not extension.usable():
        return Topology(shape, sample_distinct(math.prod(shape), connections, generator))
    size = checked_shape(shape, connections)
    rows, columns = size[0], math.prod(size[1:])
    indptr = torch.empty(rows + 1, dtype=torch.int64)
    indices = torch.empty(connections, dtype=torch.int32)
    extension.native.draw_matrix(
        rows,
        columns,
        connections,
        extension.seed(generator),
        indptr.data_ptr(),
        indices.data_ptr(),
        torch.get_num_threads(),
    )
    return Topology.trusted(size, indptr, indices)


def _binomial(total: int, probability: float, generator: torch.Generator | None) -> int:
    count = torch.tensor([float(total)], dtype=torch.float64)
    chance = torch.tensor([probability], dtype=torch.float64)
    return int(torch.binomial(count, chance, generator=generator))
