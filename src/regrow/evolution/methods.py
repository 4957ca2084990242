"""Methods: named compositions of drop, grow, schedules and starts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from regrow.evolution.schedules import Constant, Cosine, Schedule
from regrow.evolution.scores import DropFunction, GrowFunction
from regrow.layers import SparseLayer
from regrow.optim.carry import StatePolicy

ValueStart = Callable[[SparseLayer, int, torch.Generator], Tensor]


@dataclass(frozen=True)
class Normal:
    """New values drawn from a normal distribution of mean 0."""

    std: float

    def __call__(self, layer: SparseLayer, count: int, generator: torch.Generator) -> Tensor:
        """Draw ``[count]`` values."""
        return torch.randn(count, generator=generator) * self.std


def zero(layer: SparseLayer, count: int, generator: torch.Generator) -> Tensor:
    """New values start at 0, so that an update leaves the function of the survivors alone."""
    return torch.zeros(count)


def init(layer: SparseLayer, count: int, generator: torch.Generator) -> Tensor:
    """New values are drawn as the layer drew its first ones."""
    return layer.start_values(count, generator)


STARTS: dict[str, ValueStart] = {"zero": zero, "init": init}


@dataclass(frozen=True)
class Method:
    """One way to evolve a topology; every part may be overridden in ``Evolution``.

    Attributes:
        name: Its name.
        drop: Drop score, by name or as a function of a site.
        grow: Grow score, by name or as a function of a site and candidates.
        fraction: Share of the connections that an update drops, in [0, 1]: a number or a schedule.
        every: Optimiser steps between updates, ``"epoch"``, or None for no updates.
        until: Last optimiser step at which an update may happen, and the end of the schedules;
            None for no end.
        scope: ``layer``: each layer keeps its number of connections; ``global``: scores are
            compared across layers and only the total is kept; ``gate``: each gate of a recurrent
            weight keeps its number, other layers as with ``layer``.
        density: Schedule of the density over all sparse layers; None keeps what there is.
        start: Values of new connections: ``zero``, ``init``, ``Normal(std)`` or a function.
        state: Optimiser state of new connections: ``zero``, ``mean`` or a function.
        regrow: Whether a position may be grown in the update that dropped it.
        source: Authors, title, year.
        differs: How it differs from the source.
    """

    name: str
    drop: str | DropFunction = "magnitude"
    grow: str | GrowFunction = "random"
    fraction: float | Schedule = 0.3
    every: int | str | None = 100
    until: int | None = None
    scope: str = "layer"
    density: Schedule | None = None
    start: str | ValueStart = "zero"
    state: str | StatePolicy = "zero"
    regrow: bool = False
    source: str = ""
    differs: str = ""


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


def methods() -> dict[str, Method]:
    """All registered methods by name.

    Example:
        >>> sorted(methods())[:2]
        ['rigl', 'set']
    """
    return dict(_METHODS)


register(
    Method(
        name="static",
        every=None,
        source="the random start that evolving methods are compared with",
    )
)
register(
    Method(
        name="set",
        drop="sign-split",
        grow="random",
        fraction=Constant(0.3),
        every="epoch",
        start=Normal(0.1),
        regrow=True,
        source="D. C. Mocanu, E. Mocanu, P. Stone, P. H. Nguyen, M. Gibescu, A. Liotta, "
        '"Scalable training of artificial neural networks with adaptive sparse connectivity '
        'inspired by network science", 2018',
        differs="drops exactly the fraction (the published code also drops threshold ties); "
        "the final removal without growth is a call of its own, Evolution.prune()",
    )
)
register(
    Method(
        name="rigl",
        drop="magnitude",
        grow="gradient",
        fraction=Cosine(0.3),
        every=100,
        until=25_000,
        start="zero",
        regrow=True,
        source="U. Evci, T. Gale, J. Menick, P. S. Castro, E. Elsen, "
        '"Rigging the lottery: making all tickets winners", 2020',
        differs="the update follows an optimiser step instead of replacing it",
    )
)
