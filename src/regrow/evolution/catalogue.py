"""The catalogue in words: what methods are made of, in a table or one by one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from inspect import getdoc
from typing import Any

from regrow.evolution.methods import Method
from regrow.evolution.redistribution import REDISTRIBUTIONS
from regrow.evolution.scores import DROP_SCORES, GROW_SCORES, DropScore, GrowScore
from regrow.evolution.starts import STARTS

_REGISTRIES: dict[str, Mapping[str, object]] = {
    "drop": DROP_SCORES,
    "grow": GROW_SCORES,
    "start": STARTS,
    "redistribute": REDISTRIBUTIONS,
}
# Parts that an overview has columns for, or that say nothing on what a method does.
_WORDS = {"name", "source", "differs"}


def overview(methods: Mapping[str, Method]) -> str:
    """One line for each method: what it drops and grows, how much, how often, and whose it is.

    Example:
        >>> print(overview({"mine": Method("mine", fraction=0.2, source="A. Bee, C. Dee, 2020")}))
        method  drops      grows   share  every  from
        mine    magnitude  random  0.2    100    Bee, Dee 2020
    """
    lines = [("method", "drops", "grows", "share", "every", "from")]
    for name, method in sorted(methods.items()):
        part = parts(method)
        cells = (part.get(key, "-") for key in ("drop", "grow", "fraction", "every"))
        lines.append((name, *cells, short_source(method.source)))  # type: ignore[arg-type]
    widths = [max(len(line[i]) for line in lines) for i in range(6)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def account(method: Method) -> str:
    """All that is to be said of one method, a line for each part that is not as usual.

    Example:
        >>> print(account(Method("mine", scope="row", source="this page")))
        mine
          drop         magnitude
          grow         random
          fraction     0.3
          every        100
          scope        row
          source       this page
    """
    lines = {**parts(method), "source": method.source, "differs": method.differs}
    told = (f"  {name:<12} {line}" for name, line in lines.items() if line)
    return "\n".join([method.name, *told])


def parts(method: Method) -> dict[str, str]:
    """The parts of a method in words: the first ones always, the others where they are unusual.

    A method without updates has none that belong to them.

    Example:
        >>> parts(Method("mine", every=None, pattern="fan-in"))
        {'pattern': 'fan-in'}
    """
    usual = Method(name="")
    always = () if method.every is None else ("drop", "grow", "fraction", "every")
    chosen = {}
    for entry in fields(Method):
        name, value = entry.name, getattr(method, entry.name)
        if name in always or (
            name not in _WORDS
            and value != getattr(usual, name)
            and (method.every is not None or name == "pattern")
        ):
            chosen[name] = in_words(value, _REGISTRIES.get(name, {}))
    return chosen


def in_words(value: Any, registry: Mapping[str, object] | None = None) -> str:
    """A part of a method as a reader would write it.

    Args:
        value: A name, a number, a schedule, a pattern, an entry or a function.
        registry: Where entries have their names.

    Example:
        >>> from regrow.evolution.schedules import Constant, Cosine
        >>> in_words(Constant(0.3)), in_words(Cosine(0.5, 0.005)), in_words(25_000)
        ('0.3', '0.5 to 0.005, cosine', '25,000')
    """
    for name, entry in (registry or {}).items():
        if value is entry or getattr(entry, "score", entry) is value:
            return name
    if isinstance(value, (DropScore, GrowScore)):
        return _factory(value)
    if is_dataclass(value) and not isinstance(value, type):
        return _of_fields(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if callable(value):
        return str(getattr(value, "__name__", type(value).__name__)).replace("_", "-")
    return f"{value:g}" if isinstance(value, float) else str(value)


def short_source(source: str) -> str:
    """Names and year of a source.

    Example:
        >>> short_source('D. C. Mocanu, E. Mocanu, P. Stone, "Scalable training", 2018')
        'Mocanu et al. 2018'
    """
    year = re.search(r"(\d{4})\W*$", source)
    if year is None:
        return source
    people = source[: year.start()].split('"')[0].removesuffix(" ").strip(", ")
    names = [person.split()[-1] for person in people.replace(" et al.", "").split(", ")]
    more = " et al." if len(names) > 2 or "et al." in people else ""
    return f"{names[0] if more else ', '.join(names)}{more} {year[1]}"


def told(entry: DropScore | GrowScore) -> str:
    """All that an entry of the catalogue says of itself: its own words or its docstring."""
    function = entry.score or getattr(entry, "place", None)
    return entry.says or getdoc(function) or ""


def _of_fields(value: Any) -> str:
    """Values of a small record: from where to where and how, or by name."""
    entries = {entry.name: getattr(value, entry.name) for entry in fields(value)}
    if list(entries) == ["value"]:
        return in_words(entries["value"])
    name = type(value).__name__
    if {"start", "end"} <= entries.keys() and callable(value):
        return f"{in_words(entries['start'])} to {in_words(entries['end'])}, {name.lower()}"
    return f"{name}({', '.join(in_words(entry) for entry in entries.values())})"


def _factory(entry: DropScore | GrowScore) -> str:
    """The function that made an entry which has no name, as its score or place tells."""
    maker = entry.count if isinstance(entry, DropScore) and entry.count else entry.score
    name = getattr(maker or getattr(entry, "place", None), "__qualname__", "own rule")
    return str(name).split(".")[0].replace("_", "-")
