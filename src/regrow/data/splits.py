"""Training, validation and test rows: seeded, stratified, disjoint."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from regrow.data.errors import DataError

MIN_ROWS = 10
"""Fewest rows that can be divided into training, validation and test."""

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class SplitOptions:
    """How rows are divided.

    Args:
        seed: At least 0; starts a PCG64 generator.
        validation: Fraction of the training rows held out, in [0, 1); 0 gives an empty part.
        test: Fraction of all rows held out for the test, in (0, 1); unused where the source has a
            test split of its own.
        limit_train: Keep at most this many training rows, validation included, at least 10.
        limit_test: Keep at most this many test rows, at least 1.

    Raises:
        DataError: If a value is out of range.
    """

    seed: int = 0
    validation: float = 0.1
    test: float = 0.2
    limit_train: int | None = None
    limit_test: int | None = None

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise DataError(f"seed must be at least 0, got {self.seed}")
        if not 0 <= self.validation < 1:
            raise DataError(f"validation must be in [0, 1), got {self.validation}")
        if not 0 < self.test < 1:
            raise DataError(f"test must be in (0, 1), got {self.test}")
        if self.limit_train is not None and self.limit_train < MIN_ROWS:
            raise DataError(f"limit_train must be at least {MIN_ROWS}, got {self.limit_train}")
        if self.limit_test is not None and self.limit_test < 1:
            raise DataError(f"limit_test must be at least 1, got {self.limit_test}")


@dataclass(frozen=True, eq=False)
class Parts:
    """Row numbers of the three parts, int64, sorted, disjoint."""

    train: Rows
    validation: Rows
    test: Rows


def quotas(sizes: NDArray[np.int64], count: int, keep: int) -> NDArray[np.int64]:
    """Share `count` among classes in proportion to their sizes, by largest remainder.

    Args:
        sizes: Rows of each class, int64 [classes].
        count: How many to take in all.
        keep: How many rows each class keeps at least.

    Returns:
        Rows to take from each class, int64 [classes]; their sum is `count`, or less where `keep`
        does not allow it.

    Example:
        >>> quotas(np.array([5, 3, 2]), 4, keep=1).tolist()
        [2, 1, 1]
        >>> quotas(np.array([8, 1]), 4, keep=1).tolist()
        [4, 0]
    """
    exact = sizes * (count / max(int(sizes.sum()), 1))
    capacity = np.maximum(sizes - keep, 0)
    taken: NDArray[np.int64] = np.minimum(np.floor(exact).astype(np.int64), capacity)
    order = np.argsort(taken - exact, kind="stable")
    left = min(count, int(capacity.sum())) - int(taken.sum())
    while left > 0:
        open_classes = order[taken[order] < capacity[order]][:left]
        taken[open_classes] += 1
        left -= len(open_classes)
    return taken


def divide(
    rows: Rows, labels: Rows | None, count: int, rng: np.random.Generator, keep: int = 1
) -> tuple[Rows, Rows]:
    """Draw `count` of `rows` at random, in proportion to the classes where there are any.

    Args:
        rows: Row numbers, int64 [n].
        labels: Class of every row of the data set (indexed by row number), or None.
        count: How many to draw.
        rng: The generator.
        keep: How many rows stay behind at least, of each class (or in all without classes).

    Returns:
        The rows that stay and the rows drawn, both sorted.

    Example:
        >>> rng = np.random.Generator(np.random.PCG64(0))
        >>> stay, drawn = divide(np.arange(6), np.array([0, 0, 0, 0, 1, 1]), 3, rng)
        >>> len(stay), np.bincount(np.array([0, 0, 0, 0, 1, 1])[drawn]).tolist()
        (3, [2, 1])
    """
    shuffled = rng.permutation(rows)
    classes = np.zeros(len(rows), np.int64) if labels is None else labels[shuffled]
    sizes = np.bincount(classes)
    taken = quotas(sizes, count, keep)
    order = np.argsort(classes, kind="stable")
    starts = np.cumsum(sizes) - sizes
    rank = np.empty(len(rows), np.int64)
    rank[order] = np.arange(len(rows)) - np.repeat(starts, sizes)
    drawn = rank < taken[classes]
    return np.sort(shuffled[~drawn]), np.sort(shuffled[drawn])


def make_parts(
    rows: Rows,
    labels: Rows | None,
    options: SplitOptions,
    *,
    official_train: int | None = None,
    first: bool = False,
) -> Parts:
    """Divide usable rows into training, validation and test.

    The test part is drawn first, so it does not depend on `validation` or the limits; a class
    always keeps at least one row in training.

    Args:
        rows: Usable row numbers, int64, sorted.
        labels: Class of every row of the data set, or None for regression.
        options: The fractions, limits and seed.
        official_train: Rows below this number train and the others test, where the source says so.
        first: Limits keep the first rows of a part instead of a seeded sample.

    Raises:
        DataError: If fewer than 10 rows are there to train on, or none to test on.
    """
    rng = np.random.Generator(np.random.PCG64(options.seed))
    if official_train is None:
        _check_count(len(rows), "rows")
        train, test = divide(rows, labels, _share(options.test, len(rows)), rng)
    else:
        train, test = rows[rows < official_train], rows[rows >= official_train]
        _check_count(len(train), "training rows")
        if len(test) == 0:
            raise DataError("the test split must have at least 1 row with a target, got 0")
    train = _limit(train, labels, options.limit_train, rng, first)
    test = _limit(test, labels, options.limit_test, rng, first)
    count = _share(options.validation, len(train))
    train, validation = divide(train, labels, count, rng)
    return Parts(train, validation, test)


def _limit(
    rows: Rows, labels: Rows | None, limit: int | None, rng: np.random.Generator, first: bool
) -> Rows:
    if limit is None or limit >= len(rows):
        return rows
    if first:
        return rows[:limit]
    return divide(rows, labels, limit, rng, keep=0)[1]


def _share(fraction: float, n: int) -> int:
    return max(1, int(fraction * n + 0.5)) if fraction > 0 else 0


def _check_count(n: int, what: str) -> None:
    if n < MIN_ROWS:
        raise DataError(f"the data must have at least {MIN_ROWS} {what} with a target, got {n}")
