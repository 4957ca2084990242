"""Redistribution: how growth, or the loss under a falling density, is shared among layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import Tensor

from regrow.evolution.site import Site

LayerWeight = Callable[[Site], float | Tensor]


def momentum(site: Site) -> Tensor:
    """Mean size of the smoothed gradient: layers whose weights still move get more.

    References:
        T. Dettmers, L. Zettlemoyer, "Sparse networks from scratch: faster training without losing
        performance", 2019.
    """
    return site.momentum.abs().mean()


def magnitude(site: Site) -> Tensor:
    """Mean size of the values."""
    return site.values.abs().mean()


def nonzero(site: Site) -> Tensor:
    """Number of values that are not zero."""
    return site.values.count_nonzero()


REDISTRIBUTIONS: dict[str, LayerWeight] = {
    "momentum": momentum,
    "magnitude": magnitude,
    "nonzero": nonzero,
}


def allot(total: int, weights: Sequence[float], most: Sequence[int]) -> list[int]:
    """Share a number in proportion to weights, none getting more than it can take.

    What some cannot take goes to the others; weights that are no positive numbers count as zero,
    and where all do, as equal.

    Args:
        total: What there is to share; no more than the sum of ``most`` can be.
        weights: One each.
        most: One each.

    Returns:
        Whole numbers with that sum, or with that of ``most`` if it is less.

    Example:
        >>> allot(10, [3.0, 1.0, 1.0], [4, 9, 9])
        [4, 3, 3]
    """
    total = min(total, sum(most))
    weight = [w if math.isfinite(w) and w > 0 else 0.0 for w in weights]
    exact = [0.0] * len(weight)
    rest, open_ = float(total), set(range(len(weight)))
    while open_ and rest > 0:
        scale = sum(weight[i] for i in open_)
        wanted = {i: rest * (weight[i] / scale if scale else 1 / len(open_)) for i in open_}
        full = {i for i in open_ if wanted[i] >= most[i]}
        for i in full or open_:
            exact[i] = min(wanted[i], float(most[i]))
        if not full:
            break
        rest -= sum(most[i] for i in full)
        open_ -= full
    counts = [min(math.floor(share), limit) for share, limit in zip(exact, most, strict=True)]
    by_remainder = sorted(range(len(counts)), key=lambda i: counts[i] - exact[i])
    while (missing := total - sum(counts)) > 0:
        movable = [i for i in by_remainder if counts[i] < most[i]]
        for i in movable[:missing]:
            counts[i] += 1
    return counts
