"""Rows of a table as scaled batches; what is stored sparse is made dense a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

Scale = Literal["standard", "minmax", "global"] | None

SCALES = ("standard", "minmax", "global", None)


class Rows:
    """A table ``[rows, features]`` that hands out float32 batches, shifted and scaled.

    Args:
        table: NumPy array, or SciPy sparse array or matrix; it is not copied where it is float32.
        scale: ``standard``: mean 0 and standard deviation 1 of every feature; ``minmax``: every
            feature in [0, 1]; ``global``: one mean and one standard deviation for the whole table,
            so that features keep their differences in spread; None: as it is.

    Attributes:
        sparse: Whether the table is stored sparse.

    Example:
        >>> rows = Rows(np.array([[0.0, 5.0], [2.0, 5.0]]), scale="minmax")
        >>> rows.batch(torch.tensor([1, 0]))
        tensor([[1., 0.],
                [0., 0.]])
        >>> rows.constant
        array([False,  True])
    """

    def __init__(self, table: Any, scale: Scale) -> None:
        self.sparse = sparse.issparse(table)
        if self.sparse:
            self._table = sparse.csr_array(table).astype(np.float32)
        else:
            self._table = torch.from_numpy(np.require(table, np.float32, ["C", "W"]))
        self._source = table
        self._plain = scale is None
        if not self._plain:
            shift, factor = _scaling(table, scale)
            self._shift = torch.from_numpy(shift.astype(np.float32))
            self._factor = torch.from_numpy(factor.astype(np.float32))

    def __len__(self) -> int:
        return self.shape[0]

    @cached_property
    def constant(self) -> NDArray[np.bool_]:
        """Features with one value only, bool ``[features]``."""
        low, high = _extremes(self._source)
        return np.asarray(low == high)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and features."""
        rows, features = self._table.shape
        return int(rows), int(features)

    def batch(self, chosen: Tensor) -> Tensor:
        """The rows of these numbers, float32 ``[chosen, features]``."""
        if self.sparse:
            found = torch.from_numpy(self._table[chosen.numpy()].toarray())
        else:
            found = self._table[chosen]
        return found if self._plain else (found - self._shift).mul_(self._factor)


def batches(
    rows: int, size: int, generator: torch.Generator, *, shuffle: bool = True, rest: bool = False
) -> Iterator[Tensor]:
    """Numbers of the rows of each batch of one epoch.

    Where there are fewer rows than a batch has, all of them are one.

    Args:
        rows: How many there are.
        size: Rows of a batch.
        generator: Of their order.
        shuffle: Whether they come in random order.
        rest: Whether what is left over in the end is a smaller batch, or left out.

    Example:
        >>> sizes = [len(batch) for batch in batches(10, 4, torch.Generator())]
        >>> sizes
        [4, 4]
        >>> list(batches(3, 2, torch.Generator(), shuffle=False, rest=True))
        [tensor([0, 1]), tensor([2])]
    """
    size = min(size, rows)
    order = torch.randperm(rows, generator=generator) if shuffle else torch.arange(rows)
    for start in range(0, rows if rest else rows - size + 1, size):
        yield order[start : start + size]


def _extremes(table: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    low, high = table.min(axis=0), table.max(axis=0)
    if sparse.issparse(table):
        low, high = low.toarray(), high.toarray()
    return np.ravel(low).astype(np.float64), np.ravel(high).astype(np.float64)


def _scaling(table: Any, scale: Scale) -> tuple[NDArray[Any], NDArray[Any]]:
    """What to subtract from each feature, and what to multiply with then."""
    if scale == "minmax":
        low, high = _extremes(table)
        return low, _inverse(high - low)
    mean = np.ravel(table.mean(axis=0, dtype=np.float64))
    squares = table.multiply(table) if sparse.issparse(table) else np.square(table, dtype=float)
    square = np.ravel(squares.mean(axis=0, dtype=np.float64))
    if scale == "global":
        variance = max(0.0, float(square.mean() - mean.mean() ** 2))
        return np.full_like(mean, mean.mean()), _inverse(np.full_like(mean, np.sqrt(variance)))
    return mean, _inverse(np.sqrt(np.maximum(0.0, square - mean**2)))


def _inverse(spread: NDArray[Any]) -> NDArray[Any]:
    """One over each, and one over 1 for what has no spread."""
    return 1 / np.where(spread > 0, spread, 1.0)
