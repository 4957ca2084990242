"""Inputs and output gradients of a backward pass, kept for layers that asked for them.

Gradient growth needs, on update steps only, the gradient of positions that have no value. It is
formed later, in tiles, from what is kept here; no dense gradient is made. Keeping happens inside
the operator, so it works in every loop and under ``torch.compile``.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field

from torch import Tensor

Captured = list[tuple[Tensor, Tensor]]


@dataclass
class _Kept:
    """What one armed layer has seen; it goes with the values it belongs to."""

    owner: weakref.ref[Tensor]
    pairs: Captured = field(default_factory=list)
    complete: bool = False


# By address: compiled code passes the operator other objects than the layer's, at the same place.
_armed: dict[int, _Kept] = {}


def arm(values: Tensor) -> None:
    """Keep what the next backward passes of the layer with these values see."""
    _put(values, [], complete=False)


def take(values: Tensor) -> Captured:
    """Stop keeping, and return the pairs (input ``[batch, in]``, gradient ``[batch, out]``)."""
    kept = _armed.pop(values.data_ptr(), None)
    return kept.pairs if kept else []


def close(values: Tensor) -> None:
    """The optimiser has stepped: what is kept is complete, and a next pass starts anew.

    So no more than one step's worth is ever kept, whether or not somebody takes it.
    """
    if kept := _armed.get(values.data_ptr()):
        kept.complete = True


def follow(old: Tensor, new: Tensor) -> None:
    """Go on for values that replace others of the same layer."""
    if kept := _armed.pop(old.data_ptr(), None):
        _put(new, kept.pairs, kept.complete)


def record(values: Tensor, x: Tensor, grad: Tensor) -> None:
    """Keep one backward pass if the layer is armed; called by the operator."""
    if _armed and (kept := _armed.get(values.data_ptr())):
        if kept.complete:
            kept.pairs.clear()
            kept.complete = False
        # Copies, for a loop may refill its input tensor before the update looks.
        kept.pairs.append((x.detach().clone(), grad.detach().clone()))


def _put(values: Tensor, pairs: Captured, complete: bool) -> None:
    key = values.data_ptr()

    def forget(owner: weakref.ref[Tensor]) -> None:
        if (kept := _armed.get(key)) and kept.owner is owner:
            del _armed[key]

    _armed[key] = _Kept(weakref.ref(values, forget), pairs, complete)
