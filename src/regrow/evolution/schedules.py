"""Schedules: how large a fraction an update drops, and how many connections there are over time.

A schedule is any function of ``(step, until)`` in optimiser steps; those here are plain values. A
density may also be decided on the way by an ``Adaptive`` object.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

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
class Linear:
    """A straight line from ``start`` at step 0 to ``end`` at ``until``.

    Example:
        >>> [round(Linear(0.3)(step, 100), 3) for step in (0, 50, 100)]
        [0.3, 0.15, 0.0]
    """

    start: float
    end: float = 0.0

    def __call__(self, step: int, until: int | None) -> float:
        """The value at a step; needs ``until``."""
        return _between(self.start, self.end, _progress("linear", step, until))


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
class Polynomial:
    """From ``start`` at step 0 to ``end`` at ``until``; the higher the power, the faster first.

    Power 1 is a straight line, power 3 is ``Cubic``, and power 1/2 is slow first.

    Example:
        >>> [round(Polynomial(0.4, 0.0, 2)(step, 100), 3) for step in (0, 50, 100)]
        [0.4, 0.1, 0.0]
    """

    start: float
    end: float = 0.0
    power: float = 3.0

    def __call__(self, step: int, until: int | None) -> float:
        """The value at a step; needs ``until``."""
        progress = _progress("polynomial", step, until)
        return self.end + (self.start - self.end) * float((1 - progress) ** self.power)


@dataclass(frozen=True)
class Cubic:
    """From ``start`` at step 0 to ``end`` at ``until``, fast first: gradual magnitude pruning.

    Attributes:
        start: First value.
        end: Last value.
        by: Share of the way to ``until`` at which the end is reached, in (0, 1].

    Example:
        >>> [round(Cubic(1.0, 0.1)(step, 100), 3) for step in (0, 50, 100)]
        [1.0, 0.213, 0.1]
        >>> [round(Cubic(1.0, 0.1, by=0.5)(step, 100), 3) for step in (0, 25, 50, 100)]
        [1.0, 0.213, 0.1, 0.1]

    References:
        M. Zhu, S. Gupta, "To prune, or not to prune: exploring the efficacy of pruning for model
        compression", 2017.
    """

    start: float
    end: float
    by: float = 1.0

    def __call__(self, step: int, until: int | None) -> float:
        """The value at a step; needs ``until``."""
        progress = min(1.0, _progress("cubic", step, until) / self.by)
        return self.end + (self.start - self.end) * (1 - progress) ** 3


@dataclass(frozen=True)
class Decay:
    """From ``start``, multiplied by ``factor`` after each ``every`` steps, and never below ``end``.

    Example:
        >>> [round(Decay(0.5, factor=0.5, every=10, end=0.1)(n, None), 3) for n in (9, 10, 20, 90)]
        [0.5, 0.25, 0.125, 0.1]
    """

    start: float
    factor: float = 0.99
    every: int = 600
    end: float = 0.0

    def __call__(self, step: int, until: int | None) -> float:
        """The value at a step."""
        return max(self.end, self.start * self.factor ** (step // self.every))


@dataclass(frozen=True)
class Steps:
    """From ``start`` down, or up, to ``end`` in equal steps of equal length, the last at ``until``.

    Example:
        >>> [round(Steps(0.3, 0.1, 2)(step, 100), 3) for step in (0, 49, 50, 100)]
        [0.3, 0.3, 0.2, 0.1]
    """

    start: float
    end: float
    count: int

    def __call__(self, step: int, until: int | None) -> float:
        """The value at a step; needs ``until``."""
        progress = _progress("steps", step, until)
        return _between(self.start, self.end, math.floor(progress * self.count) / self.count)


@dataclass(frozen=True)
class Phases:
    """Two values in turn: ``start`` for ``length`` steps, ``end`` for as many, and so on.

    From ``until`` on, where it is known, the value stays at ``end``.

    Example:
        >>> [Phases(1.0, 0.1, 10)(step, 40) for step in (0, 9, 10, 20, 30, 40, 50)]
        [1.0, 1.0, 0.1, 1.0, 0.1, 0.1, 0.1]

    References:
        A. Peste, E. Iofinova, A. Vladu, D. Alistarh, "AC/DC: alternating compressed/decompressed
        training of deep neural networks", 2021.
    """

    start: float
    end: float
    length: int

    def __call__(self, step: int, until: int | None) -> float:
        """The value at a step."""
        over = until is not None and step >= until
        return self.end if over or step // self.length % 2 else self.start


@runtime_checkable
class Adaptive(Protocol):
    """A density that is decided on the way, by what the validation loss does.

    It holds nothing itself: what it has to remember is in ``memory``, numbers by name that the
    evolution saves.
    """

    def decide(self, loss: float, density: float, memory: dict[str, float]) -> None:
        """Take in a validation loss, reached at a density; called by ``Evolution.report``."""

    def target(self, density: float, fraction: float, memory: dict[str, float]) -> float:
        """The density after the update that is due, from the one before it."""


@dataclass(frozen=True)
class Pals:
    """Shrinks while the validation loss allows it, expands when it does not, else stays.

    An update multiplies the density by ``1 - fraction * (factor - 1)`` to shrink and by
    ``1 + fraction * (factor - 1)`` to expand.

    Attributes:
        factor: How much more is dropped than grown, or grown than dropped, above 1.
        freedom: A loss up to ``freedom`` times the best one is good enough to shrink, above 1.
        start: Above this density the network always shrinks.
        end: At or below this density it shrinks no more.

    Example:
        >>> density, memory = Pals(factor=1.2, freedom=1.1), {}
        >>> density.decide(0.7, 1.0, memory)
        >>> round(density.target(1.0, 0.5, memory), 3)
        0.9

    References:
        Z. Atashgahi, M. Pechenizkiy, R. Veldhuis, D. C. Mocanu, "Adaptive sparsity level during
        training for efficient time series forecasting with transformers", 2024.
    """

    factor: float = 1.1
    freedom: float = 1.1
    start: float = 0.8
    end: float = 0.1

    def decide(self, loss: float, density: float, memory: dict[str, float]) -> None:
        """Choose between shrinking (-1), expanding (1) and staying (0)."""
        best, best_density = memory.get("pals_loss", math.inf), memory.get("pals_density", 1.0)
        good = loss <= self.freedom * best
        if density > self.start or (good and density > self.end):
            memory["pals_state"] = -1.0
        else:
            memory["pals_state"] = float(not good and density < best_density)
        if loss < best:
            memory["pals_loss"], memory["pals_density"] = loss, density

    def target(self, density: float, fraction: float, memory: dict[str, float]) -> float:
        """The density that the last decision leads to; before the first one it stays."""
        change = memory.get("pals_state", 0.0) * fraction * (self.factor - 1)
        return min(1.0, density * (1 + change))


def _between(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 - progress)


def _progress(name: str, step: int, until: int | None) -> float:
    if until is None:
        raise ValueError(f"the {name} schedule needs its end: give until in optimiser steps")
    return min(1.0, step / max(1, until))
