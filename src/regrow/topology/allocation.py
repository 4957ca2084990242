"""Allocation: how one density, or one epsilon, is shared among the layers of a network."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase

Shapes = Mapping[str, Sequence[int]]
Given = Mapping[str, float | int]
# The connections that each layer is to have, before they are made whole numbers.
Allocation = Callable[[Shapes, float], Mapping[str, float]]


def allocate(
    shapes: Shapes,
    *,
    density: float | None = None,
    epsilon: float | None = None,
    allocation: str | Allocation | Given | None = None,
) -> dict[str, int]:
    """Number of connections of every layer; with a density, their sum is exact.

    Args:
        shapes: Dense weight shape of every layer, by its path, the first layer first.
        density: Kept fraction over all layers together, in (0, 1]. The counts sum to
            ``round(density * positions)`` and every layer gets one connection at least.
        epsilon: Instead of a density, the sparsity control of SET: a layer gets
            ``epsilon * (n_in + n_out)`` connections, all of them where that is more than it has.
            With ``allocation="erk"`` it gets ``epsilon`` times the sum of its axes.
        allocation: ``erk`` if None. By name: ``uniform`` (every layer the same density),
            ``uniform+`` (a first convolution dense, the last layer at 0.2 or more, the others
            alike), ``er`` (density in proportion to (n_in + n_out) / (n_in * n_out), layers above
            1 made dense), ``erk`` (the same with all axes of a convolution; for linear layers they
            agree) or ``erk+`` (the last layer dense, the others as ``erk``). A mapping of path
            globs gives layers a density (a float) or a number of connections (an int), the first
            glob that meets a layer counts; with a density beside it, the layers that none meets
            share what is left as ``erk`` does. A function of the shapes and the density returns
            the connections that each layer is to have, as real numbers.

    Returns:
        Connections by path, in the order of ``shapes``.

    Raises:
        ValueError: The density or epsilon is out of range, both or neither are given, the
            allocation is unknown, or it and what it is to share do not go together.

    Example:
        >>> allocate({"a": (100, 200), "b": (10, 100)}, density=0.1)
        {'a': 1537, 'b': 563}
        >>> allocate({"a": (1000, 784), "b": (10, 1000)}, epsilon=20)
        {'a': 35680, 'b': 10000}
        >>> allocate({"a": (100, 200), "b": (10, 100)}, allocation={"a": 0.05, "b": 300})
        {'a': 1000, 'b': 300}
    """
    if not shapes:
        raise ValueError("there must be at least one layer to allocate connections to, got none")
    if isinstance(allocation, Mapping):
        if epsilon is not None:
            raise ValueError("a mapping gives layers their density itself: it takes no epsilon")
        return _as_given(shapes, allocation, density)
    if (density is None) == (epsilon is None):
        raise ValueError("give either a density or an epsilon to allocate, not both or neither")
    if epsilon is not None:
        return _by_epsilon(shapes, epsilon, allocation)
    assert density is not None
    check_density(density, "the allocation")
    wanted = _named(allocation or "erk")(shapes, density)
    return rounded(wanted, _sizes(shapes), density)


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
    return rounded(_capped(sizes, weights, density * sum(sizes.values())), sizes, density)


def rounded(
    wanted: Mapping[str, float], sizes: Mapping[str, int], density: float
) -> dict[str, int]:
    """Whole numbers with the exact sum (largest remainder), at least one for each layer.

    Args:
        wanted: Connections of every layer, as real numbers.
        sizes: Positions of every layer.
        density: Kept fraction of all positions together, in (0, 1].

    Returns:
        Connections by path; they sum to ``round(density * positions)``.

    Raises:
        ValueError: There are fewer connections than layers, or a layer is missing.
    """
    total = round(density * sum(sizes.values()))
    if total < len(sizes):
        raise ValueError(
            f"density must leave every layer a connection: {density} of {sum(sizes.values())} "
            f"positions are {total} connections for {len(sizes)} layers"
        )
    if wanted.keys() != sizes.keys():
        raise ValueError(
            f"allocation must give every layer its connections: {', '.join(sizes)}; "
            f"got {', '.join(wanted) or 'none'}"
        )
    counts = {path: min(sizes[path], max(1, math.floor(wanted[path]))) for path in sizes}
    by_remainder = sorted(counts, key=lambda path: counts[path] - wanted[path])
    while (missing := total - sum(counts.values())) != 0:
        step = 1 if missing > 0 else -1
        movable = [path for path in by_remainder if 1 <= counts[path] + step <= sizes[path]]
        order = movable if step > 0 else movable[::-1]
        for path in order[: abs(missing)]:
            counts[path] += step
    return counts


def check_density(density: float, where: str) -> None:
    """Refuse a density outside (0, 1], naming the place."""
    if not 0 < density <= 1:
        raise ValueError(f"density of {where} must be in (0, 1], got {density}")


def uniform(shapes: Shapes, density: float) -> dict[str, float]:
    """Every layer the same density."""
    return _proportional(shapes, density, lambda shape: 1.0)


def er(shapes: Shapes, density: float) -> dict[str, float]:
    """Erdos-Renyi: density in proportion to (n_in + n_out) / (n_in n_out), counting channels.

    References:
        D. C. Mocanu et al., "Scalable training of artificial neural networks with adaptive sparse
        connectivity inspired by network science", 2018.
    """
    return _proportional(shapes, density, lambda s: (s[0] + s[1]) / (s[0] * s[1]))


def erk(shapes: Shapes, density: float) -> dict[str, float]:
    """Erdos-Renyi kernel: density in proportion to the sum of all axes over their product.

    References:
        U. Evci, T. Gale, J. Menick, P. S. Castro, E. Elsen, "Rigging the lottery: making all
        tickets winners", 2020.
    """
    return _proportional(shapes, density, lambda shape: sum(shape) / math.prod(shape))


def uniform_plus(shapes: Shapes, density: float) -> dict[str, float]:
    """A first convolution dense, the last layer at 0.2 or more, the others alike.

    References:
        T. Gale, E. Elsen, S. Hooker, "The state of sparsity in deep neural networks", 2019.
    """
    paths = list(shapes)
    fixed = {paths[-1]: max(density, 0.2)}
    if len(shapes[paths[0]]) > 2:
        fixed[paths[0]] = 1.0
    return _beside(shapes, density, fixed, uniform, "uniform+")


def erk_plus(shapes: Shapes, density: float) -> dict[str, float]:
    """The last layer dense, the others as ERK.

    References:
        S. Liu et al., "The unreasonable effectiveness of random pruning: return of the most naive
        baseline for sparse training", 2022.
    """
    return _beside(shapes, density, {list(shapes)[-1]: 1.0}, erk, "erk+")


ALLOCATIONS: dict[str, Allocation] = {
    "uniform": uniform,
    "uniform+": uniform_plus,
    "er": er,
    "erk": erk,
    "erk+": erk_plus,
}


def _named(allocation: str | Allocation) -> Allocation:
    if not isinstance(allocation, str):
        return allocation
    if allocation not in ALLOCATIONS:
        raise ValueError(f"allocation must be one of {', '.join(ALLOCATIONS)}, got {allocation!r}")
    return ALLOCATIONS[allocation]


def _sizes(shapes: Shapes) -> dict[str, int]:
    return {path: math.prod(shape) for path, shape in shapes.items()}


def _proportional(
    shapes: Shapes, density: float, weight: Callable[[Sequence[int]], float]
) -> dict[str, float]:
    sizes = _sizes(shapes)
    weights = {path: weight(shape) for path, shape in shapes.items()}
    return _capped(sizes, weights, density * sum(sizes.values()))


def _beside(
    shapes: Shapes, density: float, fixed: Mapping[str, float], rest: Allocation, name: str
) -> dict[str, float]:
    """Some layers at a density of their own, the others sharing what is left of the budget."""
    sizes = _sizes(shapes)
    held = {path: share_ * sizes[path] for path, share_ in fixed.items()}
    others = {path: shape for path, shape in shapes.items() if path not in fixed}
    room = sum(sizes[path] for path in others)
    left = density * sum(sizes.values()) - sum(held.values())
    if others and left <= 0:
        raise ValueError(
            f"density of {name} must leave something to the other layers: "
            f"{', '.join(fixed)} have {sum(held.values()):.0f} connections of their own, "
            f"{density} of all positions are {density * sum(sizes.values()):.0f}"
        )
    if not others or left > room:  # the rest is full, and the fixed layers take what is over
        return _capped(sizes, {p: fixed.get(p, 1.0) for p in sizes}, density * sum(sizes.values()))
    return {path: held.get(path, 0.0) for path in sizes} | dict(rest(others, left / room))


def _by_epsilon(
    shapes: Shapes, epsilon: float, allocation: str | Allocation | None
) -> dict[str, int]:
    if not epsilon > 0 or not math.isfinite(epsilon):
        raise ValueError(f"epsilon must be a positive number, got {epsilon}")
    if allocation not in (None, "er", "erk"):
        raise ValueError(
            f"an epsilon is shared as er or erk does, got allocation {allocation!r}; "
            f"give a density for others"
        )
    ends = sum if allocation == "erk" else lambda shape: shape[0] + math.prod(shape[1:])
    return {
        path: max(1, min(math.prod(shape), round(epsilon * ends(shape))))
        for path, shape in shapes.items()
    }


def _as_given(shapes: Shapes, given: Given, density: float | None) -> dict[str, int]:
    """Every layer what its glob says, and the others what is left of a density."""
    sizes = _sizes(shapes)
    for glob in given:
        if not any(fnmatchcase(path, glob) for path in shapes):
            raise ValueError(
                f"path glob {glob!r} of the allocation meets no layer; "
                f"there are {', '.join(shapes)}"
            )
    counts = {}
    for path, size in sizes.items():
        asked = next((given[glob] for glob in given if fnmatchcase(path, glob)), None)
        if asked is not None:
            counts[path] = _asked(path, size, asked)
    others = {path: size for path, size in sizes.items() if path not in counts}
    if density is None:
        if others:
            raise ValueError(
                f"allocation must give every layer a density or a number of connections, got none "
                f"for {', '.join(others)}; or give a density for the whole beside it"
            )
        return counts
    check_density(density, "the allocation")
    left = round(density * sum(sizes.values())) - sum(counts.values())
    if not len(others) <= left <= sum(others.values()):
        raise ValueError(
            f"density must leave the layers that the allocation does not name between "
            f"{len(others)} and {sum(others.values())} connections, got {left}"
        )
    if not others:
        return counts
    rest = allocate({path: shapes[path] for path in others}, density=left / sum(others.values()))
    return {path: counts[path] if path in counts else rest[path] for path in sizes}


def _asked(path: str, size: int, asked: float | int) -> int:
    whole = isinstance(asked, int) and not isinstance(asked, bool)
    if not (1 <= asked <= size if whole else 0 < asked <= 1):
        raise ValueError(
            f"allocation of {path} must be a density in (0, 1] or a whole number of connections "
            f"in [1, {size}], got {asked!r}"
        )
    return int(asked) if whole else max(1, round(asked * size))


def _capped(sizes: Mapping[str, int], raw: Mapping[str, float], budget: float) -> dict[str, float]:
    """Connections in proportion to size * raw, layers that would exceed their size made dense."""
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
