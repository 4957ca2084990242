"""What an evolution keeps from update to update: tracked numbers, and positions once seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from regrow.evolution.site import Site
from regrow.evolution.trackers import Tracker
from regrow.layers import SparseLayer
from regrow.topology import Rewiring, Topology
from regrow.topology.union import with_positions


class Kept:
    """Trackers and seen positions of all layers of an evolution.

    Args:
        trackers: What to track.
        seen: Whether to keep all positions that were ever active.
    """

    def __init__(self, trackers: Sequence[Tracker], seen: bool) -> None:
        self.trackers = tuple(trackers)
        self._seen = seen
        self._tracked: dict[str, dict[str, Tensor]] = {}
        self._ever: dict[str, Topology] = {}
        self._joined: dict[str, Topology] = {}
        # A layer whose topology is another one than that of the last look was changed by others.
        self._topology: dict[str, Topology] = {}

    def of(self, path: str, layer: SparseLayer) -> dict[str, Tensor]:
        """Tracked numbers of a layer by name; they start anew where others changed its topology."""
        if not self.trackers:
            return {}
        if self._topology.get(path) is not layer.topology:
            known = self._topology.get(path)
            if known is None or known != layer.topology or path not in self._tracked:
                self._tracked[path] = {
                    tracker.name: torch.full_like(layer.values.detach(), tracker.start)
                    for tracker in self.trackers
                }
            self._topology[path] = layer.topology
        return self._tracked[path]

    def ever(self, path: str, layer: SparseLayer) -> Topology | None:
        """All positions of a layer that were ever active, if that is kept."""
        if not self._seen:
            return None
        if self._joined.get(path) is not layer.topology:
            known = self._ever.get(path, layer.topology)
            self._ever[path] = with_positions(known, layer.topology.positions)
            self._joined[path] = layer.topology
        return self._ever[path]

    def track(self, sites: Sequence[Site], before: bool) -> None:
        """Bring the trackers up to date that look at this side of an optimiser step."""
        for site in sites:
            for tracker in self.trackers:
                if tracker.before == before:
                    old = site.tracked[tracker.name]
                    new = tracker.update(site, old).to(old)
                    if new.shape != old.shape:
                        raise ValueError(
                            f"tracker {tracker.name!r} in {site.path} must have shape "
                            f"{tuple(old.shape)}, got {tuple(new.shape)}"
                        )
                    self._tracked[site.path][tracker.name] = new

    def follow(self, path: str, layer: SparseLayer, change: Rewiring) -> None:
        """Take the numbers of a layer along to its new topology."""
        for tracker in self.trackers:
            old = self._tracked[path][tracker.name]
            start = old.new_full((1,), tracker.start).expand(change.grown)
            self._tracked[path][tracker.name] = change.carry(old, start)
        if self.trackers:
            self._topology[path] = layer.topology
        self.ever(path, layer)

    def state_dict(self) -> dict[str, Any]:
        """Tensors by path and name."""
        return {
            "tracked": {path: dict(numbers) for path, numbers in self._tracked.items()},
            "ever": {path: list(topology.csr()) for path, topology in self._ever.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any], layers: Mapping[str, SparseLayer]) -> None:
        """Take up saved numbers, of layers that are loaded by now."""
        self._tracked = {
            path: {name: number.to(layers[path].values, copy=True) for name, number in held.items()}
            for path, held in state["tracked"].items()
        }
        self._topology = {path: layers[path].topology for path in self._tracked}
        self._joined = {}
        self._ever = {
            path: Topology.from_csr(layers[path].topology.shape, *(part.clone() for part in csr))
            for path, csr in state["ever"].items()
        }
