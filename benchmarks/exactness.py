"""Random updates of random compositions, each checked against a slow dense account of it.

    python benchmarks/exactness.py --updates 100000 --json results/exactness.json
    python benchmarks/exactness.py --updates 2000 --seed 7

A composition is drawn from the parts of a method (drop and grow scores, budgets, units, fraction,
density, redistribution, starts, state) with a tiny network and an optimiser; parts that do not go
together are refused when the evolution is made, and counted. Each of its updates is decided again
here, position by position in plain Python, and compared: the number of connections of every
budget, no position twice, the dropped ones the lowest and the grown ones the highest that were
free, units whole, and value, gradient, optimiser state and tracked numbers of every connection at
its place. The first difference ends the run with what led to it.
"""

from __future__ import annotations

import argparse
import collections
import json
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import regrow
from regrow import Evolution, Method, Topology
from regrow.evolution import AGE, DropScore, GrowScore
from regrow.evolution.redistribution import allot
from regrow.evolution.scores import DROP_SCORES
from regrow.topology import Block, NofM, block_topology, nm_topology, random_topology
from regrow.topology.allocation import share

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.05, initial_accumulator_value=0.25),
}
UPDATES = 8

Pick = Callable[[Sequence[Any]], Any]


# What is drawn


def by_table(site: Any) -> Tensor:
    """Whole numbers that repeat, some of them not a number: ties and NaN in every update."""
    table = torch.arange(site.topology.shape.numel()) * 7919 % 31
    scores = table[site.topology.positions].float()
    return torch.where(scores == 13, torch.nan, scores)


def grown_by_table(site: Any, candidates: Any) -> Tensor:
    """Whole numbers that repeat, some of them not a number."""
    scores = (candidates.positions * 104729 % 37).float()
    return torch.where(scores == 11, torch.nan, scores)


DROPS: dict[str, DropScore] = {
    "magnitude": DROP_SCORES["magnitude"],
    "sign-split": DROP_SCORES["sign-split"],
    "random": DROP_SCORES["random"],
    "taylor": DROP_SCORES["taylor"],
    "age": DropScore(lambda site: -site.age, tracks=(AGE,)),
    "table": DropScore(by_table),
    "negative": DropScore(
        lambda site: (site.values >= 0).float(),
        count=lambda sites, asked: [int((site.values < 0).sum()) for site in sites],
    ),
}
GROWS: dict[str, GrowScore] = {
    "random": GrowScore(),
    "unfired": GrowScore(seen=True),
    "gradient": GrowScore(lambda site, c: site.gradient(c).abs(), gradient=True),
    "table": GrowScore(grown_by_table),
}
KINDS = ["linear", "gates", "convolution", "embedding"]
PARTS: dict[str, list[Any]] = {
    "fraction": [0.0, 0.1, 0.3, 0.3, 0.5, 1.0],
    "scope": ["layer", "layer", "global", "gate", "row", "column", NofM(2, 4)],
    "compare": ["budget", "layer"],
    "unit": ["element", "element", "element", "kernel", "neuron", Block(2, 2)],
    "density": [None, None, None, "falling", "rising", "swinging"],
    "redistribute": [None, None, None, "magnitude", "nonzero", "ranking"],
    "regrow": [False, True, "revive", "replace"],
    "start": ["zero", "init"],
    "state": ["zero", "mean"],
}
DENSITIES: dict[str, Callable[[int, int | None], float]] = {
    "falling": lambda step, until: max(0.2, 0.5 - 0.05 * step),
    "rising": lambda step, until: min(0.9, 0.3 + 0.06 * step),
    "swinging": lambda step, until: 0.4 + 0.2 * math.sin(step),
}


@dataclass
class Composition:
    """One drawn composition, by the names of its parts."""

    kind: str
    optimizer: str
    density: float
    drop: str
    grow: str
    parts: dict[str, Any]
    seed: int

    @classmethod
    def drawn(cls, pick: Pick) -> Composition:
        """Draw every part by a function that picks one of several."""
        parts = {name: pick(choices) for name, choices in PARTS.items()}
        # Most of what is drawn should go together.
        if parts["redistribute"] is not None:
            parts["scope"] = pick(["layer"] * 9 + [parts["scope"]])
        elif parts["density"] is not None:
            parts["scope"] = pick(["layer", "global"] * 4 + [parts["scope"]])
        return cls(
            pick(KINDS),
            pick(list(OPTIMIZERS)),
            pick([0.1, 0.3, 0.5, 0.9]),
            pick(list(DROPS)),
            pick(list(GROWS)),
            parts,
            pick(range(10**6)),
        )

    def method(self) -> Method:
        """The method made of the parts."""
        parts = dict(self.parts)
        parts["density"] = DENSITIES.get(parts["density"])
        return Method(
            "drawn", drop=DROPS[self.drop], grow=GROWS[self.grow], every=1, until=100, **parts
        )


def network(drawn: Composition) -> nn.Sequential:
    """A tiny network whose topologies have the form that scope and unit ask for."""
    generator = torch.Generator().manual_seed(drawn.seed)

    def topology(*shape: int) -> Topology:
        rows, columns = shape[0], math.prod(shape[1:])
        unit, scope = drawn.parts["unit"], drawn.parts["scope"]
        if isinstance(scope, NofM) and columns % scope.m == 0:
            return nm_topology(shape, scope.n, scope.m, generator=generator)
        block = {
            "element": Block(1, 1),
            "kernel": Block(1, math.prod(shape[2:])),
            "neuron": Block(1, columns),
        }.get(unit, unit)
        if block.size == 1 or rows % block.rows or columns % block.columns:
            count = max(1, round(drawn.density * rows * columns))
            return random_topology(shape, count, generator=generator)
        count = max(1, round(drawn.density * rows * columns / block.size)) * block.size
        return block_topology(shape, count, block, generator=generator)

    options = {"generator": generator, "compute": "csr"}
    if drawn.kind == "convolution":
        first = regrow.SparseConv2d(2, 4, 2, topology=topology(4, 2, 2, 2), **options)
        last = regrow.SparseConv2d(4, 2, 2, topology=topology(2, 4, 2, 2), **options)
    elif drawn.kind == "embedding":
        open_ = topology(6, 8)
        kept = open_.positions[open_.positions // 8 != 1]
        first = regrow.SparseEmbedding(
            6, 8, padding_idx=1, topology=Topology((6, 8), kept), **options
        )
        last = regrow.SparseLinear(8, 4, topology=topology(4, 8), **options)
    else:
        first = regrow.SparseLinear(8, 6, topology=topology(6, 8), **options)
        last = regrow.SparseLinear(6, 4, topology=topology(4, 6), **options)
        if drawn.kind == "gates":
            first.row_groups = {"a": slice(0, 2), "b": slice(2, 6)}
    return nn.Sequential(first, nn.Tanh(), last)


def batch(drawn: Composition, step: int) -> Tensor:
    """The input of a step."""
    generator = torch.Generator().manual_seed(drawn.seed + step)
    if drawn.kind == "convolution":
        return torch.randn(3, 2, 3, 3, generator=generator)
    if drawn.kind == "embedding":
        return torch.randint(6, (5,), generator=generator)
    return torch.randn(4, 8, generator=generator)


# The dense account


class DifferenceError(AssertionError):
    """An update that is not what it must be."""


def must(holds: bool, what: str) -> None:
    """Raise where something that must hold does not."""
    if not holds:
        raise DifferenceError(what)


@dataclass
class Account:
    """One layer before an update, in units, position by position."""

    path: str
    layer: regrow.layers.SparseLayer
    block: Block
    rows: int
    columns: int
    there: set[int]
    closed: set[int]
    part_of: dict[int, Any]
    dense: dict[str, Tensor]
    drop_scores: dict[int, float] = field(default_factory=dict)
    grow_scores: Tensor | None = None

    @property
    def size(self) -> int:
        """Positions of a unit."""
        return self.block.size

    @property
    def free(self) -> set[int]:
        """Units that can grow."""
        return set(range(self.rows * self.columns)) - self.there - self.closed

    def units_of(self, positions: Tensor) -> set[int]:
        """The units of whole sets of positions; refuses a unit that is not whole."""
        wide = self.columns * self.block.columns
        found = collections.Counter(
            p // wide // self.block.rows * self.columns + p % wide // self.block.columns
            for p in positions.tolist()
        )
        must(all(n == self.size for n in found.values()), f"{self.path}: a unit is not whole")
        return set(found)


def account(path: str, layer: regrow.layers.SparseLayer, method: Method, dense: dict) -> Account:
    """Take down a layer before an update."""
    rows, columns = layer.topology.matrix_shape
    kernel = math.prod(layer.topology.shape[2:])
    block = {"element": Block(1, 1), "kernel": Block(1, kernel), "neuron": Block(1, columns)}
    unit = block.get(method.unit, method.unit) if isinstance(method.unit, str) else method.unit
    high, wide = rows // unit.rows, columns // unit.columns
    groups = list(layer.row_groups.values())

    def part(u: int) -> Any:
        row, column = divmod(u, wide)
        if isinstance(method.scope, NofM):
            return row, column // method.scope.m
        if method.scope == "gate":
            return [row * unit.rows >= group.start for group in groups]
        return {"row": row, "column": column}.get(method.scope, 0)

    self = Account(path, layer, unit, high, wide, set(), set(), {}, dense)
    self.there = self.units_of(layer.topology.positions)
    if layer.closed is not None:
        self.closed = {
            p // columns // unit.rows * wide + p % columns // unit.columns
            for p in layer.closed.tolist()
        } - self.there
    self.part_of = {u: str(part(u)) for u in range(high * wide)}
    return self


def photograph(run: Run) -> dict[str, dict[str, Tensor]]:
    """Whatever belongs to a connection, at its place in the dense shape; NaN elsewhere."""
    found: dict[str, dict[str, Tensor]] = {}
    sites = run.evolution.sites()
    for path, layer in regrow.sparse_layers(run.model).items():
        entries = {"value": layer.values, "grad": layer.values.grad}
        entries |= run.optimizer.state.get(layer.values, {})
        entries |= {f"tracked {name}": n for name, n in sites[path].tracked.items()}
        found[path] = {}
        for name, entry in entries.items():
            if isinstance(entry, Tensor) and entry.dim():
                dense = torch.full((layer.topology.shape.numel(),), torch.nan)
                dense[layer.topology.positions] = entry.detach()
                found[path][name] = dense
    return found


class Run:
    """A drawn composition in training."""

    def __init__(self, drawn: Composition) -> None:
        self.drawn = drawn
        self.model = network(drawn)
        torch.manual_seed(drawn.seed)
        self.optimizer = OPTIMIZERS[drawn.optimizer](self.model.parameters())
        self.evolution = Evolution(self.model, self.optimizer, self._watched(), seed=drawn.seed)
        self.accounts: dict[str, Account] = {}
        self.decided: dict[str, tuple[Tensor, Tensor]] = {}
        make = self.evolution._changes.make
        self.evolution._changes.make = lambda decisions: make(self._watch(decisions))
        self.step = 0

    def _watched(self) -> Method:
        """The method, with scores that leave a note of what they said."""
        method = self.drawn.method()
        drop, grow = DROPS[self.drawn.drop], GROWS[self.drawn.grow]
        self.drop_notes: dict[str, Tensor] = {}
        self.grow_notes: dict[str, list[tuple[Tensor, Tensor]]] = collections.defaultdict(list)

        def scored(site: Any) -> Tensor:
            self.drop_notes[site.path] = drop.score(site).detach().clone()
            return self.drop_notes[site.path]

        def grown(site: Any, candidates: Any) -> Tensor:
            scores = grow.score(site, candidates)
            self.grow_notes[site.path].append((candidates.positions, scores.detach().clone()))
            return scores

        parts: dict[str, Any] = {}
        if drop.keep is None:
            parts["drop"] = DropScore(scored, drop.before, None, drop.count, drop.tracks)
        if grow.score is not None:
            parts["grow"] = GrowScore(grown, grow.gradient)
        return Method(**{**vars(method), **parts})

    def _falls(self, accounts: list[Account]) -> bool:
        """Whether the density of this update is below that before it."""
        closed = (a.layer.closed for a in accounts)
        barred = sum(0 if positions is None else positions.numel() for positions in closed)
        size = sum(a.layer.topology.shape.numel() for a in accounts) - barred
        target = round(self.evolution.method.density(self.step, 100) * size) // accounts[0].size
        return target < sum(len(a.there) for a in accounts)

    def _watch(self, decisions: Iterator[Any]) -> Iterator[Any]:
        for decision in decisions:
            self.decided[decision.site.path] = decision.keep.clone(), decision.grown.clone()
            yield decision

    def update(self) -> int:
        """Train a step, update, and check; the number of connections that moved."""
        self.optimizer.zero_grad()
        self.model(batch(self.drawn, self.step)).square().sum().backward()
        self.drop_notes.clear()
        self.grow_notes.clear()
        self.decided.clear()
        self.optimizer.step()
        self.step += 1
        method = self.evolution.method
        before = photograph(self)
        accounts = [
            account(path, layer, method, before[path])
            for path, layer in regrow.sparse_layers(self.model).items()
        ]
        ever = {path: site.ever for path, site in self.evolution.sites().items()}
        shortcut = DROPS[self.drawn.drop].keep is not None
        if shortcut:
            self.drop_notes = {
                path: DROPS[self.drawn.drop].score(site)
                for path, site in self.evolution.sites().items()
            }
        negatives = {a.path: int((a.layer.values < 0).sum()) for a in accounts}
        held = {a.path: (a.layer.topology.positions, a.layer.topology.nnz) for a in accounts}
        record = self.evolution.step()
        for a in accounts:
            if a.path in self.drop_notes:
                notes = self.drop_notes[a.path]
                if shortcut and a.size == 1 and len(set(a.part_of.values())) == 1:
                    # Of equal ones, the shortcut takes the positive ones first.
                    below = before[a.path]["value"][held[a.path][0]] < 0
                    # Scores that were asked for already are used instead.
                    falls = method.density is not None and method.redistribute == "ranking"
                    alone = method.scope != "global" and not (falls and self._falls(accounts))
                    notes = notes + 1e-9 * below * alone
                _note(a, held[a.path][0], notes)
            if self.grow_notes[a.path]:
                a.grow_scores = torch.empty(a.layer.topology.shape.numel())
                for positions, scores in self.grow_notes[a.path]:
                    a.grow_scores[positions] = scores.float().reshape(-1)
        _Check(self, accounts, record, before, ever, negatives, held).all()
        return record.dropped + record.grown


def _note(a: Account, positions: Tensor, scores: Tensor) -> None:
    """Mean score of each unit; NaN is below everything."""
    wide = a.columns * a.block.columns
    sums: dict[int, float] = collections.defaultdict(float)
    for p, score in zip(positions.tolist(), scores.double().tolist(), strict=True):
        unit = p // wide // a.block.rows * a.columns + p % wide // a.block.columns
        sums[unit] += score / a.size
    a.drop_scores = {u: -math.inf if math.isnan(s) else s for u, s in sums.items()}


def lowest(scores: dict[Any, float], count: int) -> list[Any]:
    """The keys of lowest score, of equal ones the first."""
    return sorted(scores, key=lambda key: (scores[key], key))[:count]


class _Check:
    """All that must hold after one update."""

    def __init__(
        self,
        run: Run,
        accounts: list[Account],
        record: Any,
        before: dict[str, dict[str, Tensor]],
        ever: dict[str, Topology | None],
        negatives: dict[str, int],
        held: dict[str, tuple[Tensor, int]],
    ) -> None:
        self.run, self.accounts, self.record = run, accounts, record
        self.method = run.evolution.method
        self.before, self.ever, self.negatives, self.held = before, ever, negatives, held
        self.targets = self._targets()
        self.kept: dict[str, set[int]] = {}
        self.grown: dict[str, set[int]] = {}

    def all(self) -> None:
        """Check one layer after the other, then what they share."""
        gone = self._dropped()
        for a in self.accounts:
            keep, grown = self.run.decided[a.path]
            positions = self.held[a.path][0]
            kept, new = a.units_of(positions[keep]), a.units_of(grown)
            must(grown.unique().numel() == grown.numel(), f"{a.path}: a position grown twice")
            must(not kept & new, f"{a.path}: grown where a connection stays")
            dropped = a.there - kept
            if self.method.regrow == "revive":
                back = sorted(gone[a.path] - dropped, key=a.drop_scores.__getitem__)
                back = back[: max(0, len(gone[a.path]) - len(dropped))]
                new, dropped = new | set(back), dropped | set(back)
            if self._exact_scores:
                must(dropped == gone[a.path], f"{a.path}: dropped {dropped}, not {gone[a.path]}")
            else:
                must(_alike(a, dropped, gone[a.path]), f"{a.path}: others dropped than the lowest")
            self._grown_where_free(a, dropped, new)
            self._best_are_grown(a, dropped, new)
            self._at_their_place(a, keep, grown)
            self.kept[a.path], self.grown[a.path] = a.there - dropped, new
        self._numbers()

    @property
    def _exact_scores(self) -> bool:
        """Whether means over units are exact, so that equal scores are told apart as here."""
        return self.accounts[0].size == 1 or self.run.drawn.drop in ("table", "age", "negative")

    # How many

    def _targets(self) -> dict[str, int]:
        now = {a.path: len(a.there) for a in self.accounts}
        if self.method.density is None:
            return now
        sizes = {
            a.path: a.layer.topology.shape.numel()
            - (0 if a.layer.closed is None else a.layer.closed.numel())
            for a in self.accounts
        }
        density = self.method.density(self.run.step, 100)
        if self.method.redistribute is None:
            counts = share(sizes, self.run.evolution._shares, density)
            return {
                a.path: min(len(a.there) + len(a.free), max(1, counts[a.path] // a.size))
                for a in self.accounts
            }
        total = round(density * sum(sizes.values())) // self.accounts[0].size
        free = sum(len(a.free) for a in self.accounts)
        least, most = sum(n > 0 for n in now.values()), sum(now.values()) + free
        return {"all": min(max(total, least), most), **now}

    def _asked(self, now: int, target: int, paths: list[str]) -> int:
        gap = max(0, now - target)
        asked = gap + round(self.method.fraction * min(now, target))
        if self.run.drawn.drop == "negative":
            size = self.accounts[0].size if len(paths) > 1 else self._by(paths[0]).size
            asked = max(gap, round(sum(self.negatives[path] for path in paths) / size))
        return asked

    def _by(self, path: str) -> Account:
        return next(a for a in self.accounts if a.path == path)

    def _dropped(self) -> dict[str, set[int]]:
        """What each layer must drop."""
        if self.method.scope == "global":
            return self._dropped_together()
        if "all" in self.targets:
            self._share_targets()
        return {a.path: self._dropped_alone(a) for a in self.accounts}

    def _share_targets(self) -> None:
        """Of a density under redistribution: taken from what was done, the sum being checked."""
        total = self.targets.pop("all")
        now = sum(len(a.there) for a in self.accounts)
        if self.method.redistribute == "ranking" and total < now:
            scores = {
                (i, u): s for i, a in enumerate(self.accounts) for u, s in a.drop_scores.items()
            }
            spared = {
                (i, lowest(a.drop_scores, len(a.there))[-1])
                for i, a in enumerate(self.accounts)
                if a.there
            }
            going = lowest({k: s for k, s in scores.items() if k not in spared}, now - total)
            for i, a in enumerate(self.accounts):
                self.targets[a.path] = len(a.there) - sum(1 for j, _ in going if i == j)
            return
        sizes = [len(a.there) for a in self.accounts]
        free = [len(a.free) for a in self.accounts]
        moved = (
            [n + m for n, m in zip(sizes, allot(total - now, free, free), strict=True)]
            if total >= now
            else [
                n - m
                for n, m in zip(
                    sizes, allot(now - total, sizes, [max(0, n - 1) for n in sizes]), strict=True
                )
            ]
        )
        self.targets = {a.path: n for a, n in zip(self.accounts, moved, strict=True)}

    def _dropped_together(self) -> dict[str, set[int]]:
        now = sum(len(a.there) for a in self.accounts)
        target = sum(self.targets.values())
        asked = self._asked(now, target, [a.path for a in self.accounts])
        room = sum(len(a.free) for a in self.accounts) + now - target
        most = sum(max(0, len(a.there) - 1) for a in self.accounts)
        scores = {}
        for i, a in enumerate(self.accounts):
            inside = lowest(a.drop_scores, len(a.there) - 1) if a.there else []
            scores |= {(i, u): a.drop_scores[u] for u in inside}
        going = lowest(scores, max(0, min(asked, room, most)))
        return {a.path: {u for j, u in going if i == j} for i, a in enumerate(self.accounts)}

    def _dropped_alone(self, a: Account) -> set[int]:
        now, target = len(a.there), self.targets[a.path]
        asked, room = self._asked(now, target, [a.path]), len(a.free) + now - target
        shared = self.method.redistribute not in (None, "ranking")
        parts = {a.part_of[u] for u in range(a.rows * a.columns)}
        if len(parts) == 1:
            most = max(0, now - 1) if shared else now
            return set(self._lowest(a, a.there, min(asked, room, most)))
        inside = {p: {u for u in a.there if a.part_of[u] == p} for p in parts}
        free = collections.Counter(a.part_of[u] for u in a.free)
        most_of = {p: min(len(inside[p]), free[p]) for p in parts}
        least_of = dict.fromkeys(parts, 0)
        if self.method.compare == "budget":
            least_of = {p: min(most_of[p], asked * len(inside[p]) // max(1, now)) for p in parts}
            most_of = {p: min(most_of[p], least_of[p] + 1) for p in parts}
        going: set[int] = set()
        choice: set[int] = set()
        for p in parts:
            ordered = self._lowest(a, inside[p], most_of[p])
            going |= set(ordered[: least_of[p]])
            choice |= set(ordered[least_of[p] :])
        total = min(asked, sum(most_of.values()))
        return going | set(self._lowest(a, choice, total - len(going)))

    def _lowest(self, a: Account, units: set[int], count: int) -> list[int]:
        return lowest({u: a.drop_scores.get(u, 0.0) for u in units}, count)

    def _numbers(self) -> None:
        """Budgets after the update."""
        done = self.record.layers
        total = 0
        for a in self.accounts:
            units = len(self.kept[a.path]) + len(self.grown[a.path])
            nnz = a.layer.topology.nnz
            must(nnz == units * a.size == done[a.path].nnz, f"{a.path}: {nnz} connections")
            must(units >= 1 or not a.there, f"{a.path}: has died out")
            total += units
            if self.method.scope not in ("global", "layer"):
                for part in set(a.part_of.values()):
                    then = sum(a.part_of[u] == part for u in a.there)
                    now = sum(a.part_of[u] == part for u in self.kept[a.path] | self.grown[a.path])
                    must(then == now, f"{a.path}: budget {part} has {now}, not {then}")
            elif self.method.scope == "layer" and self.method.redistribute in (None, "ranking"):
                must(units == self.targets[a.path], f"{a.path}: {units}, not {self.targets}")
        must(total == sum(self.targets.values()), f"{total} in all, not {self.targets}")

    # Where

    def _grown_where_free(self, a: Account, dropped: set[int], new: set[int]) -> None:
        allowed = a.free | (dropped if self.method.regrow else set())
        must(new <= allowed, f"{a.path}: grown at {new - allowed}, which is not free")
        if self.method.regrow == "replace":
            for part in {a.part_of[u] for u in new & dropped}:
                others = {u for u in a.free if a.part_of[u] == part}
                must(others <= new, f"{a.path}: {new & dropped} chosen again beside {others - new}")
        if self.run.drawn.grow == "unfired":
            seen = _touched(a, self.ever[a.path])
            for part in {a.part_of[u] for u in new}:
                fresh = {u for u in allowed - seen if a.part_of[u] == part}
                own = {u for u in new if a.part_of[u] == part}
                if self.method.scope != "global" and own & seen and self.method.regrow != "replace":
                    must(fresh <= own, f"{a.path}: {own & seen} grown before {fresh - own}")

    def _best_are_grown(self, a: Account, dropped: set[int], new: set[int]) -> None:
        if (
            a.grow_scores is None
            or self.method.regrow == "replace"
            or self.method.scope == "global"
        ):
            return
        table = a.grow_scores.view(a.rows, a.block.rows, a.columns, a.block.columns)
        scores = table.mean((1, 3)).view(-1).nan_to_num(nan=-1e30).tolist()
        allowed = a.free | (dropped if self.method.regrow else set())
        for part in {a.part_of[u] for u in new}:
            own = [scores[u] for u in new if a.part_of[u] == part]
            rest = [scores[u] for u in allowed - new if a.part_of[u] == part]
            must(not rest or max(rest) <= min(own) + 1e-6, f"{a.path}: better ones were free")

    def _at_their_place(self, a: Account, keep: Tensor, grown: Tensor) -> None:
        layer, positions = a.layer, self.held[a.path][0]
        now = layer.topology.positions
        wanted = torch.cat([positions[keep], grown]).sort().values
        must(torch.equal(now, wanted), f"{a.path}: other positions than decided")
        must(layer.values.shape == now.shape, f"{a.path}: values and topology differ")
        holders = sum(
            p is layer.values for group in self.run.optimizer.param_groups for p in group["params"]
        )
        must(holders == 1, f"{a.path}: its values are {holders} times in the optimiser")
        after, stay = photograph(self.run)[a.path], positions[keep]
        must(after.keys() == self.before[a.path].keys(), f"{a.path}: state has come or gone")
        for name, entries in after.items():
            must(
                torch.equal(entries[stay], self.before[a.path][name][stay]),
                f"{a.path}: {name} of a connection that stayed has changed",
            )
            if name == "value" and self.method.start != "zero":
                continue
            if self.method.state == "zero" or name in ("value", "grad") or "tracked" in name:
                start = 0.25 if name == "sum" else 0.0
                must(
                    bool((entries[grown] == start).all()),
                    f"{a.path}: {name} of a new connection does not start at {start}",
                )


def _alike(a: Account, some: set[int], others: set[int]) -> bool:
    """Whether as many units were dropped as others, of the same scores but for rounding."""
    scores = [sorted(a.drop_scores.get(u, 0.0) for u in units) for units in (some, others)]
    close = (math.isclose(x, y, rel_tol=1e-5, abs_tol=1e-6) for x, y in zip(*scores, strict=False))
    return len(some) == len(others) and all(close)


def _touched(a: Account, topology: Topology | None) -> set[int]:
    assert topology is not None
    wide = a.columns * a.block.columns
    return {
        p // wide // a.block.rows * a.columns + p % wide // a.block.columns
        for p in topology.positions.tolist()
    }


# The run


def check(drawn: Composition, updates: int = UPDATES) -> tuple[int, int] | str:
    """Check some updates of one composition.

    Returns:
        Updates, and connections that moved in them; or the sentence that refuses it.
    """
    try:
        run = Run(drawn)
    except (ValueError, TypeError) as error:
        return str(error)
    return updates, sum(run.update() for _ in range(updates))


def main() -> None:
    """Check as many updates as asked for; print counts, write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--updates", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the counts to this file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    draw = random.Random(options.seed)
    start = time.perf_counter()
    updates = moved = compositions = 0
    refused: collections.Counter[str] = collections.Counter()
    used: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    while updates < options.updates:
        drawn = Composition.drawn(draw.choice)
        try:
            found = check(drawn)
        except Exception as error:
            raise SystemExit(f"{type(error).__name__}: {error}\nin {drawn}") from error
        if isinstance(found, str):
            refused[found.split(",")[0].split(" got ")[0]] += 1
            continue
        compositions += 1
        updates += found[0]
        moved += found[1]
        for name, part in {**vars(drawn), **drawn.parts}.items():
            if name not in ("seed", "parts"):
                used[name][str(part)] += found[0]
        if compositions % 250 == 0 or updates >= options.updates:
            print(f"{updates:9,} updates of {compositions:,} compositions", flush=True)
            if options.json:  # what has been checked so far holds, whatever comes
                record = {
                    "updates": updates,
                    "compositions": compositions,
                    "refused": sum(refused.values()),
                    "moved": moved,
                    "differences": 0,
                    "seconds": time.perf_counter() - start,
                    "seed": options.seed,
                    "by_part": {
                        name: dict(sorted(counts.items())) for name, counts in used.items()
                    },
                    "reasons": dict(refused.most_common()),
                    "regrow": regrow.__version__,
                    "torch": torch.__version__,
                }
                options.json.write_text(json.dumps(record, indent=2) + "\n")
    print(
        f"{updates:,} updates of {compositions:,} compositions, {moved:,} connections dropped or "
        f"grown, no difference; {sum(refused.values()):,} compositions refused"
    )
    for reason, count in refused.most_common():
        print(f"{count:7,}  {reason}")


if __name__ == "__main__":
    main()
