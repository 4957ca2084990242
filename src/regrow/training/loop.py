"""The plain loop: one arm, one seed, one epoch at a time, resumable after every step."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from regrow.data import Dataset
from regrow.evolution import Evolution, methods
from regrow.evolution.schedules import Cosine
from regrow.layers import sparse_layers
from regrow.measure import Exploration
from regrow.training.errors import DivergedError
from regrow.training.model import Decisions, build_model, fix_compute
from regrow.training.optimizers import make_optimizer
from regrow.training.options import TrainOptions

_EVALUATION_BATCH = 2048
_SCHEDULE_SHARE = 0.75
# The exploration rate takes a mark for every position; above this many it is not measured.
_MOST_MARKS = 2**26

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


@dataclass(frozen=True)
class Score:
    """Loss and score (accuracy, or R2 for regression) on one part of the data."""

    loss: float
    score: float

    def better_than(self, other: Score | None) -> bool:
        """Whether the score is higher, or equal at a lower loss."""
        return other is None or (self.score, -self.loss) > (other.score, -other.loss)


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
        self.tally = Tally()
        n_features = dataset.x_train.shape[1]
        self.model = build_model(options, job.arm, n_features, n_outputs(dataset), job.seed)
        fix_compute(self.model, job.decisions)
        if state is not None:
            self.model.load_state_dict(state["model"])
        self.optimizer = make_optimizer(self.model, options, job.learning_rate)
        self.evolution = self._evolution()
        self.exploration = self._exploration()
        torch.manual_seed(job.seed)
        if state is not None:
            self._load(state)

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of an epoch."""
        return math.ceil(len(self.dataset.x_train) / self.options.batch_size)

    @property
    def finished(self) -> bool:
        """Whether all epochs are done."""
        return self.epoch >= self.job.epochs

    @property
    def connections(self) -> int:
        """Weights of the network, those of dense layers included, biases not."""
        return sum(
            parameter.numel()
            for name, parameter in self.model.named_parameters()
            if not name.endswith("bias")
        )

    def train_epoch(self, on_step: OnStep, at_end: Callable[[], None] | None = None) -> Tally:
        """Train to the end of the current epoch, from its start or from where it was left.

        Args:
            on_step: Called with the trainer and the loss after every step; may save the state, or
                stop the training by raising.
            at_end: Called after the last step, before the update that may be due then: the network
                is measured as it was trained, not with connections that were never trained.

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
        if at_end is not None:
            at_end()
        start = time.perf_counter()
        self._evolve()
        self.tally.seconds += time.perf_counter() - start
        done, self.tally = self.tally, Tally()
        return done

    def evaluate(self, x: Tensor, y: Tensor) -> Score:
        """Mean loss and score on samples ``[n, features]`` with targets ``[n]``.

        Raises:
            DivergedError: The loss is not finite.
        """
        self.model.eval()
        with torch.inference_mode():
            outputs = [self.model(part) for part in x.split(_EVALUATION_BATCH)]
            score = score_of(torch.cat(outputs), y, self.dataset.task)
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
        self.epoch, self.steps = state["epoch"], state["steps"]
        self.tally = Tally(**state["tally"])

    def _exploration(self) -> Exploration | None:
        positions = sum(x.topology.shape.numel() for x in sparse_layers(self.model).values())
        return Exploration(self.model) if 0 < positions <= _MOST_MARKS else None

    def _evolution(self) -> Evolution | None:
        if not self.job.decisions:
            return None
        return Evolution(
            self.model,
            self.optimizer,
            method=self.job.arm,
            seed=self.job.seed,
            steps_per_epoch=self.steps_per_epoch,
            **method_parts(self.options, self.job.arm, self.job.epochs * self.steps_per_epoch),
        )

    def _step(self, rows: Tensor) -> float:
        x, y = self.dataset.x_train[rows], self.dataset.y_train[rows]
        loss = loss_of(self.model(x), y, self.dataset.task)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item()

    def _evolve(self) -> None:
        record = self.evolution.step() if self.evolution else None
        if record is not None:
            self.tally.dropped += record.dropped
            self.tally.grown += record.grown
            if self.exploration:
                self.exploration.update()


def method_parts(options: TrainOptions, arm: str, total_steps: int) -> dict[str, Any]:
    """Parts of a method that the options, or the length of the training, decide.

    A method without an end of its own updates until the last step but one, since connections grown
    after the last would never be trained. One whose schedule has an end (RigL) gets it at three
    quarters of the training, as its authors did.

    Args:
        options: The options of the run.
        arm: Name of the method.
        total_steps: Optimizer steps of the whole training.
    """
    method = methods()[arm]
    if method.every is None:
        return {}
    share = 1.0 if method.until is None else _SCHEDULE_SHARE
    parts: dict[str, Any] = {"until": min(total_steps - 1, int(share * total_steps))}
    if options.every is not None:
        parts["every"] = options.every
    if options.fraction is not None:
        scheduled = isinstance(method.fraction, Cosine)
        parts["fraction"] = Cosine(options.fraction) if scheduled else options.fraction
    return parts


def n_outputs(dataset: Dataset) -> int:
    """Outputs that a network for the data needs."""
    return dataset.n_classes or 1


def data_order(n_samples: int, seed: int, epoch: int) -> Tensor:
    """Order of the samples in an epoch: decided by seed and epoch alone, so equal for all arms."""
    generator = torch.Generator().manual_seed((seed << 32) + epoch)
    return torch.randperm(n_samples, generator=generator)


def loss_of(output: Tensor, y: Tensor, task: str) -> Tensor:
    """Mean cross-entropy, or mean squared error, of outputs ``[n, outputs]``."""
    if task == "regression":
        return functional.mse_loss(output.squeeze(1), y)
    return functional.cross_entropy(output, y)


def score_of(output: Tensor, y: Tensor, task: str) -> Score:
    """Loss and score of outputs ``[n, outputs]`` against targets ``[n]``.

    R2 of a constant target is 1 for a perfect prediction and 0 for any other.

    Example:
        >>> score_of(torch.tensor([[1.0], [2.0]]), torch.tensor([1.0, 3.0]), "regression")
        Score(loss=0.5, score=0.5)
    """
    loss = loss_of(output, y, task).item()
    if task != "regression":
        return Score(loss, (output.argmax(1) == y).double().mean().item())
    predicted, target = output.squeeze(1).double(), y.double()
    residual = (predicted - target).square().sum().item()
    spread = (target - target.mean()).square().sum().item()
    if spread == 0:
        return Score(loss, float(residual == 0))
    return Score(loss, 1 - residual / spread)
