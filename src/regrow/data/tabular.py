"""CSV and Parquet files, read with pandas, which is imported only here."""

from __future__ import annotations

import csv
import gzip
import importlib
import io
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from regrow.data.errors import DataError
from regrow.data.table import (
    MISSING,
    Column,
    Raw,
    Table,
    array_column,
    check_distinct,
    find_name,
    text_column,
)

_SEPARATORS = ",;\t|"


def read_csv(path: Path, target: str | int | None = None) -> Raw:
    """Read a CSV file, UTF-8, plain or gzip.

    The separator is the one of comma, semicolon, tab and bar that divides the first line most.
    The first line holds the column names, unless all its cells are numbers or one is a decimal or
    negative number (but 0, 1, 2, ... are names); then columns are named by their positions.

    Args:
        path: The file.
        target: The column to predict, by name or position.

    Raises:
        DataError: If the file is empty, damaged or ragged, or target is not in it.
        ImportError: If pandas is not installed.
    """
    pandas = _pandas(path, "pandas")
    zipped = _is_zipped(path)
    first = _first_line(path, zipped)
    separator = max(_SEPARATORS, key=lambda sign: len(_cells(first, sign)))
    names = _cells(first, separator)
    headless = _is_data(names)
    notes = [] if separator == "," else [f"columns are separated by {separator!r}"]
    if headless:
        names = [str(i) for i in range(len(names))]
        notes.append("the first line holds numbers, so columns are named by position")
    check_distinct(names)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # pandas only warns where rows are longer than the names
            frame = pandas.read_csv(
                path,
                sep=separator,
                header=None if headless else 0,
                names=names,
                index_col=False,
                skipinitialspace=True,
                keep_default_na=False,
                na_values=list(MISSING),
                encoding="utf-8-sig",
                compression="gzip" if zipped else None,
                low_memory=False,
            )
    except UnicodeDecodeError as error:
        raise _not_utf8(path, error) from error
    except (OSError, EOFError, zlib.error) as error:
        raise _cut(path, error) from error
    except (ValueError, Warning) as error:
        problem = " ".join(str(error).split())
        raise DataError(f"file {path} must be a table of even rows: {problem}") from error
    return _raw(pandas, path, frame, target, tuple(notes))


def read_parquet(path: Path, target: str | int | None = None) -> Raw:
    """Read a Parquet file.

    Args:
        path: The file.
        target: The column to predict, by name or position.

    Raises:
        DataError: If the file is damaged, or target is not in it.
        ImportError: If pandas or pyarrow is not installed.
    """
    pandas = _pandas(path, "pandas")
    arrow = _pandas(path, "pyarrow")
    damaged = (ValueError, OSError, LookupError, TypeError, RuntimeError, MemoryError)
    try:
        frame = pandas.read_parquet(path, engine="pyarrow")
    except (*damaged, arrow.ArrowException) as error:
        problem = " ".join(str(error).split())
        raise DataError(f"file {path} must be a complete Parquet file: {problem}") from error
    return _raw(pandas, path, frame, target, ())


def _pandas(path: Path, module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{path.suffix} files are read with {module}, which is not installed: "
            "pip install 'regrow[tabular]'"
        ) from error


def _is_zipped(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def _cut(path: Path, error: Exception) -> DataError:
    return DataError(f"file {path} must be readable to its end: {error}")


def _not_utf8(path: Path, error: UnicodeDecodeError) -> DataError:
    return DataError(f"file {path} must be UTF-8 text: {error}")


def _first_line(path: Path, zipped: bool) -> str:
    try:
        with gzip.open(path, "rb") if zipped else path.open("rb") as binary:
            text = io.TextIOWrapper(binary, encoding="utf-8-sig")
            line = next((line for line in text if line.strip()), "")
    except UnicodeDecodeError as error:
        raise _not_utf8(path, error) from error
    except (OSError, EOFError, zlib.error) as error:
        raise _cut(path, error) from error
    if not line:
        raise DataError(f"file {path} must hold a line of column names and rows, got nothing")
    return line


def _cells(line: str, separator: str) -> list[str]:
    try:
        row = next(csv.reader([line], delimiter=separator, skipinitialspace=True))
    except csv.Error:
        return [line]
    return [cell.strip() for cell in row]


def _is_data(cells: list[str]) -> bool:
    numbers: list[float] = []
    decimal = False
    for cell in cells:
        try:
            numbers.append(float(cell))
        except ValueError:
            continue
        decimal = decimal or not cell.isdigit()
    if numbers == list(range(len(cells))):
        return False
    return decimal or len(numbers) == len(cells)


def _raw(
    pandas: Any, path: Path, frame: Any, target: str | int | None, notes: tuple[str, ...]
) -> Raw:
    names = [str(name).strip() for name in frame.columns]
    check_distinct(names)
    if len(frame) == 0 or not names:
        raise DataError(f"file {path} must hold rows, got none below the column names")
    position = find_name(target, names, f"file {path}")
    columns = [_column(pandas, name, frame.iloc[:, i]) for i, name in enumerate(names)]
    rest = tuple(column for i, column in enumerate(columns) if i != position)
    name = path.name.split(".")[0] or path.name
    return Raw(name, Table(rest), columns[position], notes=notes)


def _column(pandas: Any, name: str, series: Any) -> Column:
    types = pandas.api.types
    if types.is_bool_dtype(series.dtype) and not isinstance(series.dtype, pandas.CategoricalDtype):
        return Column(name, series.to_numpy(np.float64, na_value=np.nan), "flag")
    if types.is_datetime64_any_dtype(series.dtype):
        if getattr(series.dtype, "tz", None) is not None:
            series = series.dt.tz_convert("UTC").dt.tz_localize(None)
        return array_column(name, series.to_numpy("datetime64[us]"))
    if types.is_timedelta64_dtype(series.dtype):
        return Column(name, series.dt.total_seconds().to_numpy(np.float64))
    if types.is_numeric_dtype(series.dtype) and not types.is_complex_dtype(series.dtype):
        return Column(name, series.to_numpy(np.float64, na_value=np.nan))
    objects = series.astype(object)
    return text_column(name, objects.where(series.notna(), None))
