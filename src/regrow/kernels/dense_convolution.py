"""The products of a sparse convolution through a transient dense weight, on torch's own kernels."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from regrow.kernels import ops
from regrow.kernels.geometry import Geometry


def conv_forward(
    x: Tensor,
    values: Tensor,
    indptr: Tensor,
    indices: Tensor,
    geometry: Geometry,
    bias: Tensor | None = None,
) -> Tensor:
    """Convolve a batch with a sparse weight; as `reference_convolution.conv_forward`."""
    padded, padding = _padded(x, geometry)
    y: Tensor = torch.convolution(
        padded,
        _weight(x, values, indptr, indices, geometry),
        bias,
        geometry.stride,
        padding,
        geometry.dilation,
        False,
        (0,) * geometry.axes,
        geometry.groups,
    )
    return y.contiguous()


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
    """Differentiate `conv_forward`; as `reference_convolution.conv_backward`."""
    padded, padding = _padded(x, geometry)
    dx, dense, _ = torch.ops.aten.convolution_backward(
        grad,
        padded,
        _weight(x, values, indptr, indices, geometry),
        None,
        geometry.stride,
        padding,
        geometry.dilation,
        False,
        (0,) * geometry.axes,
        geometry.groups,
        (need_x, need_values, False),
    )
    dvalues = None
    if need_x:
        if not geometry.even:
            dx = functional.pad(dx, [-zeros for zeros in geometry.pad])
        dx = dx.contiguous()
    if need_values:
        flat = dense.reshape(dense.shape[0], -1)
        if values.numel() == flat.numel():
            dvalues = flat.reshape(-1)
        else:
            dvalues = ops.sparse_kernels(flat).gather(flat, indptr, indices)
    return dx, dvalues


def weight_rows(grad: Tensor, x: Tensor, rows: slice, geometry: Geometry) -> Tensor:
    """Gradient of whole rows of the weight, ``[rows, columns]``; no more of it is formed.

    Args:
        grad: Gradient of the result ``[batch, out, *out_size]``.
        x: Input ``[batch, channels, *size]``, of the same dtype.
        rows: Which rows.
        geometry: How the kernel moves.
    """
    padded, padding = _padded(x, geometry)
    channels, height = x.shape[1] // geometry.groups, grad.shape[1] // geometry.groups
    blocks = []
    for group in range(rows.start // height, (rows.stop - 1) // height + 1):
        part = slice(max(rows.start, group * height), min(rows.stop, (group + 1) * height))
        shape = (part.stop - part.start, channels, *geometry.kernel)
        dense = torch.ops.aten.convolution_backward(
            grad[:, part],
            padded[:, group * channels : (group + 1) * channels],
            x.new_empty(1).expand(shape),
            None,
            geometry.stride,
            padding,
            geometry.dilation,
            False,
            (0,) * geometry.axes,
            1,
            (False, True, False),
        )[1]
        blocks.append(dense.reshape(shape[0], -1))
    return torch.cat(blocks)


def _weight(
    x: Tensor, values: Tensor, indptr: Tensor, indices: Tensor, geometry: Geometry
) -> Tensor:
    n_out, channels = indptr.numel() - 1, x.shape[1] // geometry.groups
    columns = channels * geometry.places
    dense = values
    if values.numel() != n_out * columns:
        dense = ops.sparse_kernels(values).scatter(values, indptr, indices, columns)
    return dense.view(n_out, channels, *geometry.kernel)


def _padded(x: Tensor, geometry: Geometry) -> tuple[Tensor, tuple[int, ...]]:
    """The input with what torch's convolution cannot pad, and the padding left to it."""
    if geometry.even:
        return x, geometry.before
    return functional.pad(x, geometry.pad), (0,) * geometry.axes
