"""Features as numbers: everything is learned from the training rows and applied to all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from regrow.data.errors import DataError
from regrow.data.table import Column, Pixels, Table, listing, resolve

MAX_LEVELS = 50
"""Most frequent levels of a text column that get a feature of their own."""

MAX_ONE_HOT = 100_000
"""Most features that text columns may become in all."""

MAX_STANDARD = 10_000.0
"""Standardised values are held within this range; training values of fewer than 10^8 rows are."""

ID_SHARE = 0.9
"""A text column with more distinct values than this share of its values tells rows apart."""

COUNTER_NAMES = frozenset(
    ("", "id", "index", "no", "row", "row_id", "rowid", "rownames", "unnamed: 0")
)
"""Headings, in lower case, under which numbers that count the rows are a counter."""

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class NumberEncoder:
    """A column of numbers, flags or dates as one standardised feature.

    Args:
        name: The column.
        median: What a missing value becomes.
        indicator: Whether a second feature says that the value was missing.
        scale: Values are divided by it first, so that squares cannot overflow.
        mean: Mean of the divided training values.
        std: Their standard deviation.
    """

    name: str
    median: float
    indicator: bool
    scale: float
    mean: float
    std: float

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the features."""
        return (self.name, f"{self.name} (missing)") if self.indicator else (self.name,)

    def fill(self, column: Column, rows: Rows, out: NDArray[np.float32]) -> None:
        """Write the features of `rows` to `out`, float32 [rows, len(names)]."""
        values = column.values[rows]
        missing = ~np.isfinite(values)
        values[missing] = self.median
        with np.errstate(over="ignore"):
            standard = (values / self.scale - self.mean) / self.std
        out[:, 0] = np.clip(standard, -MAX_STANDARD, MAX_STANDARD)
        if self.indicator:
            out[:, 1] = missing


@dataclass(frozen=True)
class LevelEncoder:
    """A text column as one 0/1 feature for each level.

    Args:
        name: The column.
        levels: Levels with a feature of their own, sorted.
        rare: Levels of the training rows that share one feature, "(other)".
        missing: Whether a last feature says that the value was missing.
    """

    name: str
    levels: tuple[str, ...]
    rare: frozenset[str]
    missing: bool

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the features."""
        other = ("(other)",) if self.rare else ()
        missing = ("(missing)",) if self.missing else ()
        return tuple(f"{self.name}={level}" for level in (*self.levels, *other, *missing))

    def fill(self, column: Column, rows: Rows, out: NDArray[np.float32]) -> None:
        """Write the features of `rows` to `out`; a level unknown to training gives zeros."""
        place: dict[str | None, int] = {level: i for i, level in enumerate(self.levels)}
        place.update(dict.fromkeys(self.rare, len(self.levels)))
        if self.missing:
            place[None] = len(self.names) - 1
        codes = np.fromiter((place.get(v, -1) for v in column.values[rows]), np.int64, len(rows))
        known = np.flatnonzero(codes >= 0)
        out[:] = 0
        out[known, codes[known]] = 1


Encoder = NumberEncoder | LevelEncoder


@dataclass(frozen=True, eq=False)
class TableEncoder:
    """The columns of a table that are used, each with its encoder.

    Args:
        columns: The columns, read as the training rows say.
        encoders: Their encoders, same order.
        notes: What was dropped or converted.
    """

    columns: tuple[Column, ...]
    encoders: tuple[Encoder, ...]
    notes: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all features."""
        return tuple(name for encoder in self.encoders for name in encoder.names)

    def encode(self, rows: Rows) -> NDArray[np.float32]:
        """Encode `rows` as float32 [rows, features]."""
        out = np.empty((len(rows), len(self.names)), dtype=np.float32)
        start = 0
        for column, encoder in zip(self.columns, self.encoders, strict=True):
            stop = start + len(encoder.names)
            encoder.fill(column, rows, out[:, start:stop])
            start = stop
        return out


def fit_table(table: Table, train: Rows) -> TableEncoder:
    """Learn from the training rows how each column becomes features.

    - Numbers and dates (seconds) are standardised; a missing or infinite value becomes the median
      of the training rows, and a second feature says so if training has any.
    - Flags (true/false) stay 0 and 1.
    - Text becomes 0/1 features: the 50 most frequent levels, "(other)", "(missing)".
    - Dropped with a note: columns that are constant or empty in training, text that tells the rows
      apart, and a counter of the rows.

    Raises:
        DataError: If no column is left, or text columns have too many levels.

    Example:
        >>> table = Table((Column("size", np.array([1.0, 3.0, np.nan, 5.0])),))
        >>> encoder = fit_table(table, np.array([0, 1, 2]))
        >>> encoder.names
        ('size', 'size (missing)')
        >>> encoder.encode(np.array([1, 3])).round(2).tolist()
        [[1.2200000286102295, 0.0], [3.6700000762939453, 0.0]]
    """
    columns: list[Column] = []
    encoders: list[Encoder] = []
    remarks: dict[str, list[str]] = {}
    for original in table.columns:
        column = resolve(original, train)
        reason = _useless(column, train)
        if reason:
            remarks.setdefault(reason, []).append(column.name)
            continue
        columns.append(column)
        encoders.append(_fit_text(column, train) if column.kind == "text" else _fit(column, train))
        for remark in _remarks(column, encoders[-1]):
            remarks.setdefault(remark, []).append(column.name)
    _check(table, encoders, remarks)
    notes = tuple(f"{remark}: {listing(names, 5)}" for remark, names in remarks.items())
    return TableEncoder(tuple(columns), tuple(encoders), notes)


@dataclass(frozen=True, eq=False)
class PixelEncoder:
    """Pixels scaled to [0, 1], then by one mean and one deviation for all, so blanks stay equal.

    Args:
        pixels: The images.
        mean: Mean of all scaled training pixels.
        std: Their standard deviation.
    """

    pixels: Pixels
    mean: float
    std: float
    notes: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the pixels: "row,column" behind the plane, or a number where there is none."""
        n_pixels = self.pixels.values.shape[1]
        if self.pixels.shape is None:
            return tuple(f"pixel {i}" for i in range(n_pixels))
        places = np.ndindex(*self.pixels.shape)
        return tuple(f"pixel {','.join(map(str, place))}" for place in places)

    def encode(self, rows: Rows) -> NDArray[np.float32]:
        """Encode `rows` as float32 [rows, pixels]."""
        out = _scaled(self.pixels, rows)
        out -= np.float32(self.mean)
        out /= np.float32(self.std)
        return out


def fit_pixels(pixels: Pixels, train: Rows) -> PixelEncoder:
    """Learn the mean and the deviation of all training pixels.

    Raises:
        DataError: If pixels are not finite or all training pixels are equal.

    Example:
        >>> pixels = Pixels(np.array([[0, 255], [255, 0], [255, 255]], np.uint8), (1, 2), 255.0)
        >>> fit_pixels(pixels, np.array([0, 1])).encode(np.array([0, 2])).tolist()
        [[-1.0, 1.0], [1.0, 1.0]]
    """
    scaled = _scaled(pixels, train)
    if scaled.size == 0 or float(scaled.min()) == float(scaled.max()):
        raise DataError("the images must hold pixels that differ, got one value in all")
    mean = float(scaled.mean(dtype=np.float64))
    std = float(np.sqrt(np.square(scaled - np.float32(mean)).mean(dtype=np.float64)))
    return PixelEncoder(pixels, mean, std)


def _scaled(pixels: Pixels, rows: Rows) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        out: NDArray[np.float32] = pixels.values[rows].astype(np.float32)
    out /= np.float32(pixels.peak)
    if pixels.values.dtype.kind == "f" and not np.isfinite(out).all():
        raise DataError("pixels must be finite float32 numbers, got NaN or an infinite value")
    return out


def _useless(column: Column, train: Rows) -> str:
    if column.kind != "text":
        values = column.values[train]
        finite = values[np.isfinite(values)]
        if len(finite) == 0:
            return "dropped without values in training"
        if len(finite) == len(values) and _spread(finite) == 0:
            return "dropped as constant in training"
        counter = column.kind == "number" and column.name.lower() in COUNTER_NAMES
        if counter and np.unique(values - train).size == 1 and values[0] - train[0] in (0, 1):
            return "dropped as a counter of the rows"
        return ""
    known = [value for value in column.values[train] if value is not None]
    distinct = len(set(known))
    if distinct == 0:
        return "dropped without values in training"
    if distinct == 1 and len(known) == len(train):
        return "dropped as constant in training"
    if distinct > 1 and distinct > ID_SHARE * len(known):
        return "dropped as text that differs from row to row"
    return ""


def _spread(finite: NDArray[np.float64]) -> float:
    scale = float(np.abs(finite).max()) or 1.0
    return 0.0 if finite.min() == finite.max() else float((finite / scale).std())


def _fit(column: Column, train: Rows) -> NumberEncoder:
    values = column.values[train]
    finite = np.isfinite(values)
    indicator = not finite.all()
    median = float(np.median(values[finite] / 2) * 2)  # halved: the mean of two cannot overflow
    if column.kind == "flag":
        return NumberEncoder(column.name, median, indicator, 1.0, 0.0, 1.0)
    values[~finite] = median
    scale = float(np.abs(values).max()) or 1.0
    divided = values / scale
    # Equal values with gaps between them: only the indicator tells rows apart.
    std = float(divided.std()) or 1.0
    return NumberEncoder(column.name, median, indicator, scale, float(divided.mean()), std)


def _fit_text(column: Column, train: Rows) -> LevelEncoder:
    counts = Counter(value for value in column.values[train] if value is not None)
    ranked = sorted(counts, key=lambda level: (-counts[level], level))
    missing = sum(counts.values()) < len(train)
    levels, rare = tuple(sorted(ranked[:MAX_LEVELS])), frozenset(ranked[MAX_LEVELS:])
    return LevelEncoder(column.name, levels, rare, missing)


def _remarks(column: Column, encoder: Encoder) -> Iterator[str]:
    if isinstance(encoder, LevelEncoder):
        if encoder.rare:
            yield f"levels beyond the {MAX_LEVELS} most frequent joined"
        return
    if column.kind == "date":
        yield "dates read as seconds"
    if encoder.indicator:
        yield "missing values set to the training median and marked"
    if np.isinf(column.values).any():
        yield "infinite values read as missing"


def _check(table: Table, encoders: Sequence[Encoder], remarks: dict[str, list[str]]) -> None:
    if not encoders:
        reasons = "; ".join(f"{key}: {listing(names, 5)}" for key, names in remarks.items())
        raise DataError(
            "the data must have at least one usable feature column besides the target, got "
            f"{len(table.columns)}{f' ({reasons})' if reasons else ''}"
        )
    one_hot = [encoder for encoder in encoders if isinstance(encoder, LevelEncoder)]
    n_features = sum(len(encoder.names) for encoder in one_hot)
    if n_features > MAX_ONE_HOT:
        raise DataError(
            f"text columns must give at most {MAX_ONE_HOT:,} features, got {n_features:,} from "
            f"{len(one_hot):,} columns"
        )
