"""Carrying optimiser state across a change of topology: it follows the connection, not the slot."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from regrow.topology import Rewiring

StatePolicy = Callable[[str, Tensor, dict[str, Any], int], Tensor]


def zero(name: str, survivors: Tensor, group: dict[str, Any], count: int) -> Tensor:
    """New connections start as the optimiser starts a new parameter: at zero.

    Adagrad's sum starts at the ``initial_accumulator_value`` of its group, and Rprop's step sizes
    at the learning rate.
    """
    start = float(group.get(_STARTS.get(name, ""), 0.0))
    return survivors.new_full((count,), start)


def mean(name: str, survivors: Tensor, group: dict[str, Any], count: int) -> Tensor:
    """New connections start at the mean over the survivors of their layer."""
    level = float(survivors.mean()) if survivors.numel() else 0.0
    return survivors.new_full((count,), level)


# Option of the optimiser that a state entry starts at, where that is not zero.
_STARTS = {"sum": "initial_accumulator_value", "step_size": "lr"}

STATE_POLICIES: dict[str, StatePolicy] = {"zero": zero, "mean": mean}


def carry_state(
    optimizer: torch.optim.Optimizer,
    old: nn.Parameter,
    new: nn.Parameter,
    change: Rewiring,
    policy: StatePolicy = zero,
    path: str = "values",
) -> None:
    """Move an optimiser's state of one sparse weight to its new topology.

    State is recognised by its form, not by the optimiser's type, so wrapped optimisers work: a
    tensor of the parameter's shape has an entry per connection and is carried; a number, or a
    tensor without axes (a step count), belongs to the whole parameter and stays.

    Args:
        optimizer: Any torch optimiser.
        old: The parameter before the change, as the optimiser knows it.
        new: The parameter after it; the same object where the number of connections stayed.
        change: The rewiring that led from one to the other.
        policy: Gives new connections their start.
        path: Of the parameter, for errors.

    Raises:
        TypeError: A state entry has neither form, so nothing can be said about where it belongs.
    """
    group = _group_of(optimizer, old)
    if group is None:
        return
    check_state(optimizer, old, path)
    state = optimizer.state.get(old, {})
    carried: dict[str, Any] = {}
    for name, entry in state.items():
        if _is_scalar(entry):
            carried[name] = entry
        else:
            start = policy(name, change.survivors(entry), group, change.grown)
            moved = change.carry(entry, start)
            carried[name] = entry.copy_(moved) if old is new else moved
    if old is not new:
        optimizer.state.pop(old, None)
        if state:
            optimizer.state[new] = carried
        group["params"] = [new if p is old else p for p in group["params"]]


def check_state(
    optimizer: torch.optim.Optimizer, parameter: nn.Parameter, path: str = "values"
) -> None:
    """Refuse a state that cannot follow a change of topology, before anything is changed.

    Raises:
        TypeError: A state entry is neither a scalar nor of the parameter's shape.
    """
    shape = tuple(parameter.shape)
    for name, entry in optimizer.state.get(parameter, {}).items():
        if _is_scalar(entry) or (isinstance(entry, Tensor) and tuple(entry.shape) == shape):
            continue
        form = tuple(entry.shape) if isinstance(entry, Tensor) else type(entry).__name__
        raise TypeError(
            f"optimiser state {name!r} of {path} must be a scalar or have shape {shape} to "
            f"follow a change of topology, got {form}"
        )


def _is_scalar(entry: object) -> bool:
    if isinstance(entry, Tensor):
        return entry.dim() == 0
    return entry is None or isinstance(entry, (bool, int, float))


def _group_of(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> dict[str, Any] | None:
    for group in optimizer.param_groups:
        if any(p is parameter for p in group["params"]):
            return group
    return None
