"""A recurrent layer along a whole sequence, as one torch operator with a sparse recurrent weight.

Only what must be is done step by step: the product of the state with the weight. The gradient of
the weight is one product over all steps, so it costs what a linear layer's does, and an armed layer
is captured once a sequence. ``dense`` compute scatters the weight once a sequence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.flop_counter import register_flop_formula

from regrow.kernels import capture, dispatch, ops
from regrow.kernels.cells import CELLS, Back
from regrow.kernels.operator import watched, without

Backward = Callable[..., tuple[Tensor, ...]]
Product = Callable[[Tensor], Tensor]

# Steps of a trial; situations of more steps are not told apart.
_TRIAL_STEPS = 8


def situation(h: Tensor, width: int, nnz: int, steps: int, training: bool) -> dispatch.Situation:
    """Where a decision on a recurrent weight holds.

    Args:
        h: First state ``[sequences, hidden]``.
        width: Rows of the weight, ``gates * hidden``.
        nnz: Its connections.
        steps: Length of the longest sequence.
        training: Whether a backward pass is to follow.
    """
    work = f"recurrence of {min(steps, _TRIAL_STEPS)} steps"
    return dispatch.Situation.of(h, width, nnz, training, work)


def _recurrence(
    projected: Tensor,
    h: Tensor,
    c: Tensor,
    values: Tensor,
    bias: Tensor | None,
    operands: Sequence[Tensor],
    sizes: Sequence[int],
    cell: str,
    reverse: bool,
    compute: str,
    training: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Walk a cell along packed sequences.

    Args:
        projected: The input's part of the gates ``[rows, gates * hidden]``, the rows of each step
            together, with the biases of the input.
        h: First state ``[sequences, hidden]``.
        c: First memory, likewise; without elements for cells that have none.
        values: The recurrent weight ``[gates * hidden, hidden]``, one value per connection.
        bias: Of the recurrent part ``[gates * hidden]``, or None.
        operands: As in ``regrow::linear``.
        sizes: Rows of each step, never rising; the first is the number of sequences.
        cell: ``tanh``, ``relu``, ``gru`` or ``lstm``.
        reverse: Whether to walk from the last step to the first.
        compute: ``csr``, ``dense`` or ``auto``.
        training: Whether a backward pass is to follow, so that ``auto`` weighs it too.

    Returns:
        States ``[rows, hidden]``, last state and memory of each sequence, and two tensors that a
        backward pass needs.
    """
    walk = CELLS[cell][0](projected, sizes)
    compute = _resolve(compute, h, values, operands, len(sizes), training)
    product = _forward_product(compute, values, bias, operands, h.shape[1])
    state, memory = h, c
    for t in _order(len(sizes), reverse):
        n = sizes[t]
        state, memory = _resized(state, h, n), _resized(memory, c, n)
        state, memory = walk.step(t, product(state), state, memory)
    y, kept = walk.y, walk.kept
    last_c = _last(kept[1], sizes, reverse) if c.numel() else c.new_empty(c.shape)
    return y, _last(y, sizes, reverse), last_c, *kept


def _recurrence_backward(
    into_y: Tensor,
    into_h: Tensor,
    into_c: Tensor,
    y: Tensor,
    gates: Tensor,
    extra: Tensor,
    h: Tensor,
    c: Tensor,
    values: Tensor,
    operands: Sequence[Tensor],
    sizes: Sequence[int],
    cell: str,
    reverse: bool,
    compute: str,
    need_values: bool,
    need_bias: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of ``recurrence``: of the projected input, first state and memory, values, bias.

    Args:
        into_y: Gradient of the states ``[rows, hidden]``.
        into_h: Gradient of the last state ``[sequences, hidden]``.
        into_c: Gradient of the last memory; without elements for cells that have none.
        y: The states.
        gates: What the forward pass kept.
        extra: Likewise.
        h: First state.
        c: First memory.
        values: As in ``recurrence``, and so are the next five.
        operands: As there.
        sizes: As there.
        cell: As there.
        reverse: As there.
        compute: As there; ``auto`` takes what the forward pass has measured.
        need_values: Whether the gradient of the values is wanted; it is empty if not.
        need_bias: Whether the gradient of the bias is wanted; it is empty if not.
    """
    compute = _resolve(compute, h, values, operands, len(sizes), True)
    before = _shifted(y, h, sizes, reverse)
    memory_before = _shifted(extra, c, sizes, reverse) if c.numel() else c
    walk = CELLS[cell][1](y, (gates, extra), before, memory_before, sizes)
    back = _backward_product(compute, values, operands, before)
    dh, dc = into_h.clone(), into_c.clone()
    given = into_y.split(sizes)
    for t in _order(len(sizes), not reverse):
        n = sizes[t]
        now = dh[:n].add_(given[t])
        new = walk.step(t, now, dc[:n], back)
        dh = new if n == dh.shape[0] else dh.copy_(torch.cat([new, dh[n:]]))
    into_raw, dvalues = walk.into_raw, values.new_empty(0)
    if need_values:
        capture.record(values, before, into_raw)
        dvalues = _values_gradient(compute, into_raw, before, values, operands)
    dbias = into_raw.sum(0) if need_bias else values.new_empty(0)
    projected = walk.into_projected
    return projected, dh, dc, dvalues, dbias


def _order(steps: int, reverse: bool) -> range:
    return range(steps - 1, -1, -1) if reverse else range(steps)


def _resized(state: Tensor, first: Tensor, rows: int) -> Tensor:
    """The state for a step of so many rows: ended sequences go, starting ones come."""
    have = state.shape[0]
    if have == rows or not state.numel():
        return state
    return state[:rows] if rows < have else torch.cat([state, first[have:rows]])


def _shifted(states: Tensor, first: Tensor, sizes: Sequence[int], reverse: bool) -> Tensor:
    """For each row the state that its step started from, ``[rows, hidden]``."""
    steps = states.split(sizes)
    if not reverse:
        return torch.cat([first, *(s[:n] for s, n in zip(steps[:-1], sizes[1:], strict=True))])
    pieces = []
    for n, after in zip(sizes, [*steps[1:], states[:0]], strict=True):
        pieces += [after, first[after.shape[0] : n]]
    return torch.cat(pieces)


def _last(states: Tensor, sizes: Sequence[int], reverse: bool) -> Tensor:
    """The state of each sequence after its last step, ``[sequences, hidden]``."""
    steps = states.split(sizes)
    if reverse:
        first: Tensor = steps[0].clone()
        return first
    ends = zip(reversed(steps), [0, *reversed(sizes)], strict=False)
    return torch.cat([step[gone:] for step, gone in ends])


def _forward_product(
    compute: str, values: Tensor, bias: Tensor | None, operands: Sequence[Tensor], hidden: int
) -> Product:
    if compute == "csr":
        weight = ops.raised(values)  # once, not at every step
        offsets = None if bias is None else bias.to(weight.dtype)
        return lambda h: ops._csr_forward(h, weight, offsets, operands)
    weight = _dense_weight(values, operands, hidden).t()
    if bias is None:
        return lambda h: h @ weight
    return lambda h: torch.addmm(bias, h, weight)


def _backward_product(
    compute: str, values: Tensor, operands: Sequence[Tensor], before: Tensor
) -> Back:
    if compute == "csr":
        given = ops.raised(values), operands, True, False
        return lambda grad: cast(Tensor, ops._csr_backward(grad, before[: len(grad)], *given)[0])
    weight = _dense_weight(values, operands, before.shape[1])
    return lambda grad: grad @ weight


def _values_gradient(
    compute: str, grad: Tensor, before: Tensor, values: Tensor, operands: Sequence[Tensor]
) -> Tensor:
    if compute == "csr":
        found = ops._csr_backward(grad, before, values, operands, False, True)
        return cast(Tensor, found[1])
    dense = grad.t() @ before
    if dense.numel() == values.numel():
        return dense.view(-1)
    return cast(Tensor, ops.sparse_kernels(values).gather(dense, *operands[:2]))


def _dense_weight(values: Tensor, operands: Sequence[Tensor], hidden: int) -> Tensor:
    indptr, indices = operands[:2]
    if values.numel() == (indptr.numel() - 1) * hidden:
        return values.view(-1, hidden)
    return cast(Tensor, ops.sparse_kernels(values).scatter(values, indptr, indices, hidden))


def _resolve(
    compute: str,
    h: Tensor,
    values: Tensor,
    operands: Sequence[Tensor],
    steps: int,
    training: bool,
) -> str:
    """What ``auto`` means here: measured at the first call of a situation, then remembered."""
    if compute != "auto":
        return compute
    width = operands[0].numel() - 1
    found = situation(h, width, values.numel(), steps, training)
    steps = min(steps, _TRIAL_STEPS)
    return dispatch.choose(found, lambda: dict(_trials(h, values, operands, steps, training)))


def _trials(
    h: Tensor, values: Tensor, operands: Sequence[Tensor], steps: int, training: bool
) -> Iterator[tuple[str, Callable[[], object]]]:
    """The work of some steps with each compute, without that of the gates."""
    grad = h.new_ones(h.shape[0], operands[0].numel() - 1)
    states, grads = h.repeat(steps, 1), grad.repeat(steps, 1)

    def work(compute: str) -> None:
        forward = _forward_product(compute, values, None, operands, h.shape[1])
        for _ in range(steps):
            forward(h)
        if training:
            backward = _backward_product(compute, values, operands, h)
            for _ in range(steps):
                backward(grad)
            _values_gradient(compute, grads, states, values, operands)

    yield "csr", lambda: work("csr")
    yield "dense", lambda: work("dense")


def _fake(  # type: ignore[no-untyped-def]
    projected, h, c, values, bias, operands, sizes, cell, *rest
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    rows, hidden = projected.shape[0], h.shape[1]
    second = projected.new_empty((rows, hidden) if cell in ("gru", "lstm") else 0)
    first = torch.empty_like(projected) if cell in ("gru", "lstm") else projected.new_empty(0)
    y = projected.new_empty(rows, hidden)
    return y, torch.empty_like(h), torch.empty_like(c), first, second


def _backward_fake(  # type: ignore[no-untyped-def]
    into_y, into_h, into_c, y, gates, extra, h, c, values, operands, *rest
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    need_values, need_bias = rest[-2:]
    width = operands[0].shape[0] - 1
    return (
        y.new_empty(y.shape[0], width),
        torch.empty_like(h),
        torch.empty_like(c),
        values.new_empty(values.shape if need_values else 0),
        values.new_empty(width if need_bias else 0),
    )


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    _, h, c, values, bias, *ctx.walk, _ = inputs
    y, _, _, *kept = output
    ctx.save_for_backward(y, *kept, h, c, values)
    ctx.has_bias = bias is not None
    # Zeros for what is kept would be as large as all gates, and nobody reads them.
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
    return _gradients(ctx, grads, torch.ops.regrow.recurrence_backward)


def _gradients(
    ctx: Any, grads: tuple[Tensor | None, ...], backward: Backward
) -> tuple[Tensor | None, ...]:
    need_projected, need_h, need_c, need_values, need_bias, *others = ctx.needs_input_grad
    y, _, _, h, c, _ = ctx.saved_tensors
    into = [
        torch.zeros_like(out) if grad is None else grad.contiguous()
        for out, grad in zip((y, h, c), grads, strict=False)
    ]
    need_bias = need_bias and ctx.has_bias
    found = backward(*into, *ctx.saved_tensors, *ctx.walk, need_values, need_bias)
    needs = (need_projected, need_h, need_c, need_values, need_bias)
    wanted = (grad if need else None for grad, need in zip(found, needs, strict=True))
    return *wanted, *without(others)


_registered = torch.library.custom_op("regrow::recurrence", _recurrence, mutates_args=())
_registered.register_fake(_fake)
_registered.register_autograd(_backward, setup_context=_setup_context)
_registered_backward = torch.library.custom_op(
    "regrow::recurrence_backward", _recurrence_backward, mutates_args=()
)
_registered_backward.register_fake(_backward_fake)


class _Eager(torch.autograd.Function):
    """The same two functions without the dispatcher; see ``ops.linear``."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, ...]:
        output = _recurrence(*inputs)
        _setup_context(ctx, inputs, output)
        ctx.mark_non_differentiable(*output[3:])
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return _gradients(ctx, grads, _recurrence_backward)


def recurrence(*inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Walk a cell along packed sequences; arguments as of the operator ``regrow::recurrence``.

    Returns:
        States ``[rows, hidden]``, last state and last memory ``[sequences, hidden]``.
    """
    if watched():
        return cast(tuple[Tensor, Tensor, Tensor], torch.ops.regrow.recurrence(*inputs)[:3])
    output = _Eager.apply(*inputs)  # type: ignore[no-untyped-call]
    return cast(tuple[Tensor, Tensor, Tensor], output[:3])


@register_flop_formula(torch.ops.regrow.recurrence)
def _flops(  # type: ignore[no-untyped-def]
    projected_shape, h_shape, c_shape, values_shape, *args, **kwargs
) -> int:
    return 2 * int(projected_shape[0]) * int(values_shape[0])


@register_flop_formula(torch.ops.regrow.recurrence_backward)
def _backward_flops(*args, **kwargs) -> int:  # type: ignore[no-untyped-def]
    rows, connections, need_values = int(args[0][0]), int(args[8][0]), bool(args[14])
    return 2 * rows * connections * (1 + need_values)
