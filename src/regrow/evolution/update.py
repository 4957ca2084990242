"""Deciding an update: what goes and what comes in every layer, before anything is changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from regrow.evolution.budgets import Parts
from regrow.evolution.dropping import kept_in_layer, kept_together, ranks
from regrow.evolution.growth import (
    best_free,
    best_in_parts,
    best_together,
    random_in_parts,
    random_together,
)
from regrow.evolution.methods import Method
from regrow.evolution.plot import Plot
from regrow.evolution.redistribution import REDISTRIBUTIONS, allot
from regrow.evolution.scores import DropScore, GrowScore
from regrow.evolution.site import Site
from regrow.topology import Topology
from regrow.topology.allocation import share
from regrow.topology.union import with_positions


@dataclass
class Decision:
    """What is to happen in one layer.

    Attributes:
        site: The layer.
        keep: Which connections stay, bool ``[nnz]``.
        grown: Where connections grow, flat positions int64.
    """

    site: Site
    keep: Tensor
    grown: Tensor


class Update:
    """One update of some layers.

    Args:
        method: Its parts.
        drop: The drop score.
        grow: The grow score.
        plots: All layers of the evolution; the list is used up.
        fraction: Share to drop.
        density: Density to reach over all layers; None keeps what there is.
        shares: Relative density of each layer, by path.
    """

    def __init__(
        self,
        method: Method,
        drop: DropScore,
        grow: GrowScore,
        plots: list[Plot],
        fraction: float,
        density: float | None,
        shares: dict[str, float],
    ) -> None:
        self._method, self._drop, self._grow = method, drop, grow
        self._plots = plots
        self._fraction = fraction
        self._shares = shares
        self._generator = plots[0].site.generator
        self._targets = self._after(density)

    def decide(self) -> Iterator[Decision]:
        """What is to happen, layer after layer; each may be carried out as it comes."""
        if self._method.scope != "global" and not self._shared:
            asked = self._asked()
            while self._plots:  # nothing of a layer is held any more when its turn is over
                yield self._alone(self._plots.pop(0), asked.pop(0), self._targets.pop(0))
            return
        keep = self._kept()
        if self._method.scope == "global":
            count = sum(self._targets) - sum(_number(kept) for kept in keep)
            grown = self._grown_together(keep, count)
        else:
            counts = self._counts(keep)
            grown = [self._grown(*of) for of in zip(self._plots, keep, counts, strict=True)]
        for plot, kept, new in zip(self._plots, keep, grown, strict=True):
            yield self._decided(plot, kept, new)

    def prune(self) -> Iterator[Decision]:
        """What is to go in every layer, nothing growing."""
        nothing = torch.empty(0, dtype=torch.int64)
        if self._method.scope == "global" or self._method.redistribute == "ranking":
            asked = round(self._fraction * sum(plot.nnz for plot in self._plots))
            most = sum(max(0, plot.nnz - 1) for plot in self._plots)
            keep = kept_together(self._plots, min(asked, most))
            for plot, kept in zip(self._plots, keep, strict=True):
                yield self._decided(plot, kept, nothing)
            return
        for plot in self._plots:
            asked = round(self._fraction * plot.nnz)
            kept = kept_in_layer(plot, asked, None, self._method.compare)
            yield self._decided(plot, kept, nothing)

    def _alone(self, plot: Plot, asked: int, target: int) -> Decision:
        room = plot.free + plot.nnz - target
        kept = kept_in_layer(plot, asked, room, self._method.compare)
        return self._decided(plot, kept, self._grown(plot, kept, target - _number(kept)))

    # How many

    @property
    def _shared(self) -> bool:
        """Whether what a layer grows depends on the others."""
        return self._method.redistribute not in (None, "ranking")

    @property
    def _groups(self) -> list[list[int]]:
        """Layers that share a budget."""
        every = range(len(self._plots))
        return [list(every)] if self._method.scope == "global" else [[i] for i in every]

    def _after(self, density: float | None) -> list[int]:
        """Units of every layer after the update, before growth is shared among layers."""
        now = [plot.nnz for plot in self._plots]
        if density is None:
            return now
        sizes = {plot.site.path: plot.site.topology.nnz + plot.site.free for plot in self._plots}
        if self._method.redistribute is None:
            connections = share(sizes, self._shares, density)
            return [
                min(plot.nnz + plot.free, max(1, connections[plot.site.path] // plot.units.size))
                for plot in self._plots
            ]
        free = [plot.free for plot in self._plots]
        total = round(density * sum(sizes.values())) // self._plots[0].units.size
        # No layer can have more than all its units, nor lose its last one.
        total = min(max(total, sum(n > 0 for n in now)), sum(now) + sum(free))
        gap = sum(now) - total
        if gap <= 0:
            return [n + more for n, more in zip(now, allot(-gap, free, free), strict=True)]
        if self._method.redistribute == "ranking":
            return [_number(kept) for kept in kept_together(self._plots, gap)]
        less = allot(gap, now, [max(0, n - 1) for n in now])
        return [n - fewer for n, fewer in zip(now, less, strict=True)]

    def _asked(self) -> list[int]:
        """Units to drop in each group: what a falling density takes, and the fraction."""
        now = [sum(self._plots[i].nnz for i in group) for group in self._groups]
        targets = [sum(self._targets[i] for i in group) for group in self._groups]
        gaps = [max(0, n - target) for n, target in zip(now, targets, strict=True)]
        asked = [
            gap + round(self._fraction * min(n, target))
            for gap, n, target in zip(gaps, now, targets, strict=True)
        ]
        if self._drop.count is None:
            return asked
        sizes = [self._plots[group[0]].units.size for group in self._groups]
        wanted = sum(n * size for n, size in zip(asked, sizes, strict=True))
        counted = self._drop.count([plot.site for plot in self._plots], wanted)
        if self._drop.lost is not None:
            lost = [self._drop.lost(plot.site) // plot.units.size for plot in self._plots]
            self._targets = [
                max(1, n - fewer) for n, fewer in zip(self._targets, lost, strict=True)
            ]
        return [
            max(gap, round(sum(int(counted[i]) for i in group) / size))
            for gap, group, size in zip(gaps, self._groups, sizes, strict=True)
        ]

    def _kept(self) -> list[Tensor]:
        """Which units of every layer stay, where layers depend on each other."""
        asked = self._asked()
        # As many can go as there is room for what will be grown, and no layer may die out.
        room = sum(plot.free + plot.nnz for plot in self._plots) - sum(self._targets)
        most = [max(0, plot.nnz - 1) for plot in self._plots]
        if self._method.scope == "global":
            return kept_together(self._plots, max(0, min(asked[0], sum(most), room)))
        free = [
            plot.free + plot.nnz - target
            for plot, target in zip(self._plots, self._targets, strict=True)
        ]
        return [
            kept_in_layer(plot, number, min(limits), self._method.compare)
            for plot, number, *limits in zip(self._plots, asked, most, free, strict=True)
        ]

    def _counts(self, keep: list[Tensor]) -> list[int]:
        """Units that every layer grows, of what all have lost."""
        weight = self._method.redistribute
        of_layer = REDISTRIBUTIONS[weight] if isinstance(weight, str) else weight
        assert of_layer is not None
        lost = [plot.nnz - _number(kept) for plot, kept in zip(self._plots, keep, strict=True)]
        again = lost if self._method.regrow else [0 for _ in lost]
        most = [plot.free + more for plot, more in zip(self._plots, again, strict=True)]
        total = sum(self._targets) - sum(_number(kept) for kept in keep)
        return allot(total, [float(of_layer(plot.site)) for plot in self._plots], most)

    # Where

    def _grown_together(self, keep: list[Tensor], count: int) -> list[Tensor]:
        taken = [
            plot.taken(kept, bool(self._method.regrow))
            for plot, kept in zip(self._plots, keep, strict=True)
        ]
        if self._grow.score is not None:
            sites, units = [p.site for p in self._plots], [p.units for p in self._plots]
            found = best_together(sites, taken, count, self._grow.score, units)
        elif self._grow.seen:
            found = self._unseen_first(taken, count)
        else:
            found = random_together(taken, self._tossed(taken, count), self._generator)
        return [self._replaced(*of) for of in zip(self._plots, keep, taken, found, strict=True)]

    def _grown(self, plot: Plot, kept: Tensor, count: int) -> Tensor:
        if len(plot.parts) > 1:
            return self._grown_in_parts(plot, kept)
        taken = plot.taken(kept, bool(self._method.regrow))
        if self._grow.place is not None:
            found = self._grow.place(plot.site, taken, count)
            if found.numel() != count:
                raise ValueError(
                    f"grow rule in {plot.site.path} must name {count} positions, "
                    f"got {found.numel()}"
                )
        elif self._grow.score is not None:
            _, found = best_free(plot.site, taken, count, self._grow.score, plot.units)
        elif self._grow.seen:
            (found,) = self._unseen_first([taken], count, [plot])
        else:
            (found,) = random_together([taken], self._tossed([taken], count), self._generator)
        return self._replaced(plot, kept, taken, found)

    def _grown_in_parts(self, plot: Plot, kept: Tensor) -> Tensor:
        topology = plot.units.topology
        gone = Topology(topology.shape, topology.positions[~kept])
        counts = plot.parts.held(gone)
        taken = plot.taken(kept, bool(self._method.regrow))
        if self._grow.score is not None:
            score = self._grow.score
            found = best_in_parts(plot.site, taken, plot.parts, counts, score, plot.units)
        elif self._grow.seen:
            avoid = with_positions(taken, plot.units.units_of(plot.site.seen).positions)
            free = plot.parts.bounds.diff() - plot.parts.held(avoid)
            first = torch.minimum(free, counts)
            new = random_in_parts(avoid, plot.parts, first, self._generator)
            rest = with_positions(taken, new)
            more = random_in_parts(rest, plot.parts, counts - first, self._generator)
            found = torch.cat([new, more])
        else:
            found = random_in_parts(taken, plot.parts, counts, self._generator)
        return self._replaced(plot, kept, taken, found)

    def _unseen_first(
        self, taken: list[Topology], count: int, plots: Sequence[Plot] | None = None
    ) -> list[Tensor]:
        """Random growth: positions that have never been active, then what else is free."""
        plots = plots or self._plots
        avoid = [
            with_positions(busy, plot.units.units_of(plot.site.seen).positions)
            for busy, plot in zip(taken, plots, strict=True)
        ]
        fresh = sum(busy.shape.numel() - busy.nnz for busy in avoid)
        first = random_together(avoid, min(count, fresh), self._generator)
        rest = [with_positions(busy, new) for busy, new in zip(taken, first, strict=True)]
        more = random_together(rest, count - min(count, fresh), self._generator)
        return [torch.cat(pair) for pair in zip(first, more, strict=True)]

    def _tossed(self, taken: list[Topology], count: int) -> int:
        """The number to grow: as asked, or that of a coin tossed at every free position."""
        if self._grow.exact:
            return count
        free = float(sum(busy.shape.numel() - busy.nnz for busy in taken))
        chance = torch.tensor([count / free if free else 0.0], dtype=torch.float64)
        total = torch.tensor([free], dtype=torch.float64)
        return int(torch.binomial(total, chance, generator=self._generator))

    def _replaced(self, plot: Plot, kept: Tensor, taken: Topology, found: Tensor) -> Tensor:
        """Where ``regrow`` is ``replace``: others, at random, for those dropped and chosen."""
        if self._method.regrow != "replace":
            return found
        topology = plot.units.topology
        gone = topology.positions[~kept]
        again = torch.isin(found, gone)
        busy = with_positions(with_positions(taken, gone), found)
        parts, chosen = plot.parts, Topology(topology.shape, found[again])
        free = parts.bounds.diff() - parts.held(busy)
        counts = torch.minimum(parts.held(chosen), free)
        others = random_in_parts(busy, parts, counts, self._generator)
        # Where there are not enough others, some of those chosen again grow after all.
        surplus = _first_in_parts(parts, chosen, parts.held(chosen) - counts)
        return torch.cat([found[~again], surplus, others])

    def _decided(self, plot: Plot, kept: Tensor, new: Tensor) -> Decision:
        """From units to connections."""
        if self._method.regrow == "revive":
            positions = plot.units.topology.positions
            again = torch.isin(positions, new) & ~kept
            new, kept = new[~torch.isin(new, positions[again])], kept | again
        return Decision(plot.site, plot.units.spread(kept), plot.units.positions(new))


def _number(kept: Tensor) -> int:
    return int(torch.count_nonzero(kept))


def _first_in_parts(parts: Parts, topology: Topology, counts: Tensor) -> Tensor:
    """The first so many positions of each part."""
    positions, part = topology.positions, parts.of(topology)
    return positions[ranks(positions, part, len(parts)) < counts.to(part.device)[part]]
