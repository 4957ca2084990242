"""How each kind of torch module becomes sparse and dense again: one entry a kind."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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

    Attributes:
        layout: Modules with one weight may share it, and go on sharing it, where this is equal;
            None where the weight cannot be shared.
    """

    @property
    def layout(self) -> str | None:
        """See above."""

    def shapes(self, module: Any) -> dict[str, tuple[int, ...]]:
        """Dense shape of each weight that can be sparse, by name."""

    def parameters(self, module: Any) -> Sequence[str]:
        """Names of the parameters of the module that these weights are in."""

    def weights(self, module: Any) -> Mapping[str, Tensor]:
        """Each weight in its dense shape, by name: views of the parameters, detached."""

    def sparse(self, module: Any, topologies: Mapping[str, Topology], start: Start) -> nn.Module:
        """The sparse counterpart; a weight without a topology stays dense."""

    def dense(self, layer: Any) -> nn.Module:
        """The plain torch module with the same function."""


CONVERSIONS: dict[type[nn.Module], Conversion] = {}
# By "module.Class": kinds of packages that need not be there.
NAMED_CONVERSIONS: dict[str, Conversion] = {}
DENSIFIERS: dict[type[nn.Module], Conversion] = {}


def register(dense: type[nn.Module] | str, sparse: type[nn.Module], conversion: Conversion) -> None:
    """Make a kind of module known to ``sparsify`` and ``densify``.

    Args:
        dense: The class, or ``"module.Class"`` if its package may be missing.
        sparse: The class of its sparse counterpart.
        conversion: The way there and back.
    """
    if isinstance(dense, str):
        NAMED_CONVERSIONS[dense] = conversion
    else:
        CONVERSIONS[dense] = conversion
    DENSIFIERS[sparse] = conversion


def conversion_of(module: nn.Module) -> Conversion | None:
    """How a module becomes sparse, or None if it cannot.

    A subclass counts as what it is derived from, unless it computes in a way of its own.
    """
    for kind in type(module).__mro__:
        found = CONVERSIONS.get(kind) or NAMED_CONVERSIONS.get(_full_name(kind))
        if found is not None:
            return found
        if not _COMPUTES.isdisjoint(vars(kind)):
            return None
    return None


_COMPUTES = {"forward", "_conv_forward", "__call__"}


def _full_name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def take_weight(layer: Any, weight: Tensor, topology: Topology, start: Start) -> None:
    """Give a new sparse layer the values that it is to start from, frozen as the weight was."""
    kept = start.kept(weight, topology)
    if kept is not None:
        with torch.no_grad():
            layer.values.copy_(kept)
    layer.values.requires_grad_(weight.requires_grad)


def take_bias(layer: Any, module: Any, start: Start | None = None) -> None:
    """Give a new layer the bias of the old one: the parameter itself, which others may hold too."""
    if module.bias is None:
        return
    if start is not None and start.values == "init":
        with torch.no_grad():
            module.bias.copy_(layer.bias)
    layer.bias = module.bias


# Which dictionaries of a module hold its hooks; a handle removes from the dictionary itself.
_HOOKS = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_is_full_backward_hook",
)


def succeed(new: nn.Module, old: nn.Module) -> nn.Module:
    """Give a module that replaces another one its mode and its hooks."""
    for name in _HOOKS:
        if hasattr(old, name):
            setattr(new, name, getattr(old, name))
    return new.train(old.training)
