"""Inference of 2:4 layers on a GPU by torch's own operator, which uses its sparse matrix units."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

from regrow.export.dense import to_dense
from regrow.layers import SparseLinear
from regrow.layers.base import sparse_layers
from regrow.topology import NofM

Model = TypeVar("Model", bound=nn.Module)

_DTYPES = (torch.float16, torch.bfloat16)


def to_semi_structured(model: Model) -> Model:
    """A copy for inference whose 2:4 linear layers multiply by torch's semi-structured weight.

    All other sparse layers become dense ones. It is torch that says which sizes its operator takes.

    Args:
        model: On a GPU, in float16 or bfloat16, with at least one ``SparseLinear`` whose topology
            is declared to be ``NofM(2, 4)``.

    Returns:
        The copy, which is not to be trained.

    Raises:
        ValueError: There is no such layer, or it is not on a GPU.
        TypeError: Its values are of another dtype.

    Example:
        >>> import regrow
        >>> model = regrow.sparsify(nn.Sequential(nn.Linear(64, 64)), pattern=NofM(2, 4))
        >>> to_semi_structured(model)
        Traceback (most recent call last):
        ValueError: values of 0 must be on a GPU for torch's semi-structured product, got cpu

    References:
        A. Mishra et al., "Accelerating sparse deep neural networks", 2021.
    """
    found = {
        path: layer
        for path, layer in sparse_layers(model).items()
        if isinstance(layer, SparseLinear) and layer.topology.structure == NofM(2, 4)
    }
    if not found:
        raise ValueError("model must have a SparseLinear whose topology is 2:4, got none")
    for path, layer in found.items():
        if not layer.values.is_cuda:
            raise ValueError(
                f"values of {path or 'the layer'} must be on a GPU for torch's semi-structured "
                f"product, got {layer.values.device}"
            )
        if layer.values.dtype not in _DTYPES:
            raise TypeError(
                f"values of {path or 'the layer'} must be float16 or bfloat16 for torch's "
                f"semi-structured product, got {layer.values.dtype}"
            )
    made = to_dense(model)
    for path, layer in found.items():
        dense = made.get_submodule(path)
        if layer.activation is not None:
            dense = dense.get_submodule("0")  # the activation is behind it
        assert isinstance(dense, nn.Linear)
        weight = torch.sparse.to_sparse_semi_structured(dense.weight.detach())
        dense.weight = nn.Parameter(weight, requires_grad=False)
    return made
