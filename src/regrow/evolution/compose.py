"""From what was asked for to a method whose parts go together, or a sentence that says why not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from regrow.evolution.budgets import SCOPES
from regrow.evolution.methods import Method, methods
from regrow.evolution.redistribution import REDISTRIBUTIONS
from regrow.evolution.scores import DROP_SCORES, GROW_SCORES, DropScore, GrowScore
from regrow.evolution.units import UNITS
from regrow.topology import Block, NofM

_NO_PARTS = {"name", "pattern", "source", "differs"}


def composed(method: str | Method, overrides: Mapping[str, Any]) -> Method:
    """A method with some of its parts replaced.

    Raises:
        ValueError: An unknown name, or parts that do not go together.
        TypeError: An override that is no part of a method.
    """
    if isinstance(method, str):
        known = methods()
        if method not in known:
            raise ValueError(f"method must be one of {', '.join(sorted(known))}, got {method!r}")
        method = known[method]
    parts = {field.name for field in fields(Method)} - _NO_PARTS
    for name in overrides:
        if name not in parts:
            raise TypeError(
                f"Evolution takes the parts of a method: {', '.join(sorted(parts))}; got {name!r}"
            )
    whole = replace(method, **overrides)
    _check_names(whole)
    _check_together(whole)
    return whole


def scores(method: Method) -> tuple[DropScore, GrowScore]:
    """The drop and the grow score of a method, with what they need.

    Raises:
        ValueError: A name is unknown, or the score does not go with the other parts.
    """
    drop, grow = named(DROP_SCORES, method.drop, "drop"), named(GROW_SCORES, method.grow, "grow")
    # A function that is registered keeps what it was registered with.
    if not isinstance(drop, DropScore):
        drop = next((d for d in DROP_SCORES.values() if d.score is drop), DropScore(drop))
    if not isinstance(grow, GrowScore):
        own = GrowScore(grow, gradient=True)
        grow = next((g for g in GROW_SCORES.values() if grow in (g.score, g.place)), own)
    if grow.partner is not None and grow.partner is not drop:
        raise ValueError(
            f"grow of {method.name} goes with its own drop score alone and needs that one, "
            f"got {method.drop!r}"
        )
    if grow.place is not None and (method.scope != "layer" or method.unit != "element"):
        raise ValueError(
            f"grow of {method.name} names the positions of a layer itself and needs scope layer "
            f"and unit element, got {method.scope!r} and {method.unit!r}"
        )
    if not grow.exact and (method.scope not in ("layer", "global") or method.unit != "element"):
        raise ValueError(
            f"grow of {method.name} is not exact and needs scope layer or global and unit element, "
            f"got {method.scope!r} and {method.unit!r}"
        )
    return drop, grow


def named(registry: Mapping[str, Any], entry: Any, part: str) -> Any:
    """An entry of a registry, or what was given in its place.

    Raises:
        ValueError: The name is unknown.
    """
    if not isinstance(entry, str):
        return entry
    if entry not in registry:
        raise ValueError(f"{part} must be one of {', '.join(sorted(registry))}, got {entry!r}")
    return registry[entry]


def _check_names(method: Method) -> None:
    for part, given, allowed in (
        ("scope", method.scope, SCOPES),
        ("compare", method.compare, ("budget", "layer")),
        ("unit", method.unit, UNITS),
        ("redistribute", method.redistribute, (*REDISTRIBUTIONS, "ranking")),
        ("regrow", method.regrow, ("revive", "replace")),
        ("adjust", method.adjust, ("layer", "row", "column")),
    ):
        if isinstance(given, str) and given not in allowed:
            raise ValueError(
                f"{part} of {method.name} must be one of {', '.join(allowed)}, got {given!r}"
            )
    for part, given, kinds in (
        ("scope", method.scope, (str, NofM)),
        ("unit", method.unit, (str, Block)),
    ):
        if not isinstance(given, kinds) and not (part == "scope" and callable(given)):
            raise ValueError(f"{part} of {method.name} must be a name or a form, got {given!r}")
    active = method.active
    if active is not None and not 0 < active <= 1:
        raise ValueError(f"active of {method.name} must be in (0, 1], got {active}")


def _check_together(method: Method) -> None:
    if method.density is not None and method.scope not in ("layer", "global"):
        raise ValueError(
            f"density of {method.name} must be None where scope is {method.scope}: each part of a "
            f"layer keeps its number"
        )
    if method.redistribute is not None and method.scope != "layer":
        raise ValueError(
            f"redistribute of {method.name} must be None where scope is {method.scope}: it shares "
            f"growth among layers that are compared one by one"
        )
