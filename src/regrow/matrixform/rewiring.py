"""Changing the support of a sparse weight, as the C++ library of the paper does it.

Entries are pruned by one of three rules, and as many are grown uniformly at random outside the old
support, so that a pruned position cannot come back at once. Gradient and momentum take the new
support with all values zero; the sparse layers of this library keep those of survivors instead.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from regrow.matrixform.initializers import Initializer, zeros
from regrow.matrixform.parameter import Array
from regrow.matrixform.weights import SparseWeight

Mask = NDArray[np.bool_]


def nearest_zero(values: Array, share: float) -> Mask:
    """The given share of all values, those nearest zero, rounded; of equal ones the first.

    Example:
        >>> nearest_zero(np.array([3.0, -1.0, 2.0, 1.0]), 0.5)
        array([False,  True, False,  True])
    """
    chosen = np.zeros(values.size, dtype=bool)
    chosen[np.argsort(np.abs(values), kind="stable")[: round(share * values.size)]] = True
    return chosen


def below_threshold(values: Array, threshold: float) -> Mask:
    """All values of at most this size.

    Example:
        >>> below_threshold(np.array([3.0, -1.0]), 1.0)
        array([False,  True])
    """
    return np.abs(values) <= threshold


def nearest_zero_by_sign(values: Array, share: float) -> Mask:
    """The share of the positive values and the share of the negative values nearest zero.

    Example:
        >>> nearest_zero_by_sign(np.array([3.0, -1.0, 2.0, -5.0]), 0.5)
        array([False,  True,  True, False])
    """
    chosen = np.zeros(values.size, dtype=bool)
    for part in (np.flatnonzero(values > 0), np.flatnonzero(values < 0)):
        chosen[part[nearest_zero(values[part], share)]] = True
    return chosen


def rewire(
    weight: SparseWeight,
    pruned: Mask,
    generator: np.random.Generator,
    initializer: Initializer = zeros,
) -> SparseWeight:
    """Prune some entries and grow as many outside the old support.

    Args:
        weight: The weight; it stays as it is.
        pruned: Which entries go ``[nnz]``.
        generator: For new positions and values.
        initializer: Of the new values.

    Returns:
        A weight with as many entries.

    Raises:
        ValueError: Fewer positions are free than are to be grown.

    Example:
        >>> weight = SparseWeight((2, 2), [0, 3], [1.0, 9.0])
        >>> pruned = nearest_zero(weight.parameter.value, 0.5)
        >>> changed = rewire(weight, pruned, np.random.default_rng(0))
        >>> changed.nnz, 0 in changed.positions, 3 in changed.positions
        (2, False, True)
    """
    count, size = int(pruned.sum()), weight.shape[0] * weight.shape[1]
    free = np.setdiff1d(np.arange(size), weight.positions, assume_unique=True)
    if count > free.size:
        raise ValueError(f"a weight with {free.size} free positions cannot grow {count} entries")
    values = weight.parameter.value
    grown = generator.choice(free, count, replace=False)
    start = initializer(weight.shape, count, generator).astype(values.dtype)
    positions = np.concatenate([weight.positions[~pruned], grown])
    order = np.argsort(positions)
    return SparseWeight(
        weight.shape, positions[order], np.concatenate([values[~pruned], start])[order]
    )
