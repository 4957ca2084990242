"""Tables of the page on the catalogue, from the registries; `docs/tables.py` writes them in."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import is_dataclass
from functools import partial
from inspect import getdoc, signature

from regrow.evolution import schedules
from regrow.evolution.catalogue import in_words, parts, told
from regrow.evolution.methods import methods
from regrow.evolution.redistribution import REDISTRIBUTIONS
from regrow.evolution.scores import DROP_SCORES, GROW_SCORES, DropScore, GrowScore
from regrow.evolution.starts import STARTS, FanInUniform, Normal
from regrow.layers import criteria
from regrow.topology import Block, NofM
from regrow.topology.allocation import ALLOCATIONS
from regrow.topology.initial import PATTERNS


def allocations() -> str:
    """How a density is shared."""
    own = {f"`{name}`": _said(function) for name, function in ALLOCATIONS.items()}
    judged = {f"`{kind.__name__}`": _said(kind) for kind in _kinds(criteria, criteria.Criterion)}
    return _table(("allocation", "what it does", "source"), {**own, **judged})


def patterns() -> str:
    """Where the first connections are."""
    own = {f"`{name}`": _of_pattern(pattern) for name, pattern in PATTERNS.items()}
    own["`NofM(n, m)`"], own["`Block(rows, columns)`"] = _said(NofM), _said(Block)
    return _table(("pattern", "where connections are", "source"), own)


def drops() -> str:
    """Drop scores."""
    rows = {f"`{name}`": _of_entry(entry, _drop_needs(entry)) for name, entry in _by(DROP_SCORES)}
    return _table(("drop", "keeps what is highest in", "needs", "source"), rows)


def grows() -> str:
    """Grow scores."""
    rows = {f"`{name}`": _of_entry(entry, _grow_needs(entry)) for name, entry in _by(GROW_SCORES)}
    return _table(("grow", "takes what is highest in", "needs", "source"), rows)


def all_schedules() -> str:
    """Schedules of fractions and of densities."""
    rows = {
        f"`{kind.__name__}{_arguments(kind)}`": _said(kind)
        for kind in vars(schedules).values()
        if isinstance(kind, type) and is_dataclass(kind)
    }
    return _table(("schedule", "value", "source"), rows)


def others() -> str:
    """Redistribution between layers, and starts of new values."""
    rows = {f"redistribute `{name}`": _said(f)[:1] for name, f in REDISTRIBUTIONS.items()}
    rows |= {f"start `{name}`": _said(f)[:1] for name, f in STARTS.items()}
    rows |= {f"start `{k.__name__}{_arguments(k)}`": _said(k)[:1] for k in (Normal, FanInUniform)}
    return _table(("part", "what it does"), rows)


def all_methods() -> str:
    """Named methods."""
    rows = {}
    for name, method in sorted(methods().items()):
        told_parts = "; ".join(f"{part} {_plain(words)}" for part, words in parts(method).items())
        rows[f"`{name}`"] = (told_parts or "nothing moves", method.source, method.differs)
    return _table(("method", "parts", "source", "differs from the source"), rows)


TABLES: dict[str, Callable[[], str]] = {
    "allocations": allocations,
    "patterns": patterns,
    "drops": drops,
    "grows": grows,
    "schedules": all_schedules,
    "others": others,
    "catalogue": all_methods,
}


def _by(registry: Mapping[str, DropScore | GrowScore]) -> Iterable:
    return sorted(registry.items())


def _kinds(module: object, base: type) -> list[type]:
    found = (kind for kind in vars(module).values() if isinstance(kind, type))
    return [kind for kind in found if issubclass(kind, base) and kind is not base]


def _of_pattern(pattern: Callable) -> tuple[str, str]:
    if isinstance(pattern, partial):
        option = ", ".join(f"{name}={value!r}" for name, value in pattern.keywords.items())
        what, source = _said(pattern.func)
        return f"{what} With `{option}`.", source
    return _said(pattern)


def _of_entry(entry: DropScore | GrowScore, needs: str) -> tuple[str, str, str]:
    text = told(entry)
    return _first(text), needs, _source(text)


def _drop_needs(entry: DropScore) -> str:
    needs = []
    if entry.before or any(tracker.before for tracker in entry.tracks):
        needs.append("the gradient")
    if entry.tracks:
        needs.append("a number per connection, kept between steps")
    if entry.count is not None:
        needs.append("decides itself how many go")
    return "; ".join(needs)


def _grow_needs(entry: GrowScore) -> str:
    needs = []
    if entry.gradient:
        steps = f"the last {entry.history} steps" if entry.history > 1 else "the step"
        needs.append(f"passes of {steps}")
    if entry.activations:
        needs.append("a sample of activations")
    if entry.seen:
        needs.append("a record of positions ever active")
    if entry.place is not None:
        needs.append("scope `layer`, unit `element`")
    return "; ".join(needs)


def _said(thing: object) -> tuple[str, str]:
    text = getdoc(thing) or ""
    return _first(text), _source(text)


def _first(text: str) -> str:
    """The first paragraph, a formula before its colon set as code."""
    paragraph = " ".join(text.split("\n\n")[0].split())
    formula, colon, rest = paragraph.partition(": ")
    if colon and re.match(r"[|(-]|Sign|I_", formula) and " among " not in formula:
        return f"`{formula}`: {rest}"
    return paragraph


def _source(text: str) -> str:
    """What stands under References."""
    found = re.search(r"^References:\n((?:    .*\n?|\n)+)", text, re.MULTILINE)
    return " ".join(found[1].split()) if found else ""


def _arguments(kind: type) -> str:
    return f"({', '.join(signature(kind).parameters)})"


def _plain(words: str) -> str:
    return f"`{in_words(words)}`"


def _table(head: tuple[str, ...], rows: Mapping[str, tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name, cells in rows.items():
        cleaned = (cell.replace("``", "`").replace("|", "\\|") for cell in (name, *cells))
        lines.append("| " + " | ".join(cleaned) + " |")
    return "\n".join(lines)
