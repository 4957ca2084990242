"""The engine that drops and grows connections between optimiser steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from regrow.evolution.activations import STEPS, Activations
from regrow.evolution.changing import Changes
from regrow.evolution.compose import composed, scores
from regrow.evolution.dormant import Dormant
from regrow.evolution.horizon import Horizon
from regrow.evolution.kept import Kept
from regrow.evolution.methods import Method
from regrow.evolution.plot import Plot
from regrow.evolution.ranks import ALONE, Ranks, is_sharded, synchronize
from regrow.evolution.ranks import unwrapped as inner_model
from regrow.evolution.record import LayerUpdate, UpdateRecord
from regrow.evolution.schedules import Adaptive, Constant
from regrow.evolution.scores import DropScore
from regrow.evolution.site import Site
from regrow.evolution.trackers import together
from regrow.evolution.update import Decision, Update
from regrow.kernels import capture
from regrow.layers import sparse_layers
from regrow.optim.carry import (
    check_optimizer,
    check_state,
    unwrapped,
)


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
        total_steps: Optimiser steps of the whole training, needed where ``begin`` or ``until`` is
            a share of it; schedules of a method without ``until`` end there.
        alone: Whether this process trains a model of its own even where ``torch.distributed`` is
            initialised. If not, all ranks start with the model of rank 0 and keep one topology.
        **overrides: Parts of the method to replace: any field of ``Method``.

    Raises:
        ValueError: Unknown method or part, a value out of range, parts that do not go together or
            do not fit the model, or a model without sparse layers.
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
        total_steps: int | None = None,
        alone: bool = False,
        **overrides: Any,
    ) -> None:
        self._ranks = ALONE if alone else Ranks.of(model)
        self.model = model = inner_model(model)
        self.optimizer = optimizer = unwrapped(optimizer)
        self.method = composed(method, overrides)
        self.steps = 0
        self._seen = 0
        self._horizon = Horizon.of(self.method, steps_per_epoch, total_steps)
        self._drop, self._grow = scores(self.method)
        fraction = self.method.fraction
        self._fraction = fraction if callable(fraction) else Constant(float(fraction))
        layers = sparse_layers(model)
        if not layers:
            raise ValueError("model to evolve must have a sparse layer, got none; call sparsify")
        if self._ranks.size > 1:
            synchronize(model, self._ranks.group)
            seed = int(self._ranks.first(torch.tensor(seed)))
        # A layer without connections counts as one with a single one.
        self._shares = {
            path: max(layer.topology.nnz, 1) / layer.topology.shape.numel()
            for path, layer in layers.items()
        }
        self._memory: dict[str, float] = {}
        self._generator = torch.Generator().manual_seed(seed)
        self._early: dict[str, Tensor] = {}
        self._kept = Kept(together(self._drop.tracks, self._grow.tracks), self._grow.seen)
        self._changes = Changes(self.method, self._kept, self._ranks)
        self._dormant = Dormant(self.method.active)
        self._activations = Activations(model, layers) if self._grow.activations else None
        self._counted = {path: layer.topology.nnz for path, layer in layers.items()}
        self._check()
        optimizer.register_step_pre_hook(self._before_step)
        optimizer.register_step_post_hook(self._after_step)
        self._dormant.rest(layers)
        self._prepare()

    @property
    def looks_at_gradients(self) -> bool:
        """Whether an update forms gradients at positions that have no connection."""
        return self._grow.listens

    def step(self) -> UpdateRecord | None:
        """Update the topology if one is due after the optimiser step just taken.

        Returns:
            What was done, or None.
        """
        if self.steps == self._seen:
            return None
        due = self._horizon.due(self.steps)
        self._seen = self.steps
        record = self.update() if due else None
        self._prepare()
        return record

    @torch.no_grad()
    def update(self, backward: Callable[[], object] | None = None) -> UpdateRecord:
        """Update the topology now, whatever the schedule says.

        Args:
            backward: A function that runs forward and backward passes of the model, aside from
                training as in ``probe``; scores look at their gradients. Without it growth by
                gradient needs the passes of a training step, and only a step that an update was
                due after keeps them.

        Returns:
            What was done.

        Example:
            A trained network is pruned, and a part of what is left grows again elsewhere.

            >>> import regrow
            >>> layer = regrow.SparseLinear(20, 10, density=1.0)
            >>> evolution = Evolution(layer, torch.optim.SGD(layer.parameters()), "rigl",
            ...                       every=None, fraction=0.5)
            >>> evolution.prune(0.9).layers[""]
            LayerUpdate(dropped=180, grown=0, nnz=20)
            >>> record = evolution.update(lambda: layer(torch.ones(1, 20)).sum().backward())
            >>> record.layers[""]
            LayerUpdate(dropped=10, grown=10, nnz=20)
        """
        fraction = self._scheduled_fraction()
        density = self._scheduled_density(fraction)
        probed = {} if backward is None else self.probe(backward)
        with self._dormant.awake(sparse_layers(self.model)):
            update = self._planned(fraction, density, probed)
            record = UpdateRecord(self.steps, fraction, self._changes.make(update.decide()))
        if self._activations:
            self._activations.forget()
        return record

    @torch.no_grad()
    def prune(self, fraction: float | None = None) -> UpdateRecord:
        """Drop without growing, now; the number of connections falls.

        Connections of all layers are compared where the method's scope is ``global`` or what it
        redistributes by is ``ranking``, else those of each layer. SET's paper ends with such a
        removal after the last epoch.

        Args:
            fraction: Share to drop, in [0, 1); the method's own at this step if None.

        Raises:
            ValueError: The fraction is out of range.
        """
        share = self._scheduled_fraction() if fraction is None else fraction
        if not 0 <= share < 1:
            raise ValueError(f"fraction to prune must be in [0, 1), got {share}")
        with self._dormant.awake(sparse_layers(self.model)):
            update = self._planned(share, None)
            return UpdateRecord(self.steps, share, self._changes.make(update.prune()))

    @torch.no_grad()
    def rewire(self, path: str, keep: Tensor, grown: Tensor) -> LayerUpdate:
        """Carry out a decision of one's own in one layer, now.

        New values and their optimiser state start as the method says, and the others are carried.

        Args:
            path: Of the layer.
            keep: Which of its connections stay, bool ``[nnz]``.
            grown: Flat positions to grow, int64, distinct, none of them kept.

        Returns:
            What was done.

        Raises:
            ValueError: There is no such layer, or the decision cannot be carried out.

        Example:
            >>> import regrow
            >>> layer = regrow.SparseLinear(4, 2, topology=regrow.Topology((2, 4), torch.arange(3)))
            >>> evolution = Evolution(layer, torch.optim.SGD(layer.parameters()), every=None)
            >>> evolution.rewire("", torch.tensor([True, False, True]), torch.tensor([7]))
            LayerUpdate(dropped=1, grown=1, nnz=3)
        """
        sites = self.sites()
        if path not in sites:
            raise ValueError(
                f"path to rewire must be one of {', '.join(sorted(sites))}, got {path!r}"
            )
        with self._dormant.awake(sparse_layers(self.model)):
            return self._changes.make([Decision(sites[path], keep, grown)])[path]

    def report(self, loss: float) -> None:
        """Tell the validation loss, for methods that decide by it; to others it does nothing.

        Rules find in ``site.memory``: ``loss``, the one reported last; ``best_loss``, the lowest
        so far; ``best_step``, when that was; ``reports_since_best``, how often it was not reached.

        Args:
            loss: Loss on validation data, lower being better.
        """
        memory = self._memory
        better = loss < memory.get("best_loss", float("inf"))
        memory["loss"] = float(loss)
        memory["reports_since_best"] = 0 if better else memory.get("reports_since_best", 0) + 1
        if better:
            memory["best_loss"], memory["best_step"] = float(loss), self.steps
        if isinstance(self.method.density, Adaptive):
            loss = float(self._ranks.mean(torch.tensor(loss, dtype=torch.float64)))
            self.method.density.decide(loss, self._density(), self._memory)

    def look(self, forward: Callable[[], object]) -> None:
        """Show passes to growth by activations, aside from training; to others it does nothing.

        The next update looks at these instead of the last passes of training: at the whole training
        set with the weights as they are, say. All rows are kept until then.

        Args:
            forward: A function that runs forward passes of the model, which is in evaluation mode
                meanwhile. An activation outside the model, such as a softmax, counts as following
                its last layer where it is a module.

        Example:
            >>> import regrow
            >>> model = nn.Sequential(regrow.SparseLinear(8, 4, density=0.5))
            >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            >>> evolution = Evolution(model, optimizer, "ctre", every=None)
            >>> evolution.look(lambda: nn.Softmax(1)(model(torch.randn(1000, 8))))
            >>> evolution.update().grown
            3
        """
        if self._activations:
            self._activations.look(forward)

    def sites(self) -> dict[str, Site]:
        """Every layer as a score sees it now, by path; nothing is changed."""
        return {site.path: site for site in self._sites(self._scheduled_fraction(), grows=False)}

    def probe(self, backward: Callable[[], object]) -> dict[str, Site]:
        """Run passes aside from training, and return sites that know their gradients.

        Args:
            backward: A function that runs forward and backward passes of the model.

        Returns:
            Every layer by path; ``site.grad`` and ``site.gradient(candidates)`` are those of these
            passes. Gradients, parameters and the evolution itself are as before.

        Example:
            >>> import regrow
            >>> from regrow.evolution import Candidates
            >>> layer = regrow.SparseLinear(4, 2, density=0.5)
            >>> evolution = Evolution(layer, torch.optim.SGD(layer.parameters()), every=None)
            >>> sites = evolution.probe(lambda: layer(torch.ones(1, 4)).sum().backward())
            >>> sites[""].gradient(Candidates(4, block=slice(0, 1)))
            tensor([1., 1., 1., 1.])
        """
        layers = sparse_layers(self.model)
        parameters = list(self.model.parameters())
        held = [parameter.grad for parameter in parameters]
        for parameter in parameters:
            parameter.grad = None
        try:
            with torch.enable_grad(), capture.aside(layers.values()) as passes:
                backward()
            gradients = {
                path: None if layer.values.grad is None else self._ranks.mean(layer.values.grad)
                for path, layer in layers.items()
            }
        finally:
            for parameter, grad in zip(parameters, held, strict=True):
                parameter.grad = grad
        return {
            path: replace(site, captured=passes[site.layer], probed=gradients[path])
            for path, site in self.sites().items()
        }

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to continue exactly; loads with ``torch.load(weights_only=True)``."""
        return {
            "method": self.method.name,
            "steps": self.steps,
            "seen": self._seen,
            "shares": dict(self._shares),
            "memory": dict(self._memory),
            "generator": self._generator.get_state(),
            "early": dict(self._early),
            "kept": self._kept.state_dict(),
            "dormant": self._dormant.state_dict(),
            "activations": self._activations.state_dict() if self._activations else {},
            "passes": self._passes(),
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
        self._memory = dict(state["memory"])
        self._generator.set_state(state["generator"])
        layers = sparse_layers(self.model)
        early = state.get("early", {})
        self._early = {path: score.to(layers[path].values) for path, score in early.items()}
        self._counted = {path: layer.topology.nnz for path, layer in layers.items()}
        self._kept.load_state_dict(state["kept"], layers)
        self._dormant.load_state_dict(state["dormant"], layers)
        self._prepare()
        if self._activations:
            self._activations.load_state_dict(state["activations"])
        for path, passes in state["passes"].items():
            if passes and not capture.armed(layers[path]):
                capture.arm(layers[path], self._grow.history)
            capture.resume(layers[path], [capture.Pass(*each) for each in passes])

    def _passes(self) -> dict[str, list[tuple[Tensor, Tensor, int]]]:
        """What layers keep of earlier steps that an update will look at.

        Saved after ``step()``, as it should be, that is where growth looks back further than one.
        Saved before, the last step is needed too.
        """
        needed = self._grow.history > 1 or self.steps != self._seen
        layers = sparse_layers(self.model) if needed else {}
        return {
            path: [(kept.x, kept.grad, kept.ago) for kept in capture.so_far(layer)]
            for path, layer in layers.items()
        }

    # Schedules

    def _scheduled_fraction(self) -> float:
        return self._fraction(*self._horizon.place(self.steps))

    def _scheduled_density(self, fraction: float) -> float | None:
        density = self.method.density
        if density is None:
            return None
        if isinstance(density, Adaptive):
            target = density.target(self._density(), fraction, self._memory)
        else:
            target = density(*self._horizon.place(self.steps))
        if not 0 < target <= 1:
            raise ValueError(
                f"density of {self.method.name} at step {self.steps} must be in (0, 1], "
                f"got {target}"
            )
        return target

    def _density(self) -> float:
        """Over the positions of all sparse layers that may hold a connection."""
        layers = sparse_layers(self.model).values()
        closed = (layer.closed for layer in layers)
        barred = sum(0 if positions is None else positions.numel() for positions in closed)
        positions = sum(layer.topology.shape.numel() for layer in layers) - barred
        return sum(layer.topology.nnz for layer in layers) / positions

    def _check(self) -> None:
        """Refuse what cannot work before training starts."""
        if self._horizon.every is None:
            return
        check_optimizer(self.optimizer)
        for path, layer in sparse_layers(self.model).items():
            if is_sharded(layer):
                raise ValueError(
                    f"values of {path} must be whole on every rank for {self.method.name} to "
                    f"change their topology, got shards: give them to fully_shard as "
                    f"ignored_params, and call average_gradients(model) before each optimiser step"
                )
        fraction = self._scheduled_fraction()
        if not 0 <= fraction <= 1:
            raise ValueError(f"fraction of {self.method.name} must be in [0, 1], got {fraction}")
        self._scheduled_density(fraction)
        sites = [
            Site(path, layer, self._generator) for path, layer in sparse_layers(self.model).items()
        ]
        plots = [Plot(site, self.method, DropScore(lambda site: site.values)) for site in sites]
        sizes = sorted({plot.units.size for plot in plots})
        together = self.method.scope == "global" or self.method.redistribute is not None
        if together and len(sizes) > 1:
            raise ValueError(
                f"units of {self.method.name} must have one size in all layers where layers share "
                f"a number of connections, got sizes {', '.join(map(str, sizes))}"
            )

    # Around the optimiser's step

    def _prepare(self) -> None:
        """Ask the layers to keep what the next optimiser step's update will look at."""
        if self._activations:
            if self._horizon.due_within(self.steps, STEPS):
                self._activations.listen()
            else:
                self._activations.stop()
        if not self._grow.listens:
            return
        due = self._horizon.due_within(self.steps, self._grow.history)
        for layer in sparse_layers(self.model).values():
            if not due:
                capture.take(layer)
            elif not capture.armed(layer):
                capture.arm(layer, self._grow.history)

    def _before_step(
        self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], options: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Look at the gradients, which a closure only makes inside the optimiser's step."""
        given = len(args) > 1  # the first argument is the optimiser
        closure = args[1] if given else options.get("closure")
        if closure is None:
            self._look()
            return None

        def looked_at() -> Any:
            loss = closure()
            self._look()
            return loss

        if given:
            return (args[0], looked_at, *args[2:]), options
        return args, {**options, "closure": looked_at}

    @torch.no_grad()
    def _look(self) -> None:
        self._check_state()
        self._dormant.wake(sparse_layers(self.model))
        if self._skipped:
            return
        due = self._drop.before and self._horizon.due(self.steps + 1)
        if due or self._kept.trackers:
            sites = self._sites(self._scheduled_fraction(), grows=False)
            self._kept.track(sites, before=True)
            if due:
                self._early = {site.path: self._drop.score(site) for site in sites}

    @torch.no_grad()
    def _after_step(self, *_: object) -> None:
        if self._skipped:
            self._dormant.rest(sparse_layers(self.model))
            return
        self.steps += 1
        if self._kept.trackers:
            sites = self._sites(self._scheduled_fraction(), grows=False)
            self._kept.track(sites, before=False)
        if self._grow.listens:
            for layer in sparse_layers(self.model).values():
                capture.close(layer)
        if self._activations:
            self._activations.settle()
        self._dormant.rest(sparse_layers(self.model))

    @property
    def _skipped(self) -> bool:
        """Whether GradScaler has found an overflow; fused optimisers are called all the same."""
        overflow = getattr(self.optimizer, "found_inf", None)
        return overflow is not None and bool(overflow)

    def _check_state(self) -> None:
        """Refuse an optimiser that still knows other connections than were loaded."""
        for path, layer in sparse_layers(self.model).items():
            if self._counted.get(path) != layer.topology.nnz:
                self._counted[path] = layer.topology.nnz
                check_state(self.optimizer, layer.values, path, self._changes.policy)

    # One update

    def _sites(self, fraction: float, grows: bool) -> list[Site]:
        """The layers as an update sees them; refused before anything of them is changed."""
        layers = sparse_layers(self.model)
        for path, layer in layers.items():
            check_state(self.optimizer, layer.values, path, self._changes.policy)
        notes: dict[Any, Any] = {}
        return [
            Site(
                path,
                layer,
                self._generator,
                capture.take(layer) if grows and self._grow.listens else [],
                self.optimizer,
                self.steps,
                fraction,
                self._kept.of(path, layer),
                self._memory,
                self._kept.ever(path, layer),
                self._activations.of(path) if grows and self._activations else None,
                ranks=self._ranks,
                notes=notes,
            )
            for path, layer in layers.items()
        ]

    def _planned(
        self, fraction: float, density: float | None, probed: Mapping[str, Site] | None = None
    ) -> Update:
        """An update that drops only if `probed` is None, and else looks at what it knows."""
        self._generator.set_state(self._ranks.first(self._generator.get_state()))
        if probed:  # what layers keep of training stays for the next step
            sites = [
                replace(
                    site,
                    captured=probed[site.path].captured,
                    probed=probed[site.path].probed,
                    samples=self._activations.of(site.path) if self._activations else None,
                )
                for site in self._sites(fraction, grows=False)
            ]
        else:
            sites = self._sites(fraction, grows=probed is not None)
        plots = [
            Plot(site, self.method, self._drop, self._early.pop(site.path, None)) for site in sites
        ]
        return Update(self.method, self._drop, self._grow, plots, fraction, density, self._shares)
