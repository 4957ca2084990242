"""torch's transformer modules have fused kernels for inference, which know dense weights only."""

from __future__ import annotations

import warnings

from torch import nn
from torch.nn import functional

from regrow.layers.base import SparseLayer


def settle_fused_paths(model: nn.Module) -> None:
    """Close the fused kernels of modules that hold sparse layers, and open those of others.

    In evaluation without gradients, ``nn.TransformerEncoderLayer`` hands its weights to one fused
    kernel and calls none of its own layers; sparse ones would be made dense for that, and their
    compute be ignored. torch itself says by an attribute of the module that it does not apply.
    """
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoderLayer):
            module.activation_relu_or_gelu = 0 if _sparse(module) else _code(module.activation)
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoder) and len(module.layers):
            module.use_nested_tensor = not _sparse(module) and _nested(module)


def _sparse(module: nn.Module) -> bool:
    return any(isinstance(part, SparseLayer) for part in module.modules())


def _code(activation: object) -> int:
    if activation is functional.relu or isinstance(activation, nn.ReLU):
        return 1
    return 2 if activation is functional.gelu or isinstance(activation, nn.GELU) else 0


def _nested(encoder: nn.TransformerEncoder) -> bool:
    """What torch decides on making such an encoder."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = nn.TransformerEncoder(
            encoder.layers[0],
            num_layers=0,
            enable_nested_tensor=encoder.enable_nested_tensor,
        )
    return bool(made.use_nested_tensor)
