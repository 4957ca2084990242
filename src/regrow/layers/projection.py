"""The projections of transformers' GPT-2 family, made sparse."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from regrow.layers.conversion import Start, register, take_bias, take_weight
from regrow.layers.linear import SparseLinear, with_activation
from regrow.topology import Topology

_DENSE = "transformers.pytorch_utils.Conv1D"


class SparseProjection(SparseLinear):
    """A ``SparseLinear`` that stands where ``Conv1D`` of the package transformers stood.

    Despite its name that is a linear layer, whose weight is stored as ``(inputs, outputs)``; here
    rows are outputs, as everywhere in regrow. Arguments and all else as of ``SparseLinear``.

    Example:
        >>> SparseProjection(64, 192, density=0.1)
        SparseProjection(64 -> 192, density=0.1, connections=1229, bias=True, compute=auto)
    """

    @property
    def nf(self) -> int:
        """Outputs, as ``Conv1D`` calls them."""
        return self.out_features

    @property
    def nx(self) -> int:
        """Inputs, as ``Conv1D`` calls them."""
        return self.in_features


class _ProjectionConversion:
    layout = "columns"

    def shapes(self, module: Any) -> dict[str, tuple[int, ...]]:
        inputs, outputs = module.weight.shape
        return {"": (outputs, inputs)}

    def parameters(self, module: nn.Module) -> tuple[str]:
        return ("weight",)

    def weights(self, module: Any) -> dict[str, Tensor]:
        return {"": module.weight.detach().t()}

    def sparse(
        self, module: Any, topologies: Mapping[str, Topology], start: Start
    ) -> SparseProjection:
        inputs, outputs = module.weight.shape
        layer = SparseProjection(
            inputs,
            outputs,
            topology=topologies[""],
            compute=start.compute,
            generator=start.generator,
            device=module.weight.device,
            dtype=module.weight.dtype,
        )
        # The rows of the topology are the columns of this weight; a view with them in front.
        weight = module.weight.detach().t().requires_grad_(module.weight.requires_grad)
        take_weight(layer, weight, topologies[""], start)
        take_bias(layer, module, start)
        return layer

    def dense(self, layer: SparseProjection) -> nn.Module:
        package, _, name = _DENSE.rpartition(".")
        dense: Any = getattr(import_module(package), name)(layer.out_features, layer.in_features)
        dense = dense.to(layer.values.device, layer.values.dtype)
        with torch.no_grad():
            dense.weight.copy_(layer.weight.t())
        dense.weight.requires_grad_(layer.values.requires_grad)
        take_bias(dense, layer)
        return with_activation(dense, layer)


register(_DENSE, SparseProjection, _ProjectionConversion())
