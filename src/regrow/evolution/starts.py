"""Starts: the values of new connections."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from regrow.layers import SparseLayer

ValueStart = Callable[[SparseLayer, int, torch.Generator], Tensor]


@dataclass(frozen=True)
class Normal:
    """New values drawn from a normal distribution of mean 0."""

    std: float

    def __call__(self, layer: SparseLayer, count: int, generator: torch.Generator) -> Tensor:
        """Draw ``[count]`` values."""
        return torch.randn(count, generator=generator) * self.std


@dataclass(frozen=True)
class FanInUniform:
    """New values drawn uniformly from ``±sqrt(gain / inputs)``, all inputs of a row counting.

    With a gain of 6 this is the start of a dense layer before a ReLU.

    Example:
        >>> import regrow
        >>> layer = regrow.SparseLinear(6, 4, density=0.5)
        >>> bool((FanInUniform(6.0)(layer, 100, torch.Generator()).abs() <= 1).all())
        True
    """

    gain: float

    def __call__(self, layer: SparseLayer, count: int, generator: torch.Generator) -> Tensor:
        """Draw ``[count]`` values."""
        bound = math.sqrt(self.gain / layer.topology.matrix_shape[1])
        return torch.empty(count).uniform_(-bound, bound, generator=generator)


def zero(layer: SparseLayer, count: int, generator: torch.Generator) -> Tensor:
    """New values start at 0, so that an update leaves the function of the survivors alone."""
    return torch.zeros(count)


def init(layer: SparseLayer, count: int, generator: torch.Generator) -> Tensor:
    """New values are drawn as the layer drew its first ones."""
    return layer.start_values(count, generator)


STARTS: dict[str, ValueStart] = {"zero": zero, "init": init}
