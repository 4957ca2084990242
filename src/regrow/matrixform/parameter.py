"""A number, vector or matrix that is learned, with its gradient."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array: TypeAlias = NDArray[np.floating[Any]]


class Parameter:
    """A value and the gradient of the loss with respect to it, of one shape.

    Args:
        value: Floating; anything else becomes float64.

    Attributes:
        value: What is learned.
        gradient: Of the loss, zeros until a backward pass.

    Example:
        >>> Parameter([[1.0, 2.0]]).gradient
        array([[0., 0.]])
    """

    def __init__(self, value: ArrayLike) -> None:
        array = np.asarray(value)
        floating = np.issubdtype(array.dtype, np.floating)
        self.value: Array = array if floating else array.astype(np.float64)
        self.gradient: Array = np.zeros_like(self.value)
