"""Finding the free positions to grow, in memory O(connections + tile)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from regrow.evolution.scores import Candidates, GrowFunction, Site
from regrow.topology import Topology
from regrow.topology.patterns import free_positions, sample_distinct
from regrow.topology.select import Highest

# Entries of one tile of scores (4 MiB of float32).
TILE = 2**20


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
    ranks = sample_distinct(int(ends[-1]), count, generator)
    if len(taken) == 1:
        return [free_positions(taken[0], ranks)]
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
    best = Highest(taken, count)
    if count:
        rows, columns = taken.matrix_shape
        height = max(1, TILE // columns)
        for start in range(0, rows, height):
            stop = min(rows, start + height)
            candidates = Candidates(columns, block=slice(first_row + start, first_row + stop))
            best.offer(_scored(site, candidates, score), start, stop)
    return best.found()


def _scored(site: Site, candidates: Candidates, score: GrowFunction) -> Tensor:
    tile, count = score(site, candidates), len(candidates)
    if tile.numel() != count:
        raise ValueError(
            f"grow score in {site.path} must have one number for each of {count} candidates, "
            f"got {tuple(tile.shape)}"
        )
    return tile


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
