"""Scores: which connections to drop, and which free positions to grow.

A drop score maps a ``Site`` to one number per connection; the lowest go. A grow score maps a site
and ``Candidates`` to one number per candidate; the highest come. A rule of one's own is such a
function, given to ``Evolution`` as it is, or registered under a name with the decorators here,
which also say what else it needs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from inspect import getdoc
from typing import ParamSpec, TypeVar

from torch import Tensor

from regrow.evolution.site import Candidates, Site
from regrow.evolution.trackers import Tracker
from regrow.topology import Topology

DropFunction = Callable[[Site], Tensor]
KeepFunction = Callable[[Site, int], Tensor]
CountFunction = Callable[[Sequence[Site], int], Sequence[int]]
GrowFunction = Callable[[Site, Candidates], Tensor]
PlaceFunction = Callable[[Site, Topology, int], Tensor]


@dataclass(frozen=True)
class DropScore:
    """A drop score and what it needs.

    Attributes:
        score: One number per connection; the lowest are dropped, NaN first of all.
        before: Whether it is to be taken before the optimiser step instead of after it.
        keep: All but the given number of lowest scores, bool ``[nnz]``, where a layer is a budget
            of its own and this is faster than scores; None selects by the scores.
        count: How many connections each layer drops, from all layers and the number that the
            fraction asks for in all; None drops the fraction.
        lost: How many of those that a layer drops are not made up for by growth, asked after
            ``count``; None makes up for all.
        tracks: Trackers that it reads.
        says: What it does, in one line, where the function has no docstring that says it.
    """

    score: DropFunction
    before: bool = False
    keep: KeepFunction | None = None
    count: CountFunction | None = None
    tracks: tuple[Tracker, ...] = ()
    says: str = ""
    lost: Callable[[Site], int] | None = None


@dataclass(frozen=True)
class GrowScore:
    """A grow score and what it needs.

    Attributes:
        score: One number per candidate, the highest are grown, NaN last of all; None grows
            uniformly at random.
        gradient: Whether it calls ``site.gradient``.
        history: Of how many optimiser steps it wants the gradients, the last ones.
        activations: Whether it looks at ``site.inputs`` and ``site.outputs``.
        seen: Whether it looks at ``site.seen``; random growth then takes positions that have never
            been active first.
        place: Names the positions itself, ``[count]`` flat ones that are free and distinct, from
            the site, the topology of what is taken, and the count; for rules that need not score
            every position. It works where a layer is one budget of single connections.
        exact: Whether as many are grown as were asked for; False grows each free position by
            the toss of a coin, as some published codes do, so that this is the number on average.
        partner: The one drop score that it goes with; None goes with all.
        tracks: Trackers that it reads.
        says: What it does, in one line, where the function has no docstring that says it.
    """

    score: GrowFunction | None = None
    gradient: bool = False
    history: int = 1
    activations: bool = False
    seen: bool = False
    place: PlaceFunction | None = None
    exact: bool = True
    partner: DropScore | None = None
    tracks: tuple[Tracker, ...] = ()
    says: str = ""

    @property
    def listens(self) -> bool:
        """Whether it needs the passes that layers keep."""
        return self.gradient or self.history > 1


DROP_SCORES: dict[str, DropScore] = {}
GROW_SCORES: dict[str, GrowScore] = {}


def drop_score(
    name: str,
    *,
    before: bool = False,
    keep: KeepFunction | None = None,
    count: CountFunction | None = None,
    tracks: tuple[Tracker, ...] = (),
) -> Callable[[DropFunction], DropFunction]:
    """Register a drop score under a name; the rest as in ``DropScore``.

    Example:
        >>> import torch
        >>> @drop_score("oldest-example")
        ... def by_slot(site):
        ...     return torch.arange(site.topology.nnz)
        >>> "oldest-example" in DROP_SCORES
        True
        >>> del DROP_SCORES["oldest-example"]
    """

    def register(function: DropFunction) -> DropFunction:
        register_score(DROP_SCORES, name, DropScore(function, before, keep, count, tracks))
        return function

    return register


def grow_score(
    name: str,
    *,
    gradient: bool = False,
    history: int = 1,
    activations: bool = False,
    seen: bool = False,
    exact: bool = True,
    tracks: tuple[Tracker, ...] = (),
) -> Callable[[GrowFunction], GrowFunction]:
    """Register a grow score under a name; the rest as in ``GrowScore``.

    Example:
        >>> @grow_score("near-example")
        ... def near_the_diagonal(site, candidates):
        ...     return -(candidates.rows - candidates.columns).abs().float()
        >>> "near-example" in GROW_SCORES
        True
        >>> del GROW_SCORES["near-example"]
    """

    def register(function: GrowFunction) -> GrowFunction:
        entry = GrowScore(
            function, gradient, history, activations, seen, exact=exact, tracks=tracks
        )
        register_score(GROW_SCORES, name, entry)
        return function

    return register


def grow_place(
    name: str,
    *,
    gradient: bool = False,
    history: int = 1,
    activations: bool = False,
    seen: bool = False,
    tracks: tuple[Tracker, ...] = (),
) -> Callable[[PlaceFunction], PlaceFunction]:
    """Register, under a name, a grow rule that names the positions itself.

    Example:
        >>> import torch
        >>> from regrow.topology.patterns import free_positions
        >>> @grow_place("first-example")
        ... def first_free(site, taken, count):
        ...     return free_positions(taken, torch.arange(count))
        >>> del GROW_SCORES["first-example"]
    """

    def register(function: PlaceFunction) -> PlaceFunction:
        entry = GrowScore(None, gradient, history, activations, seen, function, tracks=tracks)
        register_score(GROW_SCORES, name, entry)
        return function

    return register


Given = ParamSpec("Given")
Made = TypeVar("Made", DropScore, GrowScore)


def described(factory: Callable[Given, Made]) -> Callable[Given, Made]:
    """Let the entries that a function makes say what its docstring says.

    Example:
        >>> @described
        ... def above(row: int) -> DropScore:
        ...     "Connections above a row go first."
        ...     return DropScore(lambda site: (site.topology.rows >= row).float())
        >>> above(3).says
        'Connections above a row go first.'
    """

    @wraps(factory)
    def made(*args: Given.args, **kwargs: Given.kwargs) -> Made:
        return replace(factory(*args, **kwargs), says=getdoc(factory) or "")

    return made


Entry = TypeVar("Entry")


def register_score(registry: dict[str, Entry], name: str, entry: Entry) -> None:
    """Put a whole entry into ``DROP_SCORES`` or ``GROW_SCORES``.

    Raises:
        ValueError: The name is taken.
    """
    if name in registry:
        raise ValueError(f"score name must be new, got {name!r}, which is registered already")
    registry[name] = entry
