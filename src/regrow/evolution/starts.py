"""Starts: the values of new connections."""

from __future__ import annotations

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


def zero(layer: SparseLayer, count: int, generator: torch.Generator) -> Tensor:
    """New values start at 0, so that an update leaves the function of the survivors alone."""
    return torch.zeros(count)


def init(layer: SparseLayer, count: int, generator: torch.Generator) -> Tensor:
    """New values are drawn as the layer drew its first ones."""
    return layer.start_values(count, generator)


STARTS: dict[str, ValueStart] = {"zero": zero, "init": init}
