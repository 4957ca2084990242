"""Schedules: how large a fraction an update drops, and how many connections there are over time.

A schedule is any function of ``(step, until)`` in optimiser steps; those here are plain values.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

Schedule = Callable[[int, int | None], float]


@dataclass(frozen=True)
class Constant:
    """The same value at every step.

    Example:
        >>> Constant(0.3)(1000, None)
        0.3
    """

    value: float

    def __call__(self, step: int, until: int | None) -> float:
        """The value."""
        return self.value


@dataclass(frozen=True)
class Cosine:
    """Half a cosine wave from ``start`` at step 0 to ``end`` at ``until``.

    Example:
        >>> [round(Cosine(0.3)(step, 100), 3) for step in (0, 50, 100)]
        [0.3, 0.15, 0.0]

    References:
        U. Evci, T. Gale, J. Menick, P. S. Castro, E. Elsen, "Rigging the lottery: making all
        tickets winners", 2020.
    """

    start: float
    end: float = 0.0

    def __call__(self, step: int, until: int | None) -> float:
        """The value at a step; needs ``until``."""
        progress = _progress("cosine", step, until)
        return self.end + (self.start - self.end) * (1 + math.cos(math.pi * progress)) / 2


@dataclass(frozen=True)
class Cubic:
    """From ``start`` at step 0 to ``end`` at ``until``, fast first: gradual magnitude pruning.

    Example:
        >>> [round(Cubic(1.0, 0.1)(step, 100), 3) for step in (0, 50, 100)]
        [1.0, 0.213, 0.1]

    References:
        M. Zhu, S. Gupta, "To prune, or not to prune: exploring the efficacy of pruning for model
        compression", 2017.
    """

    start: float
    end: float

    def __call__(self, step: int, until: int | None) -> float:
        """The value at a step; needs ``until``."""
        progress = _progress("cubic", step, until)
        return self.end + (self.start - self.end) * (1 - progress) ** 3


def _progress(name: str, step: int, until: int | None) -> float:
    if until is None:
        raise ValueError(f"the {name} schedule needs its end: give until in optimiser steps")
    return min(1.0, step / max(1, until))
