"""Inputs and output gradients of backward passes, kept for layers that asked for them.

Gradient growth needs, on update steps only, the gradient of positions that have no value. It is
formed later, in tiles, from what is kept here; no dense gradient is made. Keeping happens inside
the operator, so it works in every loop and under ``torch.compile``.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

aten = torch.ops.aten


class Pass(NamedTuple):
    """One backward pass of a layer.

    Attributes:
        x: Input of the operator, ``[batch, in]`` for a linear layer.
        grad: Gradient of its output, ``[batch, out]``.
        ago: Optimiser steps between the one that followed the pass and the last one.
    """

    x: Tensor
    grad: Tensor
    ago: int = 0


Captured = list[Pass]


@dataclass
class _Kept:
    """What one armed layer has seen: the passes of its last optimiser steps."""

    history: int
    passes: Captured = field(default_factory=list)
    complete: bool = False
    backward: int | None = None


_armed: weakref.WeakKeyDictionary[nn.Module, _Kept] = weakref.WeakKeyDictionary()


def arm(layer: nn.Module, history: int = 1) -> None:
    """Keep what the next backward passes of a sparse layer see.

    Args:
        layer: With ``values``.
        history: Of how many optimiser steps passes are kept, the last ones.
    """
    _armed[layer] = _Kept(history)


def armed(layer: nn.Module) -> bool:
    """Whether passes of this layer are kept now."""
    return layer in _armed


def take(layer: nn.Module) -> Captured:
    """Stop keeping, and return the passes."""
    kept = _armed.pop(layer, None)
    return kept.passes if kept else []


def so_far(layer: nn.Module) -> Captured:
    """The passes kept until now, which are kept on."""
    kept = _armed.get(layer)
    return list(kept.passes) if kept else []


def resume(layer: nn.Module, passes: Captured) -> None:
    """Go on with passes kept by an armed layer before, of optimiser steps that are complete."""
    if kept := _armed.get(layer):
        kept.passes, kept.complete = list(passes), True


def close(layer: nn.Module) -> None:
    """The optimiser has stepped: what is kept is complete, and a next pass starts another step.

    So no more than ``history`` steps' worth is ever kept, whether or not somebody takes it.
    """
    if kept := _armed.get(layer):
        kept.complete = True


@contextlib.contextmanager
def aside(layers: Iterable[nn.Module]) -> Iterator[dict[nn.Module, Captured]]:
    """Keep what some passes see apart from what the layers keep in training.

    Yields:
        The passes of each layer; filled when the context ends.
    """
    layers = list(layers)
    found: dict[nn.Module, Captured] = {}
    before = {layer: _armed.pop(layer, None) for layer in layers}
    for layer in layers:
        arm(layer)
    try:
        yield found
    finally:
        for layer in layers:
            found[layer] = take(layer)
            if kept := before[layer]:
                _armed[layer] = kept


def record(values: Tensor, x: Tensor, grad: Tensor, y: Tensor | None = None) -> None:
    """Keep one backward pass if its layer is armed; called by the operator.

    Compiled code passes the operator other objects than the layer's values, at the same place.

    Args:
        values: Of the layer.
        x: Input of the operator.
        grad: Gradient of its output.
        y: The output, where it is a positive part, whose gradient ends where it is not positive.
    """
    if not _armed:
        return
    address = values.data_ptr()
    for layer, kept in _armed.items():
        own = layer.values
        if isinstance(own, Tensor) and own.data_ptr() == address:
            anew = _started_anew(kept, own)
            if kept.complete:
                older = (Pass(p.x, p.grad, p.ago + 1) for p in kept.passes)
                kept.passes = [p for p in older if p.ago < kept.history]
                kept.complete = False
            elif anew:
                kept.passes = [p for p in kept.passes if p.ago]
            # Copies, for a loop may refill its input tensor before the update looks.
            reaching = grad.clone() if y is None else aten.threshold_backward(grad, y, 0)
            kept.passes.append(Pass(x.detach().clone(), reaching.detach()))
            return


def _started_anew(kept: _Kept, values: Tensor) -> bool:
    """Whether gradients were dropped without a step, as after an overflow under GradScaler.

    A layer that is used several times in a model is seen several times in one backward pass, and
    has no gradient before the end of it.
    """
    backward = torch._C._current_graph_task_id()
    another = kept.backward is not None and backward != kept.backward
    kept.backward = backward
    return another and (values.grad is None or not bool(values.grad.any()))
