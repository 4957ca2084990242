"""Finding the free positions to grow, in memory O(connections + tile)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from regrow.evolution.budgets import Parts
from regrow.evolution.dropping import ranks
from regrow.evolution.scores import GrowFunction
from regrow.evolution.site import Candidates, Site
from regrow.evolution.units import Units
from regrow.topology import Block, Topology
from regrow.topology.patterns import free_positions, sample_distinct
from regrow.topology.sampling import sample_in_groups
from regrow.topology.select import Highest

# Entries of one tile of scores (4 MiB of float32).
TILE = 2**20


def random_together(
    taken: Sequence[Topology], count: int, generator: torch.Generator
) -> list[Tensor]:
    """Draw free positions of some layers together, uniformly without replacement.

    Args:
        taken: Per layer, the positions that are not free.
        count: How many to draw.
        generator: CPU generator.

    Returns:
        Per layer, flat positions int64.
    """
    ends = torch.tensor([t.shape.numel() - t.nnz for t in taken]).cumsum(0)
    drawn = sample_distinct(int(ends[-1]), count, generator)
    if len(taken) == 1:
        return [free_positions(taken[0], drawn, reuse=True)]
    parts = torch.tensor_split(drawn, torch.searchsorted(drawn, ends)[:-1])
    starts = [0, *ends[:-1].tolist()]
    return [
        free_positions(topology, part - start)
        for topology, part, start in zip(taken, parts, starts, strict=True)
    ]


def random_in_parts(
    taken: Topology, parts: Parts, counts: Tensor, generator: torch.Generator
) -> Tensor:
    """Draw free positions of a layer, so many of each part, uniformly without replacement.

    Args:
        taken: The positions that are not free.
        parts: The budgets of the layer.
        counts: How many to draw of each, int64 ``[parts]``.
        generator: CPU generator.

    Returns:
        Flat positions int64.
    """
    turned = parts.turned(taken)
    free = parts.bounds.diff() - parts.held(taken)
    found = free_positions(turned, sample_in_groups(free, counts, generator))
    return parts.turned_back(found, *taken.matrix_shape)


def each_tile(
    take: Callable[[Tensor, int, int], None],
    site: Site,
    score: GrowFunction,
    units: Units,
    rows: slice | None = None,
) -> None:
    """Go through the scores of all positions of a layer, some whole rows of units at a time.

    Args:
        take: Gets the scores of each tile, its first row, and the row after its last, counted
            from the first of ``rows``.
        site: The layer.
        score: The grow score.
        units: Its units.
        rows: Rows of units to go through; all if None.
    """
    rows = rows or slice(0, units.shape[0])
    height = max(1, TILE // (site.topology.matrix_shape[1] * units.block.rows))
    for first in range(rows.start, rows.stop, height):
        last = min(rows.stop, first + height)
        # Nothing holds on to a tile, so that the next one takes its place in memory.
        take(_scored(site, score, units, first, last), first - rows.start, last - rows.start)


def _scored(site: Site, score: GrowFunction, units: Units, first: int, last: int) -> Tensor:
    block = units.block
    candidates = Candidates(
        site.topology.matrix_shape[1], block=slice(first * block.rows, last * block.rows)
    )
    tile = score(site, candidates)
    if tile.numel() != len(candidates):
        raise ValueError(
            f"grow score in {site.path} must have one number for each of "
            f"{len(candidates)} candidates, got {tuple(tile.shape)}"
        )
    return units.pooled_rows(tile.detach().reshape(-1))


def best_free(
    site: Site,
    taken: Topology,
    count: int,
    score: GrowFunction,
    units: Units | None = None,
    rows: slice | None = None,
) -> tuple[Tensor, Tensor]:
    """The free units of highest score in one layer, or in some of its rows, found tile by tile.

    Args:
        site: The layer.
        taken: Units that are not free, in these rows.
        count: How many to return, at most the number of free ones.
        score: Scores of candidate positions; NaN counts as the lowest.
        units: Units of the layer; single positions if None.
        rows: Rows of units; all if None. Positions are counted from the first of them.

    Returns:
        Scores ``[count]`` and flat positions int64 ``[count]``.

    Raises:
        ValueError: The score does not return one number for each candidate.
    """
    best = Highest(taken, count)
    if count:
        each_tile(best.offer, site, score, units or single(site), rows)
    return best.found()


def best_together(
    sites: Sequence[Site],
    taken: Sequence[Topology],
    count: int,
    score: GrowFunction,
    units: Sequence[Units] | None = None,
) -> list[Tensor]:
    """Find the free units of highest score over some layers together.

    Args:
        sites: The layers.
        taken: Per layer, the units that are not free.
        count: How many.
        score: Scores of candidate positions.
        units: Units of the layers; single positions if None.

    Returns:
        Per layer, flat positions int64.
    """
    found = []
    for site, busy, of in zip(sites, taken, units or map(single, sites), strict=True):
        free = busy.shape.numel() - busy.nnz
        found.append(best_free(site, busy, min(count, free), score, of))
    if len(found) == 1:
        return [found[0][1]]
    layer = torch.cat([torch.full_like(p, i) for i, (_, p) in enumerate(found)])
    chosen = torch.cat([scores for scores, _ in found]).topk(count).indices
    layer, positions = layer[chosen], torch.cat([p for _, p in found])[chosen]
    return [positions[layer == i] for i in range(len(found))]


def best_in_parts(
    site: Site,
    taken: Topology,
    parts: Parts,
    counts: Tensor,
    score: GrowFunction,
    units: Units | None = None,
) -> Tensor:
    """Find the free units of highest score, so many of each part of a layer.

    Args:
        site: The layer.
        taken: Units that are not free.
        parts: Its parts.
        counts: How many of each, int64 ``[parts]``, at most what is free there.
        score: Scores of candidate positions; NaN counts as the lowest.
        units: Units of the layer; single positions if None.

    Returns:
        Flat positions int64.
    """
    rows, columns = taken.matrix_shape
    units = units or single(site)
    if not int(counts.sum()):
        return torch.empty(0, dtype=torch.int64, device=taken.device)
    whole_rows = not parts.by_column and not bool((parts.bounds % columns).any())
    if whole_rows and len(counts) < rows:
        return _best_in_few(site, taken, parts, counts, score, units)
    pool = _Pool(parts, taken, counts)
    each_tile(pool.offer, site, score, units)
    return pool.found()


def single(site: Site) -> Units:
    """Every position is a unit."""
    return Units(site.layer, Block(1, 1), site.path)


def _best_in_few(
    site: Site, taken: Topology, parts: Parts, counts: Tensor, score: GrowFunction, units: Units
) -> Tensor:
    """Parts of many whole rows: each is as a layer of its own."""
    columns = taken.matrix_shape[1]
    indptr, indices = taken.csr()
    starts = (parts.bounds // columns).tolist()
    grown = []
    for first, last, count in zip(starts[:-1], starts[1:], counts.tolist(), strict=True):
        pointers = indptr[first : last + 1]
        own = indices[int(pointers[0]) : int(pointers[-1])]
        part = Topology.trusted((last - first, columns), pointers - pointers[0], own)
        new = best_free(site, part, count, score, units, slice(first, last))[1]
        grown.append(new + first * columns)
    return torch.cat(grown)


class _Pool:
    """The best free units of many small parts, offered in tiles of whole rows."""

    def __init__(self, parts: Parts, taken: Topology, counts: Tensor) -> None:
        self._parts = parts
        self._taken = taken.positions
        self._shape = taken.matrix_shape
        self._counts = counts.to(taken.device)
        self._bounds = parts.bounds.to(taken.device)
        width = parts.width
        inside = width is not None and (parts.by_column or self._shape[1] % width == 0)
        self._width = width if inside else None
        self._most = int(counts.max())
        self._scores: list[Tensor] = []
        self._positions: list[Tensor] = []

    def offer(self, tile: Tensor, first_row: int, last_row: int) -> None:
        """Take in the scores of some rows of units."""
        columns = self._shape[1]
        first, last = first_row * columns, last_row * columns
        least = torch.finfo(tile.dtype).min
        tile = torch.where(tile.isnan(), least, tile).clamp_(min=least)
        bounds = torch.tensor([first, last], device=tile.device)
        low, high = torch.searchsorted(self._taken, bounds).tolist()
        tile[self._taken[low:high] - first] = -torch.inf
        near = self._near(tile, columns)
        near = near[tile[near] > -torch.inf].sort().values
        scores, positions = tile[near], near + first
        if self._width is None or self._parts.by_column:  # parts go on in the next tile
            scores = torch.cat([*self._scores, scores])
            positions = torch.cat([*self._positions, positions])
            self._scores.clear()
            self._positions.clear()
        stay = self._best(scores, positions)
        self._scores.append(scores[stay])
        self._positions.append(positions[stay])

    def found(self) -> Tensor:
        """Flat positions int64, rising."""
        return torch.cat(self._positions).sort().values

    def _near(self, tile: Tensor, columns: int) -> Tensor:
        """Places in the tile that can be among the best of their part."""
        if self._width is None:
            return torch.arange(tile.numel(), device=tile.device)
        if self._parts.by_column:
            table = tile.view(-1, columns)
            row = table.topk(min(self._most, len(table)), dim=0, sorted=False).indices
            return (row * columns + torch.arange(columns, device=tile.device)).view(-1)
        table = tile.view(-1, self._width)
        place = table.topk(min(self._most, self._width), dim=1, sorted=False).indices
        starts = torch.arange(len(table), device=tile.device)[:, None] * self._width
        return (place + starts).view(-1)

    def _best(self, scores: Tensor, positions: Tensor) -> Tensor:
        """Which of these are among the best of their part."""
        rows, columns = self._shape
        if self._parts.by_column:
            positions = positions % columns * rows + positions // columns
        part = torch.searchsorted(self._bounds, positions, right=True) - 1
        return ranks(scores, part, len(self._counts), descending=True) < self._counts[part]
