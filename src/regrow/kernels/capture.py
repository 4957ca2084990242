"""Inputs and output gradients of a backward pass, kept for layers that asked for them.

Gradient growth needs, on update steps only, the gradient of positions that have no value. It is
formed later, in tiles, from what is kept here; no dense gradient is made. Keeping happens inside
the operator, so it works in every loop and under ``torch.compile``.
"""

from __future__ import annotations

from torch import Tensor

Captured = list[tuple[Tensor, Tensor]]

_armed: dict[int, Captured] = {}


def arm(values: Tensor) -> None:
    """Keep what the next backward passes of the layer with these values see."""
    _armed[values.data_ptr()] = []


def take(values: Tensor) -> Captured:
    """Stop keeping, and return the pairs (input ``[batch, in]``, gradient ``[batch, out]``)."""
    return _armed.pop(values.data_ptr(), [])


def record(values: Tensor, x: Tensor, grad: Tensor) -> None:
    """Keep one backward pass if the layer is armed; called by the operator."""
    if _armed and (kept := _armed.get(values.data_ptr())) is not None:
        kept.append((x.detach(), grad.detach()))
