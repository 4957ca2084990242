"""A method made to fit one training: how long it is, and which density it is to have."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from regrow.evolution.methods import Method
from regrow.topology import Block, NofM
from regrow.topology.initial import Pattern

# A method whose end is an absolute number of steps gets it at this share of the training.
_SCHEDULE_SHARE = 0.75
_FEWEST = 10  # updates of a training, at least
_WIDEST = 64  # columns over which n of m are counted, at most
# By scope, the pattern of a topology that keeps it.
_PATTERNS = {"row": "fan-in", "column": "fan-out"}


def fitted(
    method: Method,
    *,
    density: float,
    total_steps: int,
    steps_per_epoch: int,
    shapes: Iterable[Sequence[int]],
) -> Method:
    """A method with what its authors chose for their own training chosen for this one.

    An end that is a number of steps comes at three quarters of the training; an interval longer
    than a tenth of it becomes a tenth; a density that changes ends at the one asked for, with an
    update; n of m are those that come nearest to it.

    Args:
        method: Any.
        density: That the network is to have in the end, in (0, 1].
        total_steps: Optimiser steps of the whole training.
        steps_per_epoch: Of one epoch.
        shapes: Dense shapes of the weights.

    Example:
        >>> import regrow
        >>> found = fitted(regrow.methods()["rigl"], density=0.1, total_steps=400,
        ...                steps_per_epoch=10, shapes=[(32, 64)])
        >>> found.every, found.until
        (40, 300)
    """
    if method.every is None:
        return method
    parts: dict[str, Any] = {}
    if isinstance(method.every, int):
        parts["every"] = min(method.every, max(1, total_steps // _FEWEST))
    if isinstance(method.until, int):
        parts["until"] = min(total_steps - 1, int(_SCHEDULE_SHARE * total_steps))
    if isinstance(method.scope, NofM):
        parts["scope"] = n_of_m(density, shapes)
    if method.density is not None:
        share = method.until if isinstance(method.until, float) else 1.0
        until = parts.get("until", min(total_steps - 1, int(share * total_steps)))
        parts |= falling(method.density, density, until, parts.get("every", steps_per_epoch))
    return replace(method, **parts)


def falling(schedule: Any, density: float, until: int, every: int) -> dict[str, Any]:
    """A density schedule for one training: it ends with an update, and with the density asked for.

    One that goes up and down does so in tenths of the training, where it is short.

    Args:
        schedule: Of a method; has an ``end``.
        density: That it is to end with.
        until: Last step at which there may be an update.
        every: Steps between updates.

    Returns:
        The parts ``until`` and ``density`` of a method.

    Example:
        >>> from regrow.evolution.schedules import Cubic
        >>> falling(Cubic(1.0, 0.1), 0.2, until=95, every=10)
        {'until': 90, 'density': Cubic(start=1.0, end=0.2, by=1.0)}
    """
    until = max(until - until % every, min(every, until))
    schedule = replace(schedule, end=density)
    if hasattr(schedule, "length"):
        schedule = replace(schedule, length=max(1, min(schedule.length, until // 10)))
    return {"until": until, "density": schedule}


def beginning(method: Method) -> tuple[float | None, str | Pattern]:
    """How a network begins that is to be trained with a method, which ``fitted`` has made.

    Returns:
        The density it starts with, where that is not the one it is to end with, else None; and
        where the connections are, in a form that the method keeps.

    Example:
        >>> from regrow.evolution.methods import methods
        >>> beginning(methods()["srigl"]), beginning(methods()["gmp"])
        ((None, 'fan-in'), (1.0, 'random'))
    """
    pattern = pattern_for(method, method.scope)
    if method.density is None:
        return None, pattern
    # One that finds its density on the way starts with every connection.
    schedule = method.density
    return (float(schedule(0, 1)) if callable(schedule) else 1.0), pattern


def pattern_for(method: Method, scope: Any) -> str | Pattern:
    """Where connections are in a network that a method with this scope is to train.

    Example:
        >>> pattern_for(Method("mine", unit=Block(4, 4)), "layer")
        Block(rows=4, columns=4)
    """
    pattern: str | Pattern = method.pattern
    if pattern == "random" and isinstance(scope, str):
        pattern = _PATTERNS.get(scope, pattern)
    for form in (scope, method.unit):
        if isinstance(form, (NofM, Block)):
            pattern = form
    return pattern


def n_of_m(density: float, shapes: Iterable[Sequence[int]]) -> NofM:
    """The n of m whose density is nearest to one asked for, m dividing the columns of all layers.

    Example:
        >>> n_of_m(0.05, [(512, 784), (10, 512)])
        NofM(n=1, m=16)
        >>> n_of_m(0.5, [(512, 784), (10, 512)])
        NofM(n=1, m=2)
    """
    common = math.gcd(*(math.prod(shape[1:]) for shape in shapes))
    fitting = [m for m in range(1, min(common, _WIDEST) + 1) if common % m == 0]
    tried = ((n, m) for m in fitting for n in {max(1, math.floor(density * m)),
                                               max(1, math.ceil(density * m))})  # fmt: skip
    n, m = min(tried, key=lambda pair: (abs(pair[0] / pair[1] - density), pair[1]))
    return NofM(n, m)
