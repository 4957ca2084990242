"""Data sets from arrays in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from regrow.data.dataset import Dataset, build
from regrow.data.errors import DataError
from regrow.data.splits import SplitOptions
from regrow.data.table import Column, Raw, Table


def from_arrays(
    x: NDArray[Any],
    y: NDArray[Any],
    *,
    name: str = "arrays",
    task: str = "classification",
    seed: int = 0,
    validation: float = 0.1,
    test: float = 0.2,
    limit_train: int | None = None,
    limit_test: int | None = None,
) -> Dataset:
    """Split a table of numbers and standardise its features, as `load` does with a file.

    Args:
        x: Features, numbers ``[rows, features]``.
        y: Labels or numbers ``[rows]``.
        name: Shown to people.
        task: "auto", "classification" or "regression".
        seed: Starts the generator of the splits, at least 0.
        validation: Fraction of the training rows held out to choose by, in [0, 1).
        test: Fraction of all rows held out, in (0, 1).
        limit_train: Keep at most this many training rows, validation included, at least 10.
        limit_test: Keep at most this many test rows.

    Raises:
        DataError: If the arrays do not fit, or cannot be trained on.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> x = rng.standard_normal((100, 3))
        >>> data = from_arrays(x, (x[:, 0] > 0).astype(int), name="toy")
        >>> data.x_train.shape, data.n_classes
        (torch.Size([72, 3]), 2)
    """
    x, y = np.asarray(x), np.asarray(y)
    if x.ndim != 2 or y.shape != x.shape[:1]:
        raise DataError(
            f"arrays must be [rows, features] and [rows], got shapes {x.shape} and {y.shape}"
        )
    columns = tuple(Column(f"x{i}", x[:, i].astype(np.float64)) for i in range(x.shape[1]))
    raw = Raw(name, Table(columns), Column("y", y.astype(np.float64)))
    options = SplitOptions(seed, validation, test, limit_train, limit_test)
    return build(raw, task=task, options=options)
