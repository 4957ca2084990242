"""Inputs and output gradients of a backward pass, kept for layers that asked for them.

Gradient growth needs, on update steps only, the gradient of positions that have no value. It is
formed later, in tiles, from what is kept here; no dense gradient is made. Keeping happens inside
the operator, so it works in every loop and under ``torch.compile``.
"""

from __future__ import annotations

from torch import Tensor

Captured = list[tuple[Tensor, Tensor]]

_armed: dict[int, Captured] = {}
_closed: set[int] = set()


def arm(values: Tensor) -> None:
    """Keep what the next backward passes of the layer with these values see."""
    _armed[values.data_ptr()] = []
    _closed.discard(values.data_ptr())


def take(values: Tensor) -> Captured:
    """Stop keeping, and return the pairs (input ``[batch, in]``, gradient ``[batch, out]``)."""
    _closed.discard(values.data_ptr())
    return _armed.pop(values.data_ptr(), [])


def close(values: Tensor) -> None:
    """The optimiser has stepped: what is kept is complete, and a next pass starts anew.

    So no more than one step's worth is ever kept, whether or not somebody takes it.
    """
    if values.data_ptr() in _armed:
        _closed.add(values.data_ptr())


def follow(old: Tensor, new: Tensor) -> None:
    """Go on for values that replace others of the same layer."""
    if old.data_ptr() in _armed:
        closed = old.data_ptr() in _closed
        _armed[new.data_ptr()] = take(old)
        if closed:
            close(new)


def record(values: Tensor, x: Tensor, grad: Tensor) -> None:
    """Keep one backward pass if the layer is armed; called by the operator."""
    key = values.data_ptr() if _armed else 0
    if (kept := _armed.get(key)) is not None:
        if key in _closed:
            _closed.discard(key)
            kept.clear()
        # Copies: loops refill their input tensors, and compiled code reuses its memory.
        kept.append((x.detach().clone(), grad.detach().clone()))
