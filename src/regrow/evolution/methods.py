"""Methods: named compositions of the parts of an update."""

from __future__ import annotations

from dataclasses import dataclass

from regrow.evolution.budgets import ScopeFunction
from regrow.evolution.redistribution import LayerWeight
from regrow.evolution.schedules import Adaptive, Schedule
from regrow.evolution.scores import DropFunction, DropScore, GrowFunction, GrowScore
from regrow.evolution.starts import ValueStart
from regrow.optim.carry import StatePolicy
from regrow.topology import Block, NofM
from regrow.topology.initial import Pattern


@dataclass(frozen=True)
class Method:
    """One way to evolve a topology; every part may be overridden in ``Evolution``.

    Attributes:
        name: Its name.
        drop: Drop score: a name, a function of a site, or a ``DropScore``.
        grow: Grow score: a name, a function of a site and candidates, or a ``GrowScore``.
        fraction: Share of the connections that an update drops, in [0, 1]: a number or a schedule.
        every: Optimiser steps between updates, ``"epoch"``, or None for no updates.
        begin: Optimiser step after which updates and schedules begin; a float in [0, 1] is a share
            of the evolution's ``total_steps``.
        until: Last optimiser step at which an update may happen, and the end of the schedules; a
            float in (0, 1] is a share of ``total_steps``; None for no end.
        scope: What keeps its number of connections. ``layer``: each layer; ``global``: all layers
            together, scores being compared across them; ``gate``: each gate of a recurrent weight
            and each part of a fused projection; ``row``: each row (constant fan-in); ``column``:
            each column (constant fan-out); ``NofM(n, m)``: every m consecutive columns of a row;
            or a function that partitions a layer.
        compare: Whose drop scores are compared: ``budget``: the fraction of each budget goes;
            ``layer``: those of the whole layer, and each budget grows what it has lost.
        unit: What is dropped and grown as a whole, its scores averaged: ``element``; ``kernel``:
            all taps between an input and an output channel; ``Block(rows, columns)``; ``neuron``:
            a whole row.
        density: Density over all sparse layers: a schedule, an object that decides by the
            validation loss (see ``Evolution.report``), or None to keep what there is.
        redistribute: Weight of each layer by which growth is shared among layers: a name, a
            function of a site, or None where every layer grows what it has lost.
        start: Values of new connections: ``zero``, ``init``, ``Normal(std)`` or a function.
        state: Optimiser state of new connections: ``zero``, ``mean`` or a function.
        regrow: Whether a position may be grown in the update that dropped it: False; True, as a
            new connection; ``revive``: it then keeps its value and state; ``replace``: where it
            is chosen again, a random free position is grown instead.
        adjust: Groups of weights whose norm the drop leaves as it was, the others being scaled:
            ``layer``, ``row``, ``column`` or None.
        pattern: Where a network that is to be trained so has its first connections: what
            ``sparsify`` takes; the evolution itself does not look at it.
        active: Share of the connections that a forward pass uses, the largest ones, while all
            are trained; None for all.
        source: Authors, title, year.
        differs: How it differs from the source.
    """

    name: str
    drop: str | DropFunction | DropScore = "magnitude"
    grow: str | GrowFunction | GrowScore = "random"
    fraction: float | Schedule = 0.3
    every: int | str | None = 100
    begin: int | float = 0
    until: int | float | None = None
    scope: str | NofM | ScopeFunction = "layer"
    compare: str = "budget"
    unit: str | Block = "element"
    density: Schedule | Adaptive | None = None
    redistribute: str | LayerWeight | None = None
    start: str | ValueStart = "zero"
    state: str | StatePolicy = "zero"
    regrow: bool | str = False
    adjust: str | None = None
    active: float | None = None
    pattern: str | Pattern = "random"
    source: str = ""
    differs: str = ""


class Methods(dict[str, Method]):
    """Methods by name; printed, a table of them."""

    def __repr__(self) -> str:
        """One line for each method."""
        from regrow.evolution.catalogue import overview  # which knows methods

        return overview(self)

    __str__ = __repr__


_METHODS: dict[str, Method] = {}


def register(method: Method) -> Method:
    """Make a method known by its name.

    Raises:
        ValueError: The name is taken.
    """
    if method.name in _METHODS:
        raise ValueError(
            f"method name must be new, got {method.name!r}, which is registered already"
        )
    _METHODS[method.name] = method
    return method


def methods() -> Methods:
    """All registered methods by name; printed, a table of them.

    Example:
        >>> {"rigl", "set", "static"} <= set(methods())
        True
    """
    return Methods(_METHODS)
