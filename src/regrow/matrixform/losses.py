"""Losses, summed over the batch, and their gradients with respect to the output.

``Y`` is the output and ``T`` the targets, both (N, K). ``train`` divides gradients by the batch
size.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from regrow.matrixform.activations import log_softmax, sigmoid, softmax
from regrow.matrixform.parameter import Array


class Loss(Protocol):
    """A number to be made small."""

    def value(self, y: Array, t: Array) -> float:
        """The loss."""
        ...

    def gradient(self, y: Array, t: Array) -> Array:
        """``DY``, (N, K)."""
        ...


class SquaredError:
    """``sum (Y - T)^2``.

    Example:
        >>> SquaredError().value(np.array([[1.0, 2.0]]), np.array([[0.0, 0.0]]))
        5.0
    """

    def value(self, y: Array, t: Array) -> float:
        """``sum (Y - T)^2``."""
        return float(np.sum((y - t) ** 2))

    def gradient(self, y: Array, t: Array) -> Array:
        """``2 (Y - T)``."""
        product: Array = 2 * (y - t)
        return product


class CrossEntropy:
    """``-sum T o log Y``, for an output of probabilities."""

    def value(self, y: Array, t: Array) -> float:
        """``-sum T o log Y``."""
        return float(-np.sum(t * np.log(y)))

    def gradient(self, y: Array, t: Array) -> Array:
        """``-T o (1 / Y)``."""
        quotient: Array = -t / y
        return quotient


class SoftmaxCrossEntropy:
    """``-sum T o logsoftmax(Y)``: the usual loss of a classifier.

    Example:
        >>> loss = SoftmaxCrossEntropy()
        >>> round(loss.value(np.zeros((1, 2)), np.array([[1.0, 0.0]])), 4)
        0.6931
    """

    def value(self, y: Array, t: Array) -> float:
        """``-sum T o logsoftmax(Y)``."""
        return float(-np.sum(t * log_softmax(y)))

    def gradient(self, y: Array, t: Array) -> Array:
        """``softmax(Y) o (T 1_K 1_K^T) - T``; ``softmax(Y) - T`` where rows of ``T`` sum to 1."""
        difference: Array = softmax(y) * np.sum(t, axis=1, keepdims=True) - t
        return difference


class LogisticCrossEntropy:
    """``-sum T o log sigmoid(Y)``.

    Only the term of the positive targets: this is not the binary cross-entropy.
    """

    def value(self, y: Array, t: Array) -> float:
        """``-sum T o log sigmoid(Y)``."""
        return float(np.sum(t * np.logaddexp(0, -y)))

    def gradient(self, y: Array, t: Array) -> Array:
        """``T o sigmoid(Y) - T``."""
        difference: Array = t * sigmoid(y) - t
        return difference


class NegativeLogLikelihood:
    """``-sum_i log(sum_k Y_ik T_ik)``, for an output of probabilities."""

    def value(self, y: Array, t: Array) -> float:
        """``-sum log((Y o T) 1_K)``."""
        return float(-np.sum(np.log(np.sum(y * t, axis=1))))

    def gradient(self, y: Array, t: Array) -> Array:
        """``-(1 / ((Y o T) 1_K) 1_K^T) o T``."""
        quotient: Array = -t / np.sum(y * t, axis=1, keepdims=True)
        return quotient
