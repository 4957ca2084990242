"""Weight matrices: dense, and sparse with a gradient on the support only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from regrow.matrixform.parameter import Array, Parameter


class Weight(Protocol):
    """A matrix ``W`` of shape (K, D), of which only ``parameter`` is learned.

    Each product takes other values in the place of the learned ones where they are given, as the
    dropout of weights does.
    """

    shape: tuple[int, int]
    parameter: Parameter

    def forward(self, x: Array, values: Array | None = None) -> Array:
        """``X W^T``: (N, D) to (N, K)."""
        ...

    def backward(self, dy: Array, values: Array | None = None) -> Array:
        """``DY W``: (N, K) to (N, D)."""
        ...

    def gradient(self, dy: Array, x: Array) -> Array:
        """``DY^T X`` as far as it is learned, in the shape of the parameter."""
        ...


class DenseWeight:
    """A full matrix.

    Args:
        matrix: Shape (K, D).

    Example:
        >>> DenseWeight([[1.0, 2.0], [3.0, 4.0]]).forward(np.array([[1.0, 1.0]]))
        array([[3., 7.]])
    """

    def __init__(self, matrix: ArrayLike) -> None:
        self.parameter = Parameter(matrix)
        self.shape = _matrix_shape("a dense weight", self.parameter.value.shape)

    def forward(self, x: Array, values: Array | None = None) -> Array:
        """``X W^T``: (N, D) to (N, K)."""
        product: Array = x @ self._matrix(values).T
        return product

    def backward(self, dy: Array, values: Array | None = None) -> Array:
        """``DY W``: (N, K) to (N, D)."""
        product: Array = dy @ self._matrix(values)
        return product

    def gradient(self, dy: Array, x: Array) -> Array:
        """``DY^T X``, shape (K, D)."""
        product: Array = dy.T @ x
        return product

    def _matrix(self, values: Array | None) -> Array:
        return self.parameter.value if values is None else values


class SparseWeight:
    """A matrix of which only the entries of a support are stored and learned.

    As in the C++ library of the paper, products are those of dense blocks of ``max(4, K / 10)``
    rows: filled in for the two products with ``W``, and read at the support for the gradient. So
    no more than a tenth of the dense matrix exists at a time.

    Args:
        shape: (K, D).
        positions: Flat positions of the support ``[nnz]``, rising.
        values: One number per position ``[nnz]``.

    Raises:
        ValueError: Positions and values differ in number, or positions do not rise within the
            shape.

    Example:
        >>> weight = SparseWeight((2, 3), [0, 5], [10.0, 20.0])
        >>> weight.forward(np.array([[1.0, 2.0, 3.0]]))
        array([[10., 60.]])
        >>> weight.gradient(np.array([[1.0, 2.0]]), np.array([[1.0, 2.0, 3.0]]))
        array([1., 6.])
    """

    def __init__(self, shape: tuple[int, int], positions: ArrayLike, values: ArrayLike) -> None:
        self.shape = _matrix_shape("a sparse weight", shape)
        self.parameter = Parameter(values)
        self.positions = np.asarray(positions, dtype=np.int64)
        self._check()

    @property
    def nnz(self) -> int:
        """Number of stored entries."""
        return self.positions.size

    def matrix(self, values: Array | None = None) -> Array:
        """The dense matrix (K, D), zero outside the support."""
        values = self.parameter.value if values is None else values
        matrix = np.zeros(self.shape[0] * self.shape[1], dtype=values.dtype)
        matrix[self.positions] = values
        return matrix.reshape(self.shape)

    def forward(self, x: Array, values: Array | None = None) -> Array:
        """``X W^T``: (N, D) to (N, K)."""
        parts = [x @ block.T for _, block in self._blocks(values)]
        return np.concatenate(parts, axis=1)

    def backward(self, dy: Array, values: Array | None = None) -> Array:
        """``DY W``: (N, K) to (N, D)."""
        total = np.zeros((dy.shape[0], self.shape[1]), dtype=dy.dtype)
        for rows, block in self._blocks(values):
            total = total + dy[:, rows] @ block
        return total

    def gradient(self, dy: Array, x: Array) -> Array:
        """The entries of ``DY^T X`` at the support ``[nnz]``."""
        parts = [
            (dy[:, rows].T @ x).reshape(-1)[own] for rows, _, own in self._supports() if own.size
        ]
        return np.concatenate([np.empty(0, dtype=x.dtype), *parts])

    def _blocks(self, values: Array | None) -> Iterator[tuple[slice, Array]]:
        values = self.parameter.value if values is None else values
        for rows, stored, own in self._supports():
            block = np.zeros((rows.stop - rows.start) * self.shape[1], dtype=values.dtype)
            block[own] = values[stored]
            yield rows, block.reshape(-1, self.shape[1])

    def _supports(self) -> Iterator[tuple[slice, slice, NDArray[np.int64]]]:
        """Blocks of rows, which entries are theirs, and where these stand within the block."""
        height = max(4, self.shape[0] // 10)
        for start in range(0, self.shape[0], height):
            rows = slice(start, min(start + height, self.shape[0]))
            edges = np.array([rows.start, rows.stop]) * self.shape[1]
            first, last = np.searchsorted(self.positions, edges)
            yield rows, slice(int(first), int(last)), self.positions[first:last] - edges[0]

    def _check(self) -> None:
        positions, values = self.positions, self.parameter.value
        if positions.ndim != 1 or positions.shape != values.shape:
            raise ValueError(
                f"a sparse weight must have one value per position, got {values.shape} values "
                f"and {positions.shape} positions"
            )
        size = self.shape[0] * self.shape[1]
        inside = positions.size == 0 or (positions[0] >= 0 and positions[-1] < size)
        if not inside or (np.diff(positions) <= 0).any():
            raise ValueError(f"positions of a sparse weight must rise within [0, {size})")


def _matrix_shape(what: str, shape: tuple[int, ...]) -> tuple[int, int]:
    if len(shape) != 2:
        raise ValueError(f"{what} must have two axes, got shape {shape}")
    return int(shape[0]), int(shape[1])
