"""What an update did."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LayerUpdate:
    """What an update did to one layer: connections dropped, grown, and there now."""

    dropped: int
    grown: int
    nnz: int


@dataclass(frozen=True)
class UpdateRecord:
    """What an update did.

    Attributes:
        step: Optimiser steps taken so far.
        fraction: Share of connections that the schedule asked to drop.
        layers: By path.
    """

    step: int
    fraction: float
    layers: dict[str, LayerUpdate]

    @property
    def dropped(self) -> int:
        """Connections dropped in all layers."""
        return sum(layer.dropped for layer in self.layers.values())

    @property
    def grown(self) -> int:
        """Connections grown in all layers."""
        return sum(layer.grown for layer in self.layers.values())
