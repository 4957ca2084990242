"""The sparse linear map as a torch operator: forward, both gradients, shapes and FLOPs.

The operator is opaque to ``torch.compile`` and chooses inside how it computes, so a compiled model
has no graph break and nothing is traced through a measurement.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from regrow.kernels import capture, dispatch, native, reference, strips
from regrow.kernels.operator import differentiable, filled, filled_fake, without

Backward = Callable[..., tuple[Tensor, Tensor, Tensor]]

COMPUTES = ("auto", "csr", "dense")

_NATIVE_DTYPES = (torch.float32, torch.float64)
_HALF_DTYPES = (torch.bfloat16, torch.float16)


_said = False


def sparse_kernels(values: Tensor) -> Any:
    """The module whose sparse kernels serve these values: native where it can, else reference."""
    if values.is_cpu and values.dtype in _NATIVE_DTYPES:
        if native.available():
            return native
        _say_why()
    return reference


def raised(values: Tensor) -> Tensor:
    """Values as the fast sparse kernels of a CPU take them: those of half precision in float32.

    Results are lowered again by who asks for them. Without fast kernels nothing is raised.
    """
    half = values.dtype in _HALF_DTYPES and values.is_cpu
    return values.float() if half and native.available() else values


def _say_why() -> None:
    global _said  # not a cache, which would forget a warning that is raised as an error
    if _said:
        return
    _said = True
    warnings.warn(
        f"regrow computes with its slow reference kernels: {native.reason()}",
        RuntimeWarning,
        stacklevel=2,
    )


def _linear(
    x: Tensor,
    values: Tensor,
    bias: Tensor | None,
    operands: Sequence[Tensor],
    compute: str,
    training: bool,
    relu: bool = False,
    feature_major: bool = False,
) -> Tensor:
    """Apply a sparse weight: ``y[b, i] = bias[i] + sum_k values[k] * x[b, column[k]]``.

    Args:
        x: Input ``[batch, in]``. Its dtype is that of the result; it may be of lower precision
            than the values (autocast). Products of bfloat16 are summed in float32.
        values: One value per connection ``[nnz]``.
        bias: ``[out]`` or None.
        operands: Index tensors of the weight (see ``regrow.topology.operands``); those of the
            column order may be empty where ``compute`` is ``dense``.
        compute: ``csr``, ``dense`` or ``auto``.
        training: Whether a backward pass is to follow, so that ``auto`` weighs it too.
        relu: Whether negative results become zero.
        feature_major: Whether the samples of a feature of the result may lie next to each other in
            the memory: ``csr`` compute writes it faster so, and reads it faster. Not for traced
            calls, which take every result for contiguous.

    Returns:
        ``[batch, out]``.
    """
    if _resolve(compute, x, values, operands, training) == "dense":
        y = _dense_forward(x, values, bias, operands)
        return y.relu_() if relu else y
    return _csr_forward(x, values, bias, operands, relu, feature_major)


def _linear_backward(
    grad: Tensor,
    x: Tensor,
    values: Tensor,
    operands: Sequence[Tensor],
    compute: str,
    need_x: bool,
    need_values: bool,
    need_bias: bool = False,
    y: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of ``linear`` for input, values and bias; one that is not needed is empty.

    Args:
        grad: Gradient of the result ``[batch, out]``.
        x: Input of the forward pass ``[batch, in]``.
        values: One value per connection ``[nnz]``.
        operands: As in ``linear``.
        compute: As in ``linear``; ``auto`` takes what the forward pass has measured.
        need_x: Whether the gradient of the input is wanted.
        need_values: Whether the gradient of the values is wanted.
        need_bias: Whether the gradient of the bias is wanted.
        y: Result of the forward pass, if it was with ``relu``.

    Returns:
        Gradient of the input ``[batch, in]``, of the values ``[nnz]``, and of the bias ``[out]``.
    """
    wanted = need_x, need_values
    if need_values:
        capture.record(values, x, grad, y)
    chosen = _resolve(compute, x, values, operands, True) if any(wanted) else ""
    dx = dvalues = None
    if chosen == "csr" and x.numel():
        dx, dvalues, into = _csr_backward(grad, x, values, operands, *wanted, need_bias, y)
        return *filled(dx, dvalues, x, values), grad.new_empty(0) if into is None else into
    if y is not None:
        grad = torch.ops.aten.threshold_backward(grad, y, 0)
    dbias = grad.sum(0) if need_bias else grad.new_empty(0)
    if chosen == "dense":
        dx, dvalues = _dense_backward(grad, x, values, operands, *wanted)
    elif chosen:
        dx, dvalues, _ = _csr_backward(grad, x, values, operands, *wanted)
    return *filled(dx, dvalues, x, values), dbias


def _csr_forward(
    x: Tensor,
    values: Tensor,
    bias: Tensor | None,
    operands: Sequence[Tensor],
    relu: bool = False,
    feature_major: bool = False,
) -> Tensor:
    kernels, weight, stored = _kernels_for(x, values)
    bias = _in(weight.dtype, bias)
    y = kernels.linear_forward(_in(stored, x), weight, operands, bias, relu, feature_major)
    lowered: Tensor = _in(x.dtype, y)
    return lowered


def _csr_backward(
    grad: Tensor,
    x: Tensor,
    values: Tensor,
    operands: Sequence[Tensor],
    need_x: bool,
    need_values: bool,
    need_bias: bool = False,
    y: Tensor | None = None,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    kernels, weight, stored = _kernels_for(x, values)
    dbias = weight.new_empty(grad.shape[1]) if need_bias else None
    dx, dvalues = kernels.linear_backward(
        *(_in(stored, grad), _in(stored, x), weight, operands),
        *(need_x, need_values, _in(stored, y), dbias),
    )
    return _in(x.dtype, dx), _in(values.dtype, dvalues), _in(grad.dtype, dbias)


def _in(dtype: torch.dtype, tensor: Any) -> Any:
    """A tensor, or None, in this dtype; asking first is much quicker than ``to``."""
    return tensor if tensor is None or tensor.dtype is dtype else tensor.to(dtype)


def _kernels_for(x: Tensor, values: Tensor) -> tuple[Any, Tensor, torch.dtype]:
    """The kernels of a product, the values as they take them, and the dtype of activations."""
    values = raised(values)
    kernels = sparse_kernels(values)
    stored = native.stored(x, values.dtype) if kernels is native else values.dtype
    return kernels, values, stored


def _dense_weight(
    values: Tensor, operands: Sequence[Tensor], n_in: int, dtype: torch.dtype
) -> Tensor:
    indptr, indices = operands[:2]
    if values.numel() == (indptr.numel() - 1) * n_in:
        return values.to(dtype).view(-1, n_in)
    lowered = values.to(dtype)
    dense: Tensor = sparse_kernels(lowered).scatter(lowered, indptr, indices, n_in)
    return dense


def _dense_forward(
    x: Tensor, values: Tensor, bias: Tensor | None, operands: Sequence[Tensor]
) -> Tensor:
    if _in_strips(x, values, operands[0]):
        lowered = None if bias is None else bias.to(x.dtype)
        return strips.forward(x, values, lowered, *operands[:2])
    weight = _dense_weight(values, operands, x.shape[1], x.dtype)
    x = x.contiguous()  # torch is ten times slower with others where outputs are few
    return functional.linear(x, weight, None if bias is None else bias.to(x.dtype))


def _dense_backward(
    grad: Tensor,
    x: Tensor,
    values: Tensor,
    operands: Sequence[Tensor],
    need_x: bool,
    need_values: bool,
) -> tuple[Tensor | None, Tensor | None]:
    indptr, indices = operands[:2]
    if _in_strips(x, values, indptr):
        return strips.backward(grad, x, values, indptr, indices, need_x, need_values)
    dx = dvalues = None
    if need_x:
        dx = grad @ _dense_weight(values, operands, x.shape[1], x.dtype)
    if need_values:
        dense = grad.t() @ x
        if values.numel() == dense.numel():
            dvalues = dense.reshape(-1).to(values.dtype)
        else:
            gathered = sparse_kernels(dense).gather(dense, indptr, indices)
            dvalues = gathered.to(values.dtype)
    return dx, dvalues


def _in_strips(x: Tensor, values: Tensor, indptr: Tensor) -> bool:
    """Whether the dense weight need not exist as a whole: on a CPU, unless it is the values."""
    full = values.numel() == (indptr.numel() - 1) * x.shape[1]
    return x.dtype == values.dtype and not full and sparse_kernels(values) is native


def _resolve(
    compute: str, x: Tensor, values: Tensor, operands: Sequence[Tensor], training: bool
) -> str:
    """What ``auto`` means here: measured at the first call of a situation, then remembered."""
    if compute != "auto":
        return compute
    n_out, n_in = operands[0].numel() - 1, x.shape[1]
    situation = dispatch.Situation.of(x, n_out, values.numel(), training)
    return dispatch.choose(situation, lambda: _trials(x, values, operands, n_out, n_in, training))


def _trials(
    x: Tensor,
    values: Tensor,
    operands: Sequence[Tensor],
    n_out: int,
    n_in: int,
    training: bool,
) -> dict[str, Callable[[], object]]:
    """The work of one step for each compute, for the dispatcher to time."""
    grad = x.new_ones(x.shape[0], n_out)

    def csr() -> None:
        _csr_forward(x, values, None, operands)
        if training:
            _csr_backward(grad, x, values, operands, True, True)

    def dense() -> None:
        _dense_forward(x, values, None, operands)
        if training:
            _dense_backward(grad, x, values, operands, True, True)

    return {"csr": csr, "dense": dense}


def _linear_fake(
    x: Tensor,
    values: Tensor,
    bias: Tensor | None,
    operands: Sequence[Tensor],
    compute: str,
    training: bool,
    relu: bool = False,
    feature_major: bool = False,
) -> Tensor:
    return x.new_empty(x.shape[0], operands[0].shape[0] - 1)


def _linear_backward_fake(
    grad: Tensor,
    x: Tensor,
    values: Tensor,
    operands: Sequence[Tensor],
    compute: str,
    need_x: bool,
    need_values: bool,
    need_bias: bool = False,
    y: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    dbias = grad.new_empty(grad.shape[1] if need_bias else 0)
    return *filled_fake(x, values, need_x, need_values), dbias


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, values, bias, ctx.operands, ctx.compute = inputs[:5]
    ctx.has_bias, ctx.relu = bias is not None, inputs[6:7] == (True,)
    # Index tensors never change, and so need none of the care that is taken of what is saved.
    ctx.save_for_backward(x, values, *((output,) if ctx.relu else ()))


def _gradients(ctx: Any, grad: Tensor, backward: Backward) -> tuple[Tensor | None, ...]:
    x, values, *rest = ctx.saved_tensors
    need_x, need_values, need_bias, *others = ctx.needs_input_grad
    unused = without(others)
    need_bias = need_bias and ctx.has_bias
    if not (need_x or need_values or need_bias):
        return None, None, None, *unused
    if not grad.is_contiguous() and not native.by_features(grad):
        grad = grad.contiguous()
    y, needs = rest[0] if rest else None, (need_x, need_values, need_bias)
    dx, dvalues, dbias = backward(grad, x, values, ctx.operands, ctx.compute, *needs, y)
    return (
        dx if need_x else None,
        dvalues if need_values else None,
        dbias if need_bias else None,
        *unused,
    )


def linear_flops(x_shape, values_shape, *args, **kwargs) -> int:  # type: ignore[no-untyped-def]
    """FLOPs of the product of a batch and a sparse weight, from the shapes of both."""
    return 2 * int(x_shape[0]) * int(values_shape[0])


def linear_backward_flops(  # type: ignore[no-untyped-def]
    grad_shape, x_shape, values_shape, *args, **kwargs
) -> int:
    """FLOPs of the gradients that are wanted of ``linear``."""
    return sum(map(bool, args[2:4])) * linear_flops(x_shape, values_shape)


linear = differentiable(
    "linear",
    _linear,
    _linear_backward,
    fakes=(_linear_fake, _linear_backward_fake),
    flops=(linear_flops, linear_backward_flops),
    setup=_setup_context,
    gradients=_gradients,
)

# Both passes without autograd, for learning rules that form gradients of their own.
forward, backward = _linear, _linear_backward
