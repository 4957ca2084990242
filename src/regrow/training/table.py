"""The table that a run prints at its end."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from regrow.files import read_json
from regrow.training.job import job_folder
from regrow.training.options import TrainOptions

SCORES = {"classification": "accuracy", "regression": "R2", "language": "bits per character"}
"""What the score of a task is called."""

Results = dict[str, list[dict[str, Any]]]

_COLUMNS: tuple[tuple[str, str, Callable[[float], str]], ...]


def read_results(run_dir: Path, options: TrainOptions) -> Results:
    """The results of every arm, in the order of its seeds; diverged trainings are left out."""
    found: Results = {}
    for arm in options.arms:
        paths = [job_folder(run_dir, arm, seed) / "result.json" for seed in options.all_seeds]
        found[arm] = [read_json(path) for path in paths if path.exists()]
    return found


def format_table(results: Results, task: str) -> str:
    """A line for each arm: scores over the seeds, and what it cost, with ratios to dense.

    Args:
        results: By arm; an arm without a result is said to have diverged.
        task: ``classification``, ``regression`` or ``language``.
    """
    name = SCORES[task]
    head = ["arm", f"test {name}", *(column[0] for column in _COLUMNS)]
    dense = results.get("dense") or None
    lines = [head]
    for arm, rows in results.items():
        if not rows:
            lines.append([arm, "diverged", *[""] * (len(head) - 2)])
            continue
        cells = [arm, _spread(rows, "test_score")]
        for _, key, shown in _COLUMNS:
            value = _mean(rows, key)
            cells.append("-" if value is None else shown(value) + _ratio(value, dense, key))
        lines.append(cells)
    return _aligned(lines)


def human_bytes(count: float) -> str:
    """Bytes in a unit that fits.

    Example:
        >>> human_bytes(123_456)
        '120.6 KiB'
    """
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def human_count(count: float) -> str:
    """A count in a unit that fits.

    Example:
        >>> human_count(1234), human_count(2.5e9)
        ('1.23 k', '2.5 G')
    """
    for unit in ("", " k", " M", " G", " T"):
        if count < 1000:
            return f"{count:.3g}{unit}"
        count /= 1000
    return f"{count:.3g} P"


def _mean(rows: Sequence[dict[str, Any]], key: str) -> float | None:
    values = [row[key] for row in rows]
    return None if None in values else statistics.fmean(values)


def _spread(rows: Sequence[dict[str, Any]], key: str) -> str:
    values = [row[key] for row in rows]
    text = f"{statistics.fmean(values):.4f}"
    return text if len(values) < 2 else f"{text} ± {statistics.stdev(values):.4f}"


def _ratio(value: float, dense: Sequence[dict[str, Any]] | None, key: str) -> str:
    whole = _mean(dense, key) if dense else None
    return f" ({value / whole:.2f}x)" if whole else ""


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    texts = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    rule = "-" * max(map(len, texts))
    return "\n".join([texts[0], rule, *texts[1:]])


_COLUMNS = (
    ("connections", "connections", lambda value: f"{value:,.0f}"),
    ("memory", "bytes_total", human_bytes),
    ("FLOPs of training", "flops_training_total", human_count),
    ("s/epoch", "seconds_per_epoch", lambda value: f"{value:.3g}"),
)
