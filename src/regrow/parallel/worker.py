"""A worker: forms gradients for the server, and later trains a model of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from regrow.evolution import Evolution, ImportancePruning
from regrow.parallel.messages import Message, restored, saved, take_over
from regrow.parallel.plan import Plan
from regrow.parallel.shards import Batches

Loss = Callable[[Tensor, Tensor], Tensor]
MakeOptimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


class Worker:
    """Does jobs, one after the other; which ones is the server's affair.

    A job holds all that it needs, so that any worker can do it, and does the same.

    Args:
        model: Of the same form as the server's; it is changed.
        batches: The data.
        optimizer: Makes the optimizer of a local training.
        plan: Of the training.
        loss: Of outputs and targets.
        pruning: As the server's, of which local growth must know.
    """

    def __init__(
        self,
        model: nn.Module,
        batches: Batches,
        optimizer: MakeOptimizer,
        plan: Plan,
        loss: Loss,
        pruning: ImportancePruning | None = None,
    ) -> None:
        self.model, self._batches, self._plan = model, batches, plan
        self._make_optimizer, self._loss, self._pruning = optimizer, loss, pruning
        self._local: _Local | None = None
        optimizer(model.parameters())  # what cannot be made fails here, and not hours later

    def do(self, job: Message) -> Message:
        """Do a job.

        Args:
            job: Of the server.

        Returns:
            What the server is to be told.
        """
        self.model.train()
        if job.kind == "gradient":
            return self._gradient(job)
        return self._epoch(job)

    def _gradient(self, job: Message) -> Message:
        """The gradient of one batch."""
        shard, number = job.head["shard"], job.head["number"]
        take_over(self.model, job.tensors, job.topologies)
        with _drawing(self._plan.seed, shard, number):
            self._backward(shard, number)
        gradients = {n: p.grad for n, p in self.model.named_parameters() if p.grad is not None}
        self.model.zero_grad()
        return Message("gradient", {"shard": shard, "number": number}, gradients)

    def _epoch(self, job: Message) -> Message:
        """One epoch of training alone, from where the job says."""
        shard, epoch = job.head["shard"], job.head["epoch"]
        if epoch == 0:
            take_over(self.model, job.tensors, job.topologies)
        if epoch == 0 or "state" in job.tensors:
            self._local = self._begin(job)
        local, batches = self._local, self._batches.batches
        assert local is not None
        begin = (self._plan.shared_epochs + epoch) * batches
        for number in range(begin, begin + batches):
            with _drawing(self._plan.seed, shard, number):
                self._backward(shard, number)
            local.optimizer.step()
            local.optimizer.zero_grad()
            local.evolution.step()
        return Message("local", job.head, {"state": saved(local.state_dict())})

    def _begin(self, job: Message) -> _Local:
        if self._pruning is not None and "pruning" in job.tensors:
            self._pruning.load_state_dict(restored(job.tensors["pruning"]))
        local = _Local(self.model, self._make_optimizer, self._plan, self._batches, job)
        if job.head["epoch"]:
            local.load_state_dict(restored(job.tensors["state"]))
        return local

    def _backward(self, shard: int, number: int) -> None:
        x, y = self._batches.batch(shard, number)
        self._loss(self.model(x), y).backward()


class _Local:
    """A training of its own."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: MakeOptimizer,
        plan: Plan,
        batches: Batches,
        job: Message,
    ) -> None:
        self.model, self.optimizer = model, optimizer(model.parameters())
        self.evolution = Evolution(
            model,
            self.optimizer,
            plan.method,
            seed=plan.seed + 1 + int(job.head["shard"]),
            alone=True,
            every=batches.batches,
            # Not after the last epoch.
            until=max(0, plan.local_epochs * batches.batches - 1),
            **plan.options,
        )

    def state_dict(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "evolution": self.evolution.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.evolution.load_state_dict(state["evolution"])


@contextmanager
def _drawing(seed: int, shard: int, number: int) -> Iterator[None]:
    """Draw what a batch draws, such as dropout, whoever does it and whenever."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(hash((seed, shard, number)) % 2**63)
        yield
