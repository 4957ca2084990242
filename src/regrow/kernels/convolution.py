"""The sparse convolution as a torch operator: forward, both gradients, shapes and FLOPs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from regrow.kernels import (
    capture,
    dense_convolution,
    dispatch,
    native,
    native_convolution,
    ops,
    reference_convolution,
)
from regrow.kernels.geometry import Geometry
from regrow.kernels.operator import differentiable, filled, filled_fake

Both = tuple[Tensor | None, Tensor | None]


def conv_kernels(values: Tensor) -> Any:
    """The module whose sparse kernels serve these values: native where it can, else reference."""
    is_native = ops.sparse_kernels(values) is native
    return native_convolution if is_native else reference_convolution


def situation(
    x: Tensor, indptr: Tensor, nnz: int, geometry: Geometry, training: bool
) -> dispatch.Situation:
    """Where a decision holds: for this geometry and input size, and about this batch."""
    columns = x.shape[1] // geometry.groups * geometry.places
    like = x.new_empty(1).expand(x.shape[0], columns)
    size = "x".join(str(n) for n in x.shape[2:])
    work = f"convolution {geometry} on {size}"
    return dispatch.Situation.of(like, indptr.numel() - 1, nnz, training, work)


def _conv(
    x: Tensor,
    values: Tensor,
    bias: Tensor | None,
    indptr: Tensor,
    indices: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    compute: str,
    training: bool,
) -> Tensor:
    """Convolve with a sparse weight.

    Args:
        x: Input ``[batch, channels, *size]``. Its dtype is that of the result; it may be of lower
            precision than the values (autocast), and is then raised where the kernel needs it.
        values: One value per connection ``[nnz]``.
        bias: ``[out]`` or None.
        indptr: Row pointers, int64 ``[out + 1]``.
        indices: Column of each connection, int32 ``[nnz]``: a channel of the group, then a place
            in the kernel.
        kernel: Size of the kernel.
        stride: Steps of the kernel.
        padding: Zeros before and behind each axis, pair by pair.
        dilation: Distance of neighbouring places of the kernel.
        groups: Groups of channels.
        compute: ``csr``, ``dense`` or ``auto``.
        training: Whether a backward pass is to follow, so that ``auto`` weighs it too.

    Returns:
        ``[batch, out, *out_size]``.
    """
    geometry = Geometry.of(kernel, stride, padding, dilation, groups)
    compute = _resolve(compute, x, values, indptr, indices, geometry, training)
    return _forward(compute, x, values, bias, indptr, indices, geometry)


def _conv_backward(
    grad: Tensor,
    x: Tensor,
    values: Tensor,
    indptr: Tensor,
    indices: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    compute: str,
    need_x: bool,
    need_values: bool,
) -> tuple[Tensor, Tensor]:
    """Gradients of ``conv`` with respect to input and values; one that is not needed is empty.

    Args:
        grad: Gradient of the result ``[batch, out, *out_size]``.
        x: As in ``conv``, and so are the others.
        values: As there.
        indptr: As there.
        indices: As there.
        kernel: As there.
        stride: As there.
        padding: As there.
        dilation: As there.
        groups: As there.
        compute: As there; ``auto`` takes what the forward pass has measured.
        need_x: Whether the gradient of the input is wanted.
        need_values: Whether the gradient of the values is wanted.

    Returns:
        Gradient like the input, and of the values ``[nnz]``.
    """
    geometry = Geometry.of(kernel, stride, padding, dilation, groups)
    if need_values:
        capture.record(values, x, grad)
    compute = _resolve(compute, x, values, indptr, indices, geometry, True)
    dx, dvalues = _both(compute, grad, x, values, indptr, indices, geometry, need_x, need_values)
    return filled(dx, dvalues, x, values)


def _forward(
    compute: str,
    x: Tensor,
    values: Tensor,
    bias: Tensor | None,
    indptr: Tensor,
    indices: Tensor,
    geometry: Geometry,
) -> Tensor:
    kernels, weight = _kernels_for(compute, x, values)
    raised = None if bias is None else bias.to(weight.dtype)
    y: Tensor = kernels.conv_forward(x.to(weight.dtype), weight, indptr, indices, geometry, raised)
    return y.to(x.dtype)


def _both(
    compute: str,
    grad: Tensor,
    x: Tensor,
    values: Tensor,
    indptr: Tensor,
    indices: Tensor,
    geometry: Geometry,
    need_x: bool,
    need_values: bool,
) -> Both:
    kernels, weight = _kernels_for(compute, x, values)
    dx, dvalues = kernels.conv_backward(
        grad.to(weight.dtype),
        x.to(weight.dtype),
        weight,
        indptr,
        indices,
        geometry,
        need_x,
        need_values,
    )
    return ops._in(x.dtype, dx), ops._in(values.dtype, dvalues)


def _kernels_for(compute: str, x: Tensor, values: Tensor) -> tuple[Any, Tensor]:
    """The kernels, and the values in the dtype in which they compute."""
    if compute == "dense":  # the dense weight is made in the dtype of the input
        return dense_convolution, values.to(x.dtype)
    values = ops.raised(values)
    return conv_kernels(values), values


# ---- Gradient of positions without a value


def pair_products(
    grad: Tensor, x: Tensor, rows: Tensor, columns: Tensor, geometry: Geometry
) -> Tensor:
    """Gradient of the weight at single positions ``[k]``, which may repeat.

    Args:
        grad: Gradient of the result ``[batch, out, *out_size]``.
        x: Input ``[batch, channels, *size]``, of the same dtype.
        rows: Row of each position, int64 ``[k]``.
        columns: Column of each position, int64 ``[k]``.
        geometry: How the kernel moves.
    """
    width = x.shape[1] // geometry.groups * geometry.places
    positions, owner = (rows * width + columns).unique(return_inverse=True)
    starts = torch.arange(grad.shape[1] + 1, device=positions.device) * width
    indptr, indices = torch.searchsorted(positions, starts), (positions % width).int()
    values = grad.new_zeros(positions.shape)
    _, products = _both("csr", grad, x, values, indptr, indices, geometry, False, True)
    return cast(Tensor, products)[owner]


# ---- Choice


def _resolve(
    compute: str,
    x: Tensor,
    values: Tensor,
    indptr: Tensor,
    indices: Tensor,
    geometry: Geometry,
    training: bool,
) -> str:
    """What ``auto`` means here: measured at the first call of a situation, then remembered."""
    if compute != "auto":
        return compute

    def trials() -> dispatch.Trials:
        shape = x.shape[0], indptr.numel() - 1, *geometry.out_size(x.shape[2:])
        grad = x.new_ones(shape)

        def work(compute: str) -> None:
            _forward(compute, x, values, None, indptr, indices, geometry)
            if training:
                _both(compute, grad, x, values, indptr, indices, geometry, True, True)

        return {name: lambda name=name: work(name) for name in ("csr", "dense")}  # type: ignore[misc]

    return dispatch.choose(situation(x, indptr, values.numel(), geometry, training), trials)


# ---- The operator


def _fake(x, values, bias, indptr, indices, *options):  # type: ignore[no-untyped-def]
    geometry = Geometry.of(*options[:5])
    return x.new_empty(x.shape[0], indptr.shape[0] - 1, *geometry.out_size(x.shape[2:]))


def _backward_fake(grad, x, values, *rest):  # type: ignore[no-untyped-def]
    need_x, need_values = rest[-2:]
    return filled_fake(x, values, need_x, need_values)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, values, bias, indptr, indices, *options, _ = inputs
    ctx.save_for_backward(x, values, indptr, indices)
    ctx.options, ctx.has_bias = options, bias is not None


def _gradients(
    ctx: Any, grad: Tensor, backward: Callable[..., tuple[Tensor, Tensor]]
) -> tuple[Tensor | None, ...]:
    need_x, need_values, need_bias = ctx.needs_input_grad[:3]
    dx = dvalues = None
    if need_x or need_values:
        dx, dvalues = backward(
            grad.contiguous(), *ctx.saved_tensors, *ctx.options, need_x, need_values
        )
    dbias = grad.transpose(0, 1).flatten(1).sum(1) if need_bias and ctx.has_bias else None
    unused = (None,) * 9
    return (dx if need_x else None), (dvalues if need_values else None), dbias, *unused


def _flops(  # type: ignore[no-untyped-def]
    x_shape, values_shape, *args, out_shape=None, **kwargs
) -> int:
    products: int = 2 * int(values_shape[0]) * int(x_shape[0]) * math.prod(out_shape[2:])
    return products


def _backward_flops(grad_shape, x_shape, values_shape, *args, **kwargs):  # type: ignore[no-untyped-def]
    products: int = 2 * int(values_shape[0]) * int(x_shape[0]) * math.prod(grad_shape[2:])
    return products * (bool(args[-2]) + bool(args[-1]))


conv = differentiable(
    "conv",
    _conv,
    _conv_backward,
    fakes=(_fake, _backward_fake),
    flops=(_flops, _backward_flops),
    setup=_setup_context,
    gradients=_gradients,
)
