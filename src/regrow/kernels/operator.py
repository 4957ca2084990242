"""One differentiable torch operator from plain functions, and a short way around the dispatcher.

The operator is what ``torch.compile``, tracing, FLOP counters and function transforms see. Where
none of them watches, the same functions are called directly: the dispatcher's detour costs small
layers dearly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.autograd.function import once_differentiable
from torch.utils.flop_counter import register_flop_formula

import regrow.kernels.flops  # noqa: F401  so that what surrounds the operators is counted too

Gradients = Callable[[Any, Tensor, Callable[..., Any]], tuple[Tensor | None, ...]]


def differentiable(
    name: str,
    forward: Callable[..., Tensor],
    backward: Callable[..., Any],
    *,
    fakes: tuple[Callable[..., Any], Callable[..., Any]],
    flops: tuple[Callable[..., int], Callable[..., int]] | None = None,
    setup: Callable[[Any, tuple[Any, ...], Tensor], None],
    gradients: Gradients,
) -> Callable[..., Tensor]:
    """Register ``regrow::NAME`` and ``regrow::NAME_backward``.

    Args:
        name: Of the operator.
        forward: Its computation, annotated as ``torch.library.custom_op`` wants it.
        backward: That of its gradient, likewise.
        fakes: Shapes and dtypes of the results of both.
        flops: FLOPs of both, from the shapes of their arguments; None if they have none.
        setup: Stores in a context what the backward pass needs: context, inputs, output.
        gradients: One gradient for each input: context, gradient of the output, and what computes
            (``backward``, or the operator made of it).

    Returns:
        The function to call, with the arguments of ``forward``.
    """
    registered = torch.library.custom_op(f"regrow::{name}", forward, mutates_args=())
    registered_backward = torch.library.custom_op(
        f"regrow::{name}_backward", backward, mutates_args=()
    )
    operator = getattr(torch.ops.regrow, name)
    backward_operator = getattr(torch.ops.regrow, f"{name}_backward")

    def by_operator(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return gradients(ctx, grad, backward_operator)

    registered.register_fake(fakes[0])
    registered_backward.register_fake(fakes[1])
    registered.register_autograd(by_operator, setup_context=setup)
    if flops is not None:
        register_flop_formula(operator)(flops[0])
        register_flop_formula(backward_operator)(flops[1])

    def directly(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return gradients(ctx, grad, backward)

    guarded = once_differentiable(directly)

    class Direct(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *inputs: Any) -> Tensor:
            output = forward(*inputs)
            setup(ctx, inputs, output)
            return output

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
            # Where no graph of gradients is made, there is nothing to guard.
            run = guarded if torch.is_grad_enabled() else directly
            return run(ctx, grads[0])

    def apply(*inputs: Any) -> Tensor:
        if watched():
            return cast(Tensor, operator(*inputs))
        if not torch.is_grad_enabled() and not _forward_mode():
            return forward(*inputs)
        return cast(Tensor, Direct.apply(*inputs))  # type: ignore[no-untyped-call]

    apply.__doc__ = f"As the operator ``regrow::{name}``; {forward.__doc__}"
    return apply


def without(needs: Sequence[Any]) -> tuple[Any, ...]:
    """No gradient, for inputs that are none or lists of index tensors.

    Args:
        needs: Of ``ctx.needs_input_grad``, what stands for these inputs.
    """
    return tuple([None] * len(need) if isinstance(need, list) else None for need in needs)


def filled(
    dx: Tensor | None, dvalues: Tensor | None, x: Tensor, values: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of input and values as an operator returns them: one that is not there is empty."""
    return (
        x.new_empty(0) if dx is None else dx,
        values.new_empty(0) if dvalues is None else dvalues,
    )


def filled_fake(
    x: Tensor, values: Tensor, need_x: bool, need_values: bool
) -> tuple[Tensor, Tensor]:
    """Shapes of what ``filled`` returns, from which gradients are wanted."""
    dx = x.new_empty(x.shape) if need_x else None
    return filled(dx, values.new_empty(values.shape) if need_values else None, x, values)


def watched() -> bool:
    """Whether something looks at the operators that are called, so that they must be called."""
    if torch.compiler.is_compiling():
        return True
    # Neither question has a public name; where one cannot be asked, the answer is yes.
    modes = getattr(torch._C, "_len_torch_dispatch_stack", lambda: 1)
    transforms = getattr(torch._C, "_are_functorch_transforms_active", lambda: True)
    return modes() > 0 or transforms()


def _forward_mode() -> bool:
    """Whether tangents may be carried along, which must be refused, and is by autograd."""
    level: int = getattr(forward_ad, "_current_level", 0)
    return level >= 0
