"""MATLAB files with a matrix of features and a column of labels, read with SciPy."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regrow.data.errors import DataError
from regrow.data.table import Raw, Table, array_column, close_match, listing

_FEATURES = ("X", "x", "fea", "data")
_LABELS = ("Y", "y", "gnd", "label", "labels")


def read_mat(path: Path, target: str | int | None = None) -> Raw:
    """Read a .mat file of MATLAB 4 to 7.2, as the collections of feature selection hold them.

    Args:
        path: The file. Its features are called X, x, fea or data, ``[rows, features]``.
        target: The variable of the labels; by default Y, y, gnd, label or labels.

    Raises:
        DataError: The file is damaged, or the matrices are not there or do not fit.
        ImportError: SciPy is not installed.
    """
    held = _variables(path)
    x = _matrix(path, held[_name(path, held, _FEATURES, None, "features")])
    key = _name(path, held, _LABELS, target, "labels")
    labels = np.asarray(held[key]).ravel()
    if labels.shape != (len(x),):
        raise DataError(
            f"labels {key!r} of {path} must be one a row, {len(x):,}, got {labels.shape[0]:,}"
        )
    columns = tuple(array_column(f"x{i}", x[:, i]) for i in range(x.shape[1]))
    return Raw(path.stem, Table(columns), array_column(key, labels))


def _variables(path: Path) -> dict[str, Any]:
    try:
        reader = importlib.import_module("scipy.io")
    except ModuleNotFoundError as error:
        raise ImportError(f"reading {path} needs SciPy: pip install 'regrow[selection]'") from error
    try:
        held = reader.loadmat(path)
    except (ValueError, TypeError, OSError, NotImplementedError, LookupError) as error:
        problem = " ".join(str(error).split())
        raise DataError(f"file {path} must be a MATLAB file up to 7.2: {problem}") from error
    return {name: value for name, value in held.items() if not name.startswith("__")}


def _name(
    path: Path, held: dict[str, Any], usual: tuple[str, ...], asked: str | int | None, what: str
) -> str:
    if asked is not None:
        if str(asked) in held:
            return str(asked)
        hint = close_match(str(asked), tuple(held))
        raise DataError(
            f"target must be a variable of {path} ({listing(tuple(held))}), got {asked!r}{hint}"
        )
    found = next((name for name in usual if name in held), None)
    if found is None:
        raise DataError(
            f"file {path} must hold its {what} as {listing(usual)}, got {listing(tuple(held))}"
        )
    return found


def _matrix(path: Path, x: Any) -> NDArray[Any]:
    matrix: NDArray[Any] = np.asarray(x.toarray() if hasattr(x, "toarray") else x)
    if matrix.ndim != 2 or matrix.dtype.kind not in "buif":
        raise DataError(
            f"features of {path} must be a matrix of numbers, "
            f"got {matrix.dtype} of shape {matrix.shape}"
        )
    return matrix
