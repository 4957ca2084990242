"""NumPy archives: x and y, with or without a test split, or one array a column."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

from regrow.data.errors import DataError
from regrow.data.table import (
    Column,
    Pixels,
    Raw,
    Table,
    array_column,
    close_match,
    find_name,
    listing,
    text_column,
)

_OTHER = frozenset(
    ("x", "X", "x_train", "X_train", "x_test", "X_test", "feature_names", "classes", "target")
)
_DAMAGED = (  # what zipfile and numpy raise on broken bytes; RuntimeError on false flags
    OSError,
    EOFError,
    zlib.error,
    zipfile.BadZipFile,
    struct.error,
    MemoryError,
    RuntimeError,
    LookupError,
    ValueError,
)


def read_npz(path: Path, target: str | int | None = None) -> Raw:
    """Read an npz file; nothing in it is ever unpickled.

    Three forms: `x_train`, `y_train`, `x_test`, `y_test`; `x`, `y`; or one 1-D array a column, of
    which `target` names one. Capital X and Y will do. x is [rows, features], or [rows, height,
    width] and more for images. Understood besides: `feature_names`, `classes` (names of the labels
    0, 1, ...), `target` (the name of y), and `categories_NAME`, the levels behind the codes of the
    feature NAME.

    Args:
        path: The file.
        target: The array of labels where it is not y; without y, a column of x.

    Raises:
        DataError: If the file is damaged, or the arrays are not there or do not fit.
    """
    with _Archive(path) as archive:
        if archive.find("x_train") is not None:
            return _split(archive, target)
        if archive.find("x") is not None:
            return _whole(archive, target)
        return _columns(archive, target)


class _Archive:
    """An npz file that answers in sentences."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stream = path.open("rb")

    def __enter__(self) -> _Archive:
        try:
            file = np.load(self._stream, allow_pickle=False)
        except _DAMAGED as error:
            self._stream.close()
            raise DataError(f"file {self.path} must be a complete npz file: {error}") from error
        if not isinstance(file, NpzFile):
            self._stream.close()
            raise DataError(f"file {self.path} must be an npz file, got a single array")
        self._file = file
        self.keys: tuple[str, ...] = tuple(file.files)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        self._stream.close()

    def find(self, key: str) -> str | None:
        """Find a key, with its first letter in either case."""
        return next((k for k in (key, key[:1].upper() + key[1:]) if k in self.keys), None)

    def get(self, key: str) -> NDArray[Any]:
        """Load an array."""
        found = self.find(key)
        if found is None:
            raise DataError(
                f"file {self.path} must hold the array {key!r}, got {listing(self.keys)}"
            )
        try:
            return np.asarray(self._file[found])
        except ValueError as error:
            if "allow_pickle" not in str(error):
                raise self._broken(found, error) from error
            raise DataError(
                f"array {found!r} of {self.path} must hold numbers or text, got Python objects, "
                "which are never unpickled"
            ) from error
        except _DAMAGED as error:
            raise self._broken(found, error) from error

    def names(self, key: str) -> tuple[str, ...] | None:
        """Load a list of names where there is one."""
        if self.find(key) is None:
            return None
        return tuple(str(name) for name in self.get(key).ravel())

    def _broken(self, key: str, error: BaseException) -> DataError:
        return DataError(f"array {key!r} of {self.path} must be complete: {error}")


def _split(archive: _Archive, target: str | int | None) -> Raw:
    key = _label_key(archive, target, "y_train")
    test_key = key.replace("_train", "_test") if "_train" in key else "y_test"
    train, test = archive.get("x_train"), archive.get("x_test")
    train_labels = _labels(archive, key, len(train))
    test_labels = _labels(archive, test_key, len(test))
    if train.shape[1:] != test.shape[1:]:
        raise DataError(
            f"x_test of {archive.path} must have the shape of x_train but for the rows, "
            f"{train.shape[1:]}, got {test.shape[1:]}"
        )
    labels = np.concatenate([train_labels, test_labels])
    return Raw(
        archive.path.stem,
        _features(archive, np.concatenate([train, test])),
        array_column(_target_name(archive, key), labels),
        official_train=len(train),
        class_names=archive.names("classes"),
    )


def _whole(archive: _Archive, target: str | int | None) -> Raw:
    x = archive.get("x")
    named = target is not None and str(target) in archive.keys
    if x.ndim == 1 and named:
        return _columns(archive, target)
    features = _features(archive, x)
    if archive.find("y") is None and not named and isinstance(features, Table):
        return _take(archive, features.columns, target)
    key = _label_key(archive, target, "y")
    labels = array_column(_target_name(archive, key), _labels(archive, key, len(x)))
    return Raw(archive.path.stem, features, labels, class_names=archive.names("classes"))


def _columns(archive: _Archive, target: str | int | None) -> Raw:
    if target is None:
        raise DataError(
            f"file {archive.path} must hold x and y, x_train, y_train, x_test and y_test, or one "
            f"array a column with target naming one of them, got {listing(archive.keys)}"
        )
    arrays = {key: archive.get(key) for key in archive.keys}
    rows = len(arrays[archive.keys[find_name(target, archive.keys, _what(archive))]].ravel())
    for key, array in arrays.items():
        if array.shape != (rows,):
            raise DataError(
                f"array {key!r} of {archive.path} must have the shape ({rows},) of the target, "
                f"got {array.shape}"
            )
    columns = [array_column(key, array) for key, array in arrays.items()]
    return _take(archive, columns, target)


def _take(archive: _Archive, columns: Sequence[Column], target: str | int | None) -> Raw:
    position = find_name(target, [column.name for column in columns], _what(archive))
    rest = (column for i, column in enumerate(columns) if i != position)
    return Raw(archive.path.stem, Table(tuple(rest)), columns[position])


def _features(archive: _Archive, x: NDArray[Any]) -> Table | Pixels:
    if x.ndim == 0 or x.size == 0:
        raise DataError(f"x of {archive.path} must have rows and features, got shape {x.shape}")
    if x.ndim == 1:
        x = x[:, None]
    if x.ndim > 2:
        return _pixels(archive, x)
    names = archive.names("feature_names") or tuple(f"x{i}" for i in range(x.shape[1]))
    if len(names) != x.shape[1]:
        raise DataError(
            f"feature_names of {archive.path} must be as many as the features, {x.shape[1]:,}, "
            f"got {len(names):,}"
        )
    columns = (array_column(name, x[:, i]) for i, name in enumerate(names))
    return Table(tuple(_levels(archive, column) for column in columns))


def _pixels(archive: _Archive, x: NDArray[Any]) -> Pixels:
    if x.dtype.kind not in "buif":
        raise DataError(f"images in {archive.path} must hold numbers, got {x.dtype}")
    if x.ndim == 4 and x.shape[3] == 3 != x.shape[1]:  # planes come first
        x = np.moveaxis(x, 3, 1)
    plane = tuple(size for size in x.shape[1:] if size > 1)
    shape = plane if len(plane) == 2 or (len(plane) == 3 == plane[0]) else None
    peak = 255.0 if x.dtype == np.uint8 else 1.0
    return Pixels(x.reshape(len(x), -1), shape, peak)


def _levels(archive: _Archive, column: Column) -> Column:
    key = f"categories_{column.name.replace('-', '_')}"
    if key not in archive.keys or column.kind != "number":
        return column
    levels = archive.names(key) or ()
    codes = column.values
    valid = (codes >= 0) & (codes < len(levels)) & (codes == np.floor(codes))
    cells = [levels[int(c)] if ok else None for c, ok in zip(codes, valid, strict=True)]
    return text_column(column.name, cells)


def _label_key(archive: _Archive, target: str | int | None, default: str) -> str:
    if target is None or str(target) in ("y", _target_name(archive, "")):
        return default
    labels = [
        key for key in archive.keys if key not in _OTHER and not key.startswith("categories_")
    ]
    if str(target) in labels:
        return str(target)
    known = (*labels, *(archive.names("target") or ()))
    hint = close_match(str(target), known)
    raise DataError(
        f"target must be an array of labels in file {archive.path} ({listing(known)}), "
        f"got {target!r}{hint}"
    )


def _labels(archive: _Archive, key: str, rows: int) -> NDArray[Any]:
    labels = archive.get(key)
    if labels.shape not in ((rows,), (rows, 1)):
        raise DataError(
            f"array {key!r} of {archive.path} must have the shape ({rows},), one label a row, "
            f"got {labels.shape}"
        )
    return labels.ravel()


def _target_name(archive: _Archive, key: str) -> str:
    names = archive.names("target") if "target" in archive.keys else None
    return names[0] if names and len(names) == 1 else key


def _what(archive: _Archive) -> str:
    return f"file {archive.path}"
