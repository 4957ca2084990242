"""Gradient of a weight at positions that need not have a value, for products and for look-ups.

A weight that is tied meets both: an embedding looks its rows up by ids, and the output head
multiplies features by it. Which one a backward pass was of is seen from its input.
"""

from __future__ import annotations

import torch
from torch import Tensor

from regrow.kernels import ops


def block(x: Tensor, grad: Tensor, rows: slice, dtype: torch.dtype) -> Tensor:
    """Gradient of whole rows of a weight.

    Args:
        x: Features ``[batch, columns]`` that were multiplied, or integer ids ``[batch]`` that were
            looked up.
        grad: Gradient of the output: ``[batch, rows]`` of a product, ``[batch, columns]`` of a
            look-up.
        rows: Which rows.
        dtype: Of the result.

    Returns:
        ``[rows, columns]``.

    Example:
        >>> x, grad = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0, 5.0]])
        >>> block(x, grad, slice(1, 3), torch.float32)
        tensor([[ 4.,  8.],
                [ 5., 10.]])
        >>> block(torch.tensor([2, 0]), torch.ones(2, 2), slice(1, 3), torch.float32)
        tensor([[0., 0.],
                [1., 1.]])
    """
    if x.is_floating_point():
        return grad[:, rows].to(dtype).t() @ x.to(dtype)
    inside = (x >= rows.start) & (x < rows.stop)
    zeros = grad.new_zeros(rows.stop - rows.start, grad.shape[1], dtype=dtype)
    return zeros.index_add_(0, x[inside].long() - rows.start, grad[inside].to(dtype))


def pairs(x: Tensor, grad: Tensor, rows: Tensor, columns: Tensor, dtype: torch.dtype) -> Tensor:
    """Gradient of a weight at single positions; without the sums of positions not asked for.

    Args:
        x: As of ``block``.
        grad: As of ``block``.
        rows: Row of each position, int64 ``[k]``.
        columns: Column of each position, int64 ``[k]``.
        dtype: Of the result.

    Returns:
        ``[k]``.
    """
    if x.is_floating_point():
        grad, x = ops.raised(grad.to(dtype)), ops.raised(x.to(dtype))
        products: Tensor = ops.sparse_kernels(grad).pair_products(grad, x, rows, columns)
        return products.to(dtype)
    if not x.numel():
        return grad.new_zeros(rows.shape, dtype=dtype)
    seen, owner = x.long().unique(return_inverse=True)
    sums = grad.new_zeros(seen.numel(), grad.shape[1], dtype=dtype)
    sums.index_add_(0, owner, grad.to(dtype))
    place = torch.searchsorted(seen, rows).clamp_(max=seen.numel() - 1)
    found: Tensor = sums[place, columns] * (seen[place] == rows)
    return found
