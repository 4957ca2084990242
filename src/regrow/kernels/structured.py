"""The sparse linear map as a torch operator that uses a structure of the connections.

As `ops`, with kernels for blocks and for N of M beside ``csr`` and ``dense``; ``auto`` times all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any, NamedTuple

from torch import Tensor

from regrow.kernels import capture, dispatch, native, native_structured, ops, reference_structured
from regrow.kernels.operator import differentiable, filled, filled_fake, without
from regrow.topology.structure import BlockStructure, NofMStructure, Structure

Both = tuple[Tensor | None, Tensor | None]

COMPUTES = ("block", "nm")
"""What a structure may be computed with, beside what serves any topology."""


class Form(NamedTuple):
    """A structure as kernels take it: its compute, and rows and columns of a block, or N and M."""

    kind: str
    sizes: tuple[int, int]


def form_of(structure: Structure | None) -> Form | None:
    """The form of a structure that there are kernels for; None for any other, or for none.

    Example:
        >>> from regrow.topology import Block, FanIn
        >>> form_of(Block(16, 16))
        Form(kind='block', sizes=(16, 16))
        >>> form_of(FanIn(8))
    """
    if isinstance(structure, BlockStructure):
        return Form("block", (structure.rows, structure.columns))
    if isinstance(structure, NofMStructure) and structure.m <= 256:
        return Form("nm", (structure.n, structure.m))
    return None


def situation(
    x: Tensor, n_out: int, nnz: int, kind: str, form: Sequence[int], training: bool
) -> dispatch.Situation:
    """Where a decision holds: for this structure only."""
    work = f"{kind} {form[0]}x{form[1]}"
    return dispatch.Situation.of(x, n_out, nnz, training, work, structured=True)


def _structured(
    x: Tensor,
    values: Tensor,
    bias: Tensor | None,
    operands: Sequence[Tensor],
    parts: Sequence[Tensor],
    kind: str,
    form: Sequence[int],
    compute: str,
    training: bool,
) -> Tensor:
    """Apply a sparse weight whose connections have a structure.

    Args:
        x: Input ``[batch, in]``. Its dtype is that of the result; it may be of lower precision
            than the values (autocast), and is then raised where the kernel needs it.
        values: One value per connection ``[nnz]``, row by row.
        bias: ``[out]`` or None.
        operands: As in ``linear``; may be empty where ``compute`` is ``kind``.
        parts: Where the connections are, as `Topology.parts` says.
        kind: ``block`` or ``nm``.
        form: Rows and columns of a block, or N and M.
        compute: ``kind`` or ``auto``.
        training: Whether a backward pass is to follow, so that ``auto`` weighs it too.

    Returns:
        ``[batch, out]``.
    """
    chosen = _resolve(compute, x, values, operands, parts, kind, form, training)
    if chosen == "dense":
        return ops._dense_forward(x, values, bias, operands)
    if chosen == "csr":
        return ops._csr_forward(x, values, bias, operands)
    return _forward(x, values, bias, parts, kind, form)


def _structured_backward(
    grad: Tensor,
    x: Tensor,
    values: Tensor,
    operands: Sequence[Tensor],
    parts: Sequence[Tensor],
    kind: str,
    form: Sequence[int],
    compute: str,
    need_x: bool,
    need_values: bool,
) -> tuple[Tensor, Tensor]:
    """Gradients with respect to input and values; one that is not needed is empty.

    Args:
        grad: Gradient of the result ``[batch, out]``.
        x: As in ``structured``, and so are the others.
        values: As there.
        operands: As there.
        parts: As there.
        kind: As there.
        form: As there.
        compute: As there; ``auto`` takes what the forward pass has measured.
        need_x: Whether the gradient of the input is wanted.
        need_values: Whether the gradient of the values is wanted.

    Returns:
        Gradient of the input ``[batch, in]`` and of the values ``[nnz]``.
    """
    if need_values:
        capture.record(values, x, grad)
    chosen = _resolve(compute, x, values, operands, parts, kind, form, True)
    wanted = need_x, need_values
    if chosen == "dense":
        dx, dvalues = ops._dense_backward(grad, x, values, operands, *wanted)
    elif chosen == "csr":
        dx, dvalues, _ = ops._csr_backward(grad, x, values, operands, *wanted)
    else:
        dx, dvalues = _backward(grad, x, values, parts, kind, form, *wanted)
    return filled(dx, dvalues, x, values)


def _forward(
    x: Tensor,
    values: Tensor,
    bias: Tensor | None,
    parts: Sequence[Tensor],
    kind: str,
    form: Sequence[int],
) -> Tensor:
    sizes = form[0], form[1]
    values = ops.raised(values)
    kernels = structured_kernels(values, kind, sizes)
    if _lowers(kernels):
        y: Tensor = kernels.forward(x, values, parts, kind, sizes, bias)
        return y
    raised = None if bias is None else bias.to(values.dtype)
    y = kernels.forward(x.to(values.dtype), values, parts, kind, sizes, raised)
    return y.to(x.dtype)


def _backward(
    grad: Tensor,
    x: Tensor,
    values: Tensor,
    parts: Sequence[Tensor],
    kind: str,
    form: Sequence[int],
    need_x: bool,
    need_values: bool,
) -> Both:
    sizes = form[0], form[1]
    raised, dtype = ops.raised(values), x.dtype
    kernels = structured_kernels(raised, kind, sizes)
    if not _lowers(kernels):
        grad, x = grad.to(raised.dtype), x.to(raised.dtype)
    wanted = need_x, need_values
    dx, dvalues = kernels.backward(grad, x, raised, parts, kind, sizes, *wanted)
    return ops._in(dtype, dx), ops._in(values.dtype, dvalues)


def structured_kernels(values: Tensor, kind: str, sizes: tuple[int, int]) -> Any:
    """The module whose kernels serve these values: native, Triton on a GPU, else the reference."""
    if ops.sparse_kernels(values) is native:
        return native_structured
    if _on_gpu(values):
        from regrow.kernels import triton_structured

        if triton_structured.serves(kind, sizes):
            return triton_structured
    return reference_structured


def _on_gpu(values: Tensor) -> bool:
    return values.is_cuda and find_spec("triton") is not None


def _lowers(kernels: Any) -> bool:
    """Whether kernels take inputs of lower precision than the values as they are."""
    return kernels not in (native_structured, reference_structured)


def _resolve(
    compute: str,
    x: Tensor,
    values: Tensor,
    operands: Sequence[Tensor],
    parts: Sequence[Tensor],
    kind: str,
    form: Sequence[int],
    training: bool,
) -> str:
    """What ``auto`` means here: measured at the first call of a situation, then remembered."""
    if compute != "auto":
        return compute
    n_out, n_in = operands[0].numel() - 1, x.shape[1]
    here = situation(x, n_out, values.numel(), kind, form, training)

    def trials() -> dict[str, Callable[[], object]]:
        found = ops._trials(x, values, operands, n_out, n_in, training)
        if dispatch.without_dense(here) is not None:
            del found["dense"]
        served = structured_kernels(ops.raised(values), kind, (form[0], form[1]))
        if served is reference_structured:
            return found
        grad = x.new_ones(x.shape[0], n_out)

        def own() -> None:
            _forward(x, values, None, parts, kind, form)
            if training:
                _backward(grad, x, values, parts, kind, form, True, True)

        return {**found, kind: own}

    return dispatch.choose(here, trials)


def _fake(
    x: Tensor,
    values: Tensor,
    bias: Tensor | None,
    operands: Sequence[Tensor],
    parts: Sequence[Tensor],
    kind: str,
    form: Sequence[int],
    compute: str,
    training: bool,
) -> Tensor:
    sizes = form[0], form[1]
    n_out = reference_structured.rows_of(x.shape[1], values.shape[0], parts[0], kind, sizes)
    return x.new_empty(x.shape[0], n_out)


def _backward_fake(
    grad: Tensor,
    x: Tensor,
    values: Tensor,
    operands: Sequence[Tensor],
    parts: Sequence[Tensor],
    kind: str,
    form: Sequence[int],
    compute: str,
    need_x: bool,
    need_values: bool,
) -> tuple[Tensor, Tensor]:
    return filled_fake(x, values, need_x, need_values)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, values, bias, *ctx.weight, _ = inputs
    ctx.save_for_backward(x, values)
    ctx.has_bias = bias is not None


def _gradients(ctx: Any, grad: Tensor, backward: Callable[..., Any]) -> tuple[Tensor | None, ...]:
    need_x, need_values, need_bias, *others = ctx.needs_input_grad
    dx = dvalues = None
    if need_x or need_values:
        given = *ctx.saved_tensors, *ctx.weight
        dx, dvalues = backward(grad.contiguous(), *given, need_x, need_values)
    dbias = grad.sum(0) if need_bias and ctx.has_bias else None
    unused = without(others)
    return (dx if need_x else None), (dvalues if need_values else None), dbias, *unused


def _backward_flops(  # type: ignore[no-untyped-def]
    grad_shape, x_shape, values_shape, *args, **kwargs
) -> int:
    return sum(map(bool, args[-2:])) * ops.linear_flops(x_shape, values_shape)


structured = differentiable(
    "structured",
    _structured,
    _structured_backward,
    fakes=(_fake, _backward_fake),
    flops=(ops.linear_flops, _backward_flops),
    setup=_setup_context,
    gradients=_gradients,
)
