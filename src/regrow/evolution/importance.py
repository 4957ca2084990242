"""Pruning of hidden neurons by importance, now and then: connections become fewer."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from regrow.evolution.engine import Evolution
from regrow.evolution.grow import random_among, random_free
from regrow.evolution.horizon import Horizon
from regrow.evolution.record import LayerUpdate
from regrow.evolution.scores import GrowScore
from regrow.evolution.site import Site
from regrow.layers import SparseLayer, SparseLinear, sparse_layers
from regrow.topology import Topology

MODES = ("incoming_only", "remove_neuron")


class ImportancePruning:
    """Takes their connections from the least important hidden neurons, at some optimiser steps.

    The importance of a neuron is the sum of ``|w|`` over its incoming connections. In every layer
    the neurons go that are not above a percentile of it. Nothing is grown for what they lose, so
    the number of connections falls; an evolution keeps the number that is left.

    Call ``step`` after each ``optimizer.step()`` and before ``evolution.step()``. Values, optimiser
    state and what the evolution tracks follow the connections that stay.

    Hidden neurons are those between two linear layers that follow each other in the model, the
    first of them sparse, the second sparse or dense.

    Args:
        percentile: Of the importance in a layer, in (0, 100). Neurons without a connection count,
            with an importance of 0: once so many are empty, no others go.
        every: Optimiser steps between prunings.
        begin: Step after which they begin.
        until: Last step at which one may happen; None for no end.
        mode: ``incoming_only``: a neuron loses its incoming connections; it says what its bias
            says, and growth may give it inputs again. ``remove_neuron``: it loses its outgoing ones
            too, and its bias is 0. Give the evolution ``grow=pruning.grow``, which grows nothing at
            such a neuron, and ``regrow.compact`` takes it out in the end.

    Attributes:
        grow: Uniformly at random, but at no neuron that is removed.

    Raises:
        ValueError: An argument is out of range.

    Example:
        >>> import regrow
        >>> model = nn.Sequential(nn.Linear(8, 20), nn.ReLU(), nn.Linear(20, 4))
        >>> model = regrow.sparsify(model, 0.3)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> pruning = ImportancePruning(25, every=10, mode="remove_neuron")
        >>> evolution = regrow.Evolution(model, optimizer, "set", grow=pruning.grow, every=10)
        >>> for _ in range(10):
        ...     model(torch.randn(4, 8)).square().sum().backward()
        ...     optimizer.step()
        ...     pruned = pruning.step(evolution)
        ...     _ = evolution.step()
        >>> int((model[0].topology.degrees()[0] == 0).sum())
        5

    References:
        S. Curci, D. C. Mocanu, M. Pechenizkiy, "Truly sparse neural networks at scale", 2021.
    """

    def __init__(
        self,
        percentile: float = 10.0,
        *,
        every: int,
        begin: int = 0,
        until: int | None = None,
        mode: str = "incoming_only",
    ) -> None:
        if not 0 < percentile < 100:
            raise ValueError(f"percentile of importance must be in (0, 100), got {percentile}")
        if every < 1:
            raise ValueError(f"every of importance pruning must be at least 1 step, got {every}")
        if begin < 0 or (until is not None and until < begin):
            raise ValueError(
                f"begin of importance pruning must be at step 0 or later and not after until, "
                f"got begin={begin} and until={until}"
            )
        if mode not in MODES:
            raise ValueError(f"mode of pruning must be one of {', '.join(MODES)}, got {mode!r}")
        self.percentile, self.mode = percentile, mode
        self._horizon = Horizon(every, begin, until, None)
        self._seen = 0
        # By path of the layer, which rows and columns belong to removed neurons.
        self._gone: dict[str, list[Tensor]] = {}
        self.grow = GrowScore(
            place=self._place,
            says="Uniformly at random, but at no neuron that importance pruning has removed.",
        )

    def step(self, evolution: Evolution) -> dict[str, LayerUpdate] | None:
        """Prune if it is due after the optimiser step just taken.

        Args:
            evolution: Of the model.

        Returns:
            What was done to each layer, by path, or None.
        """
        steps = evolution.steps
        if steps == self._seen:
            return None
        self._seen = steps
        return self.prune(evolution) if self._horizon.due(steps) else None

    @torch.no_grad()
    def prune(self, evolution: Evolution) -> dict[str, LayerUpdate]:
        """Prune now, whatever the schedule says.

        Args:
            evolution: Of the model.

        Returns:
            What was done to each layer that lost connections, by path.
        """
        layers = sparse_layers(evolution.model)
        keep = {path: torch.ones_like(m.values, dtype=torch.bool) for path, m in layers.items()}
        for (path, before), (next_path, after) in _following(evolution.model):
            assert isinstance(before, SparseLayer)
            gone = self._weak(before)
            keep[path] &= ~gone[before.topology.rows]
            if self.mode == "incoming_only":
                continue
            if isinstance(after, SparseLayer):
                keep[next_path] &= ~gone[after.topology.csr()[1].long()]
                self._remember(next_path, after, 1, gone)
            else:
                _clear(after.weight, (slice(None), gone), evolution.optimizer)
            if isinstance(before.bias, nn.Parameter):
                _clear(before.bias, (gone,), evolution.optimizer)
            self._remember(path, before, 0, gone)
        nothing = torch.empty(0, dtype=torch.int64)
        return {
            path: evolution.rewire(path, kept, nothing.to(kept.device))
            for path, kept in keep.items()
            if not bool(kept.all())
        }

    def state_dict(self) -> dict[str, Any]:
        """What it takes to go on; loads with ``torch.load(weights_only=True)``."""
        return {"seen": self._seen, "gone": {path: list(s) for path, s in self._gone.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state."""
        self._seen = int(state["seen"])
        self._gone = {path: [side.clone() for side in s] for path, s in state["gone"].items()}

    def _weak(self, layer: SparseLayer) -> Tensor:
        """The neurons that are not above the percentile; the strongest one always stays."""
        importance = layer.topology.sums(layer.values.detach().abs().double(), 0)
        weak = importance <= torch.quantile(importance, self.percentile / 100)
        weak[importance.argmax()] = False
        return weak

    def _remember(self, path: str, layer: SparseLayer, axis: int, gone: Tensor) -> None:
        if path not in self._gone:
            self._gone[path] = [
                torch.zeros(n, dtype=torch.bool, device=gone.device)
                for n in layer.topology.matrix_shape
            ]
        self._gone[path][axis] |= gone

    def _place(self, site: Site, taken: Topology, count: int) -> Tensor:
        if site.path not in self._gone:
            return random_free(site, taken, count)
        rows, columns = (~side for side in self._gone[site.path])
        return random_among(site, taken, count, (rows, columns))


Linear = SparseLinear | nn.Linear


def _following(model: nn.Module) -> list[tuple[tuple[str, Linear], tuple[str, Linear]]]:
    """Linear layers that follow each other, the first one sparse, by path."""
    chain = [(p, m) for p, m in model.named_modules() if isinstance(m, (SparseLinear, nn.Linear))]
    return [
        (before, after)
        for before, after in pairwise(chain)
        if isinstance(before[1], SparseLinear) and before[1].out_features == after[1].in_features
    ]


def _clear(parameter: Tensor, at: Any, optimizer: torch.optim.Optimizer) -> None:
    """Set entries of a dense parameter to 0, and what the optimiser keeps for them."""
    parameter[at] = 0
    for entry in optimizer.state.get(parameter, {}).values():
        if isinstance(entry, Tensor) and entry.shape == parameter.shape:
            entry[at] = 0
