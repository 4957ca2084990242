"""Connections that are trained but not used: a forward pass sees the largest values only."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from regrow.layers import SparseLayer
from regrow.topology.select import without_lowest


class Dormant:
    """The values of connections that rest while the others work.

    Between optimiser steps a layer's values hold a zero for every resting connection, so passes
    are those of the active ones, in any layer and compute, and the gradient of the values still
    has an entry for all. During an optimiser step, and during an update, all values are in place.
    Which ones rest is decided after each step: all but the largest.

    Args:
        share: Of the connections of a layer that are active, in (0, 1]; None for all.

    References:
        S. Jayakumar, R. Pascanu, J. Rae, S. Osindero, E. Elsen, "Top-KAST: top-K always sparse
        training", 2020.
    """

    def __init__(self, share: float | None) -> None:
        self._share = share
        self._values: dict[str, Tensor] = {}

    @torch.no_grad()
    def rest(self, layers: Mapping[str, SparseLayer]) -> None:
        """Take the values away that are not among the largest."""
        if self._share is None:
            return
        self.wake(layers)
        for path, layer in layers.items():
            count = layer.topology.nnz - max(1, round(self._share * layer.topology.nnz))
            active = without_lowest(layer.values.detach().abs(), max(0, count))
            self._values[path] = layer.values.detach().masked_fill(active, 0)
            layer.values.masked_fill_(~active, 0)

    @torch.no_grad()
    def wake(self, layers: Mapping[str, SparseLayer]) -> None:
        """Put all values in place."""
        for path, resting in self._values.items():
            values = layers[path].values
            # Where others have put values in place, what rested is gone with the old ones.
            if resting.shape == values.shape and not bool(values[resting != 0].any()):
                values.add_(resting)
        self._values.clear()

    @contextlib.contextmanager
    def awake(self, layers: Mapping[str, SparseLayer]) -> Iterator[None]:
        """Have all values in place for a while."""
        self.wake(layers)
        try:
            yield
        finally:
            self.rest(layers)

    def state_dict(self) -> dict[str, Any]:
        """Values by path."""
        return dict(self._values)

    def load_state_dict(
        self, state: Mapping[str, Tensor], layers: Mapping[str, SparseLayer]
    ) -> None:
        """Take up saved values, of layers that are loaded by now."""
        self._values = {
            path: values.to(layers[path].values, copy=True) for path, values in state.items()
        }
