"""A table to select features from: numbers, names, and labels where there are some."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regrow.data.errors import DataError
from regrow.data.sources import read
from regrow.data.table import Column, Pixels, Raw, listing, resolve


@dataclass(frozen=True, eq=False)
class Features:
    """A table of numbers.

    Attributes:
        name: Shown to people.
        table: float32 ``[rows, features]``, without missing values.
        names: One a feature.
        labels: ``[rows]``, or None.
        label_name: What the labels are called, or None.
        image: Height and width (behind planes, where there are several) where features are pixels.
    """

    name: str
    table: NDArray[np.float32]
    names: tuple[str, ...]
    labels: NDArray[Any] | None
    label_name: str | None
    image: tuple[int, ...] | None


def read_features(
    source: str,
    target: str | int | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    *,
    fill: bool = False,
) -> Features:
    """Read a table to select from.

    Args:
        source: A name or path as ``regrow train`` takes it.
        target: Column of the labels. Without one, a CSV or Parquet file has none, and all its
            columns are features; other files and named data sets have their own.
        data_dir: Folder of the data.
        fill: Whether missing values become the mean of their column; else they are refused.

    Raises:
        DataError: A column of text, a missing value, or nothing but constant columns.
        FileNotFoundError: The file is not there.

    Example:
        >>> features = read_features("digits")
        >>> features.table.shape, features.image, features.names[:2]
        ((1797, 64), (8, 8), ('pixel 0', 'pixel 1'))
    """
    unlabelled = target is None and source.lower().endswith((".csv", ".csv.gz", ".parquet"))
    raw = read(source, 0 if unlabelled else target, data_dir=data_dir)
    if isinstance(raw.features, Pixels):
        table = raw.features.values.astype(np.float32)
        names = tuple(f"pixel {i}" for i in range(table.shape[1]))
        image = raw.features.shape
    else:
        columns = (raw.target, *raw.features.columns) if unlabelled else raw.features.columns
        names, image = tuple(column.name for column in columns), None
        table = _numbers(source, columns, fill)
    if not (table.min(axis=0) < table.max(axis=0)).any():
        raise DataError(f"features of {source} must vary, got constant columns only")
    if unlabelled:
        return Features(raw.name, table, names, None, None, image)
    return Features(raw.name, table, names, _labels(source, raw), raw.target.name, image)


def _numbers(source: str, columns: tuple[Column, ...], fill: bool) -> NDArray[np.float32]:
    if not columns:
        raise DataError(f"{source} must hold features beside the target, got none")
    rows = np.arange(len(columns[0].values))
    resolved = [resolve(column, rows) for column in columns]
    texts = [column.name for column in resolved if column.kind == "text"]
    if texts:
        raise DataError(
            f"features of {source} must be numbers, got text in {listing(texts)}; encode "
            f"or remove these columns"
        )
    gaps = [column.name for column in resolved if column.missing.any()]
    if gaps and not fill:
        raise DataError(
            f"features of {source} must be complete, got missing values in {listing(gaps)}; fill "
            f"or remove them"
        )
    table = np.stack([column.values.astype(np.float32) for column in resolved], axis=1)
    if gaps:
        known = ~np.isnan(table)
        means = table.sum(axis=0, where=known) / np.maximum(known.sum(axis=0), 1)
        table = np.where(known, table, means)
    return table


def _labels(source: str, raw: Raw) -> NDArray[Any]:
    column = resolve(raw.target, np.arange(len(raw.target.values)))
    if column.missing.any():
        raise DataError(
            f"target {column.name!r} of {source} must be complete, got "
            f"{int(column.missing.sum()):,} missing values"
        )
    if column.kind == "text":
        return np.asarray(column.values, dtype=str)
    if raw.class_names and column.values.max() < len(raw.class_names):
        return np.array([raw.class_names[int(number)] for number in column.values])
    return np.asarray(column.values)
