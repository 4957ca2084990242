"""A network of layers, and its training in minibatches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regrow.matrixform.layers import Layer
from regrow.matrixform.losses import Loss
from regrow.matrixform.optimizers import Optimizer, Schedule
from regrow.matrixform.parameter import Array, Parameter


class MultilayerPerceptron:
    """Layers one after the other.

    Args:
        layers: The first sees the input.

    Example:
        >>> from regrow.matrixform import DenseWeight, Linear
        >>> layers = [Linear(DenseWeight([[2.0]])), Linear(DenseWeight([[3.0]]))]
        >>> network = MultilayerPerceptron(layers)
        >>> network.forward(np.array([[1.0]]))
        array([[6.]])
        >>> network.backward(np.array([[1.0]]))
        array([[6.]])
    """

    def __init__(self, layers: Sequence[Layer]) -> None:
        self.layers = list(layers)

    @property
    def parameters(self) -> list[Parameter]:
        """Of all layers, the first first."""
        return [parameter for layer in self.layers for parameter in layer.parameters]

    def forward(self, x: Array, training: bool = True) -> Array:
        """Output (N, K) of a batch (N, D)."""
        for layer in self.layers:
            x = layer.forward(x, training)
        return x

    def backward(self, dy: Array) -> Array:
        """``DX`` (N, D) of ``DY`` (N, K); sets all gradients."""
        for layer in reversed(self.layers):
            dy = layer.backward(dy)
        return dy


def train_batch(
    network: MultilayerPerceptron,
    loss: Loss,
    optimizer: Optimizer,
    x: Array,
    t: Array,
    rate: float,
) -> float:
    """One step: forward, backward with the gradient of the loss divided by N, optimiser.

    Args:
        network: To be trained.
        loss: To be made small.
        optimizer: How.
        x: Input (N, D).
        t: Targets (N, K).
        rate: Learning rate.

    Returns:
        The loss before the step, divided by N.
    """
    y = network.forward(x)
    network.backward(loss.gradient(y, t) / len(x))
    optimizer.step(network.parameters, rate)
    return loss.value(y, t) / len(x)


def train(
    network: MultilayerPerceptron,
    loss: Loss,
    optimizer: Optimizer,
    x: Array,
    t: Array,
    *,
    epochs: int,
    batch: int,
    schedule: Schedule,
    generator: np.random.Generator | None = None,
) -> list[float]:
    """Minibatch training.

    Args:
        network: To be trained.
        loss: To be made small.
        optimizer: How.
        x: Inputs (samples, D).
        t: Targets (samples, K).
        epochs: Passes over all samples.
        batch: Samples of a step; the last of an epoch may have fewer.
        schedule: Learning rate of each epoch, the first being 0.
        generator: Shuffles the samples anew in each epoch; None leaves their order.

    Returns:
        Mean loss of a sample in each epoch.

    Example:
        >>> from regrow.matrixform import (
        ...     DenseWeight, GradientDescent, Linear, SquaredError, constant
        ... )
        >>> network = MultilayerPerceptron([Linear(DenseWeight([[0.0]]))])
        >>> x = np.array([[-1.0], [0.0], [1.0]])
        >>> losses = train(network, SquaredError(), GradientDescent(), x, 2 * x,
        ...                epochs=50, batch=3, schedule=constant(0.3))
        >>> network.forward(x).round(3)
        array([[-2.],
               [ 0.],
               [ 2.]])
    """
    losses = []
    for epoch in range(epochs):
        order = np.arange(len(x)) if generator is None else generator.permutation(len(x))
        total, rate = 0.0, schedule(epoch)
        for start in range(0, len(x), batch):
            rows = order[start : start + batch]
            total += len(rows) * train_batch(network, loss, optimizer, x[rows], t[rows], rate)
        losses.append(total / len(x))
    return losses


def one_hot(labels: NDArray[np.integer[Any]], classes: int) -> Array:
    """Targets of a classifier (N, classes) from labels ``[N]``.

    Example:
        >>> one_hot(np.array([1, 0]), 2)
        array([[0., 1.],
               [1., 0.]])
    """
    targets: Array = np.eye(classes)[labels]
    return targets
