"""The engine that drops and grows connections between optimiser steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from regrow.evolution import regions
from regrow.evolution.growth import grow_best, grow_random
from regrow.evolution.methods import STARTS, Method, methods
from regrow.evolution.record import LayerUpdate, UpdateRecord
from regrow.evolution.schedules import Constant
from regrow.evolution.scores import DROP_SCORES, GROW_SCORES, DropScore, GrowScore, Site
from regrow.kernels import capture
from regrow.layers import sparse_layers
from regrow.optim.carry import STATE_POLICIES, carry_state, check_state
from regrow.topology import Rewiring
from regrow.topology.allocation import share
from regrow.topology.select import without_lowest


class Evolution:
    """Drops and grows connections of a model's sparse layers while it trains.

    Call ``step()`` after each ``optimizer.step()``; it does something only when an update is due.
    An update scores the connections and drops some, scores free positions and grows as many (or as
    the density schedule says), gives new values and their optimiser state a start, and leaves
    values and state of all other connections bit for bit as they were. The number of connections
    is exact after every update. An update never drops more than there are free positions to grow,
    so a layer with every connection is left alone.

    Args:
        model: With sparse layers.
        optimizer: That trains it; its steps are what is counted.
        method: Name of a registered method (see ``regrow.methods()``) or a ``Method``.
        seed: Of the random choices.
        steps_per_epoch: Optimiser steps of an epoch, needed where ``every="epoch"``.
        **overrides: Parts of the method to replace: any field of ``Method``.

    Raises:
        ValueError: Unknown method, score, start, state policy or scope, a value out of range, or a
            model without sparse layers.
        TypeError: An override that is no part of a method.

    Example:
        >>> import regrow
        >>> model = nn.Sequential(regrow.SparseLinear(64, 32, density=0.1), nn.ReLU())
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        >>> evolution = Evolution(model, optimizer, method="rigl", every=2, until=100)
        >>> for _ in range(2):
        ...     model(torch.randn(8, 64)).square().sum().backward()
        ...     optimizer.step(); optimizer.zero_grad()
        ...     record = evolution.step()
        >>> record.layers["0"]
        LayerUpdate(dropped=61, grown=61, nnz=205)
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        method: str | Method = "set",
        *,
        seed: int = 0,
        steps_per_epoch: int | None = None,
        **overrides: Any,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.method = _composed(method, overrides)
        self.steps = 0
        self._seen = 0
        self._every = _interval(self.method, steps_per_epoch)
        self._drop, self._grow = _scores(self.method)
        self._start = _named(STARTS, self.method.start, "start")
        self._policy = _named(STATE_POLICIES, self.method.state, "state")
        fraction = self.method.fraction
        self._fraction = fraction if callable(fraction) else Constant(float(fraction))
        layers = sparse_layers(model)
        if not layers:
            raise ValueError("model to evolve must have a sparse layer, got none; call sparsify")
        self._shares = {path: layer.density for path, layer in layers.items()}
        self._generator = torch.Generator().manual_seed(seed)
        self._early: dict[str, Tensor] = {}
        self._check_schedules()
        optimizer.register_step_pre_hook(self._before_step)
        optimizer.register_step_post_hook(self._after_step)
        self._prepare()

    def step(self) -> UpdateRecord | None:
        """Update the topology if one is due after the optimiser step just taken.

        Returns:
            What was done, or None.
        """
        if self.steps == self._seen:
            return None
        due = self._due(self.steps)
        self._seen = self.steps
        record = self._update() if due else None
        self._prepare()
        return record

    def prune(self, fraction: float | None = None) -> UpdateRecord:
        """Drop without growing, now; the number of connections falls.

        SET's paper ends with such a removal after the last epoch.

        Args:
            fraction: Share to drop, in [0, 1); the method's own at this step if None.

        Raises:
            ValueError: The fraction is out of range.
        """
        share_ = self._fraction(self.steps, self.method.until) if fraction is None else fraction
        if not 0 <= share_ < 1:
            raise ValueError(f"fraction to prune must be in [0, 1), got {share_}")
        done: dict[str, LayerUpdate] = {}
        for group in self._groups(self._sites()):
            keep = self._kept(group, share_, None)
            done |= self._apply(group, keep, [torch.empty(0, dtype=torch.int64) for _ in group])
        return UpdateRecord(self.steps, share_, done)

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to continue exactly; loads with ``torch.load(weights_only=True)``."""
        return {
            "method": self.method.name,
            "steps": self.steps,
            "seen": self._seen,
            "shares": dict(self._shares),
            "generator": self._generator.get_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved state; load model and optimiser first.

        Raises:
            ValueError: The state is of another method or of other layers.
        """
        if state["method"] != self.method.name:
            raise ValueError(
                f"state of evolution must be of method {self.method.name!r}, "
                f"got {state['method']!r}"
            )
        if set(state["shares"]) != set(self._shares):
            raise ValueError(
                f"state of evolution must be of the layers {', '.join(sorted(self._shares))}, "
                f"got {', '.join(sorted(state['shares']))}"
            )
        self.steps = int(state["steps"])
        self._seen = int(state["seen"])
        self._shares = dict(state["shares"])
        self._generator.set_state(state["generator"])
        self._early = {}
        self._prepare()

    def _due(self, step: int) -> bool:
        if self._every is None or step == 0 or step % self._every:
            return False
        return self.method.until is None or step <= self.method.until

    def _check_schedules(self) -> None:
        if self._every is None:
            return
        fraction = self._fraction(0, self.method.until)
        if not 0 <= fraction <= 1:
            raise ValueError(f"fraction of {self.method.name} must be in [0, 1], got {fraction}")
        if self.method.density is not None:
            self._target_density(0)

    def _target_density(self, step: int) -> float:
        assert self.method.density is not None
        density = self.method.density(step, self.method.until)
        if not 0 < density <= 1:
            raise ValueError(
                f"density of {self.method.name} at step {step} must be in (0, 1], got {density}"
            )
        return density

    def _prepare(self) -> None:
        """Ask the layers to keep what the next optimiser step's update will look at."""
        if self._grow.gradient:
            ask = capture.arm if self._due(self.steps + 1) else capture.take
            for layer in sparse_layers(self.model).values():
                ask(layer)

    @torch.no_grad()
    def _before_step(self, *_: object) -> None:
        if self._drop.before and self._due(self.steps + 1):
            self._early = {site.path: self._drop.score(site) for site in self._sites()}

    def _after_step(self, *_: object) -> None:
        self.steps += 1
        if self._grow.gradient and self._due(self.steps):
            for layer in sparse_layers(self.model).values():
                capture.close(layer)

    def _sites(self, captured: bool = False) -> list[Site]:
        """The layers as an update sees them; refused before anything of them is changed."""
        for path, layer in sparse_layers(self.model).items():
            check_state(self.optimizer, layer.values, path)
        return [
            Site(path, layer, self._generator, capture.take(layer) if captured else [])
            for path, layer in sparse_layers(self.model).items()
        ]

    @torch.no_grad()
    def _update(self) -> UpdateRecord:
        fraction = self._fraction(self.steps, self.method.until)
        sites = self._sites(captured=self._grow.gradient)
        targets = self._targets(sites)
        done: dict[str, LayerUpdate] = {}
        for group in self._groups(sites):
            keep = self._kept(group, fraction, targets)
            count = sum(targets[site.path] for site in group)
            count -= sum(int(torch.count_nonzero(kept)) for kept in keep)
            done |= self._apply(group, keep, self._grown(group, keep, count))
        return UpdateRecord(self.steps, fraction, done)

    def _grown(self, group: list[Site], keep: list[Tensor], count: int) -> list[Tensor]:
        """Where each layer grows, flat positions int64."""
        taken = [
            regions.taken(site, kept, self.method.regrow)
            for site, kept in zip(group, keep, strict=True)
        ]
        if self._by_gate(group[0]):
            return [regions.grown_in_gates(group[0], taken[0], keep[0], self._grow.score)]
        if self._grow.score is None:
            return grow_random(taken, count, self._generator)
        return grow_best(group, taken, count, self._grow.score)

    def _groups(self, sites: list[Site]) -> list[list[Site]]:
        """Layers that share one budget."""
        return [sites] if self.method.scope == "global" else [[site] for site in sites]

    def _by_gate(self, site: Site) -> bool:
        return self.method.scope == "gate" and bool(site.layer.row_groups)

    def _targets(self, sites: list[Site]) -> dict[str, int]:
        """Connections of every layer after the update, by path."""
        if self.method.density is None:
            return {site.path: site.topology.nnz for site in sites}
        sizes = {site.path: site.topology.nnz + site.free for site in sites}
        return share(sizes, self._shares, self._target_density(self.steps))

    def _kept(
        self, group: list[Site], fraction: float, targets: Mapping[str, int] | None
    ) -> list[Tensor]:
        """Which connections of each layer stay, bool ``[nnz]``; without targets, none are grown."""
        if self._by_gate(group[0]):
            score = self._drop_scores(group[0])
            return [regions.kept_in_gates(group[0], score, fraction, targets is not None)]
        nnz = [site.topology.nnz for site in group]
        least, most = 0, sum(max(0, n - 1) for n in nnz)
        if targets is not None:
            gains = [targets[site.path] - n for site, n in zip(group, nnz, strict=True)]
            least = sum(max(0, -gain) for gain in gains)
            room = [site.free - max(0, gain) for site, gain in zip(group, gains, strict=True)]
            most = sum(min(max(0, n - 1), free) for n, free in zip(nnz, room, strict=True))
        total = max(least, min(round(fraction * sum(nnz)), most))
        if self._drop.keep and len(group) == 1:
            return [self._drop.keep(group[0], total)]
        scores = [self._drop_scores(site) for site in group]
        together = scores[0]
        if len(group) > 1:
            together = torch.cat([s.to("cpu", torch.float64) for s in scores])
            for layer_scores in together.split(nnz):
                # A layer's best connection stays, whatever the others have: none may die out.
                if layer_scores.numel():
                    layer_scores[layer_scores.argmax()] = torch.inf
        parts = without_lowest(together, total).split(nnz)
        return [part.to(s.device) for part, s in zip(parts, scores, strict=True)]

    def _drop_scores(self, site: Site) -> Tensor:
        early = self._early.pop(site.path, None)
        scores = self._drop.score(site) if early is None else early
        if scores.shape != (site.topology.nnz,):
            raise ValueError(
                f"drop score in {site.path} must have shape ({site.topology.nnz},), "
                f"got {tuple(scores.shape)}"
            )
        return scores.detach()

    def _apply(
        self, sites: list[Site], keep: list[Tensor], grown: list[Tensor]
    ) -> dict[str, LayerUpdate]:
        done = {}
        for site, kept, new in zip(sites, keep, grown, strict=True):
            dropped = site.topology.nnz - int(torch.count_nonzero(kept))
            if dropped or new.numel():
                self._rewire(site, site.topology.rewire(kept, new))
            done[site.path] = LayerUpdate(dropped, new.numel(), site.layer.topology.nnz)
        return done

    @torch.no_grad()
    def _rewire(self, site: Site, change: Rewiring) -> None:
        layer, old = site.layer, site.layer.values
        # No pass will go through the old connections; their room is needed now.
        layer.topology.forget_columns()
        start = self._start(layer, change.grown, self._generator)
        values = change.carry(old.detach(), start)
        grad = None if old.grad is None else change.carry(old.grad, start.new_zeros(start.shape))
        layer.set_topology(change.topology, values)
        layer.values.grad = grad
        del values, start  # as large as the layer, and copied by now
        carry_state(self.optimizer, old, layer.values, change, self._policy, site.path)


def _composed(method: str | Method, overrides: dict[str, Any]) -> Method:
    if isinstance(method, str):
        known = methods()
        if method not in known:
            raise ValueError(f"method must be one of {', '.join(sorted(known))}, got {method!r}")
        method = known[method]
    parts = {field.name for field in fields(Method)} - {"name", "source", "differs"}
    for name in overrides:
        if name not in parts:
            raise TypeError(
                f"Evolution takes the parts of a method: {', '.join(sorted(parts))}; got {name!r}"
            )
    composed = replace(method, **overrides)
    if composed.scope not in ("layer", "global", "gate"):
        raise ValueError(
            f"scope of {method.name} must be layer, global or gate, got {composed.scope!r}"
        )
    if composed.scope == "gate" and composed.density is not None:
        raise ValueError(
            f"density of {method.name} must be None where scope is gate: each gate keeps its number"
        )
    return composed


def _interval(method: Method, steps_per_epoch: int | None) -> int | None:
    every = method.every
    if every == "epoch":
        if steps_per_epoch is None:
            raise ValueError(
                f'every="epoch" of {method.name} needs steps_per_epoch=len(loader), '
                f"or give every as a number of optimiser steps"
            )
        every = steps_per_epoch
    if every is not None and (not isinstance(every, int) or every < 1):
        raise ValueError(
            f'every of {method.name} must be a positive number of steps, "epoch" or None, '
            f"got {every!r}"
        )
    return every


def _scores(method: Method) -> tuple[DropScore, GrowScore]:
    drop, grow = _named(DROP_SCORES, method.drop, "drop"), _named(GROW_SCORES, method.grow, "grow")
    # A function that is registered keeps what it was registered with.
    if callable(drop):
        drop = next((d for d in DROP_SCORES.values() if d.score is drop), DropScore(drop))
    if callable(grow):
        own = GrowScore(grow, gradient=True)
        grow = next((g for g in GROW_SCORES.values() if g.score is grow), own)
    return drop, grow


def _named(registry: Mapping[str, Any], entry: Any, part: str) -> Any:
    if not isinstance(entry, str):
        return entry
    if entry not in registry:
        raise ValueError(f"{part} must be one of {', '.join(sorted(registry))}, got {entry!r}")
    return registry[entry]
