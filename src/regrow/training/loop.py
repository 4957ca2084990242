"""The plain loop: one arm, one seed, one epoch at a time, resumable after every step."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from regrow.data import Dataset
from regrow.evolution import Evolution, Method, methods
from regrow.evolution.schedules import Cosine
from regrow.layers import sparse_layers
from regrow.measure import Exploration
from regrow.topology import Block, NofM
from regrow.training.augment import augmented
from regrow.training.errors import DivergedError, OptionError
from regrow.training.flops import FlopCount
from regrow.training.model import (
    DEFAULT_DENSITY,
    Beginning,
    Decisions,
    build_model,
    fix_compute,
    n_of_m,
    sparse_shapes,
)
from regrow.training.models.images import image_shape
from regrow.training.optimizers import make_optimizer
from regrow.training.options import TrainOptions
from regrow.training.rates import rate_factor

_EVALUATION_BATCH, _EVALUATION_BATCH_OF_IMAGES = 2048, 256
_SCHEDULE_SHARE = 0.75
# By scope, the pattern of a topology that keeps it.
_PATTERNS = {"row": "fan-in", "column": "fan-out"}
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


@dataclass(frozen=True)
class Score:
    """Loss and score on one part of the data.

    Attributes:
        loss: Mean loss.
        score: Accuracy, R2 for regression, or bits per character for text.
        rising: Whether a higher score is a better one.
    """

    loss: float
    score: float
    rising: bool = True

    def better_than(self, other: Score | None) -> bool:
        """Whether the score is better, or equal at a lower loss."""
        return other is None or self._order > other._order

    @property
    def _order(self) -> tuple[float, float]:
        return (self.score if self.rising else -self.score, -self.loss)


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
            fix_compute(self.model, job.decisions)
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
        sparse = sum(layer.topology.nnz for layer in sparse_layers(self.model).values())
        return sparse + self._dense_weights()

    @property
    def dense_connections(self) -> int:
        """Weights that the network would have with every connection."""
        positions = (x.topology.shape.numel() for x in sparse_layers(self.model).values())
        return sum(positions) + self._dense_weights()

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
        self.model.eval()
        mlp = self.options.model == "mlp"
        size = _EVALUATION_BATCH if mlp else _EVALUATION_BATCH_OF_IMAGES
        with torch.inference_mode():
            outputs = [self.model(part) for part in x.split(size)]
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

    def _dense_weights(self) -> int:
        """Weights of layers that are not sparse; a vector is a bias or a norm."""
        return sum(p.numel() for p in self.model.parameters() if p.dim() > 1)

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
        self.flops += len(rows) * (self.flop_count.forward + self.flop_count.backward)
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
        fix_compute(self.model, self.job.decisions)
        if self.evolution.looks_at_gradients:
            self.flops += self.options.batch_size * self.flop_count.dense_gradient


def method_parts(
    options: TrainOptions, arm: str, total_steps: int, dataset: Dataset
) -> dict[str, Any]:
    """Parts of a method that the options, or the length of the training, decide.

    A method without an end of its own updates until the last step but one, since connections grown
    after the last would never be trained. One whose schedule has an end (RigL) gets it at three
    quarters of the training, as its authors did, or at the share that it names. A method that
    changes the density ends with the density of the options, at an update, and n of m are those
    that come nearest to it.

    Args:
        options: The options of the run.
        arm: Name of the method.
        total_steps: Optimizer steps of the whole training.
        dataset: What to learn.

    Raises:
        OptionError: An epsilon for a method that changes the density.
    """
    method = methods().get(arm)
    if method is None or method.every is None:
        return {}
    parts: dict[str, Any] = {"until": _last_update(options, method, total_steps)}
    if options.every is not None:
        parts["every"] = options.every
    if options.start is not None:
        parts["start"] = options.start
    if options.scope is not None:
        parts["scope"] = options.scope
    elif isinstance(method.scope, NofM):
        shapes = sparse_shapes(options, dataset).values()
        parts["scope"] = n_of_m(options.density or DEFAULT_DENSITY, shapes)
    if options.fraction is not None:
        scheduled = isinstance(method.fraction, Cosine)
        parts["fraction"] = Cosine(options.fraction) if scheduled else options.fraction
    density: Any = method.density
    if density is not None:
        if options.epsilon is not None:
            raise OptionError("epsilon", f"be left out for {arm}, which changes its density", "one")
        parts |= _falling(density, options, method, parts, dataset)
    return parts


def _falling(
    density: Any, options: TrainOptions, method: Method, parts: dict[str, Any], dataset: Dataset
) -> dict[str, Any]:
    """A density schedule for this run: it ends with an update, and with the density asked for.

    One that goes up and down does so in tenths of the training, where it is short.
    """
    every = parts.get("every", method.every)
    if every == "epoch":
        every = steps_of_an_epoch(options, dataset)
    until = max(parts["until"] - parts["until"] % every, min(every, parts["until"]))
    density = replace(density, end=options.density or DEFAULT_DENSITY)
    if hasattr(density, "length"):
        density = replace(density, length=max(1, min(density.length, until // 10)))
    return {"until": until, "density": density}


def _last_update(options: TrainOptions, method: Method, total_steps: int) -> int:
    share = options.until
    if share is None and isinstance(method.until, float):
        share = method.until
    if share is None:
        share = 1.0 if method.until is None else _SCHEDULE_SHARE
    return min(total_steps - 1, int(share * total_steps))


def beginning(arm: str, parts: Mapping[str, Any]) -> Beginning:
    """How an arm begins: dense enough and in the form that its method keeps.

    A method that finds its density on the way starts with every connection.

    Args:
        arm: Name of the method, or ``dense``.
        parts: Of the method, as `method_parts` gives them.
    """
    method = methods().get(arm)
    if method is None or not parts:
        return Beginning()
    scope, unit, schedule = parts.get("scope", method.scope), method.unit, parts.get("density")
    pattern = method.pattern
    if pattern == "random" and isinstance(scope, str):
        pattern = _PATTERNS.get(scope, pattern)
    for form in (scope, unit):
        if isinstance(form, (NofM, Block)):
            pattern = form
    if schedule is None:
        return Beginning(None, pattern)
    density = float(schedule(0, parts["until"])) if callable(schedule) else 1.0
    return Beginning(density, pattern)


def steps_of_an_epoch(options: TrainOptions, dataset: Dataset) -> int:
    """Optimizer steps of a pass over the training part."""
    return math.ceil(len(dataset.x_train) / options.batch_size)


def data_order(n_samples: int, seed: int, epoch: int) -> Tensor:
    """Order of the samples in an epoch: decided by seed and epoch alone, so equal for all arms."""
    generator = torch.Generator().manual_seed((seed << 32) + epoch)
    return torch.randperm(n_samples, generator=generator)


def loss_of(output: Tensor, y: Tensor, task: str) -> Tensor:
    """Mean cross-entropy, or mean squared error, of outputs ``[n, outputs]``.

    Text has outputs ``[n, context, characters]`` and targets ``[n, context]``.
    """
    if task == "regression":
        return functional.mse_loss(output.squeeze(1), y)
    if task == "language":
        output, y = output.flatten(0, 1), y.flatten()
    return functional.cross_entropy(output, y)


def score_of(output: Tensor, y: Tensor, task: str) -> Score:
    """Loss and score of outputs against targets, of the shapes that `loss_of` takes.

    R2 of a constant target is 1 for a perfect prediction and 0 for any other.

    Example:
        >>> score_of(torch.tensor([[1.0], [2.0]]), torch.tensor([1.0, 3.0]), "regression")
        Score(loss=0.5, score=0.5, rising=True)
    """
    loss = loss_of(output, y, task).item()
    if task == "language":
        return Score(loss, loss / math.log(2), rising=False)
    if task != "regression":
        return Score(loss, (output.argmax(1) == y).double().mean().item())
    predicted, target = output.squeeze(1).double(), y.double()
    residual = (predicted - target).square().sum().item()
    spread = (target - target.mean()).square().sum().item()
    if spread == 0:
        return Score(loss, float(residual == 0))
    return Score(loss, 1 - residual / spread)
