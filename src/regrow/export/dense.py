"""A plain torch model with the same function."""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import nn

from regrow.layers import densify

Model = TypeVar("Model", bound=nn.Module)


def to_dense(model: Model) -> Model:
    """A copy of a model in which every layer is torch's own; the model itself is left alone.

    Args:
        model: With sparse layers or without.

    Returns:
        The copy; it holds zeros where there is no connection.

    Example:
        >>> import torch, regrow
        >>> model = nn.Sequential(regrow.SparseLinear(8, 4, density=0.5))
        >>> to_dense(model)
        Sequential(
          (0): Linear(in_features=8, out_features=4, bias=True)
        )
    """
    return densify(copy.deepcopy(model))
