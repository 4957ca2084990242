"""The products of a sparse convolution in plain torch: the oracle for the fast kernels.

The weight has shape ``[n_out, channels / groups, *kernel]``, and its connections are listed row by
row: a column is a channel of the group and a place in the kernel. No dense weight is formed; every
place of the kernel is a sparse product with a shifted view of the input. Temporaries stay below
`CHUNK` elements where one connection's does.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product

import torch
from torch import Tensor
from torch.nn import functional

from regrow.kernels.geometry import Geometry
from regrow.kernels.reference import CHUNK


def conv_forward(
    x: Tensor,
    values: Tensor,
    indptr: Tensor,
    indices: Tensor,
    geometry: Geometry,
    bias: Tensor | None = None,
) -> Tensor:
    """Convolve a batch with a sparse weight.

    Args:
        x: Input ``[batch, channels, *size]``.
        values: Connection values ``[nnz]``, row by row.
        indptr: First connection of every row, int64 ``[n_out + 1]``.
        indices: Column of every connection, int32 ``[nnz]``.
        geometry: How the kernel moves.
        bias: Offsets ``[n_out]`` or None.

    Returns:
        Outputs ``[batch, n_out, *out_size]``, contiguous.

    Example:
        The kernel ``[1, 0, 2]``:

        >>> indptr, indices = torch.tensor([0, 2]), torch.tensor([0, 2], dtype=torch.int32)
        >>> x, values = torch.tensor([[[1.0, 2.0, 3.0, 4.0]]]), torch.tensor([1.0, 2.0])
        >>> conv_forward(x, values, indptr, indices, Geometry((3,), (1,), (0, 0), (1,), 1))
        tensor([[[ 7., 10.]]])
    """
    n_out, out_size = indptr.numel() - 1, geometry.out_size(x.shape[2:])
    y = x.new_zeros((x.shape[0], n_out, *out_size))
    padded = functional.pad(x, geometry.pad)
    for window, part, rows, channels in _pieces(padded, out_size, indptr, indices, geometry):
        spread = values[part].view(-1, *[1] * geometry.axes)
        y.index_add_(1, rows, window.index_select(1, channels) * spread)
    return y if bias is None else y.add_(bias.view(-1, *[1] * geometry.axes))


def conv_backward(
    grad: Tensor,
    x: Tensor,
    values: Tensor,
    indptr: Tensor,
    indices: Tensor,
    geometry: Geometry,
    need_x: bool = True,
    need_values: bool = True,
) -> tuple[Tensor | None, Tensor | None]:
    """Differentiate `conv_forward` with respect to its input and its values.

    Args:
        grad: Gradient of the outputs ``[batch, n_out, *out_size]``.
        x: Input ``[batch, channels, *size]``.
        values: Connection values ``[nnz]``, row by row.
        indptr: First connection of every row, int64 ``[n_out + 1]``.
        indices: Column of every connection, int32 ``[nnz]``.
        geometry: How the kernel moves.
        need_x: Whether the gradient of the input is wanted.
        need_values: Whether the gradient of the values is wanted.

    Returns:
        Gradients like ``x`` and ``[nnz]`` (row by row); None for one that is not wanted.
    """
    padded = functional.pad(x, geometry.pad)
    pieces = list(_pieces(padded, grad.shape[2:], indptr, indices, geometry))
    dx = dvalues = None
    if need_values:
        dvalues = torch.zeros_like(values)
        for window, part, rows, channels in pieces:
            products = grad.index_select(1, rows) * window.index_select(1, channels)
            dvalues[part] = products.transpose(0, 1).flatten(1).sum(1)
    if need_x:
        whole = torch.zeros_like(padded)
        for window, part, rows, channels in pieces:
            spread = values[part].view(-1, *[1] * geometry.axes)
            target = whole.as_strided(window.shape, window.stride(), window.storage_offset())
            target.index_add_(1, channels, grad.index_select(1, rows) * spread)
        dx = functional.pad(whole, [-zeros for zeros in geometry.pad]).contiguous()
    return dx, dvalues


def _pieces(
    padded: Tensor, out_size: tuple[int, ...], indptr: Tensor, indices: Tensor, geometry: Geometry
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """For each place of the kernel: the view it sees, and connections, rows, input channels."""
    n_out, channels = indptr.numel() - 1, padded.shape[1]
    rows = torch.arange(n_out, device=indptr.device).repeat_interleave(indptr.diff())
    columns = indices.long()
    inputs = columns // geometry.places + rows // (n_out // geometry.groups) * (
        channels // geometry.groups
    )
    step = max(1, CHUNK // max(1, padded.shape[0] * math.prod(out_size)))
    for number, place in enumerate(product(*map(range, geometry.kernel))):
        window = padded
        for axis, (at, n) in enumerate(zip(place, out_size, strict=True)):
            start, stride = at * geometry.dilation[axis], geometry.stride[axis]
            window = window[
                (slice(None),) * (2 + axis) + (slice(start, start + stride * n, stride),)
            ]
        for part in (columns % geometry.places == number).nonzero()[:, 0].split(step):
            yield window, part, rows[part], inputs[part]
