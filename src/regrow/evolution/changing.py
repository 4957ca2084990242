"""Carrying out what was decided: values, gradient and optimiser state follow the connections."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from regrow.evolution.compose import named
from regrow.evolution.drop import rescaled
from regrow.evolution.kept import Kept
from regrow.evolution.methods import Method
from regrow.evolution.ranks import Ranks
from regrow.evolution.record import LayerUpdate
from regrow.evolution.site import Site
from regrow.evolution.starts import STARTS
from regrow.evolution.update import Decision
from regrow.optim.carry import STATE_POLICIES, carry_state


class Changes:
    """Makes changes of topology, one layer after the other.

    Args:
        method: Says how new connections start, and what the drop leaves as it was.
        kept: What the evolution itself keeps for connections.
        ranks: The processes that train together.
    """

    def __init__(self, method: Method, kept: Kept, ranks: Ranks) -> None:
        self._start = named(STARTS, method.start, "start")
        self.policy = named(STATE_POLICIES, method.state, "state")
        self._adjust = method.adjust
        self._kept = kept
        self._ranks = ranks

    def make(self, decisions: Iterable[Decision]) -> dict[str, LayerUpdate]:
        """Carry out what rank 0 has decided.

        Returns:
            What was done to each layer, by path.
        """
        done, replaced = {}, []
        for decision in decisions:
            layer = decision.site.layer
            values = layer.values
            done[decision.site.path] = self._make(decision)
            if layer.values is not values:
                replaced.append(layer)
        self._ranks.rewrap(replaced)
        return done

    def _make(self, decision: Decision) -> LayerUpdate:
        site = decision.site
        keep = self._ranks.first(decision.keep)
        grown = self._ranks.first_of_any_shape(decision.grown)
        dropped = keep.numel() - int(torch.count_nonzero(keep))
        if dropped != grown.numel():
            self._ranks.check_change(site.path, site.layer)
        if dropped and self._adjust is not None:
            by, values = self._adjust, site.layer.values
            values.copy_(rescaled(site.topology, values.detach(), keep, by))
        if dropped or grown.numel():
            self._rewire(site, keep, grown)
        return LayerUpdate(dropped, grown.numel(), site.layer.topology.nnz)

    def _rewire(self, site: Site, keep: Tensor, grown: Tensor) -> None:
        layer, old = site.layer, site.layer.values
        # No pass will go through the old connections; the room of their columns is needed now.
        layer.topology.forget_columns()
        change = site.topology.rewire(keep, grown)
        start = self._ranks.first(self._start(layer, change.grown, site.generator))
        values = change.carry(old.detach(), start)
        grad = (
            None
            if old.grad is None
            else change.carry(old.grad, start.new_zeros(1).expand(change.grown))
        )
        layer.set_topology(change.topology, values)
        layer.values.grad = grad
        del values, start  # as large as the layer, and copied by now
        if site.optimizer is not None:
            carry_state(site.optimizer, old, layer.values, change, self.policy, site.path)
        self._kept.follow(site.path, layer, change)
