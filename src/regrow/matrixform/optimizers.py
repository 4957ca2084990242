"""Optimisers and learning rates over epochs.

``eta`` is the learning rate, ``mu`` the momentum, ``theta`` a parameter and ``delta`` its buffer.
The learning rate is inside the buffer; torch has it outside, which is the same while it is
constant.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from regrow.matrixform.parameter import Array, Parameter

Schedule = Callable[[int], float]


class Optimizer(Protocol):
    """What changes parameters along their gradients."""

    def step(self, parameters: Sequence[Parameter], rate: float) -> None:
        """Change the parameters once, at a learning rate."""
        ...


class GradientDescent:
    """``theta' = theta - eta Dtheta``.

    Example:
        >>> theta = Parameter([1.0])
        >>> theta.gradient = np.array([2.0])
        >>> GradientDescent().step([theta], 0.1)
        >>> theta.value
        array([0.8])
    """

    def step(self, parameters: Sequence[Parameter], rate: float) -> None:
        """``theta' = theta - eta Dtheta`` for all."""
        for theta in parameters:
            theta.value = theta.value - rate * theta.gradient


class _Buffered:
    def __init__(self, mu: float = 0.9) -> None:
        self.mu = mu
        # By identity; the parameter is held, so that its number is not given to another.
        self._buffers: dict[int, tuple[Parameter, Array]] = {}

    def buffer(self, theta: Parameter) -> Array:
        """``delta`` of a parameter, zeros at first or where its shape has changed."""
        held = self._buffers.get(id(theta))
        if held is None or held[1].shape != theta.value.shape:
            return np.zeros_like(theta.value)
        return held[1]

    def reset(self, theta: Parameter) -> None:
        """Set ``delta`` of a parameter to zeros, as after a change of its support."""
        self._buffers.pop(id(theta), None)

    def _moved(self, theta: Parameter, rate: float) -> Array:
        delta: Array = self.mu * self.buffer(theta) - rate * theta.gradient
        self._buffers[id(theta)] = (theta, delta)
        return delta


class Momentum(_Buffered):
    """``delta' = mu delta - eta Dtheta``, ``theta' = theta + delta'``.

    Args:
        mu: Momentum, in [0, 1).
    """

    def step(self, parameters: Sequence[Parameter], rate: float) -> None:
        """``theta' = theta + delta'`` for all."""
        for theta in parameters:
            theta.value = theta.value + self._moved(theta, rate)


class Nesterov(_Buffered):
    """``delta' = mu delta - eta Dtheta``, ``theta' = theta + mu delta' - eta Dtheta``.

    Args:
        mu: Momentum, in [0, 1).
    """

    def step(self, parameters: Sequence[Parameter], rate: float) -> None:
        """``theta' = theta + mu delta' - eta Dtheta`` for all."""
        for theta in parameters:
            delta = self._moved(theta, rate)
            theta.value = theta.value + self.mu * delta - rate * theta.gradient


def constant(eta: float) -> Schedule:
    """The same learning rate in every epoch."""
    return lambda epoch: eta


def time_based(eta: float, decay: float) -> Schedule:
    """``eta_(i+1) = eta_i / (1 + decay i)``.

    A function of the epoch alone: asked twice, it answers the same.

    Example:
        >>> schedule = time_based(1.0, 1.0)
        >>> [round(schedule(epoch), 4) for epoch in range(4)]
        [1.0, 1.0, 0.5, 0.1667]
    """

    def rate(epoch: int) -> float:
        return eta / math.prod(1 + decay * i for i in range(epoch))

    return rate


def step_based(eta: float, drop: float, every: int) -> Schedule:
    """``eta drop^floor((1 + i) / every)``.

    Example:
        >>> [step_based(1.0, 0.5, 2)(epoch) for epoch in range(4)]
        [1.0, 0.5, 0.5, 0.25]
    """
    return lambda epoch: eta * drop ** ((1 + epoch) // every)


def exponential(eta: float, decay: float) -> Schedule:
    """``eta e^(-decay i)``.

    Example:
        >>> round(exponential(1.0, 0.1)(10), 4)
        0.3679
    """
    return lambda epoch: eta * math.exp(-decay * epoch)


def multi_step(eta: float, milestones: Sequence[int], gamma: float) -> Schedule:
    """``eta`` times ``gamma`` at each milestone that is reached, once each.

    Example:
        >>> [round(multi_step(1.0, [2, 3], 0.1)(epoch), 4) for epoch in range(5)]
        [1.0, 1.0, 0.1, 0.01, 0.01]
    """
    return lambda epoch: eta * gamma ** sum(epoch >= milestone for milestone in milestones)
