"""Finding the free positions to grow, in memory O(connections + tile)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from regrow.evolution.scores import Candidates, GrowFunction, Site
from regrow.topology import Topology
from regrow.topology.patterns import free_positions, sample_distinct

# Entries of one tile of scores (16 MiB of float32).
TILE = 2**22


def grow_random(taken: Sequence[Topology], count: int, generator: torch.Generator) -> list[Tensor]:
    """Draw free positions of some layers together, uniformly without replacement.

    Args:
        taken: Per layer, the positions that are not free.
        count: How many to draw.
        generator: CPU generator.

    Returns:
        Per layer, flat positions int64.
    """
    ends = torch.tensor([t.shape.numel() - t.nnz for t in taken]).cumsum(0)
    ranks = sample_distinct(int(ends[-1]), count, generator).sort().values
    parts = torch.tensor_split(ranks, torch.searchsorted(ranks, ends)[:-1])
    starts = [0, *ends[:-1].tolist()]
    return [
        free_positions(topology, part - start)
        for topology, part, start in zip(taken, parts, starts, strict=True)
    ]


def best_free(
    site: Site, taken: Topology, count: int, score: GrowFunction, first_row: int = 0
) -> tuple[Tensor, Tensor]:
    """The free positions of highest score in one layer, found tile by tile.

    Args:
        site: The layer.
        taken: Positions that are not free, in the whole layer or in some rows of it.
        count: How many to return, at most the number of free positions.
        score: Scores of candidate positions; NaN counts as the lowest.
        first_row: The first of these rows; positions are counted from it.

    Returns:
        Scores ``[count]`` and flat positions int64 ``[count]``.

    Raises:
        ValueError: The score does not return one number for each candidate.
    """
    device = taken.device
    scores, positions = (
        torch.empty(0, device=device),
        torch.empty(0, dtype=torch.int64, device=device),
    )
    if count == 0:
        return scores, positions
    busy = taken.positions
    for first, candidates in _tiles(taken, first_row):
        tile = _scored(site, candidates, score).to(device)
        bounds = torch.tensor([first, first + tile.numel()], device=device)
        low, high = torch.searchsorted(busy, bounds).tolist()
        tile[busy[low:high] - first] = -torch.inf
        best = tile.topk(min(count, tile.numel() - (high - low)))
        scores = torch.cat([scores, best.values])
        positions = torch.cat([positions, best.indices + first])
        if scores.numel() > count:
            best = scores.topk(count)
            scores, positions = best.values, positions[best.indices]
    return scores, positions


def _scored(site: Site, candidates: Candidates, score: GrowFunction) -> Tensor:
    """Scores of candidates, all above minus infinity, which marks what is taken."""
    tile, count = score(site, candidates), len(candidates)
    if tile.numel() != count:
        raise ValueError(
            f"grow score in {site.path} must have one number for each of {count} candidates, "
            f"got {tuple(tile.shape)}"
        )
    tile = tile.detach().reshape(-1).to(torch.promote_types(tile.dtype, torch.float32))
    least = torch.finfo(tile.dtype).min
    return torch.where(tile.isnan(), least, tile).clamp_(min=least)


def grow_best(
    sites: Sequence[Site], taken: Sequence[Topology], count: int, score: GrowFunction
) -> list[Tensor]:
    """Find the free positions of highest score over some layers together.

    Args:
        sites: The layers.
        taken: Per layer, the positions that are not free.
        count: How many.
        score: Scores of candidate positions.

    Returns:
        Per layer, flat positions int64.
    """
    found = []
    for site, busy in zip(sites, taken, strict=True):
        free = busy.shape.numel() - busy.nnz
        found.append(best_free(site, busy, min(count, free), score))
    if len(found) == 1:
        return [found[0][1]]
    layer = torch.cat([torch.full_like(p, i) for i, (_, p) in enumerate(found)])
    chosen = torch.cat([scores for scores, _ in found]).topk(count).indices
    layer, positions = layer[chosen], torch.cat([p for _, p in found])[chosen]
    return [positions[layer == i] for i in range(len(found))]


def _tiles(taken: Topology, first_row: int) -> Iterator[tuple[int, Candidates]]:
    rows, columns = taken.matrix_shape
    height = max(1, TILE // columns)
    for start in range(0, rows, height):
        stop = min(rows, start + height)
        block = slice(first_row + start, first_row + stop)
        yield start * columns, Candidates(columns, block=block)
