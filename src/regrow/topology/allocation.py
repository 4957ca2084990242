"""Allocation: how one density, or one epsilon, is shared among the layers of a network."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

Shapes = Mapping[str, Sequence[int]]


def allocate(
    shapes: Shapes,
    *,
    density: float | None = None,
    epsilon: float | None = None,
    allocation: str = "erk",
) -> dict[str, int]:
    """Number of connections of every layer; with a density, their sum is exact.

    Args:
        shapes: Dense weight shape of every layer, by its path.
        density: Kept fraction over all layers together, in (0, 1]. The counts sum to
            ``round(density * positions)`` and every layer gets one connection at least.
        epsilon: Instead of a density, the sparsity control of SET: a layer gets
            ``epsilon * (n_in + n_out)`` connections, all of them where that is more than it has.
        allocation: ``uniform`` (every layer the same density), ``er`` (density in proportion to
            (n_in + n_out) / (n_in * n_out), layers above 1 made dense) or ``erk`` (the same with
            all axes of a convolution). For linear layers ``er`` and ``erk`` agree.

    Returns:
        Connections by path, in the order of ``shapes``.

    Raises:
        ValueError: The density or epsilon is out of range, both or neither are given, the
            allocation is unknown, or there are fewer connections than layers.

    Example:
        >>> allocate({"a": (100, 200), "b": (10, 100)}, density=0.1)
        {'a': 1537, 'b': 563}
        >>> allocate({"a": (1000, 784), "b": (10, 1000)}, epsilon=20)
        {'a': 35680, 'b': 10000}

    References:
        ER: D. C. Mocanu et al., "Scalable training of artificial neural networks with adaptive
        sparse connectivity inspired by network science", 2018. ERK: U. Evci, T. Gale, J. Menick,
        P. S. Castro, E. Elsen, "Rigging the lottery: making all tickets winners", 2020.
    """
    if (density is None) == (epsilon is None):
        raise ValueError("give either a density or an epsilon to allocate, not both or neither")
    if not shapes:
        raise ValueError("there must be at least one layer to allocate connections to, got none")
    sizes = {path: math.prod(shape) for path, shape in shapes.items()}
    if epsilon is not None:
        if not epsilon > 0 or not math.isfinite(epsilon):
            raise ValueError(f"epsilon must be a positive number, got {epsilon}")
        return {
            path: max(1, min(sizes[path], round(epsilon * _fans(shape))))
            for path, shape in shapes.items()
        }
    assert density is not None
    check_density(density, "the allocation")
    if allocation not in ALLOCATIONS:
        raise ValueError(f"allocation must be one of {', '.join(ALLOCATIONS)}, got {allocation!r}")
    weight = ALLOCATIONS[allocation]
    return share(sizes, {path: weight(shape) for path, shape in shapes.items()}, density)


def share(sizes: Mapping[str, int], weights: Mapping[str, float], density: float) -> dict[str, int]:
    """Share a density over all positions, each layer's in proportion to its weight and at most 1.

    Args:
        sizes: Positions of every layer.
        weights: Relative density of every layer, positive.
        density: Kept fraction of all positions together, in (0, 1].

    Returns:
        Connections by path; they sum to ``round(density * positions)``.

    Raises:
        ValueError: There are fewer connections than layers.
    """
    return _rounded(_capped(sizes, weights, density), sizes, density)


def check_density(density: float, where: str) -> None:
    """Refuse a density outside (0, 1], naming the place."""
    if not 0 < density <= 1:
        raise ValueError(f"density of {where} must be in (0, 1], got {density}")


def _uniform(shape: Sequence[int]) -> float:
    return 1.0


def _er(shape: Sequence[int]) -> float:
    return (shape[0] + shape[1]) / (shape[0] * shape[1])


def _erk(shape: Sequence[int]) -> float:
    return sum(shape) / math.prod(shape)


def _fans(shape: Sequence[int]) -> int:
    return shape[0] + math.prod(shape[1:])


ALLOCATIONS: dict[str, Callable[[Sequence[int]], float]] = {
    "uniform": _uniform,
    "er": _er,
    "erk": _erk,
}


def _capped(sizes: Mapping[str, int], raw: Mapping[str, float], density: float) -> dict[str, float]:
    """Connections in proportion to size * raw, layers that would exceed their size made dense."""
    budget = density * sum(sizes.values())
    dense: set[str] = set()
    while True:
        free = [path for path in sizes if path not in dense]
        if not free:
            return {path: float(size) for path, size in sizes.items()}
        rest = budget - sum(sizes[path] for path in dense)
        scale = rest / sum(raw[path] * sizes[path] for path in free)
        over = {path for path in free if scale * raw[path] > 1}
        if not over:
            return {
                path: float(sizes[path]) if path in dense else scale * raw[path] * sizes[path]
                for path in sizes
            }
        dense |= over


def _rounded(
    exact: Mapping[str, float], sizes: Mapping[str, int], density: float
) -> dict[str, int]:
    """Whole numbers with the exact sum (largest remainder), at least one for each layer."""
    total = round(density * sum(sizes.values()))
    if total < len(sizes):
        raise ValueError(
            f"density must leave every layer a connection: {density} of {sum(sizes.values())} "
            f"positions are {total} connections for {len(sizes)} layers"
        )
    counts = {path: min(sizes[path], max(1, math.floor(n))) for path, n in exact.items()}
    by_remainder = sorted(counts, key=lambda path: counts[path] - exact[path])
    while (missing := total - sum(counts.values())) != 0:
        step = 1 if missing > 0 else -1
        movable = [path for path in by_remainder if 1 <= counts[path] + step <= sizes[path]]
        order = movable if step > 0 else movable[::-1]
        for path in order[: abs(missing)]:
            counts[path] += step
    return counts
