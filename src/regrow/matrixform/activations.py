"""Activations: what is done to ``Z``, and how a gradient comes back through it.

The first six act on each number alone, so that ``DZ = DY o act'(Z)``; softmax and log-softmax act
on rows. ``D`` before a name is the gradient of the loss with respect to it, ``o`` the product of
equal places.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from regrow.matrixform.parameter import Array, Parameter


class Activation(Protocol):
    """A map of (N, K) to (N, K)."""

    @property
    def parameters(self) -> Sequence[Parameter]:
        """What it learns."""
        ...

    def forward(self, z: Array) -> Array:
        """``Y`` of ``Z``."""
        ...

    def backward(self, z: Array, dy: Array) -> Array:
        """``DZ`` of ``DY``; sets the gradients of what it learns."""
        ...


class _Elementwise:
    """``DZ = DY o act'(Z)``."""

    parameters: Sequence[Parameter] = ()

    def derivative(self, z: Array) -> Array:
        """``act'(Z)``, in the shape of ``Z``."""
        raise NotImplementedError

    def backward(self, z: Array, dy: Array) -> Array:
        """``DZ = DY o act'(Z)``."""
        product: Array = dy * self.derivative(z)
        return product


class Identity(_Elementwise):
    """``y = z``."""

    def forward(self, z: Array) -> Array:
        """``Y = Z``."""
        return z

    def derivative(self, z: Array) -> Array:
        """1."""
        return np.ones_like(z)


class ReLU(_Elementwise):
    """``y = max(0, z)``, with derivative 0 at 0, as torch has it.

    Example:
        >>> ReLU().forward(np.array([[-1.0, 2.0]]))
        array([[0., 2.]])
    """

    def forward(self, z: Array) -> Array:
        """``max(0, z)``."""
        product: Array = np.maximum(z, 0)
        return product

    def derivative(self, z: Array) -> Array:
        """``[z > 0]``."""
        return (z > 0).astype(z.dtype)


class LeakyReLU(_Elementwise):
    """``y = max(z, alpha z)``.

    Args:
        alpha: Slope below zero, in [0, 1].

    Example:
        >>> LeakyReLU(0.1).forward(np.array([[-1.0, 2.0]]))
        array([[-0.1,  2. ]])
    """

    def __init__(self, alpha: float = 0.01) -> None:
        self.alpha = alpha

    def forward(self, z: Array) -> Array:
        """``max(z, alpha z)``."""
        product: Array = np.maximum(z, self.alpha * z)
        return product

    def derivative(self, z: Array) -> Array:
        """1 where ``z > 0``, else ``alpha``."""
        return np.where(z > 0, 1, self.alpha).astype(z.dtype)


class AllReLU(_Elementwise):
    """``y = z``, and ``slope z`` where ``z < 0``; the sign of the slope alternates over layers.

    Args:
        alpha: Size of the slope.
        layer: Number of the hidden layer, the first being 1: odd ones have slope ``-alpha``.

    Example:
        >>> z = np.array([[-1.0, 2.0]])
        >>> AllReLU(0.5, 1).forward(z), AllReLU(0.5, 2).forward(z)
        (array([[0.5, 2. ]]), array([[-0.5,  2. ]]))

    References:
        S. Curci, D. C. Mocanu, M. Pechenizkiy, "Truly sparse neural networks at scale", 2021.
    """

    def __init__(self, alpha: float, layer: int) -> None:
        self.slope = -alpha if layer % 2 else alpha

    def forward(self, z: Array) -> Array:
        """``z``, or ``slope z`` where ``z < 0``."""
        return np.where(z < 0, self.slope * z, z).astype(z.dtype)

    def derivative(self, z: Array) -> Array:
        """``slope`` where ``z < 0``, else 1."""
        return np.where(z < 0, self.slope, 1).astype(z.dtype)


class HyperbolicTangent(_Elementwise):
    """``y = tanh(z)``."""

    def forward(self, z: Array) -> Array:
        """``tanh(z)``."""
        return np.tanh(z)

    def derivative(self, z: Array) -> Array:
        """``1 - tanh(z)^2``."""
        product: Array = 1 - np.tanh(z) ** 2
        return product


class Sigmoid(_Elementwise):
    """``y = s(z) = 1 / (1 + e^-z)``."""

    def forward(self, z: Array) -> Array:
        """``s(z)``."""
        return sigmoid(z)

    def derivative(self, z: Array) -> Array:
        """``s (1 - s)``."""
        s = sigmoid(z)
        product: Array = s * (1 - s)
        return product


class SReLU(_Elementwise):
    """Three straight pieces, with both ends learned; four numbers for a layer.

    ``y = t_l + a_l (z - t_l)`` if ``z <= t_l``, ``z`` if ``t_l < z < t_r``, and
    ``t_r + a_r (z - t_r)`` if ``z >= t_r``; the first that fits wins. With the start values it is
    the identity on [0, 1], 0 below, and of slope 0 above.

    Args:
        a_l: Slope of the left piece.
        t_l: Where it ends.
        a_r: Slope of the right piece.
        t_r: Where it begins.

    Example:
        >>> SReLU(a_l=0.0, t_l=0.0, a_r=0.5, t_r=1.0).forward(np.array([[-1.0, 0.5, 3.0]]))
        array([[0. , 0.5, 2. ]])

    References:
        X. Jin et al., "Deep learning with S-shaped rectified linear activation units", 2016.
    """

    def __init__(
        self, a_l: float = 0.0, t_l: float = 0.0, a_r: float = 0.0, t_r: float = 1.0
    ) -> None:
        self.a_l, self.t_l, self.a_r, self.t_r = (Parameter(p) for p in (a_l, t_l, a_r, t_r))
        self.parameters = (self.a_l, self.t_l, self.a_r, self.t_r)

    def forward(self, z: Array) -> Array:
        """The three pieces."""
        a_l, t_l, a_r, t_r = (p.value for p in self.parameters)
        left, right = self._ends(z)
        y = np.where(left, t_l + a_l * (z - t_l), np.where(right, t_r + a_r * (z - t_r), z))
        return y.astype(z.dtype)

    def derivative(self, z: Array) -> Array:
        """``a_l``, 1 or ``a_r``."""
        left, right = self._ends(z)
        return np.where(left, self.a_l.value, np.where(right, self.a_r.value, 1)).astype(z.dtype)

    def backward(self, z: Array, dy: Array) -> Array:
        """``DZ = DY o y'(Z)``, and the gradients of the four numbers.

        ``Da_l = sum(DY o [Z <= t_l] (Z - t_l))``, ``Dt_l = sum(DY o [Z <= t_l] (1 - a_l))``;
        ``Da_r`` and ``Dt_r`` likewise, where ``Z > t_l`` and ``Z >= t_r``.
        """
        left, right = self._ends(z)
        for end, slope, place in ((left, self.a_l, self.t_l), (right, self.a_r, self.t_r)):
            slope.gradient = np.asarray(np.sum(dy * end * (z - place.value)))
            place.gradient = np.asarray(np.sum(dy * end * (1 - slope.value)))
        return super().backward(z, dy)

    def _ends(self, z: Array) -> tuple[Array, Array]:
        left = z <= self.t_l.value
        return left.astype(z.dtype), (~left & (z >= self.t_r.value)).astype(z.dtype)


class Softmax:
    """``Y = e^Z / (e^Z 1_K 1_K^T)`` row by row."""

    parameters: Sequence[Parameter] = ()

    def forward(self, z: Array) -> Array:
        """Rows that sum to 1."""
        return softmax(z)

    def backward(self, z: Array, dy: Array) -> Array:
        """``DZ = Y o (DY - diag(DY Y^T) 1_K^T)``, the diagonal as sums of rows of ``DY o Y``."""
        y = softmax(z)
        product: Array = y * (dy - np.sum(dy * y, axis=1, keepdims=True))
        return product


class LogSoftmax:
    """``Y = Z - log(e^Z 1_K) 1_K^T`` row by row."""

    parameters: Sequence[Parameter] = ()

    def forward(self, z: Array) -> Array:
        """Logarithms of rows that sum to 1."""
        return log_softmax(z)

    def backward(self, z: Array, dy: Array) -> Array:
        """``DZ = DY - softmax(Z) o (DY 1_K 1_K^T)``."""
        product: Array = dy - softmax(z) * np.sum(dy, axis=1, keepdims=True)
        return product


def softmax(z: Array) -> Array:
    """Softmax of rows, stable: the largest number of a row is subtracted first.

    Example:
        >>> softmax(np.array([[1000.0, 1000.0]]))
        array([[0.5, 0.5]])
    """
    powers = np.exp(z - z.max(axis=1, keepdims=True))
    quotient: Array = powers / powers.sum(axis=1, keepdims=True)
    return quotient


def log_softmax(z: Array) -> Array:
    """Logarithm of the softmax of rows, stable likewise.

    Example:
        >>> log_softmax(np.array([[-1000.0, 0.0]]))
        array([[-1000.,     0.]])
    """
    shifted = z - z.max(axis=1, keepdims=True)
    difference: Array = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return difference


def sigmoid(z: Array) -> Array:
    """``1 / (1 + e^-z)``, without overflow.

    Example:
        >>> sigmoid(np.array([-1000.0, 0.0]))
        array([0. , 0.5])
    """
    power = np.exp(-np.abs(z))
    quotient: Array = np.where(z >= 0, 1, power) / (1 + power)
    return quotient
