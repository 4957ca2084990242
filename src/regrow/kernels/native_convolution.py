"""The products of a sparse convolution by the C++ extension: as `reference_convolution`, fast."""

from __future__ import annotations

import torch
from torch import Tensor

from regrow.kernels.geometry import Geometry
from regrow.kernels.native import _float, _ready, _vector

try:
    from regrow import _native
except ImportError:  # regrow.kernels.native says why
    _native = None


def conv_forward(
    x: Tensor,
    values: Tensor,
    indptr: Tensor,
    indices: Tensor,
    geometry: Geometry,
    bias: Tensor | None = None,
) -> Tensor:
    """Convolve a batch with a sparse weight; as `reference_convolution.conv_forward`."""
    n_out = _vector("indptr", indptr)[0] - 1
    (nnz,), dtype = _vector("values", values), _float("values", values)
    x = _ready("x", x, dtype, *x.shape)
    values = _ready("values", values, dtype, nnz)
    indptr = _ready("indptr", indptr, torch.int64, n_out + 1)
    indices = _ready("indices", indices, torch.int32, nnz)
    if bias is not None:
        bias = _ready("bias", bias, dtype, n_out)
    y = x.new_empty((x.shape[0], n_out, *geometry.out_size(x.shape[2:])))
    _native.conv_forward(
        y.itemsize,
        x.data_ptr(),
        values.data_ptr(),
        indptr.data_ptr(),
        indices.data_ptr(),
        0 if bias is None else bias.data_ptr(),
        y.data_ptr(),
        _numbers(x, y, geometry),
        nnz,
        torch.get_num_threads(),
    )
    return y


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
    n_out = _vector("indptr", indptr)[0] - 1
    (nnz,), dtype = _vector("values", values), _float("values", values)
    x = _ready("x", x, dtype, *x.shape)
    grad = _ready("grad", grad, dtype, x.shape[0], n_out, *geometry.out_size(x.shape[2:]))
    values = _ready("values", values, dtype, nnz)
    indptr = _ready("indptr", indptr, torch.int64, n_out + 1)
    indices = _ready("indices", indices, torch.int32, nnz)
    dx = torch.empty_like(x) if need_x else None
    dvalues = torch.empty_like(values) if need_values else None
    _native.conv_backward(
        x.itemsize,
        grad.data_ptr(),
        x.data_ptr(),
        values.data_ptr(),
        indptr.data_ptr(),
        indices.data_ptr(),
        0 if dx is None else dx.data_ptr(),
        0 if dvalues is None else dvalues.data_ptr(),
        _numbers(x, grad, geometry),
        nnz,
        torch.get_num_threads(),
    )
    return dx, dvalues


def _numbers(x: Tensor, y: Tensor, geometry: Geometry) -> list[int]:
    """The convolution as the extension takes it: of three axes, missing ones of size 1."""
    missing = 3 - geometry.axes
    ones = [1] * missing
    return [
        x.shape[0],
        x.shape[1],
        y.shape[1],
        geometry.groups,
        *ones,
        *x.shape[2:],
        *ones,
        *y.shape[2:],
        *ones,
        *geometry.kernel,
        *ones,
        *geometry.stride,
        *ones,
        *geometry.dilation,
        *[0] * missing,
        *geometry.before,
    ]
