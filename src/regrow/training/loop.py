"""The plain loop: one arm, one seed, one epoch at a time, resumable after every step."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from regrow.data import Dataset
from regrow.evolution import Evolution
from regrow.layers import sparse_layers
from regrow.measure import Exploration
from regrow.training.arm import beginning, method_parts, steps_of_an_epoch
from regrow.training.augment import augmented
from regrow.training.compute import Decisions, fix_compute
from regrow.training.errors import DivergedError
from regrow.training.flops import FlopCount
from regrow.training.model import build_model
from regrow.training.models.images import image_shape
from regrow.training.optimizers import make_optimizer
from regrow.training.options import TrainOptions
from regrow.training.passes import connections, data_order, dense_weights, evaluate
from regrow.training.rates import rate_factor
from regrow.training.score import Score, loss_of

_EVALUATION_BATCH_OF_IMAGES = 256
# The exploration rate takes a mark for every position; above this many it is not measured.
_MOST_MARKS = 2**29

OnStep = Callable[["Trainer", float], None]


@dataclass(frozen=True)
class Job:
    """One training: which arm, with what.

    Attributes:
        arm: Name of the arm.
        seed: Of start, data order and updates.
        learning_rate: Of the optimizer.
        epochs: Passes over the training part.
        decisions: Compute of each sparse layer, as `decide_compute` returns it.
    """

    arm: str
    seed: int
    learning_rate: float
    epochs: int
    decisions: Decisions


@dataclass
class Tally:
    """What has been counted in the current epoch."""

    batches: int = 0
    samples: int = 0
    loss: float = 0.0
    dropped: int = 0
    grown: int = 0
    seconds: float = 0.0


class Trainer:
    """A network in training, with all that changes while it is trained.

    Args:
        options: The options of the run.
        dataset: What to learn.
        job: Which training this is.
        state: Of an earlier trainer of the same job, from `state_dict`.
    """

    def __init__(
        self,
        options: TrainOptions,
        dataset: Dataset,
        job: Job,
        state: dict[str, Any] | None = None,
    ) -> None:
        self.options, self.dataset, self.job = options, dataset, job
        self.epoch = 0
        self.steps = 0
        self.flops = 0
        self.tally = Tally()
        parts = method_parts(options, job.arm, self.total_steps, dataset)
        start = beginning(job.arm, parts)
        self.model = build_model(options, job.arm, dataset, job.seed, start)
        fix_compute(self.model, job.decisions)
        self.flop_count = FlopCount(self.model, dataset.x_train[:1])
        if state is not None:
            self.model.load_state_dict(state["model"])
        self._settle()
        self.optimizer = make_optimizer(self.model, options, job.learning_rate)
        self.evolution = self._evolution(parts)
        self.exploration = self._exploration()
        torch.manual_seed(job.seed)
        if state is not None:
            self._load(state)

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of an epoch."""
        return steps_of_an_epoch(self.options, self.dataset)

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole training."""
        return self.job.epochs * self.steps_per_epoch

    @property
    def finished(self) -> bool:
        """Whether all epochs are done."""
        return self.epoch >= self.job.epochs

    @property
    def connections(self) -> int:
        """Weights of the network, those of dense layers included, biases and norms not."""
        return connections(self.model)

    @property
    def dense_connections(self) -> int:
        """Weights that the network would have with every connection."""
        positions = (x.topology.shape.numel() for x in sparse_layers(self.model).values())
        return sum(positions) + dense_weights(self.model)

    @property
    def learning_rate(self) -> float:
        """That of the step to come, or of the last step where there is none."""
        step = min(self.steps, self.total_steps - 1)
        factor = rate_factor(
            self.options.rate_schedule, self.options.warm_up, step, self.total_steps
        )
        return self.job.learning_rate * factor

    def train_epoch(self, on_step: OnStep, at_end: Callable[[], Score] | None = None) -> Tally:
        """Train to the end of the current epoch, from its start or from where it was left.

        Args:
            on_step: Called with the trainer and the loss after every step; may save the state, or
                stop the training by raising.
            at_end: Called after the last step, before the update that may be due then: the network
                is measured as it was trained, not with connections that were never trained. Gives
                the score on the validation part, which otherwise is computed where it is needed.

        Returns:
            The counts of the whole epoch.

        Raises:
            DivergedError: The loss is no longer finite.
        """
        order = data_order(len(self.dataset.x_train), self.job.seed, self.epoch)
        batches = order.split(self.options.batch_size)
        self.model.train()
        for rows in batches[self.tally.batches :]:
            start = time.perf_counter()
            loss = self._step(rows)
            if self.tally.batches + 1 < len(batches):
                self._evolve()
            self.tally.seconds += time.perf_counter() - start
            if not math.isfinite(loss):
                raise DivergedError(self.job.arm, self.epoch + 1, self.job.learning_rate)
            self.tally.loss += loss * len(rows)
            self.tally.samples += len(rows)
            self.tally.batches += 1
            self.steps += 1
            on_step(self, loss)
        self.epoch += 1
        self._tell(at_end() if at_end is not None else None)
        start = time.perf_counter()
        self._evolve()
        self.tally.seconds += time.perf_counter() - start
        done, self.tally = self.tally, Tally()
        return done

    def judged(self) -> AbstractContextManager[Any]:
        """Within this context the network is the one to be judged: averaged, if its optimizer is.

        Returns:
            A context that is to be left before the next step.
        """
        averaged = getattr(self.optimizer, "averaged", None)
        return nullcontext() if averaged is None else averaged()

    def evaluate(self, x: Tensor, y: Tensor) -> Score:
        """Mean loss and score on samples ``[n, features]`` with targets ``[n, ...]``.

        Raises:
            DivergedError: The loss is not finite.
        """
        size = {} if self.options.model == "mlp" else {"batch": _EVALUATION_BATCH_OF_IMAGES}
        score = evaluate(self.model, x, y, self.dataset.task, **size)
        if not math.isfinite(score.loss):
            raise DivergedError(self.job.arm, self.epoch, self.job.learning_rate)
        return score

    def state_dict(self) -> dict[str, Any]:
        """All that is needed to continue bit for bit, loadable with ``weights_only=True``."""
        return {
            "arm": self.job.arm,
            "seed": self.job.seed,
            "epoch": self.epoch,
            "steps": self.steps,
            "flops": self.flops,
            "tally": asdict(self.tally),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "evolution": self.evolution.state_dict() if self.evolution else None,
            "exploration": self.exploration.state_dict() if self.exploration else None,
            "random": torch.get_rng_state(),
        }

    def _load(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        if self.evolution:
            self.evolution.load_state_dict(state["evolution"])
        if self.exploration:
            self.exploration.load_state_dict(state["exploration"])
        torch.set_rng_state(state["random"])
        self.epoch, self.steps, self.flops = state["epoch"], state["steps"], state["flops"]
        self.tally = Tally(**state["tally"])

    def _exploration(self) -> Exploration | None:
        positions = sum(x.topology.shape.numel() for x in sparse_layers(self.model).values())
        return Exploration(self.model) if 0 < positions <= _MOST_MARKS else None

    def _evolution(self, parts: dict[str, Any]) -> Evolution | None:
        if not self.job.decisions:
            return None
        return Evolution(
            self.model,
            self.optimizer,
            method=self.job.arm,
            seed=self.job.seed,
            steps_per_epoch=self.steps_per_epoch,
            total_steps=self.total_steps,
            **parts,
        )

    def _settle(self) -> None:
        """See to what depends on the number of connections."""
        fix_compute(self.model, self.job.decisions)
        self._flops_of_a_sample = self.flop_count.forward + self.flop_count.backward

    def _step(self, rows: Tensor) -> float:
        x, y = self.dataset.x_train[rows], self.dataset.y_train[rows]
        if self.options.augment:
            generator = torch.Generator().manual_seed((self.job.seed << 40) + self.steps)
            x = augmented(x, image_shape(self.dataset), generator)
        loss = loss_of(self.model(x), y, self.dataset.task)
        loss.backward()
        if self.options.clip is not None:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.options.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.flops += len(rows) * self._flops_of_a_sample
        return loss.item()

    def _tell(self, score: Score | None) -> None:
        """Report the loss on the validation part to an optimizer or a method that asks for it."""
        asking = [getattr(part, "report", None) for part in (self.optimizer, self.evolution)]
        reports = [report for report in asking if report is not None]
        if reports and score is None:
            with self.judged():
                score = self.evaluate(self.dataset.x_validation, self.dataset.y_validation)
        for report in reports:
            assert score is not None
            report(score.loss)

    def _evolve(self) -> None:
        record = self.evolution.step() if self.evolution else None
        if record is None:
            return
        assert self.evolution is not None
        self.tally.dropped += record.dropped
        self.tally.grown += record.grown
        if self.exploration:
            self.exploration.update()
        self._settle()
        if self.evolution.looks_at_gradients:
            self.flops += self.options.batch_size * self.flop_count.dense_gradient
