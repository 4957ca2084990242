"""The products of weights with a structure in Triton, for GPUs: as `reference_structured`.

Imported only where a GPU is used, for it needs the package ``triton``. Inputs may be of lower
precision than the values, as under autocast; values are lowered tile by tile, and sums are formed
in float32 (float64 where the inputs are).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ImportError:  # the extra "gpu"; nothing here is called without it
    triton = tl = None

Both = tuple[Tensor | None, Tensor | None]
Parts = tuple[Tensor, ...]

_SAMPLES = 64
_COLUMNS = 64
# The least that the matrix units take along each axis.
_LEAST = 16


def _compiled(kernel: Any) -> Any:
    return kernel if triton is None else triton.jit(kernel)


def serves(kind: str, sizes: tuple[int, int]) -> bool:
    """Whether there are kernels for a form: blocks up to 256 x 256, M a power of two up to 64."""
    if kind == "block":
        return max(sizes) <= 256
    return sizes[1] & (sizes[1] - 1) == 0 and sizes[1] <= _COLUMNS


def forward(
    x: Tensor,
    values: Tensor,
    parts: Parts,
    kind: str,
    form: tuple[int, int],
    bias: Tensor | None = None,
) -> Tensor:
    """Multiply a batch by a weight with a structure; ``[batch, n_out]`` in the dtype of ``x``."""
    x, values = x.contiguous(), values.contiguous()
    if kind == "block":
        return _block_product(x, values, parts, form, bias, turned=False)
    return _groups_product(x, values, parts[0], form, bias, turned=False)


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
    """Differentiate `forward`; the gradient of ``x`` has its dtype, that of the values theirs."""
    grad, x, values = grad.contiguous(), x.contiguous(), values.contiguous()
    dx = dvalues = None
    if kind == "block":
        if need_x:
            dx = _block_product(grad, values, parts, form, None, turned=True)
        if need_values:
            dvalues = _block_values(grad, x, values, parts, form)
    else:
        if need_x:
            dx = _groups_product(grad, values, parts[0], form, None, turned=True, n_in=x.shape[1])
        if need_values:
            dvalues = _groups_values(grad, x, values, parts[0], form)
    return dx, dvalues


def _side(size: int) -> int:
    return max(_LEAST, int(triton.next_power_of_2(size)))


def _options(x: Tensor) -> dict[str, Any]:
    """How products of this dtype are formed: in full precision, unless torch may do otherwise."""
    tf32 = x.dtype == torch.float32 and torch.backends.cuda.matmul.allow_tf32
    return {
        "precision": "tf32" if tf32 else "ieee",
        "sums": tl.float64 if x.dtype == torch.float64 else tl.float32,
    }


def _block_product(
    x: Tensor,
    values: Tensor,
    parts: Parts,
    form: tuple[int, int],
    bias: Tensor | None,
    *,
    turned: bool,
) -> Tensor:
    rows, columns = form
    starts, others = (parts[2], parts[3]) if turned else (parts[0], parts[1])
    groups, height = starts.shape[0] - 1, columns if turned else rows
    y = x.new_empty(x.shape[0], groups * height)
    if y.numel():
        _block_kernel[(triton.cdiv(x.shape[0], _SAMPLES), groups)](
            x,
            values,
            starts,
            others,
            parts[4] if turned else others,
            parts[0],
            x if bias is None else bias,
            y,
            x.shape[0],
            x.shape[1],
            y.shape[1],
            rows,
            columns,
            turned=turned,
            has_bias=bias is not None,
            samples=_SAMPLES,
            depth=_side(rows if turned else columns),
            height=_side(height),
            **_options(x),
        )
    return y


def _block_values(
    grad: Tensor, x: Tensor, values: Tensor, parts: Parts, form: tuple[int, int]
) -> Tensor:
    dvalues = torch.empty_like(values)
    blocks = parts[1].shape[0]
    if blocks:
        _block_values_kernel[(blocks,)](
            grad,
            x,
            dvalues,
            parts[0],
            parts[1],
            parts[3],
            parts[4],
            x.shape[0],
            grad.shape[1],
            x.shape[1],
            *form,
            samples=_SAMPLES,
            height=_side(form[0]),
            width=_side(form[1]),
            **_options(x),
        )
    return dvalues


def _groups_product(
    x: Tensor,
    values: Tensor,
    places: Tensor,
    form: tuple[int, int],
    bias: Tensor | None,
    *,
    turned: bool,
    n_in: int = 0,
) -> Tensor:
    n, m = form
    n_in = n_in if turned else x.shape[1]
    n_out = values.shape[0] // (n_in // m * n)
    y = x.new_empty(x.shape[0], n_in if turned else n_out)
    if y.numel():
        grid = triton.cdiv(x.shape[0], _SAMPLES), triton.cdiv(y.shape[1], _COLUMNS)
        _groups_kernel[grid](
            x,
            values,
            places,
            x if bias is None else bias,
            y,
            x.shape[0],
            n_in,
            n_out,
            n=n,
            m=m,
            turned=turned,
            has_bias=bias is not None,
            samples=_SAMPLES,
            rows=_COLUMNS,
            groups=max(1, _COLUMNS // m),
            **_options(x),
        )
    return y


def _groups_values(
    grad: Tensor, x: Tensor, values: Tensor, places: Tensor, form: tuple[int, int]
) -> Tensor:
    n, m = form
    dvalues = torch.empty_like(values)
    if values.numel():
        grid = triton.cdiv(grad.shape[1], _COLUMNS), triton.cdiv(x.shape[1], _COLUMNS)
        _groups_values_kernel[grid](
            grad,
            x,
            places,
            dvalues,
            x.shape[0],
            x.shape[1],
            grad.shape[1],
            n=n,
            m=m,
            samples=_SAMPLES,
            rows=_COLUMNS,
            groups=max(1, _COLUMNS // m),
            **_options(x),
        )
    return dvalues


# One tile of samples and one block row, or block column where `turned`.
@_compiled
def _block_kernel(  # type: ignore[no-untyped-def]
    x,
    values,
    starts,
    others,
    slots,
    indptr,
    bias,
    y,
    batch,
    n_x,
    n_y,
    block_rows,
    block_columns,
    turned: tl.constexpr,
    has_bias: tl.constexpr,
    samples: tl.constexpr,
    depth: tl.constexpr,
    height: tl.constexpr,
    precision: tl.constexpr,
    sums: tl.constexpr,
):
    sample = tl.program_id(0) * samples + tl.arange(0, samples)
    group = tl.program_id(1)
    k = tl.arange(0, depth)
    out = tl.arange(0, height)
    within = block_rows if turned else block_columns
    across = block_columns if turned else block_rows
    total = tl.zeros([samples, height], dtype=sums)
    if has_bias:
        offset = tl.load(bias + group * across + out, mask=out < across, other=0.0)
        total += offset[None, :].to(sums)
    first = tl.load(starts + group)
    last = tl.load(starts + group + 1)
    for block in range(first, last):
        other = tl.load(others + block)
        row = group
        slot = block
        if turned:
            row = other
            slot = tl.load(slots + block)
        start = tl.load(indptr + row)
        length = (tl.load(indptr + row + 1) - start) * block_columns
        corner = start * block_rows * block_columns + (slot - start) * block_columns
        inputs = tl.load(
            x + sample[:, None].to(tl.int64) * n_x + other * within + k[None, :],
            mask=(sample[:, None] < batch) & (k[None, :] < within),
            other=0.0,
        )
        inside = (k[:, None] < within) & (out[None, :] < across)
        if turned:
            weight = tl.load(
                values + corner + k[:, None] * length + out[None, :], mask=inside, other=0.0
            )
        else:
            weight = tl.load(
                values + corner + out[None, :] * length + k[:, None], mask=inside, other=0.0
            )
        total += tl.dot(inputs, weight.to(inputs.dtype), input_precision=precision, out_dtype=sums)
    tl.store(
        y + sample[:, None].to(tl.int64) * n_y + group * across + out[None, :],
        total.to(y.dtype.element_ty),
        mask=(sample[:, None] < batch) & (out[None, :] < across),
    )


# One block, in column order.
@_compiled
def _block_values_kernel(  # type: ignore[no-untyped-def]
    grad,
    x,
    dvalues,
    indptr,
    indices,
    t_indices,
    t_slots,
    batch,
    n_out,
    n_in,
    block_rows,
    block_columns,
    samples: tl.constexpr,
    height: tl.constexpr,
    width: tl.constexpr,
    precision: tl.constexpr,
    sums: tl.constexpr,
):
    block = tl.program_id(0)
    row = tl.load(t_indices + block)
    slot = tl.load(t_slots + block)
    column = tl.load(indices + slot)
    i = tl.arange(0, height)
    j = tl.arange(0, width)
    total = tl.zeros([height, width], dtype=sums)
    for first in range(0, batch, samples):
        sample = (first + tl.arange(0, samples)).to(tl.int64)
        outer = tl.load(
            grad + sample[None, :] * n_out + row * block_rows + i[:, None],
            mask=(sample[None, :] < batch) & (i[:, None] < block_rows),
            other=0.0,
        )
        inputs = tl.load(
            x + sample[:, None] * n_in + column * block_columns + j[None, :],
            mask=(sample[:, None] < batch) & (j[None, :] < block_columns),
            other=0.0,
        )
        total += tl.dot(outer, inputs, input_precision=precision, out_dtype=sums)
    start = tl.load(indptr + row)
    length = (tl.load(indptr + row + 1) - start) * block_columns
    corner = start * block_rows * block_columns + (slot - start) * block_columns
    tl.store(
        dvalues + corner + i[:, None] * length + j[None, :],
        total.to(dvalues.dtype.element_ty),
        mask=(i[:, None] < block_rows) & (j[None, :] < block_columns),
    )


# Some rows and some groups of the weight, dense: [rows, groups * m].
@_compiled
def _filled(  # type: ignore[no-untyped-def]
    values,
    places,
    row,
    group,
    n_out,
    all_groups,
    n: tl.constexpr,
    m: tl.constexpr,
    rows: tl.constexpr,
    groups: tl.constexpr,
    dtype: tl.constexpr,
):
    along = tl.arange(0, m)
    weight = tl.zeros([rows, groups, m], dtype=dtype)
    slot = (row[:, None].to(tl.int64) * all_groups + group[None, :]) * n
    inside = (row[:, None] < n_out) & (group[None, :] < all_groups)
    for t in range(n):
        value = tl.load(values + slot + t, mask=inside, other=0.0).to(dtype)
        place = tl.load(places + slot + t, mask=inside, other=0).to(tl.int32)
        hit = place[:, :, None] == along[None, None, :]
        weight += tl.where(hit, value[:, :, None], 0.0).to(dtype)
    return tl.reshape(weight, [rows, groups * m])


# One tile of samples, and some rows of the weight, or some columns where `turned`.
@_compiled
def _groups_kernel(  # type: ignore[no-untyped-def]
    x,
    values,
    places,
    bias,
    y,
    batch,
    n_in,
    n_out,
    n: tl.constexpr,
    m: tl.constexpr,
    turned: tl.constexpr,
    has_bias: tl.constexpr,
    samples: tl.constexpr,
    rows: tl.constexpr,
    groups: tl.constexpr,
    precision: tl.constexpr,
    sums: tl.constexpr,
):
    width: tl.constexpr = groups * m
    all_groups = n_in // m
    sample = (tl.program_id(0) * samples + tl.arange(0, samples)).to(tl.int64)
    part = tl.program_id(1)
    if turned:
        group = part * groups + tl.arange(0, groups)
        column = part * width + tl.arange(0, width)
        total = tl.zeros([samples, width], dtype=sums)
        for first in range(0, n_out, rows):
            row = first + tl.arange(0, rows)
            inputs = tl.load(
                x + sample[:, None] * n_out + row[None, :],
                mask=(sample[:, None] < batch) & (row[None, :] < n_out),
                other=0.0,
            )
            weight = _filled(
                values, places, row, group, n_out, all_groups, n, m, rows, groups, inputs.dtype
            )
            total += tl.dot(inputs, weight, input_precision=precision, out_dtype=sums)
        tl.store(
            y + sample[:, None] * n_in + column[None, :],
            total.to(y.dtype.element_ty),
            mask=(sample[:, None] < batch) & (column[None, :] < n_in),
        )
    else:
        row = part * rows + tl.arange(0, rows)
        total = tl.zeros([samples, rows], dtype=sums)
        if has_bias:
            offset = tl.load(bias + row, mask=row < n_out, other=0.0)
            total += offset[None, :].to(sums)
        for first in range(0, n_in, width):
            group = first // m + tl.arange(0, groups)
            column = first + tl.arange(0, width)
            inputs = tl.load(
                x + sample[:, None] * n_in + column[None, :],
                mask=(sample[:, None] < batch) & (column[None, :] < n_in),
                other=0.0,
            )
            weight = _filled(
                values, places, row, group, n_out, all_groups, n, m, rows, groups, inputs.dtype
            )
            total += tl.dot(inputs, tl.trans(weight), input_precision=precision, out_dtype=sums)
        tl.store(
            y + sample[:, None] * n_out + row[None, :],
            total.to(y.dtype.element_ty),
            mask=(sample[:, None] < batch) & (row[None, :] < n_out),
        )


# Some rows and some groups: their dense gradient, of which the connections are picked.
@_compiled
def _groups_values_kernel(  # type: ignore[no-untyped-def]
    grad,
    x,
    places,
    dvalues,
    batch,
    n_in,
    n_out,
    n: tl.constexpr,
    m: tl.constexpr,
    samples: tl.constexpr,
    rows: tl.constexpr,
    groups: tl.constexpr,
    precision: tl.constexpr,
    sums: tl.constexpr,
):
    width: tl.constexpr = groups * m
    all_groups = n_in // m
    row = tl.program_id(0) * rows + tl.arange(0, rows)
    group = tl.program_id(1) * groups + tl.arange(0, groups)
    column = tl.program_id(1) * width + tl.arange(0, width)
    total = tl.zeros([rows, width], dtype=sums)
    for first in range(0, batch, samples):
        sample = (first + tl.arange(0, samples)).to(tl.int64)
        outer = tl.load(
            grad + sample[None, :] * n_out + row[:, None],
            mask=(sample[None, :] < batch) & (row[:, None] < n_out),
            other=0.0,
        )
        inputs = tl.load(
            x + sample[:, None] * n_in + column[None, :],
            mask=(sample[:, None] < batch) & (column[None, :] < n_in),
            other=0.0,
        )
        total += tl.dot(outer, inputs, input_precision=precision, out_dtype=sums)
    dense = tl.reshape(total, [rows, groups, m])
    along = tl.arange(0, m)
    slot = (row[:, None].to(tl.int64) * all_groups + group[None, :]) * n
    inside = (row[:, None] < n_out) & (group[None, :] < all_groups)
    for t in range(n):
        place = tl.load(places + slot + t, mask=inside, other=0).to(tl.int32)
        hit = place[:, :, None] == along[None, None, :]
        picked = tl.sum(tl.where(hit, dense, 0.0), axis=2)
        tl.store(dvalues + slot + t, picked.to(dvalues.dtype.element_ty), mask=inside)
