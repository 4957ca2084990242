"""Many rankings compared over many data sets: average ranks, and how far apart is apart."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import friedmanchisquare, rankdata, studentized_range


@dataclass(frozen=True, eq=False)
class AverageRanks:
    """Average ranks over data sets, with Friedman's test and Nemenyi's distance.

    Attributes:
        ranks: Average rank of each method, float64 ``[methods]``, 1 the best that there can be.
        distance: Average ranks that differ by less are not told apart at this level.
        p: Of the hypothesis that all methods are alike; 1 where there are fewer than three.
    """

    ranks: NDArray[np.float64]
    distance: float
    p: float


def average_ranks(scores: ArrayLike, *, level: float = 0.05) -> AverageRanks:
    """Rank methods on every data set, equal scores sharing a rank, and average over the sets.

    Args:
        scores: ``[sets, methods]``, larger is better.
        level: Probability of telling two apart that are alike, in (0, 1).

    Raises:
        ValueError: Fewer than two sets or methods, or a score that is no number.

    Example:
        >>> found = average_ranks([[0.9, 0.8, 0.1], [0.7, 0.7, 0.2]])
        >>> found.ranks.tolist(), round(found.distance, 2)
        ([1.25, 1.75, 3.0], 2.34)

    References:
        J. Demšar, "Statistical comparisons of classifiers over multiple data sets", 2006.
    """
    table = np.asarray(scores, dtype=np.float64)
    if table.ndim != 2 or min(table.shape) < 2:
        raise ValueError(f"scores must be [sets >= 2, methods >= 2], got shape {table.shape}")
    if not np.isfinite(table).all():
        raise ValueError("scores must be numbers, got some that are not finite")
    sets, methods = table.shape
    ranks = rankdata(-table, axis=1)
    apart = float(studentized_range.ppf(1 - level, methods, np.inf)) / math.sqrt(2)
    p = 1.0
    if methods > 2 and np.ptp(ranks, axis=1).any():
        p = float(friedmanchisquare(*ranks.T).pvalue)
    distance = apart * math.sqrt(methods * (methods + 1) / (6 * sets))
    return AverageRanks(ranks.mean(axis=0), distance, p)
