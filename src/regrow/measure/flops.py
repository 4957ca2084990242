"""FLOPs of a whole training, as the connections come and go."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from regrow.evolution.compose import composed, scores
from regrow.evolution.horizon import Horizon
from regrow.evolution.methods import Method
from regrow.evolution.schedules import Adaptive
from regrow.evolution.scores import GrowScore
from regrow.layers import sparse_layers
from regrow.measure.summary import LayerSummary, summary
from regrow.topology.allocation import share


@dataclass(frozen=True)
class TrainingFlops:
    """FLOPs of a training; a multiply-add counts as two.

    Attributes:
        steps: Optimiser steps.
        updates: Updates of the topology.
        forward: Of all forward passes.
        backward: Of all backward passes.
        growth: Of the gradients of free positions, which some methods look at in an update.
        dense: Of all passes of the dense twin, forward and backward.
    """

    steps: int
    updates: int
    forward: int
    backward: int
    growth: int
    dense: int

    @property
    def total(self) -> int:
        """All together."""
        return self.forward + self.backward + self.growth

    @property
    def ratio(self) -> float:
        """Total over that of the dense twin."""
        return self.total / self.dense if self.dense else math.nan


def training_flops(
    model: nn.Module,
    example_input: Tensor,
    method: str | Method = "static",
    *,
    steps: int,
    steps_per_epoch: int | None = None,
    **overrides: Any,
) -> TrainingFlops:
    """Count the FLOPs of a training with a method, without training.

    A step is a forward and a backward pass of the connections that there are at the time. An
    update costs what it looks at: methods that grow by gradient form, in tiles, the gradient of
    every position (of as many passes as they remember); others cost next to nothing, and scores
    and selections count as nothing. Layers that are not sparse count in every step.

    Layers keep their shares of the connections, as they do in most methods; where a method lets
    connections move between layers of different cost per connection, its updates decide the rest.

    Args:
        model: As it is before the training.
        example_input: One batch.
        method: Name of a registered method or a ``Method``.
        steps: Optimiser steps.
        steps_per_epoch: Optimiser steps of an epoch, needed where ``every="epoch"``.
        **overrides: Parts of the method to replace, as in ``Evolution``.

    Returns:
        What each part of the training costs.

    Raises:
        ValueError: As ``Evolution``, or the method decides its density by the loss.

    Differs from the paper:
        RigL's authors take an update step to cost ``2 f_S + f_D`` instead of ``3 f_S``, for the
        FLOPs f of a forward pass sparse and dense. Here an update follows an ordinary step, which
        costs ``3 f_S``, and adds the gradient of all positions, ``f_D``.

    Example:
        >>> import torch, regrow
        >>> model = regrow.SparseLinear(100, 50, density=0.1)
        >>> found = training_flops(model, torch.ones(8, 100), "rigl", steps=100, every=10)
        >>> found.updates, found.forward, found.backward, found.growth
        (10, 800000, 800000, 800000)
        >>> found.ratio
        0.15

    References:
        U. Evci, T. Gale, J. Menick, P. S. Castro, E. Elsen, "Rigging the lottery: making all
        tickets winners", 2020, appendix on FLOPs.
    """
    whole = composed(method, overrides)
    horizon = Horizon.of(whole, steps_per_epoch, steps)
    grow = scores(whole)[1]
    rows = summary(model, example_input).layers
    sparse = sparse_layers(model)
    cost = _Cost.of(rows, {path: layer.topology.nnz for path, layer in sparse.items()})
    now = {path: layer.topology.nnz for path, layer in sparse.items()}
    sizes = {path: layer.topology.shape.numel() for path, layer in sparse.items()}
    shares = {path: layer.density for path, layer in sparse.items()}
    forward = backward = 0.0
    updates = last = 0
    for step in _updates(horizon, steps):
        forward += (step - last) * cost.ahead(now)
        backward += (step - last) * cost.back(now)
        updates, last = updates + 1, step
        if whole.density is not None:
            now = share(sizes, shares, _density(whole, horizon, step))
    gradient = sum(cost.each_ahead[path] * size for path, size in sizes.items())
    return TrainingFlops(
        steps=steps,
        updates=updates,
        forward=round(forward + (steps - last) * cost.ahead(now)),
        backward=round(backward + (steps - last) * cost.back(now)),
        growth=round(updates * _passes(grow, horizon) * gradient),
        dense=round(steps * (cost.ahead(sizes) + cost.back(sizes))),
    )


@dataclass(frozen=True)
class _Cost:
    """FLOPs of a step: for each connection of every sparse layer, and of all that is not sparse."""

    each_ahead: dict[str, float]
    each_back: dict[str, float]
    fixed_ahead: int
    fixed_back: int

    @classmethod
    def of(cls, rows: list[LayerSummary], connections: dict[str, int]) -> _Cost:
        """From the rows of a summary; what a tied layer costs is the first one's."""
        ahead, back = dict.fromkeys(connections, 0.0), dict.fromkeys(connections, 0.0)
        fixed_ahead = fixed_back = 0
        for row in rows:
            owner = row.path if row.tied_to is None else row.tied_to
            if owner in connections:
                ahead[owner] += row.flops_forward / max(1, connections[owner])
                back[owner] += row.flops_backward / max(1, connections[owner])
            else:
                fixed_ahead += row.flops_forward
                fixed_back += row.flops_backward
        return cls(ahead, back, fixed_ahead, fixed_back)

    def ahead(self, connections: dict[str, int]) -> float:
        return self.fixed_ahead + sum(n * self.each_ahead[path] for path, n in connections.items())

    def back(self, connections: dict[str, int]) -> float:
        return self.fixed_back + sum(n * self.each_back[path] for path, n in connections.items())


def _updates(horizon: Horizon, steps: int) -> Iterator[int]:
    if horizon.every is None:
        return
    for step in range(horizon.every, steps + 1, horizon.every):
        if horizon.due(step):
            yield step


def _passes(grow: GrowScore, horizon: Horizon) -> int:
    """How many passes an update forms the gradient of."""
    if not grow.listens or horizon.every is None:
        return 0
    return min(grow.history, horizon.every)


def _density(method: Method, horizon: Horizon, step: int) -> float:
    density = method.density
    if density is None or isinstance(density, Adaptive):
        raise ValueError(
            f"density of {method.name} must follow a schedule to be counted before the training, "
            f"got one that decides by the loss"
        )
    return density(*horizon.place(step))
