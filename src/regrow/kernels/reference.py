"""The products of a sparse layer in plain torch: the oracle for every fast kernel.

Every function works on any device and on any floating dtype that torch can multiply and add.  The
weight has shape ``[n_out, n_in]``; ``indptr``/``indices`` are its connections row by row (CSR), and
``operands`` the same connections in both orders (see `regrow.topology.operands`).  No function but
`scatter` forms a dense weight, and temporaries stay below `CHUNK` elements whatever the batch and
the number of connections.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

CHUNK = 1 << 22
"""Largest number of elements that a temporary may hold."""

_BATCH_CHUNK = 1024


def linear_forward(
    x: Tensor,
    values: Tensor,
    operands: Sequence[Tensor],
    bias: Tensor | None = None,
    relu: bool = False,
    feature_major: bool = False,
) -> Tensor:
    """Multiply a batch by a sparse weight: ``y = x @ W.T + bias``, or the positive part of that.

    Args:
        x: Activations ``[batch, n_in]``.
        values: Connection values ``[nnz]``, row by row.
        operands: Index tensors of the weight, see `regrow.topology.operands`; the row order counts.
        bias: Offsets ``[n_out]`` or None.
        relu: Whether negative outputs become zero.
        feature_major: Whether the outputs may lie feature-major: here they never do.

    Returns:
        Outputs ``[batch, n_out]``, contiguous.

    Example:
        The weight ``[[2, 0, 3], [0, 0, 0]]``:

        >>> rows = torch.tensor([0, 2, 2]), torch.tensor([0, 2], dtype=torch.int32)
        >>> x, values = torch.tensor([[1.0, 5.0, 10.0]]), torch.tensor([2.0, 3.0])
        >>> linear_forward(x, values, rows)
        tensor([[32.,  0.]])
    """
    indptr, indices = operands[:2]
    rows = _owners(indptr)
    y = x.new_zeros((x.shape[0], indptr.shape[0] - 1))
    for batch, part in _pieces(x.shape[0], values.shape[0]):
        products = x[batch].T.index_select(0, indices[part]) * values[part, None]
        y[batch].T.index_add_(0, rows[part], products)
    if bias is not None:
        y.add_(bias)
    return y.relu_() if relu else y


def linear_backward(
    grad: Tensor,
    x: Tensor,
    values: Tensor,
    operands: Sequence[Tensor],
    need_x: bool = True,
    need_values: bool = True,
    y: Tensor | None = None,
    dbias: Tensor | None = None,
) -> tuple[Tensor | None, Tensor | None]:
    """Differentiate `linear_forward` with respect to its activations and its values.

    Args:
        grad: Gradient of the outputs ``[batch, n_out]``.
        x: Activations ``[batch, n_in]``.
        values: Connection values ``[nnz]``, row by row.
        operands: As in `linear_forward`; here the column order counts.
        need_x: Whether the gradient of the activations is wanted.
        need_values: Whether the gradient of the values is wanted.
        y: Outputs, where these are a positive part; None where they are not.
        dbias: Where to write the gradient of the bias ``[n_out]``; None if it is not wanted. The
            extension forms it only beside one of the others, of a weight that has columns.

    Returns:
        Gradients ``[batch, n_in]`` and ``[nnz]`` (row by row); None for one that is not wanted.

    Example:
        >>> from regrow.topology import Topology
        >>> operands = Topology((2, 3), torch.tensor([0, 2])).operands()
        >>> x, values = torch.tensor([[1.0, 5.0, 10.0]]), torch.tensor([2.0, 3.0])
        >>> linear_backward(torch.ones(1, 2), x, values, operands)
        (tensor([[2., 0., 3.]]), tensor([ 1., 10.]))
    """
    if y is not None:
        grad = torch.ops.aten.threshold_backward(grad, y, 0)
    if dbias is not None:
        torch.sum(grad, 0, out=dbias)
    t_indptr, t_indices, t_perm = operands[2:]
    columns = _owners(t_indptr)
    dx = x.new_zeros((grad.shape[0], t_indptr.shape[0] - 1)) if need_x else None
    t_values = values.index_select(0, t_perm)
    t_dvalues = torch.zeros_like(t_values)
    for batch, part in _pieces(grad.shape[0], values.shape[0]):
        g = grad[batch].T.index_select(0, t_indices[part])
        if need_values:
            t_dvalues[part] += (g * x[batch].T.index_select(0, columns[part])).sum(1)
        if dx is not None:
            dx[batch].T.index_add_(0, columns[part], g * t_values[part, None])
    dvalues = torch.empty_like(values).index_copy_(0, t_perm.long(), t_dvalues)
    return dx, dvalues if need_values else None


def scatter(values: Tensor, indptr: Tensor, indices: Tensor, n_columns: int) -> Tensor:
    """Write the values into a dense tensor that is zero elsewhere.

    Args:
        values: Connection values ``[nnz]``.
        indptr: First connection of every row, int64 ``[n_rows + 1]``.
        indices: Column of every connection, int32 ``[nnz]``.
        n_columns: Number of columns.

    Returns:
        Dense weight ``[n_rows, n_columns]``.

    Example:
        >>> indptr, indices = torch.tensor([0, 1, 2]), torch.tensor([1, 0], dtype=torch.int32)
        >>> scatter(torch.tensor([3.0, 4.0]), indptr, indices, 2)
        tensor([[0., 3.],
                [4., 0.]])
    """
    dense = values.new_zeros((indptr.shape[0] - 1, n_columns))
    dense.view(-1).index_copy_(0, _owners(indptr) * n_columns + indices, values)
    return dense


def gather(dense: Tensor, indptr: Tensor, indices: Tensor) -> Tensor:
    """Read the values at the connections out of a dense tensor.

    Args:
        dense: Dense weight or gradient ``[n_rows, n_columns]``.
        indptr: First connection of every row, int64 ``[n_rows + 1]``.
        indices: Column of every connection, int32 ``[nnz]``.

    Returns:
        Connection values ``[nnz]``, row by row.

    Example:
        >>> indptr, indices = torch.tensor([0, 1, 2]), torch.tensor([1, 0], dtype=torch.int32)
        >>> gather(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), indptr, indices)
        tensor([2., 3.])
    """
    return dense.reshape(-1).index_select(0, _owners(indptr) * dense.shape[1] + indices)


def pair_products(grad: Tensor, x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Sum ``grad[b, row] * x[b, column]`` over the batch for a list of positions.

    These are entries of the dense weight gradient, wherever a connection might grow.

    Args:
        grad: Gradient of the outputs ``[batch, n_out]``.
        x: Activations ``[batch, n_in]``.
        rows: Row of every position, int64 ``[k]``.
        columns: Column of every position, int64 ``[k]``.

    Returns:
        One product per position ``[k]``.

    Example:
        >>> grad, x = torch.tensor([[1.0, 2.0], [0.0, 1.0]]), torch.tensor([[3.0], [4.0]])
        >>> pair_products(grad, x, torch.tensor([1, 0]), torch.tensor([0, 0]))
        tensor([10.,  3.])
    """
    products = x.new_zeros(rows.shape[0])
    for batch, part in _pieces(grad.shape[0], rows.shape[0]):
        g = grad[batch].T.index_select(0, rows[part])
        products[part] += (g * x[batch].T.index_select(0, columns[part])).sum(1)
    return products


def _owners(indptr: Tensor) -> Tensor:
    """Row of every connection, int64 ``[nnz]`` (its column if ``indptr`` counts by column)."""
    rows = torch.arange(indptr.shape[0] - 1, device=indptr.device)
    return rows.repeat_interleave(indptr.diff())


def _pieces(n_batch: int, n_connections: int) -> Iterator[tuple[slice, slice]]:
    """Split batch x connections into pieces of at most `CHUNK` elements, in a fixed order."""
    step = max(1, CHUNK // max(1, min(n_batch, _BATCH_CHUNK)))
    for first in range(0, n_batch, _BATCH_CHUNK):
        for start in range(0, n_connections, step):
            yield slice(first, first + _BATCH_CHUNK), slice(start, start + step)
