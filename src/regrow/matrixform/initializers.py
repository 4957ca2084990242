"""First weights of a layer with D inputs and K outputs; a bias starts at zero.

A weight with a support draws as many numbers as it stores, with the sizes of the whole matrix.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from regrow.matrixform.parameter import Array

Initializer = Callable[[tuple[int, int], int, np.random.Generator], Array]


def uniform(shape: tuple[int, int], count: int, generator: np.random.Generator) -> Array:
    """Uniform in [0, 1)."""
    return generator.random(count)


def normal(shape: tuple[int, int], count: int, generator: np.random.Generator) -> Array:
    """Normal with deviation 1."""
    return generator.standard_normal(count)


def xavier_uniform(shape: tuple[int, int], count: int, generator: np.random.Generator) -> Array:
    """Uniform within ``±sqrt(6 / (D + K))``.

    Example:
        >>> weights = xavier_uniform((3, 3), 1000, np.random.default_rng(0))
        >>> bool(abs(weights).max() <= 1)
        True

    References:
        X. Glorot, Y. Bengio, "Understanding the difficulty of training deep feedforward neural
        networks", 2010.
    """
    bound = math.sqrt(6 / sum(shape))
    return generator.uniform(-bound, bound, count)


def xavier_normal(shape: tuple[int, int], count: int, generator: np.random.Generator) -> Array:
    """Normal with deviation ``sqrt(2 / (D + K))``."""
    return generator.normal(0, math.sqrt(2 / sum(shape)), count)


def he_normal(shape: tuple[int, int], count: int, generator: np.random.Generator) -> Array:
    """Normal with deviation ``sqrt(2 / D)``.

    References:
        K. He, X. Zhang, S. Ren, J. Sun, "Delving deep into rectifiers: surpassing human-level
        performance on ImageNet classification", 2015.
    """
    return generator.normal(0, math.sqrt(2 / shape[1]), count)


def he_uniform(shape: tuple[int, int], count: int, generator: np.random.Generator) -> Array:
    """Uniform within ``±sqrt(6 / D)``."""
    bound = math.sqrt(6 / shape[1])
    return generator.uniform(-bound, bound, count)


def zeros(shape: tuple[int, int], count: int, generator: np.random.Generator) -> Array:
    """Zeros."""
    return np.zeros(count)
