"""Dropping: how many of each budget, and which."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from regrow.evolution.plot import Plot
from regrow.topology.select import without_lowest


def ranks(scores: Tensor, part: Tensor, parts: int, descending: bool = False) -> Tensor:
    """Place of each score among those of its part, from 0; of equal ones the first comes first.

    Args:
        scores: Real numbers ``[n]``.
        part: Part of each, int64 ``[n]``.
        parts: Number of parts.
        descending: Whether the highest has rank 0 instead of the lowest.
    """
    order = scores.sort(descending=descending, stable=True).indices
    order = order[part[order].sort(stable=True).indices]
    grouped = part[order]
    first = torch.searchsorted(grouped, torch.arange(parts, device=part.device))
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=part.device) - first[grouped]
    return rank


def without_lowest_in_parts(
    scores: Tensor, part: Tensor, least: Tensor, most: Tensor, total: int
) -> Tensor:
    """All but the lowest scores, a number of each part between two bounds, and so many in all.

    Args:
        scores: Real numbers ``[n]``, none NaN.
        part: Part of each, int64 ``[n]``.
        least: How many of each part go at least, int64 ``[parts]``.
        most: How many go at most.
        total: How many go in all, between the sums of these.

    Returns:
        Which ones stay, bool ``[n]``.

    Example:
        >>> scores, part = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]), torch.tensor([0, 0, 0, 1, 1])
        >>> without_lowest_in_parts(scores, part, torch.tensor([0, 1]), torch.tensor([3, 2]), 3)
        tensor([False, False,  True, False,  True])
    """
    least, most = least.to(scores.device), most.to(scores.device)
    keep = without_lowest(scores, total)
    gone = torch.bincount(part[~keep], minlength=len(most))
    if bool(((gone >= least) & (gone <= most)).all()):
        return keep
    rank = ranks(scores, part, len(most))
    must, may = rank < least[part], rank < most[part]
    keep = ~must
    choice = (may & ~must).nonzero().view(-1)
    going = ~without_lowest(scores[choice], total - int(must.sum()))
    keep[choice[going]] = False
    return keep


def kept_in_layer(plot: Plot, asked: int, room: int | None, compare: str) -> Tensor:
    """Which units of a layer stay, bool ``[units]``.

    Args:
        plot: The layer.
        asked: How many are to go; fewer do where there is no room to grow as many.
        room: How many can go at most, and each budget grows again what it loses; None where
            nothing grows, and each budget keeps one.
        compare: ``budget`` or ``layer``, as in ``Method``.
    """
    if len(plot.parts) == 1:
        most_of_all = max(0, plot.nnz - 1) if room is None else min(plot.nnz, room)
        return kept_together([plot], min(asked, most_of_all))[0]
    held = plot.parts.held(plot.units.topology)
    most = (held - 1).clamp_(min=0)
    if room is not None:
        everything = torch.ones(plot.nnz, dtype=torch.bool, device=plot.units.topology.device)
        free = plot.parts.bounds.diff() - plot.parts.held(plot.taken(everything, False))
        most = torch.minimum(held, free)
    least = torch.zeros_like(held)
    if compare == "budget":
        least = torch.minimum(most, asked * held // max(1, plot.nnz))
        most = torch.minimum(most, least + 1)
    total = min(asked, int(most.sum()))
    part = plot.parts.of(plot.units.topology)
    return without_lowest_in_parts(plot.scores, part, least, most, total)


def kept_together(plots: Sequence[Plot], total: int) -> list[Tensor]:
    """Which units of each layer stay, their scores compared across layers.

    A layer's last one stays, whatever the others have: none may die out.
    """
    nnz = [plot.nnz for plot in plots]
    if len(plots) == 1:
        quick = plots[0].quick()
        return [quick(total) if quick else without_lowest(plots[0].scores, total)]
    scores = torch.cat([plot.scores.to("cpu", torch.float64) for plot in plots])
    part = torch.repeat_interleave(torch.tensor(nnz))
    most = (torch.tensor(nnz) - 1).clamp_(min=0)
    kept = without_lowest_in_parts(scores, part, torch.zeros_like(most), most, total).split(nnz)
    return [k.to(plot.site.topology.device) for k, plot in zip(kept, plots, strict=True)]
