"""What a reader hands on: named columns or pixels, with a target, nothing decided yet."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from regrow.data.errors import DataError

Kind = Literal["number", "flag", "date", "text"]

MISSING = ("", "?", "NA", "N/A", "n/a", "#N/A", "NaN", "nan", "NULL", "null", "<NA>")
"""Cells that mean "no value". `None` is not here: it is a level where a column holds text."""

_MISSING = frozenset(MISSING)


@dataclass(frozen=True, eq=False)
class Column:
    """One column of a table.

    Args:
        name: The heading.
        values: float64 [rows] with NaN for a missing value, or, where kind is "text", objects
            [rows] that are `str` or `None`.
        kind: "number", "flag" (0 or 1), "date" (seconds since 1970) or "text".
    """

    name: str
    values: NDArray[Any]
    kind: Kind = "number"

    @property
    def missing(self) -> NDArray[np.bool_]:
        """Where the value is missing, bool [rows]."""
        if self.kind == "text":
            return np.fromiter((v is None for v in self.values), np.bool_, len(self.values))
        return np.asarray(np.isnan(self.values), dtype=np.bool_)


@dataclass(frozen=True, eq=False)
class Table:
    """Columns of equal length under distinct names.

    Raises:
        DataError: If two columns share a name.
    """

    columns: tuple[Column, ...]

    def __post_init__(self) -> None:
        check_distinct([column.name for column in self.columns])


@dataclass(frozen=True, eq=False)
class Pixels:
    """Images as rows of pixels, which share one mean and one standard deviation.

    Args:
        values: Any numeric dtype, [rows, pixels].
        shape: Height and width, behind the number of planes where there are several, or None.
        peak: The value that becomes 1.
    """

    values: NDArray[Any]
    shape: tuple[int, ...] | None
    peak: float = 1.0


@dataclass(frozen=True, eq=False)
class Raw:
    """A data set as it was read.

    Args:
        name: The name shown to people.
        features: The inputs, all rows: the training rows, then the test rows where the source has
            a test split of its own.
        target: What is to be predicted, all rows.
        official_train: The number of training rows where the source has its own test split.
        class_names: Names of the classes 0, 1, ... where the source gives them.
        notes: What the reader did that a person should know.
    """

    name: str
    features: Table | Pixels
    target: Column
    official_train: int | None = None
    class_names: tuple[str, ...] | None = None
    notes: tuple[str, ...] = field(default=())


def text_column(name: str, cells: Iterable[object]) -> Column:
    """Make a text column; blanks, `None` and the signs in `MISSING` become missing.

    Example:
        >>> text_column("colour", [" red", "?", None, 3]).values.tolist()
        ['red', None, None, '3']
    """
    values = [None if cell is None else str(cell).strip() for cell in cells]
    kept = np.empty(len(values), dtype=object)
    kept[:] = [None if value in _MISSING else value for value in values]
    return Column(name, kept, "text")


def array_column(name: str, values: NDArray[Any]) -> Column:
    """Make a column of the kind that fits the dtype of a 1-D array.

    Raises:
        DataError: If the dtype is not bool, integer, float, date or text.

    Example:
        >>> array_column("open", np.array([True, False])).kind
        'flag'
    """
    letter = values.dtype.kind
    if letter == "b":
        return Column(name, values.astype(np.float64), "flag")
    if letter in "iuf":
        return Column(name, values.astype(np.float64), "number")
    if letter == "M":
        seconds = values.astype("datetime64[us]").astype(np.int64).astype(np.float64) / 1e6
        return Column(name, np.where(np.isnat(values), np.nan, seconds), "date")
    if letter in "US":
        return text_column(name, np.char.decode(values, "utf-8") if letter == "S" else values)
    raise DataError(f"column {name!r} must hold numbers, text or dates, got {values.dtype}")


def resolve(column: Column, rows: NDArray[np.int64], *, dates: bool = True) -> Column:
    """Read a text column as flags, numbers or dates where every value of `rows` is one.

    Only `rows` (the training part) decide, so that no test row changes what training sees; a
    value elsewhere that does not fit becomes missing. In a column of numbers, `None` is missing.

    Example:
        >>> column = text_column("size", ["1.5", "None", "2", "huge"])
        >>> resolve(column, np.array([0, 1, 2])).values.tolist()
        [1.5, nan, 2.0, nan]
        >>> resolve(column, np.array([0, 3])).kind
        'text'
    """
    if column.kind != "text":
        return column
    seen = {value for value in column.values[rows] if value is not None}
    readers: list[tuple[Kind, Any]] = [("flag", _flag), ("number", _number)]
    if dates:
        readers.append(("date", _date))
    for kind, read in readers:
        known = seen - {"None", "none"} if kind == "number" else seen
        if known and all(read(value) is not None for value in known):
            cells = {value: read(value) for value in set(column.values) if value is not None}
            numbers = [cells.get(value) for value in column.values]
            return Column(column.name, np.array(numbers, dtype=np.float64), kind)
    return column


def check_distinct(names: Sequence[str]) -> None:
    """Refuse names that occur twice.

    Raises:
        DataError: If a name occurs twice.
    """
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise DataError(f"column names must be distinct, got {name!r} twice")
        seen.add(name)


def find_name(target: str | int | None, names: Sequence[str], what: str) -> int:
    """Find the target among column names, by name or else by position from 0 (or -1, the last).

    Args:
        target: A name, a position, or a position as text.
        names: The column names.
        what: What holds the columns, for the sentence.

    Raises:
        DataError: If target is missing or not there.

    Example:
        >>> find_name("-1", ["height", "weight"], "file people.csv")
        1
    """
    if target is None:
        raise DataError(f"target must name a column of {what}: {listing(names)}")
    if isinstance(target, str) and target in names:
        return list(names).index(target)
    try:
        position = int(target)
    except ValueError:
        raise _unknown(str(target), names, what) from None
    if not -len(names) <= position < len(names):
        raise _unknown(str(target), names, what)
    return position % len(names)


def listing(names: Sequence[str], limit: int = 20) -> str:
    """Join names with commas, the first `limit` of them.

    Example:
        >>> listing(["a", "b", "c"], limit=2)
        'a, b and 1 more'
    """
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit:,} more"


def close_match(word: str, names: Sequence[str]) -> str:
    """Return "; did you mean ...?" where a name is near, else nothing."""
    lower = {name.lower(): name for name in reversed(names)}
    near = difflib.get_close_matches(word.lower(), list(lower), n=3)
    if not near:
        return ""
    return f"; did you mean {' or '.join(repr(lower[name]) for name in near)}?"


def _unknown(target: str, names: Sequence[str], what: str) -> DataError:
    hint = close_match(target, names)
    return DataError(f"target must be a column of {what} ({listing(names)}), got {target!r}{hint}")


def _flag(value: str) -> float | None:
    return {"true": 1.0, "false": 0.0}.get(value.lower())


def _number(value: str) -> float | None:
    if "_" in value:  # float() takes 1_000, which no data file means as a number
        return None
    try:
        return float(value)
    except ValueError:
        return None


def _date(value: str) -> float | None:
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()
