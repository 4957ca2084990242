"""Layers: forward and backward passes over a whole batch in a few matrix operations.

``X`` is the input (N, D), ``Z`` and ``Y`` are (N, K), ``1_N`` is a column of N ones, ``o`` the
product of equal places, and ``D`` before a name is the gradient of the loss with respect to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike

from regrow.matrixform.activations import Activation, Identity
from regrow.matrixform.parameter import Array, Parameter
from regrow.matrixform.weights import Weight


class Layer(Protocol):
    """A map of a batch, which remembers its last input for the backward pass."""

    @property
    def parameters(self) -> Sequence[Parameter]:
        """What it learns."""
        ...

    def forward(self, x: Array, training: bool = True) -> Array:
        """Output of a batch."""
        ...

    def backward(self, dy: Array) -> Array:
        """``DX`` of ``DY``; sets the gradients of what it learns."""
        ...


class Linear:
    """``Z = X W^T + 1_N b``, ``Y = act(Z)``.

    Backward: ``DZ`` from the activation, then ``DW = DZ^T X`` (on the support where ``W`` is
    sparse), ``Db = 1_N^T DZ`` and ``DX = DZ W``.

    With ``keep`` below 1 weights are dropped in training: ``Z = X (W o R)^T + 1_N b``, where the
    entries of ``R`` are 0 with probability ``1 - keep`` and ``1 / keep`` otherwise, drawn anew for
    each batch. Then ``DW = (DZ^T X) o R`` and ``DX = DZ (W o R)``.

    Args:
        weight: ``W``, shape (K, D).
        bias: ``b``, (K) or (1, K); zeros by default.
        activation: What follows; nothing by default.
        keep: Probability that a weight is kept in training, in (0, 1].
        generator: For the dropped weights, where ``keep`` is below 1.

    Raises:
        ValueError: A bias of another size, ``keep`` out of range, or no generator where one is
            needed.

    Example:
        >>> from regrow.matrixform import DenseWeight, ReLU
        >>> layer = Linear(DenseWeight([[1.0, -1.0]]), activation=ReLU())
        >>> layer.forward(np.array([[3.0, 1.0], [1.0, 3.0]]))
        array([[2.],
               [0.]])
        >>> layer.backward(np.array([[1.0], [1.0]]))
        array([[ 1., -1.],
               [ 0.,  0.]])
        >>> layer.weight.parameter.gradient
        array([[3., 1.]])
    """

    def __init__(
        self,
        weight: Weight,
        bias: ArrayLike | None = None,
        activation: Activation | None = None,
        *,
        keep: float = 1.0,
        generator: np.random.Generator | None = None,
    ) -> None:
        k = weight.shape[0]
        given = np.zeros(k, dtype=weight.parameter.value.dtype) if bias is None else bias
        self.bias = Parameter(np.asarray(given).reshape(1, -1))
        if self.bias.value.shape != (1, k):
            raise ValueError(f"bias must have {k} numbers, got {self.bias.value.size}")
        if not 0 < keep <= 1:
            raise ValueError(f"keep must be in (0, 1], got {keep}")
        if keep < 1 and generator is None:
            raise ValueError("a layer that drops weights needs a generator, got None")
        self.weight = weight
        self.activation = Identity() if activation is None else activation
        self.keep, self.generator = keep, generator
        self._x: Array = np.empty((0, 0))
        self._z: Array = self._x
        self._kept: Array | None = None

    @property
    def parameters(self) -> Sequence[Parameter]:
        """Weight, bias, and those of the activation."""
        return self.weight.parameter, self.bias, *self.activation.parameters

    @property
    def kept(self) -> Array | None:
        """``R`` of the last batch in the shape of the weight's parameter; None without dropout."""
        return self._kept

    def forward(self, x: Array, training: bool = True) -> Array:
        """Output (N, K) of a batch (N, D)."""
        self._x = x
        self._kept = self._draw() if training and self.keep < 1 else None
        self._z = self.weight.forward(x, self._values()) + self.bias.value
        return self.activation.forward(self._z)

    def backward(self, dy: Array) -> Array:
        """``DX`` (N, D) of ``DY`` (N, K)."""
        dz = self.activation.backward(self._z, dy)
        dw = self.weight.gradient(dz, self._x)
        self.weight.parameter.gradient = dw if self._kept is None else dw * self._kept
        self.bias.gradient = dz.sum(axis=0, keepdims=True)
        return self.weight.backward(dz, self._values())

    def _values(self) -> Array | None:
        return None if self._kept is None else self.weight.parameter.value * self._kept

    def _draw(self) -> Array:
        assert self.generator is not None
        value = self.weight.parameter.value
        stays = self.generator.random(value.shape) < self.keep
        return (stays / self.keep).astype(value.dtype)


class BatchNormalization:
    """``Y = (1_N gamma) o Z + 1_N beta``, where ``Z`` is ``X`` with mean 0 and variance 1.

    ``R = X - 1_N mean(X)``, ``Sigma = mean(R o R)`` over the batch, and
    ``Z = (1_N Sigma^-1/2) o R``. Backward: ``DZ = (1_N gamma) o DY``, ``Dbeta = 1_N^T DY``,
    ``Dgamma = 1_N^T (Z o DY)``, and
    ``DX = (1_N Sigma^-1/2) o (DZ - mean(DZ) - Z o mean(Z o DZ))``.

    There are no running statistics: each batch is normalised by itself, also in a test.

    Args:
        features: D.
        epsilon: Added to ``Sigma``.

    Example:
        >>> BatchNormalization(1).forward(np.array([[1.0], [3.0]])).round(4)
        array([[-1.],
               [ 1.]])

    References:
        S. Ioffe, C. Szegedy, "Batch normalization: accelerating deep network training by reducing
        internal covariate shift", 2015.
    """

    def __init__(self, features: int, epsilon: float = 1e-7) -> None:
        self.gamma = Parameter(np.ones((1, features)))
        self.beta = Parameter(np.zeros((1, features)))
        self.epsilon = epsilon
        self._z = self._scale = np.empty((0, 0))

    @property
    def parameters(self) -> Sequence[Parameter]:
        """``gamma`` and ``beta``."""
        return self.gamma, self.beta

    def forward(self, x: Array, training: bool = True) -> Array:
        """Output (N, D) of a batch (N, D)."""
        r = x - x.mean(axis=0, keepdims=True)
        self._scale = 1 / np.sqrt((r * r).mean(axis=0, keepdims=True) + self.epsilon)
        self._z = self._scale * r
        return self.gamma.value * self._z + self.beta.value

    def backward(self, dy: Array) -> Array:
        """``DX`` of ``DY``, both (N, D)."""
        z, dz = self._z, self.gamma.value * dy
        self.beta.gradient = dy.sum(axis=0, keepdims=True)
        self.gamma.gradient = (z * dy).sum(axis=0, keepdims=True)
        inner = dz - dz.mean(axis=0, keepdims=True) - z * (z * dz).mean(axis=0, keepdims=True)
        product: Array = self._scale * inner
        return product
