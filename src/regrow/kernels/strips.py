"""The dense product of a sparse weight on a CPU, a strip of rows at a time.

A strip is made dense, multiplied, and forgotten, and so is the gradient of one: both stay in a
cache, and the dense weight of a large layer never exists as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from regrow.kernels import native

# A strip should stay in the cache; but each is multiplied by the whole batch, which the product
# reorders every time: that is little work only beside this many rows.
_STRIP_BYTES = 2**20
_LEAST_ROWS = 256

# From this density on, a bit for each position costs little beside the values, and is read faster
# than indices are.
_MARKED_DENSITY = 0.25

_marks = WeakIdKeyDictionary()


def forward(
    x: Tensor, values: Tensor, bias: Tensor | None, indptr: Tensor, indices: Tensor
) -> Tensor:
    """Apply the weight: input ``[batch, in]``, values ``[nnz]``, result ``[batch, out]``.

    Args:
        x: Float32 or float64, like all others.
        values: One value per connection.
        bias: ``[out]`` or None.
        indptr: Row pointers, int64 ``[out + 1]``.
        indices: Column of each connection, int32 ``[nnz]``.
    """
    y = x.new_empty(x.shape[0], indptr.numel() - 1)
    for rows, strip in _Strips(x, values, indptr, indices):
        part = y[:, rows]
        if bias is None:
            torch.mm(x, strip.t(), out=part)
        else:
            torch.addmm(bias[rows], x, strip.t(), out=part)
    return y


def backward(
    grad: Tensor,
    x: Tensor,
    values: Tensor,
    indptr: Tensor,
    indices: Tensor,
    need_x: bool,
    need_values: bool,
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of input and values, of those that are wanted.

    Args:
        grad: Gradient of the result ``[batch, out]``.
        x: Input of the forward pass ``[batch, in]``.
        values: As in `forward`.
        indptr: As in `forward`.
        indices: As in `forward`.
        need_x: Whether the gradient of the input is wanted.
        need_values: Whether the gradient of the values is wanted.
    """
    dx = torch.zeros_like(x) if need_x else None
    dvalues = torch.empty_like(values) if need_values else None
    strips = _Strips(x, values, indptr, indices)
    for rows, strip in strips if need_x else strips.empty():
        part = grad[:, rows]
        if dx is not None:
            dx.addmm_(part, strip)
        if dvalues is not None:
            torch.mm(part.t(), x, out=strip)
            strips.take(strip, rows, dvalues)
    return dx, dvalues


class _Strips:
    """Strips of the dense form of a weight, one after another in the same memory."""

    def __init__(self, x: Tensor, values: Tensor, indptr: Tensor, indices: Tensor) -> None:
        self._values, self._indptr, self._indices = values, indptr, indices
        self._rows, self._columns = indptr.numel() - 1, x.shape[1]
        wanted = _STRIP_BYTES // max(1, self._columns * values.itemsize)
        self._height = min(self._rows, max(_LEAST_ROWS, wanted))
        self._room = x.new_empty(self._height, self._columns)
        positions = self._rows * self._columns
        self._marks = (
            _marks_of(indptr, indices, self._columns)
            if values.numel() >= _MARKED_DENSITY * positions
            else None
        )

    def empty(self) -> Iterator[tuple[slice, Tensor]]:
        """Rows of each strip, and room for it."""
        for first in range(0, self._rows, self._height):
            last = min(self._rows, first + self._height)
            yield slice(first, last), self._room[: last - first]

    def __iter__(self) -> Iterator[tuple[slice, Tensor]]:
        """Rows of each strip, and the strip ``[rows, in]``."""
        for rows, strip in self.empty():
            starts = self._indptr[rows.start : rows.stop + 1]
            if self._marks is None:
                native.scatter(self._values, starts, self._indices, self._columns, out=strip)
            else:
                native.expand(self._values, starts, self._marks[rows], out=strip)
            yield rows, strip

    def take(self, strip: Tensor, rows: slice, values: Tensor) -> None:
        """Write what a strip has at its connections to their values."""
        starts = self._indptr[rows.start : rows.stop + 1]
        if self._marks is None:
            native.gather(strip, starts, self._indices, out=values)
        else:
            native.compress(strip, starts, self._marks[rows], out=values)


def _marks_of(indptr: Tensor, indices: Tensor, columns: int) -> Tensor:
    """The marks of a topology, formed once in its life."""
    found: Tensor | None = _marks.get(indptr)
    if found is None:
        found = native.mark(indptr, indices, columns)
        _marks[indptr] = found
    return found
