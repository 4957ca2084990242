"""How each kind of torch module becomes sparse and dense again: one entry a kind."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from regrow.topology import Topology

StartValues = Literal["rescale", "keep", "init"]


@dataclass(frozen=True)
class Start:
    """How a new sparse layer is to start.

    Attributes:
        values: ``rescale``, ``keep`` or ``init``; see ``sparsify``.
        compute: Of the layer.
        generator: CPU generator, torch's default one if None.
    """

    values: StartValues
    compute: str
    generator: torch.Generator | None

    def kept(self, weight: Tensor, topology: Topology) -> Tensor | None:
        """Values taken from a dense weight ``[nnz]``, or None if new ones are to be drawn."""
        if self.values == "init":
            return None
        kept = weight.detach().reshape(-1)[topology.positions.to(weight.device)]
        return kept / math.sqrt(topology.density) if self.values == "rescale" else kept


class Conversion(Protocol):
    """One kind of torch module and its sparse counterpart.

    A module may hold several weights (a recurrent one does); each has a name, which is empty where
    there is but one.
    """

    def shapes(self, module: Any) -> dict[str, tuple[int, ...]]:
        """Dense shape of each weight that can be sparse, by name."""

    def sparse(self, module: Any, topologies: Mapping[str, Topology], start: Start) -> nn.Module:
        """The sparse counterpart; a weight without a topology stays dense."""

    def dense(self, layer: Any) -> nn.Module:
        """The plain torch module with the same function."""


# By exact class: a subclass may do something else with its weight.
CONVERSIONS: dict[type[nn.Module], Conversion] = {}
DENSIFIERS: dict[type[nn.Module], Conversion] = {}


def register(dense: type[nn.Module], sparse: type[nn.Module], conversion: Conversion) -> None:
    """Make a kind of module known to ``sparsify`` and ``densify``."""
    CONVERSIONS[dense] = conversion
    DENSIFIERS[sparse] = conversion
