"""Pruning of hidden neurons while their connections evolve: a drop and a grow rule in one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from regrow.evolution.drop import sign_split, strength
from regrow.evolution.grow import random_among, random_free
from regrow.evolution.scores import (
    DROP_SCORES,
    GROW_SCORES,
    DropScore,
    GrowScore,
    register_score,
)
from regrow.evolution.site import Site
from regrow.topology import Topology

BUDGETS = ("keep", "shrink")
IMPORTANCES = ("in", "out", "both")


@dataclass
class _Fate:
    """What an update has decided about the neurons at one layer.

    Attributes:
        doomed: Which connections go with their neurons, bool ``[nnz]``.
        alive: Which rows, and which columns, are left.
    """

    doomed: Tensor
    alive: list[Tensor]


class NeuronPruning:
    """Removes the weakest hidden neurons, some at each update, until a share of them is gone.

    Hidden neurons are those between two layers of vectors that follow each other, as many as the
    first has rows and the second columns. The weakest is that of the least sum of ``|w|``. It loses
    all its connections, and as it has none, it never gets any again. ``regrow.compact`` takes such
    neurons out in the end. The last hidden layer keeps as many neurons as there are outputs.

    The two rules belong together: use both of one object in one evolution. They hold no state, so
    one object may serve several.

    Args:
        target: Share of the neurons of each hidden layer to remove, in [0, 1).
        step: Share of them to remove at each update; None follows the window.
        begin: Optimiser step at which the window opens: from there the share removed rises, as
            ``target * (1 - (1 - t) ** 3)`` with ``t`` from 0 to 1.
        end: Optimiser step at which it closes, and the target is reached.
        importance: Which weights of a neuron count: ``in``, ``out`` or ``both``.
        budget: What becomes of the connections that are lost with neurons. ``keep``: as many grow
            among the neurons that are left, as long as there are places between them. ``shrink``:
            none do, and the number of connections falls.

    Attributes:
        drop: SET's rule, and all connections of the neurons that go.
        grow: Uniformly at random, but at no neuron that is gone.

    Raises:
        ValueError: An argument is out of range, or there is neither a step nor a window, or both.

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

    def __init__(
        self,
        target: float,
        step: float | None = None,
        *,
        begin: int | None = None,
        end: int | None = None,
        importance: str = "both",
        budget: str = "keep",
    ) -> None:
        if not 0 <= target < 1:
            raise ValueError(f"target of neuron pruning must be in [0, 1), got {target}")
        if (step is None) == (begin is None or end is None):
            raise ValueError(
                f"neuron pruning needs either a step or a window (begin and end), "
                f"got step={step}, begin={begin} and end={end}"
            )
        if begin is not None and end is not None and not 0 <= begin < end:
            raise ValueError(
                f"window of neuron pruning must begin at step 0 or later and end after it, "
                f"got begin={begin} and end={end}"
            )
        if importance not in IMPORTANCES:
            raise ValueError(
                f"importance of neurons must be one of {', '.join(IMPORTANCES)}, got {importance!r}"
            )
        if budget not in BUDGETS:
            raise ValueError(
                f"budget of neuron pruning must be one of {', '.join(BUDGETS)}, got {budget!r}"
            )
        self._target, self._step, self._window = target, step, (begin, end)
        self._importance, self._shrinks = importance, budget == "shrink"
        self.drop = DropScore(
            self._score,
            count=self._count,
            lost=self._lost,
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
            site.notes[self, site.path] = _Fate(
                torch.zeros_like(site.values, dtype=torch.bool),
                [
                    torch.ones(n, dtype=torch.bool, device=site.values.device)
                    for n in site.topology.matrix_shape
                ],
            )
        for before, after in pairwise(sites):
            if before.topology.shape[0] == math.prod(after.topology.shape[1:]):
                self._remove(before, after, last=after is sites[-1])
        lost = [self._fate(site).doomed for site in sites]
        return [
            int(gone.sum()) + round(site.fraction * int((~gone).sum()))
            for site, gone in zip(sites, lost, strict=True)
        ]

    def _fate(self, site: Site) -> _Fate:
        fate: _Fate = site.notes[self, site.path]
        return fate

    def _remove(self, before: Site, after: Site, last: bool) -> None:
        """Doom the weakest neurons between two layers."""
        sides = {"in": strength(before)[0], "out": strength(after)[1]}
        force = sum(sides.values()) if self._importance == "both" else sides[self._importance]
        assert isinstance(force, Tensor)
        alive = before.topology.degrees()[0] + after.topology.degrees()[1] > 0
        size = len(force)
        least = math.ceil((1 - self._target) * size)
        if last:
            least = max(least, min(size, after.topology.shape[0]))
        number = max(0, min(int(alive.sum()) - least, self._due(before.step, size, alive)))
        weakest = torch.where(alive, force, torch.inf).argsort(stable=True)[:number]
        gone = torch.zeros_like(alive).index_fill_(0, weakest, True)
        for site, own in ((before, before.topology.rows), (after, after.topology.csr()[1].long())):
            self._fate(site).doomed |= gone[own]
        self._fate(before).alive[0] = self._fate(after).alive[1] = alive & ~gone

    def _due(self, step: int, size: int, alive: Tensor) -> int:
        """How many neurons of a layer this update is to remove."""
        if self._step is not None:
            return round(self._step * size)
        begin, end = self._window
        assert begin is not None
        assert end is not None
        left = 1 - min(max((step - begin) / (end - begin), 0.0), 1.0)
        return round(self._target * (1 - left**3) * size) - int((~alive).sum())

    def _score(self, site: Site) -> Tensor:
        shares = sign_split(site)
        fate = site.notes.get((self, site.path))
        return shares if fate is None else shares.masked_fill(fate.doomed, -1.0)

    def _lost(self, site: Site) -> int:
        fate = self._fate(site)
        if self._shrinks:
            return int(fate.doomed.sum())
        rows, columns = (int(side.sum()) for side in fate.alive)
        return max(0, site.topology.nnz - rows * columns)

    def _place(self, site: Site, taken: Topology, count: int) -> Tensor:
        fate = site.notes.get((self, site.path))
        if fate is None:
            return random_free(site, taken, count)
        rows, columns = fate.alive
        return random_among(site, taken, count, (rows, columns))


_REFERENCE = """

References:
    S. Liu, D. C. Mocanu, M. Pechenizkiy, "On improving deep learning generalization with adaptive
    sparse connectivity", 2019.
"""

_usual = NeuronPruning(target=0.5, step=0.05)
register_score(DROP_SCORES, "neuron-pruning", _usual.drop)
register_score(GROW_SCORES, "random-alive", _usual.grow)
