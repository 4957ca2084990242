"""Activations that published sparse networks are trained with, and torch does not have."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class SReLU(nn.Module):
    """Three straight pieces, all of them learned: each neuron finds its own bends and slopes.

    Between the two thresholds the identity, outside of them lines of other slopes. As it starts it
    is a ReLU, or with a ``left_slope`` a leaky one.

    Args:
        features: Neurons; the last axis of the input, or the second one of images.
        left_slope: Slope below the left threshold at the start.
        right: Right threshold at the start; the left one starts at 0, the slope above at 1.

    Shape:
        Input ``(*, features)``, or ``(batch, features, height, width)``; output alike.

    Example:
        >>> unit = SReLU(3)
        >>> unit(torch.tensor([[-2.0, 0.5, 4.0]])).tolist()
        [[0.0, 0.5, 4.0]]
        >>> sum(p.numel() for p in unit.parameters())
        12

    References:
        X. Jin, C. Xu, J. Feng, Y. Wei, J. Xiong, S. Yan, "Deep learning with S-shaped rectified
        linear activation units", 2016.
    """

    def __init__(self, features: int, left_slope: float = 0.0, right: float = 1.0) -> None:
        super().__init__()
        if features < 1:
            raise ValueError(f"features of SReLU must be at least 1, got {features}")
        self.left = nn.Parameter(torch.zeros(features))
        self.left_slope = nn.Parameter(torch.full((features,), left_slope))
        self.right = nn.Parameter(torch.full((features,), right))
        self.right_slope = nn.Parameter(torch.ones(features))

    def forward(self, x: Tensor) -> Tensor:
        """The activation of every neuron by its own four numbers."""
        shape = (1, -1, 1, 1) if x.dim() == 4 else (-1,)
        left, right = self.left.view(shape), self.right.view(shape)
        below = left + self.left_slope.view(shape) * (x - left)
        above = right + self.right_slope.view(shape) * (x - right)
        return torch.where(x <= left, below, torch.where(x >= right, above, x))

    def extra_repr(self) -> str:
        """How many neurons."""
        return f"{self.left.numel()}"


class AllReLU(nn.Module):
    """The identity above zero, and below it a line whose slope alternates from layer to layer.

    In the first hidden layer the slope is ``-slope``, so that negative numbers come out positive,
    in the second ``+slope``, and so on: nothing is lost below zero, as it is in a ReLU, and nothing
    has to be learned for it, as in a `SReLU`.

    Args:
        slope: Size of the slope below zero, above 0.
        layer: Which hidden layer it follows, from 1; odd ones have ``-slope``.

    Shape:
        Input ``(*)``, output alike.

    Raises:
        ValueError: The slope is not above 0, or the layer is below 1.

    Example:
        >>> x = torch.tensor([-1.0, 0.0, 2.0])
        >>> [AllReLU(0.5, layer)(x).tolist() for layer in (1, 2)]
        [[0.5, 0.0, 2.0], [-0.5, 0.0, 2.0]]

    References:
        S. Curci, D. C. Mocanu, M. Pechenizkiy, "Truly sparse neural networks at scale", 2021.
    """

    def __init__(self, slope: float = 0.6, layer: int = 1) -> None:
        super().__init__()
        if not 0 < slope < math.inf:
            raise ValueError(f"slope of AllReLU must be above 0, got {slope}")
        if layer < 1:
            raise ValueError(f"layer of AllReLU must be at least 1, got {layer}")
        self.slope, self.layer = slope, layer

    def forward(self, x: Tensor) -> Tensor:
        """``x`` where it is not negative, elsewhere ``x`` times the slope of this layer."""
        return torch.where(x < 0, x * (-self.slope if self.layer % 2 else self.slope), x)

    def extra_repr(self) -> str:
        """Slope and layer."""
        return f"{self.slope:g}, layer={self.layer}"
