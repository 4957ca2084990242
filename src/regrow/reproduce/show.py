"""An outcome to be read: as text on a terminal, and as Markdown on a page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def text(record: dict[str, Any]) -> str:
    """What came out, as tables of text.

    Args:
        record: As `results/NAME.json` holds it.
    """
    blocks = [f"{record['system']} ({record['scale']}), {_duration(record)}"]
    for table in record["tables"]:
        note = f"\n{table['note']}" if table["note"] else ""
        blocks.append(f"{table['title']}\n{_columns(table['columns'], table['rows'])}{note}")
    verdicts = [
        f"{claim['verdict']:9} {claim['statement']}\n{'':10}{claim['found']}"
        for claim in record["claims"]
    ]
    return "\n\n".join([*blocks, "\n".join(verdicts)])


def markdown(record: dict[str, Any], folder: str) -> str:
    """What came out, as a part of a page.

    Args:
        record: As `results/NAME.json` holds it.
        folder: Where the page finds the pictures.
    """
    claims = [
        [claim["statement"], claim["source"], claim["found"], claim["verdict"]]
        for claim in record["claims"]
    ]
    blocks = [_table(["what must come out", "says", "what came out", ""], claims)]
    for table in record["tables"]:
        blocks += [f"**{table['title']}**", _table(table["columns"], table["rows"])]
        blocks += [table["note"]] if table["note"] else []
    blocks += [f"![{drawn['shows']}]({folder}/{drawn['file']})" for drawn in record["pictures"]]
    machine = record["machine"]
    commits = ", ".join(record["commits"]) or "unknown"
    blocks.append(
        f"`{record['command']}`: {_duration(record)} on {machine['processor']} "
        f"({machine['kernels']}), {record['started'][:10]}, commit {commits}, "
        f"torch {record['torch']}."
    )
    return "\n\n".join(blocks)


def held(record: dict[str, Any]) -> str:
    """How many of the claims held, such as ``3 of 4``."""
    decided = [claim for claim in record["claims"] if claim["held"] is not None]
    return f"{sum(claim['held'] for claim in decided)} of {len(decided)}"


def duration(record: dict[str, Any]) -> str:
    """How long all parts took one core, such as ``7 minutes``."""
    seconds = record["seconds_of_parts"]
    return f"{seconds / 60:.0f} minutes" if seconds >= 90 else f"{seconds:.0f} seconds"


def _duration(record: dict[str, Any]) -> str:
    seeds = f"{record['seeds']} seed{'s' if record['seeds'] != 1 else ''}"
    return f"{seeds}, {duration(record)} of one core"


def _columns(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    cells = [[str(cell) for cell in row] for row in [heads, *rows]]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    )
    return "\n".join(f"  {line}" for line in lines)


def _table(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
