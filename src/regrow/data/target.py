"""The target: classification or regression, class ids or standardised values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from regrow.data.errors import DataError
from regrow.data.table import Column, resolve

Task = Literal["classification", "regression", "language"]

TASKS = ("auto", "classification", "regression")

MAX_CLASSES_AUTO = 20
"""Most distinct whole numbers that still read as class labels when nobody says."""


@dataclass(frozen=True, eq=False)
class Target:
    """A target that is ready to be split.

    Args:
        name: The name of the column.
        task: What to learn.
        rows: Rows that have a target, int64, sorted.
        values: Class ids int64 or float64 values, one for every row of the data set; meaningless
            outside `rows`.
        class_names: One name a class, empty for regression.
        notes: What a person should know.
    """

    name: str
    task: Task
    rows: NDArray[np.int64]
    values: NDArray[Any]
    class_names: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def labels(self) -> NDArray[np.int64] | None:
        """Class ids for stratified splits, None for regression."""
        return self.values if self.task == "classification" else None


def decide_task(column: Column) -> Task:
    """Decide what to learn from the values of a target.

    Text and true/false are classes. Numbers are classes if all are whole, at most 20 differ and
    each occurs twice on average; otherwise they are measured.

    Args:
        column: A target without missing values.

    Example:
        >>> decide_task(Column("y", np.array([0.0, 1.0, 2.0, 1.0, 0.0, 2.0])))
        'classification'
        >>> decide_task(Column("y", np.array([0.5, 1.0, 2.0, 1.0])))
        'regression'
    """
    if column.kind in ("text", "flag"):
        return "classification"
    distinct = np.unique(column.values)
    few = len(distinct) <= MAX_CLASSES_AUTO and 2 * len(distinct) <= len(column.values)
    whole = bool(np.all(distinct == np.floor(distinct)))
    return "classification" if column.kind == "number" and few and whole else "regression"


def prepare_target(
    column: Column, task: str = "auto", class_names: tuple[str, ...] | None = None
) -> Target:
    """Drop rows without a target, decide the task and number the classes.

    Args:
        column: The target as it was read; infinite values count as missing.
        task: "auto", "classification" or "regression".
        class_names: Names of the classes 0, 1, ... where the source gives them, which also says
            that they are classes; labels that are text name themselves.

    Raises:
        DataError: If there is nothing to learn, or the values do not fit the task.

    Example:
        >>> column = Column("y", np.array(["b", "a", None, "b", "b"], object), "text")
        >>> target = prepare_target(column)
        >>> target.class_names, target.rows.tolist(), target.values[target.rows].tolist()
        (('a', 'b'), [0, 1, 3, 4], [1, 0, 1, 1])
    """
    if task not in TASKS:
        raise DataError(f"task must be one of {', '.join(TASKS)}, got {task!r}")
    column = resolve(column, np.arange(len(column.values)), dates=False)
    if column.kind != "text":
        finite = np.where(np.isfinite(column.values), column.values, np.nan)
        column = Column(column.name, finite, column.kind)
    rows = np.flatnonzero(~column.missing)
    if len(rows) == 0:
        raise DataError(f"target {column.name!r} must have values, got none in {_rows(column)}")
    present = Column(column.name, column.values[rows], column.kind)
    if task == "auto":
        task = "classification" if class_names else decide_task(present)
    lost = len(column.values) - len(rows)
    notes = (f"dropped {lost:,} rows without a target",) if lost else ()
    if task == "regression":
        return _measured(column, present, rows, notes)
    return _classes(column, present, rows, class_names, notes)


def scale_target(
    values: NDArray[np.float64], train: NDArray[np.int64], name: str
) -> tuple[NDArray[np.float32], tuple[float, float]]:
    """Standardise a regression target by the mean and standard deviation of the training rows.

    Returns:
        float32 values of every row, and (mean, standard deviation) in the units of the target.

    Raises:
        DataError: If the training rows hold one value only.

    Example:
        >>> scale_target(np.array([1.0, 3.0, 5.0]), np.array([0, 1]), "y")
        (array([-1.,  1.,  3.], dtype=float32), (2.0, 1.0))
    """
    known = values[train]
    largest = float(np.abs(known).max()) or 1.0  # so that squares cannot overflow
    mean, std = float((known / largest).mean()) * largest, float((known / largest).std()) * largest
    if std == 0 or bool(np.all(known == known[0])):
        raise DataError(
            f"target {name!r} must vary among the training rows, got {known[0]:g} in all"
        )
    limit = np.finfo(np.float32).max
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = np.clip(values / std - mean / std, -limit, limit).astype(np.float32)
    return scaled, (mean, std)


def _measured(
    column: Column, present: Column, rows: NDArray[np.int64], notes: tuple[str, ...]
) -> Target:
    if column.kind == "text":
        raise DataError(
            f"task must be classification where the target is text, as {column.name!r} is "
            f"({present.values[0]!r}), got regression"
        )
    if bool(np.all(present.values == present.values[0])):
        raise DataError(f"target {column.name!r} must vary, got {present.values[0]:g} in all rows")
    return Target(column.name, "regression", rows, column.values, (), notes)


def _classes(
    column: Column,
    present: Column,
    rows: NDArray[np.int64],
    class_names: tuple[str, ...] | None,
    notes: tuple[str, ...],
) -> Target:
    if column.kind == "text":
        levels = np.array(sorted(set(present.values)), dtype=object)
        index = {level: i for i, level in enumerate(levels)}
        ids = np.array([index[value] for value in present.values], dtype=np.int64)
    else:
        levels, ids = np.unique(present.values, return_inverse=True)
    names = tuple(_label(level, column.kind) for level in levels)
    if class_names is not None and column.kind != "text":
        ids, names = _named(present, class_names)
    found = np.bincount(ids, minlength=len(names))
    _check_classes(column.name, names, found, len(rows))
    lonely = [names[i] for i in np.flatnonzero(found == 1)]
    if lonely:
        notes = (*notes, f"kept classes with a single row in training: {', '.join(lonely)}")
    values = np.full(len(column.values), -1, dtype=np.int64)
    values[rows] = ids
    return Target(column.name, "classification", rows, values, names, notes)


def _named(
    present: Column, class_names: tuple[str, ...]
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    outside = (present.values < 0) | (present.values >= len(class_names))
    outside |= present.values != np.floor(present.values)
    if outside.any():
        raise DataError(
            f"labels of {present.name!r} must be whole numbers from 0 to {len(class_names) - 1}, "
            f"got {present.values[outside][0]:g}"
        )
    return present.values.astype(np.int64), class_names


def _check_classes(
    name: str, names: tuple[str, ...], found: NDArray[np.int64], n_rows: int
) -> None:
    present = np.flatnonzero(found)
    if len(present) < 2:
        raise DataError(
            f"target {name!r} must have at least two classes, got one: {names[present[0]]!r}"
        )
    if 2 * len(present) > n_rows:
        raise DataError(
            f"target {name!r} must have two rows a class on average for classification, "
            f"got {len(present):,} classes in {n_rows:,} rows"
        )


def _label(level: Any, kind: str) -> str:
    if kind == "text":
        return str(level)
    if kind == "flag":
        return "true" if level else "false"
    return f"{int(level)}" if level == int(level) else f"{level:g}"


def _rows(column: Column) -> str:
    return f"{len(column.values):,} rows"
