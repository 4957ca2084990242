"""The products of weights with a structure by the C++ extension: as `reference_structured`, fast.

What tells where the connections are is checked in full at each call: of blocks it is little, and of
N of M a byte for each connection.
"""

from __future__ import annotations

import torch
from torch import Tensor

from regrow.kernels.native import _float, _matrix, _ready, _vector

try:
    from regrow import _native
except ImportError:  # regrow.kernels.native says why
    _native = None

Both = tuple[Tensor | None, Tensor | None]
Parts = tuple[Tensor, ...]


def forward(
    x: Tensor,
    values: Tensor,
    parts: Parts,
    kind: str,
    form: tuple[int, int],
    bias: Tensor | None = None,
) -> Tensor:
    """Multiply a batch by a weight with a structure; as `reference_structured.forward`."""
    product = block_forward if kind == "block" else nm_forward
    return product(x, values, parts, form, bias)


def backward(
    grad: Tensor,
    x: Tensor,
    values: Tensor,
    parts: Parts,
    kind: str,
    form: tuple[int, int],
    need_x: bool = True,
    need_values: bool = True,
) -> Both:
    """Differentiate `forward`; as `reference_structured.backward`."""
    product = block_backward if kind == "block" else nm_backward
    return product(grad, x, values, parts, form, need_x, need_values)


def block_forward(
    x: Tensor, values: Tensor, parts: Parts, form: tuple[int, int], bias: Tensor | None = None
) -> Tensor:
    """Multiply a batch by a weight of blocks; as `reference_structured.forward`.

    Raises:
        ValueError: The parts are not blocks inside the weight.
    """
    batch, n_in = _matrix("x", x)
    (nnz,), dtype = _vector("values", values), _float("values", values)
    n_out = (_vector("indptr", parts[0])[0] - 1) * form[0]
    x = _ready("x", x, dtype, batch, n_in)
    values = _ready("values", values, dtype, nnz)
    indptr, indices = _blocks(parts, n_out, nnz, form)
    if bias is not None:
        bias = _ready("bias", bias, dtype, n_out)
    y = torch.empty((batch, n_out), dtype=dtype)
    _native.block_forward(
        y.itemsize,
        x.data_ptr(),
        values.data_ptr(),
        indptr.data_ptr(),
        indices.data_ptr(),
        0 if bias is None else bias.data_ptr(),
        y.data_ptr(),
        batch,
        n_in,
        n_out,
        nnz,
        *form,
        torch.get_num_threads(),
    )
    return y


def block_backward(
    grad: Tensor,
    x: Tensor,
    values: Tensor,
    parts: Parts,
    form: tuple[int, int],
    need_x: bool = True,
    need_values: bool = True,
) -> Both:
    """Differentiate `block_forward`; as `reference_structured.backward`.

    Raises:
        ValueError: The parts are not blocks inside the weight, or not the same in both orders.
    """
    (batch, n_out), (_, n_in) = _matrix("grad", grad), _matrix("x", x)
    (nnz,), dtype = _vector("values", values), _float("values", values)
    grad = _ready("grad", grad, dtype, batch, n_out)
    x = _ready("x", x, dtype, batch, n_in)
    values = _ready("values", values, dtype, nnz)
    indptr, indices = _blocks(parts, n_out, nnz, form)
    blocks = nnz // (form[0] * form[1])
    t_indptr = _ready("t_indptr", parts[2], torch.int64, n_in // form[1] + 1)
    t_indices = _ready("t_indices", parts[3], torch.int32, blocks)
    t_slots = _ready("t_slots", parts[4], torch.int32, blocks)
    dx = torch.empty_like(x) if need_x else None
    dvalues = torch.empty_like(values) if need_values else None
    _native.block_backward(
        x.itemsize,
        grad.data_ptr(),
        x.data_ptr(),
        values.data_ptr(),
        indptr.data_ptr(),
        indices.data_ptr(),
        t_indptr.data_ptr(),
        t_indices.data_ptr(),
        t_slots.data_ptr(),
        0 if dx is None else dx.data_ptr(),
        0 if dvalues is None else dvalues.data_ptr(),
        batch,
        n_in,
        n_out,
        nnz,
        *form,
        torch.get_num_threads(),
    )
    return dx, dvalues


def _blocks(parts: Parts, n_out: int, nnz: int, form: tuple[int, int]) -> tuple[Tensor, Tensor]:
    if min(form) < 1:
        raise ValueError(f"form of a block must be at least 1 x 1, got {form[0]} x {form[1]}")
    indptr = _ready("indptr", parts[0], torch.int64, n_out // form[0] + 1)
    return indptr, _ready("indices", parts[1], torch.int32, nnz // (form[0] * form[1]))


def nm_forward(
    x: Tensor, values: Tensor, parts: Parts, form: tuple[int, int], bias: Tensor | None = None
) -> Tensor:
    """Multiply a batch by a weight of N of M connections; as `reference_structured.forward`.

    Raises:
        ValueError: A place is not within its group, or the sizes do not go together.
    """
    batch, n_in = _matrix("x", x)
    (nnz,), dtype = _vector("values", values), _float("values", values)
    n_out = _rows(n_in, nnz, form)
    x = _ready("x", x, dtype, batch, n_in)
    values = _ready("values", values, dtype, nnz)
    places = _ready("places", parts[0], torch.uint8, nnz)
    if bias is not None:
        bias = _ready("bias", bias, dtype, n_out)
    y = torch.empty((batch, n_out), dtype=dtype)
    _native.groups_forward(
        y.itemsize,
        x.data_ptr(),
        values.data_ptr(),
        places.data_ptr(),
        0 if bias is None else bias.data_ptr(),
        y.data_ptr(),
        batch,
        n_in,
        n_out,
        *form,
        torch.get_num_threads(),
    )
    return y


def nm_backward(
    grad: Tensor,
    x: Tensor,
    values: Tensor,
    parts: Parts,
    form: tuple[int, int],
    need_x: bool = True,
    need_values: bool = True,
) -> Both:
    """Differentiate `nm_forward`; as `reference_structured.backward`.

    Raises:
        ValueError: A place is not within its group, or the sizes do not go together.
    """
    (batch, n_out), (_, n_in) = _matrix("grad", grad), _matrix("x", x)
    (nnz,), dtype = _vector("values", values), _float("values", values)
    grad = _ready("grad", grad, dtype, batch, _rows(n_in, nnz, form))
    x = _ready("x", x, dtype, batch, n_in)
    values = _ready("values", values, dtype, nnz)
    places = _ready("places", parts[0], torch.uint8, nnz)
    dx = torch.empty_like(x) if need_x else None
    dvalues = torch.empty_like(values) if need_values else None
    _native.groups_backward(
        x.itemsize,
        grad.data_ptr(),
        x.data_ptr(),
        values.data_ptr(),
        places.data_ptr(),
        0 if dx is None else dx.data_ptr(),
        0 if dvalues is None else dvalues.data_ptr(),
        batch,
        n_in,
        n_out,
        *form,
        torch.get_num_threads(),
    )
    return dx, dvalues


def _rows(n_in: int, nnz: int, form: tuple[int, int]) -> int:
    n, m = form
    per_row = n_in // m * n if n > 0 and m > 0 else 0
    if per_row == 0 or n_in % m or nnz % per_row:
        raise ValueError(
            f"values and columns must be those of whole rows of {n}:{m}, "
            f"got {nnz} values and {n_in} columns"
        )
    return nnz // per_row
