"""The server: holds the model of the first phase, and deals out all work."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from regrow.evolution import Evolution, ImportancePruning
from regrow.layers import sparse_layers
from regrow.layers.base import values_name
from regrow.optim import union_average
from regrow.parallel.messages import (
    Message,
    Topologies,
    parameters_of,
    restored,
    saved,
    topologies_of,
)
from regrow.parallel.plan import Plan
from regrow.parallel.shards import Batches
from regrow.parallel.worker import MakeOptimizer
from regrow.topology.union import transferred


@dataclass
class Tally:
    """What a training counted.

    Attributes:
        updates: Steps of the optimizer in the first phase.
        gradients: Gradients that came for them.
        stale: Those formed on a topology that was no longer the model's.
        entries: Entries of gradients of sparse layers.
        discarded: Those of them at connections that were gone, and so had no effect.
        delay: Updates between giving a worker the weights and getting its gradient, all together.
        lost: Jobs whose worker was gone before they were done; others did them again.
    """

    updates: int = 0
    gradients: int = 0
    stale: int = 0
    entries: int = 0
    discarded: int = 0
    delay: int = 0
    lost: int = 0

    @property
    def mean_delay(self) -> float:
        """Updates between giving a worker the weights and getting its gradient, on average."""
        return self.delay / max(1, self.gradients)


@dataclass
class _Dealt:
    """What a worker was given last: the job, until it is done, and the model it came with."""

    job: Message | None
    topologies: Topologies
    updates: int


class Server:
    """Deals jobs to workers, takes what they found, and has the model in the end.

    It knows nothing of processes: workers are numbers that ask for a job, bring its outcome, or
    are reported lost. In the first phase a job is the gradient of one batch, of the shard that the
    worker has for its own. Shards without a worker are seen to by the others. In the second phase
    it is one local epoch of a shard.

    Args:
        model: With sparse layers; it is trained.
        batches: The data.
        optimizer: Makes the optimizer of the first phase.
        plan: Of the training.
        pruning: Of importance, in steps of the first phase; before each evolution.

    Raises:
        ValueError: The method looks at gradients at free positions.
    """

    def __init__(
        self,
        model: nn.Module,
        batches: Batches,
        optimizer: MakeOptimizer,
        plan: Plan,
        pruning: ImportancePruning | None = None,
    ) -> None:
        self.model, self._batches, self._plan, self._pruning = model, batches, plan, pruning
        self._optimizer = optimizer(model.parameters())
        self._rates = [group["lr"] for group in self._optimizer.param_groups]
        self._together = batches.shards if plan.synchronous else 1
        an_epoch = batches.shards * batches.batches
        updates = plan.shared_epochs * an_epoch // self._together
        self._evolution = Evolution(
            model,
            self._optimizer,
            plan.method,
            seed=plan.seed,
            alone=True,
            every=an_epoch // self._together,
            # Not after the last epoch of all.
            until=max(0, updates if plan.local_epochs else updates - 1),
            **plan.options,
        )
        if self._evolution.looks_at_gradients:
            raise ValueError(
                f"method of a parallel training must grow without gradients at free positions, "
                f"which the server does not have, as set does; got {self._evolution.method.name}"
            )
        self._an_epoch, self._total = an_epoch, plan.shared_epochs * an_epoch
        self.tally = Tally()
        self._own: dict[int, int] = {}  # shard by worker
        self._dealt: dict[int, _Dealt] = {}  # by worker
        self._given = [0] * batches.shards  # gradients of the first phase dealt, by shard
        self._again: list[tuple[int, int]] = []  # shard and number of jobs that were lost
        self._sum: dict[str, Tensor] = {}
        self._trained = [0] * batches.shards  # local epochs done, by shard
        self._states: list[Tensor | None] = [None] * batches.shards
        self._holders: list[int | None] = [None] * batches.shards  # who needs no state

    @property
    def shared(self) -> bool:
        """Whether the first phase goes on."""
        return self.tally.gradients < self._total

    @property
    def done(self) -> bool:
        """Whether there is nothing left to do."""
        return not self.shared and min(self._trained) >= self._plan.local_epochs

    @property
    def progress(self) -> float:
        """Epochs of all data that are done."""
        local = sum(self._trained) / len(self._trained)
        return self.tally.gradients / self._an_epoch + local

    def deal(self, worker: int) -> Message | None:
        """A job for a worker that has none.

        Args:
            worker: Its number; a new one is welcome at any time.

        Returns:
            The job, or None where it has to wait for others.
        """
        self._welcome(worker)
        return self._deal_gradient(worker) if self.shared else self._deal_local(worker)

    @torch.no_grad()
    def take(self, worker: int, outcome: Message) -> None:
        """Take what a worker has found.

        Args:
            worker: Its number.
            outcome: Of the job that it was dealt last.
        """
        dealt = self._dealt[worker]
        if outcome.kind == "gradient":
            self._take_gradient(dealt, outcome)
        else:
            shard = outcome.head["shard"]
            self._trained[shard] = outcome.head["epoch"] + 1
            self._states[shard], self._holders[shard] = outcome.tensors["state"], worker
        dealt.job = None

    def lose(self, worker: int) -> None:
        """Forget a worker that is gone: others do its job, and its shard is free.

        Args:
            worker: Its number.
        """
        self._own.pop(worker, None)
        dealt = self._dealt.pop(worker, None)
        self._holders = [None if holder == worker else holder for holder in self._holders]
        if dealt is not None and dealt.job is not None:
            self.tally.lost += 1
            if dealt.job.kind == "gradient":
                self._again.append((dealt.job.head["shard"], dealt.job.head["number"]))

    def result(self) -> nn.Module:
        """The model: the average of the local ones, with as many connections as it had before."""
        if not self._plan.local_epochs:
            return self.model
        models = []
        for state in self._states:
            assert state is not None
            model = copy.deepcopy(self.model)
            model.load_state_dict(restored(state)["model"])
            models.append(model)
        nnz = {path: layer.topology.nnz for path, layer in sparse_layers(self.model).items()}
        return union_average(models, nnz)

    # Dealing

    def _welcome(self, worker: int) -> None:
        if worker not in self._own:
            free = set(range(self._batches.shards)) - set(self._own.values())
            if free:
                self._own[worker] = min(free)

    def _shards_of(self, worker: int) -> list[int]:
        """Shards that a worker may work on: its own, and those of nobody."""
        others = {shard for number, shard in self._own.items() if number != worker}
        return [shard for shard in range(self._batches.shards) if shard not in others]

    def _deal_gradient(self, worker: int) -> Message | None:
        if self._again:
            shard, number = self._again.pop(0)
        else:
            shards = self._shards_of(worker)
            if self._plan.synchronous:
                turn = self.tally.gradients // self._together
                shards = [shard for shard in shards if self._given[shard] <= turn]
            if not shards or sum(self._given) >= self._total:
                return None
            shard = min(shards, key=lambda shard: self._given[shard])
            number = self._given[shard]
            self._given[shard] += 1
        return self._with_model(worker, "gradient", {"shard": shard, "number": number})

    def _deal_local(self, worker: int) -> Message | None:
        at_work = {d.job.head["shard"] for d in self._dealt.values() if d.job is not None}
        open_ones = [
            shard
            for shard in self._shards_of(worker)
            if self._trained[shard] < self._plan.local_epochs and shard not in at_work
        ]
        if not open_ones:
            return None
        shard = min(open_ones, key=lambda shard: (self._own.get(worker) != shard, shard))
        head = {"shard": shard, "epoch": self._trained[shard]}
        state = self._states[shard]
        if state is None:
            job = self._with_model(worker, "local", head)
        else:
            job = Message("local", head, {} if self._holders[shard] == worker else {"state": state})
            self._dealt[worker] = _Dealt(job, {}, self.tally.updates)
        # A worker has one local training at a time.
        self._holders = [None if holder == worker else holder for holder in self._holders]
        if self._pruning is not None:
            job.tensors["pruning"] = saved(self._pruning.state_dict())
        return job

    def _with_model(self, worker: int, kind: str, head: dict[str, int]) -> Message:
        """A job, with the parameters, and with the topologies that the worker does not have."""
        known, now = self._dealt.get(worker), topologies_of(self.model)
        held = known.topologies if known is not None else {}
        new = {path: topology for path, topology in now.items() if held.get(path) is not topology}
        job = Message(kind, dict(head), parameters_of(self.model), new)
        self._dealt[worker] = _Dealt(job, now, self.tally.updates)
        return job

    # Taking

    def _take_gradient(self, dealt: _Dealt, outcome: Message) -> None:
        self.tally.gradients += 1
        self.tally.delay += self.tally.updates - dealt.updates
        found = self._retained(dealt.topologies, outcome.tensors)
        for name, gradient in found.items():
            total = self._sum.get(name)
            self._sum[name] = gradient if total is None else total + gradient
        if self.tally.gradients % self._together == 0:
            self._update()

    def _retained(self, topologies: Topologies, found: dict[str, Tensor]) -> dict[str, Tensor]:
        """The gradient at the connections that there are now."""
        kept, stale = dict(found), False
        for path, layer in sparse_layers(self.model).items():
            gradient = found.get(values_name(path))
            if gradient is None:
                continue
            self.tally.entries += gradient.numel()
            old, new = topologies[path], layer.topology
            if old is not new:
                stale = True
                kept[values_name(path)] = transferred(gradient, old, new)
                common = torch.isin(old.positions, new.positions, assume_unique=True)
                self.tally.discarded += gradient.numel() - int(common.sum())
        self.tally.stale += stale
        return kept

    def _update(self) -> None:
        for name, parameter in self.model.named_parameters():
            if name in self._sum:
                parameter.grad = self._sum[name] / self._together
        self._sum = {}
        epoch = (self.tally.gradients - self._together) / self._an_epoch
        factor = self._plan.rate_factor(epoch, self._together)
        for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * factor
        self._optimizer.step()
        self._optimizer.zero_grad()
        self.tally.updates += 1
        if self._pruning is not None:
            self._pruning.step(self._evolution)
        self._evolution.step()
