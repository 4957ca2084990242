"""Carrying optimiser state across a change of topology: it follows the connection, not the slot."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from regrow.optim.ages import AGE, spread_age
from regrow.topology import Rewiring

# Gets the name of the entry, the entry before the change, the change, and the optimiser's group.
StatePolicy = Callable[[str, Tensor, Rewiring, dict[str, Any]], Tensor]


def zero(name: str, entry: Tensor, change: Rewiring, group: dict[str, Any]) -> Tensor:
    """New connections start as the optimiser starts a new parameter: at zero.

    Adagrad's sum starts at the ``initial_accumulator_value`` of its group, and Rprop's step sizes
    at the learning rate.
    """
    start = float(group.get(_STARTS.get(name, ""), 0.0))
    return entry.new_full((1,), start).expand(change.grown)


def age(name: str, entry: Tensor, change: Rewiring, group: dict[str, Any]) -> Tensor:
    """As ``zero``, with an optimiser that counts the age of each connection; others are refused."""
    return zero(name, entry, change, group)


def mean(name: str, entry: Tensor, change: Rewiring, group: dict[str, Any]) -> Tensor:
    """New connections start at the mean over the survivors of their layer."""
    survivors = change.survivors(entry)
    level = float(survivors.double().mean()) if survivors.numel() else 0.0
    start = level if entry.is_floating_point() else round(level)
    return entry.new_full((1,), start).expand(change.grown)


# Option of the optimiser that a state entry starts at, where that is not zero.
_STARTS = {"sum": "initial_accumulator_value", "step_size": "lr"}
# Entries that are an average of the parameter: a new connection's is its value.
_AVERAGES = frozenset({"ax"})

STATE_POLICIES: dict[str, StatePolicy] = {"zero": zero, "age": age, "mean": mean}


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
    tensor without axes (a step count), belongs to the whole parameter and stays. An ``age`` that
    belonged to the whole parameter becomes one of each connection. ASGD's average ``ax`` of a new
    connection starts at its value.

    Args:
        optimizer: Any torch optimiser.
        old: The parameter before the change, as the optimiser knows it.
        new: The parameter after it, with its values; the same object where the number of
            connections stayed.
        change: The rewiring that led from one to the other.
        policy: Gives new connections their start.
        path: Of the parameter, for errors.

    Raises:
        TypeError: A state entry has neither form, so nothing can be said about where it belongs;
            or the policy needs ages, and the optimiser has none.
    """
    group = _group_of(optimizer, old)
    if group is None:
        return
    check_state(optimizer, old, path, policy)
    state = optimizer.state.get(old, {})
    carried: dict[str, Any] = {}
    for name, entry in state.items():
        if name == AGE and change.grown:
            entry = spread_age(entry, old)
        if _is_scalar(entry):
            carried[name] = entry
            continue
        moved = change.carry(entry, policy(name, entry, change, group))
        if name in _AVERAGES:
            moved[change.fresh] = new.detach()[change.fresh].to(moved)
        kept = old is new and entry is state[name]
        carried[name] = entry.copy_(moved) if kept else moved
    if state:
        optimizer.state[new] = carried
    if old is not new:
        optimizer.state.pop(old, None)
        group["params"] = [new if p is old else p for p in group["params"]]


def check_state(
    optimizer: torch.optim.Optimizer,
    parameter: nn.Parameter,
    path: str = "values",
    policy: StatePolicy = zero,
) -> None:
    """Refuse a state that cannot follow a change of topology, before anything is changed.

    Raises:
        TypeError: A state entry is neither a scalar nor of the parameter's shape, or the policy
            is ``age`` and the optimiser counts no ages.
        ValueError: The state is of another number of connections.
    """
    shape = tuple(parameter.shape)
    state = optimizer.state.get(parameter, {})
    lengths = {len(entry) for entry in state.values() if isinstance(entry, Tensor) and entry.dim()}
    for name, entry in state.items():
        if _is_scalar(entry) or (isinstance(entry, Tensor) and tuple(entry.shape) == shape):
            continue
        if isinstance(entry, Tensor) and entry.dim() == len(shape) == 1 == len(lengths):
            raise ValueError(
                f"optimiser state {name!r} of {path} must have an entry for each of {shape[0]} "
                f"connections, got {len(entry)}: load the optimiser's state of the same checkpoint "
                f"as the model's, or make the optimiser after loading the model"
            )
        form = tuple(entry.shape) if isinstance(entry, Tensor) else type(entry).__name__
        raise TypeError(
            f"optimiser state {name!r} of {path} must be a scalar or have shape {shape} to "
            f"follow a change of topology, got {form}"
        )
    if policy is age and state and AGE not in state:
        raise TypeError(
            f"optimiser of {path} must count the age of connections for state 'age', as "
            f"LocalAgeAdam does, got {type(optimizer).__name__}"
        )


def check_optimizer(optimizer: torch.optim.Optimizer) -> None:
    """Refuse an optimiser whose state cannot be told apart by connection.

    Raises:
        TypeError: It is LBFGS, which has one history over all parameters together.
    """
    if isinstance(optimizer, torch.optim.LBFGS):
        raise TypeError(
            "optimizer of a topology that changes must keep its state parameter by parameter, "
            "got LBFGS, whose history is over all parameters together"
        )


def unwrapped(optimizer: Any) -> torch.optim.Optimizer:
    """The torch optimiser inside a wrapper (accelerate's, Lightning's), or the optimiser itself.

    Hooks on steps belong to it: a wrapper may call its ``step`` once in several calls of its own.
    """
    while isinstance(getattr(optimizer, "optimizer", None), torch.optim.Optimizer):
        optimizer = optimizer.optimizer
    return optimizer  # type: ignore[no-any-return]


def _is_scalar(entry: object) -> bool:
    if isinstance(entry, Tensor):
        return entry.dim() == 0
    return entry is None or isinstance(entry, (bool, int, float))


def _group_of(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> dict[str, Any] | None:
    for group in optimizer.param_groups:
        if any(p is parameter for p in group["params"]):
            return group
    return None
