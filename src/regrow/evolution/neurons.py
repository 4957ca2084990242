"""Pruning of hidden neurons while their connections evolve: a drop and a grow rule in one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from regrow.evolution.drop import sign_split, strength
from regrow.evolution.grow import random_among
from regrow.evolution.scores import (
    DROP_SCORES,
    GROW_SCORES,
    DropScore,
    GrowScore,
    register_score,
)
from regrow.evolution.site import Site
from regrow.topology import Topology


class NeuronPruning:
    """Removes the weakest hidden neurons, some at each update, until a share of them is gone.

    Hidden neurons are those between two layers of vectors that follow each other, as many as the
    first has rows and the second columns. The weakest is that of the least sum of ``|w|``,
    in and out. It loses all its connections, and as it has none, it never gets any again; their
    number is made up for among the neurons that are left. ``regrow.compact`` takes such neurons
    out in the end.

    The two rules belong together: use both of one object in one evolution.

    Args:
        target: Share of the neurons of each hidden layer to remove, in [0, 1).
        step: Share of them to remove at each update.

    Attributes:
        drop: SET's rule, and all connections of the neurons that go.
        grow: Uniformly at random, but at no neuron that is gone.

    Example:
        >>> import regrow
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(8, 20), nn.ReLU(), nn.Linear(20, 4))
        >>> model = regrow.sparsify(model, 0.3)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> rules = NeuronPruning(target=0.5, step=0.1)
        >>> evolution = regrow.Evolution(
        ...     model, optimizer, drop=rules.drop, grow=rules.grow, every=10, regrow=True
        ... )
        >>> for _ in range(5):
        ...     _ = evolution.update()
        >>> int((model[0].topology.degrees()[0] + model[2].topology.degrees()[1] == 0).sum())
        10

    References:
        S. Liu, D. C. Mocanu, M. Pechenizkiy, "On improving deep learning generalization with
        adaptive sparse connectivity", 2019.
    """

    def __init__(self, target: float, step: float) -> None:
        self._target, self._step = target, step
        # Of the update that is under way: by path, which connections go with their neurons, and
        # which rows and columns are left.
        self._doomed: dict[str, Tensor] = {}
        self._alive: dict[str, list[Tensor]] = {}
        self.drop = DropScore(
            self._score,
            count=self._count,
            says="SET's rule, and all connections of the hidden neurons of the least sum of |w|, "
            "in and out." + _REFERENCE,
        )
        self.grow = GrowScore(
            place=self._place,
            partner=self.drop,
            says="Uniformly at random, but at no hidden neuron that `neuron-pruning` has removed."
            + _REFERENCE,
        )

    def _count(self, sites: Sequence[Site], asked: int) -> list[int]:
        for site in sites:
            self._doomed[site.path] = torch.zeros_like(site.values, dtype=torch.bool)
            self._alive[site.path] = [
                torch.ones(n, dtype=torch.bool, device=site.values.device)
                for n in site.topology.matrix_shape
            ]
        for before, after in pairwise(sites):
            if before.topology.shape[0] == math.prod(after.topology.shape[1:]):
                self._remove(before, after)
        lost = [self._doomed[site.path] for site in sites]
        return [
            int(gone.sum()) + round(site.fraction * int((~gone).sum()))
            for site, gone in zip(sites, lost, strict=True)
        ]

    def _remove(self, before: Site, after: Site) -> None:
        """Doom the weakest neurons between two layers."""
        force = strength(before)[0] + strength(after)[1]
        alive = before.topology.degrees()[0] + after.topology.degrees()[1] > 0
        left = int(alive.sum()) - math.ceil((1 - self._target) * len(force))
        number = max(0, min(left, round(self._step * len(force))))
        weakest = torch.where(alive, force, torch.inf).argsort(stable=True)[:number]
        gone = torch.zeros_like(alive).index_fill_(0, weakest, True)
        self._doomed[before.path] |= gone[before.topology.rows]
        self._doomed[after.path] |= gone[after.topology.csr()[1].long()]
        self._alive[before.path][0] = self._alive[after.path][1] = alive & ~gone

    def _score(self, site: Site) -> Tensor:
        shares = sign_split(site)
        doomed = self._doomed.pop(site.path, None)
        return shares if doomed is None else shares.masked_fill(doomed, -1.0)

    def _place(self, site: Site, taken: Topology, count: int) -> Tensor:
        rows, columns = self._alive.pop(site.path)
        return random_among(site, taken, count, (rows, columns))


_REFERENCE = """

References:
    S. Liu, D. C. Mocanu, M. Pechenizkiy, "On improving deep learning generalization with adaptive
    sparse connectivity", 2019.
"""

_usual = NeuronPruning(target=0.5, step=0.05)
register_score(DROP_SCORES, "neuron-pruning", _usual.drop)
register_score(GROW_SCORES, "random-alive", _usual.grow)
