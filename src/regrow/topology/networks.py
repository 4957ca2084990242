"""Initial patterns of network science: small worlds, and degrees that follow a power law."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from regrow.topology.patterns import free_positions, sample_distinct
from regrow.topology.sampling import sample_in_groups
from regrow.topology.topology import Topology, checked_shape

# Rounds in which repeated pairs change partners; a few pairs are left at most, and moved anywhere.
_ROUNDS = 30


def small_world_topology(
    shape: Sequence[int],
    connections: int,
    *,
    rewired: float = 0.1,
    generator: torch.Generator | None = None,
) -> Topology:
    """A bipartite small world: rows see the columns nearest to them, and a few far away.

    Rows and columns lie on two rings, one around the other. Every row is joined to the columns
    nearest to its own angle, as many for each row (but for one); then each of these connections
    is moved with chance ``rewired`` to a random free column of its row. At 0 this is a ring of
    receptive fields, at 1 a random topology of constant fan-in. In O(connections).

    Args:
        shape: Dense shape of the weight.
        connections: Number of connections, in ``[1, prod(shape)]``.
        rewired: Chance of each connection to be moved, in [0, 1].
        generator: CPU generator to draw from; torch's default one if None.

    Raises:
        ValueError: The number of connections or the chance is not in range.

    Example:
        >>> small_world_topology((3, 6), 6, rewired=0.0).mask().int()
        tensor([[1, 1, 0, 0, 0, 0],
                [0, 0, 1, 1, 0, 0],
                [0, 0, 0, 0, 1, 1]], dtype=torch.int32)

    References:
        D. J. Watts, S. H. Strogatz, "Collective dynamics of 'small-world' networks", 1998; in its
        bipartite form: Y. Zhang, J. Zhao, W. Wu, A. Muscoloni, C. V. Cannistraci, "Epitopological
        learning and Cannistraci-Hebb network shape intelligence brain-inspired theory for
        ultra-sparse advantage in deep learning", 2024.
    """
    rows, columns = _checked(shape, connections)
    if not 0 <= rewired <= 1:
        raise ValueError(f"rewired of a small world must be in [0, 1], got {rewired}")
    row = torch.arange(rows)
    counts = connections * (row + 1) // rows - connections * row // rows
    row_of = torch.repeat_interleave(row, counts, output_size=connections)
    step = torch.arange(connections) - (counts.cumsum(0) - counts)[row_of]
    first = (2 * row + 1) * columns // (2 * rows) - counts // 2
    lattice = Topology(shape, row_of * columns + (first[row_of] + step) % columns)
    stays = torch.rand(connections, generator=generator) >= rewired
    kept = lattice.kept(stays)
    # A place is free for those that move if the lattice left it free, so far as there are enough.
    moving = counts - kept.degrees()[0]
    room = columns - counts
    far, back = moving.minimum(room), (moving - room).clamp_(min=0)
    places = free_positions(lattice, sample_in_groups(room, far, generator))
    held = kept.joined(places)
    free = columns - held.degrees()[0]
    rest = free_positions(held, sample_in_groups(free, back, generator))
    return held.joined(rest)


def scale_free_topology(
    shape: Sequence[int],
    connections: int,
    *,
    exponent: float = 2.5,
    generator: torch.Generator | None = None,
) -> Topology:
    """Degrees of rows and of columns follow a power law: a few hubs, and many with few.

    The i-th largest degree is in proportion to ``i ** (-1 / (exponent - 1))``, so that the share
    of neurons with degree k falls as ``k ** -exponent``; which neurons are the hubs is drawn at
    random. Connections pair off the ends of both sides at random. Nobody has more connections than
    there are partners; where both sides allow, everybody has one. In O(connections).

    Args:
        shape: Dense shape of the weight.
        connections: Number of connections, in ``[1, prod(shape)]``.
        exponent: Of the power law, above 1.
        generator: CPU generator to draw from; torch's default one if None.

    Raises:
        ValueError: The number of connections or the exponent is not in range.

    Example:
        >>> topology = scale_free_topology((200, 300), 2000)
        >>> topology.nnz, int(topology.degrees()[0].max()) > 5 * 2000 / 200
        (2000, True)

    References:
        A.-L. Barabasi, R. Albert, "Emergence of scaling in random networks", 1999.
    """
    rows, columns = _checked(shape, connections)
    if not exponent > 1:
        raise ValueError(f"exponent of a scale-free topology must be above 1, got {exponent}")
    ends = [
        torch.repeat_interleave(
            torch.arange(count),
            power_law_degrees(count, connections, most, exponent, generator),
            output_size=connections,
        )
        for count, most in ((rows, columns), (columns, rows))
    ]
    row_of, column_of = ends[0], ends[1][torch.randperm(connections, generator=generator)]
    positions = _paired(row_of, column_of, columns, generator)
    topology = Topology(shape, positions)
    missing = connections - topology.nnz
    ranks = sample_distinct(rows * columns - topology.nnz, missing, generator)
    places = free_positions(topology, ranks)
    return topology.joined(places)


def power_law_degrees(
    count: int,
    total: int,
    most: int,
    exponent: float,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Degrees of a given sum that follow a power law, in random order.

    Args:
        count: How many.
        total: Their sum, in ``[0, count * most]``.
        most: None is larger; none is 0 where the total suffices.
        exponent: Of the power law, above 1.
        generator: CPU generator to draw from; torch's default one if None.

    Returns:
        int64 ``[count]``.

    Example:
        >>> power_law_degrees(5, 20, 10, 2.0).sort(descending=True).values
        tensor([9, 4, 3, 2, 2])
    """
    weights = torch.arange(1, count + 1, dtype=torch.float64) ** (-1 / (exponent - 1))
    least = 1.0 if total >= count else 0.0
    wanted = torch.full((count,), least, dtype=torch.float64)
    open_ = torch.ones(count, dtype=torch.bool)
    # Those above the most are cut, those below the least lifted, and the rest share what is left.
    while bool(open_.any()):
        rest = total - float(wanted[~open_].sum())
        scaled = weights * (rest / float(weights[open_].sum()))
        wanted = torch.where(open_, scaled, wanted)
        above, below = open_ & (scaled > most), open_ & (scaled < least)
        if not bool((above | below).any()):
            break
        # One side at a time: cutting frees connections for others, lifting takes some from them.
        excess = float((scaled[above] - most).sum()) - float((least - scaled[below]).sum())
        part, bound = (above, float(most)) if excess >= 0 else (below, least)
        wanted[part] = bound
        open_ = open_ & ~part
    degrees = wanted.floor().long()
    left = total - int(degrees.sum())
    by_remainder = (wanted - degrees + (degrees < most).double()).argsort(descending=True)
    degrees[by_remainder[:left]] += 1
    return degrees[torch.randperm(count, generator=generator)]


def _paired(
    row_of: Tensor, column_of: Tensor, columns: int, generator: torch.Generator | None
) -> Tensor:
    """Distinct positions of the pairs; pairs met before swap columns with others, some rounds."""
    for _ in range(_ROUNDS):
        order = (row_of * columns + column_of).argsort()
        positions = (row_of * columns + column_of)[order]
        again = order[1:][positions[1:] == positions[:-1]]
        if not len(again):
            break
        partner = torch.randperm(len(row_of), generator=generator)[: len(again)]
        # Rotating the columns of the chosen pairs keeps every degree.
        moved = torch.cat([again, partner]).unique()
        column_of[moved] = column_of[moved[torch.randperm(len(moved), generator=generator)]]
    distinct: Tensor = torch.unique(row_of * columns + column_of)
    return distinct


def _checked(shape: Sequence[int], connections: int) -> tuple[int, int]:
    size = checked_shape(shape, connections)
    if not 1 <= connections <= size.numel():
        raise ValueError(
            f"connections of a topology of shape {tuple(shape)} must be in [1, {size.numel()}], "
            f"got {connections}"
        )
    return size[0], math.prod(size[1:])
