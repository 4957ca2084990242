"""A learning rate for each arm: the same grid and the same pilot budget for all."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from regrow.data import Dataset
from regrow.files import read_json, write_json
from regrow.training.compute import Decisions
from regrow.training.errors import DivergedError, RunError, Stopped
from regrow.training.interrupt import Interruption
from regrow.training.loop import Job, Trainer
from regrow.training.optimizers import GRIDS
from regrow.training.options import TrainOptions
from regrow.training.progress import Progress
from regrow.training.score import Score


def pilot_epochs(epochs: int) -> int:
    """Epochs of a pilot: a fifth of the training, at least five, at most all of it.

    Example:
        >>> [pilot_epochs(n) for n in (2, 20, 100)]
        [2, 5, 20]
    """
    return min(epochs, max(5, math.ceil(epochs / 5)))


class Tuning:
    """The pilots of a run and what they found, kept in ``tuning.json``.

    Every arm is trained with every learning rate of the optimizer's grid for the same epochs and
    the run's first seed, and gets the one with the best validation score, the lower validation
    loss deciding between equals. The test part is not looked at.

    Args:
        run_dir: The run directory; pilots that it records already are not repeated.
        options: The options of the run.
    """

    def __init__(self, run_dir: Path, options: TrainOptions) -> None:
        self.run_dir, self.options = run_dir, options
        self.path = run_dir / "tuning.json"
        self.grid = GRIDS[options.optimizer]
        self.epochs = pilot_epochs(options.epochs)
        self.scores: dict[str, dict[str, float | None]] = {arm: {} for arm in options.arms}
        self.losses: dict[str, dict[str, float | None]] = {arm: {} for arm in options.arms}
        if self.path.exists():
            stored = read_json(self.path)
            self.scores, self.losses = stored["scores"], stored["losses"]

    @property
    def epochs_left(self) -> int:
        """Pilot epochs that are still to be trained."""
        done = sum(len(scores) for scores in self.scores.values())
        return self.epochs * (len(self.options.arms) * len(self.grid) - done)

    def run(
        self,
        dataset: Dataset,
        decisions: Mapping[str, Decisions],
        progress: Progress,
        interruption: Interruption,
    ) -> dict[str, float]:
        """Train the pilots that are missing; returns the learning rate chosen for each arm.

        Raises:
            RunError: Every learning rate of the grid diverged for an arm.
            Stopped: A signal asked for it.
        """
        for arm in self.options.arms:
            for rate in self.grid:
                if f"{rate:g}" in self.scores[arm]:
                    continue
                job = Job(arm, self.options.seed, rate, self.epochs, decisions[arm])
                score = self._pilot(dataset, job, progress, interruption)
                self.scores[arm][f"{rate:g}"] = score.score if score else None
                self.losses[arm][f"{rate:g}"] = score.loss if score else None
                write_json(self.path, self._record({}))
        rising = dataset.task != "language"
        chosen = {arm: self._best(arm, rising) for arm in self.options.arms}
        write_json(self.path, self._record(chosen))
        return chosen

    def _pilot(
        self, dataset: Dataset, job: Job, progress: Progress, interruption: Interruption
    ) -> Score | None:
        """The validation score after a pilot, or None where it diverged."""

        def on_step(trainer: Trainer, loss: float) -> None:
            progress.step(loss)
            if interruption.requested is not None:
                raise Stopped(self.run_dir, interruption.requested)

        trainer = Trainer(self.options, dataset, job)
        name = f"tuning {job.arm} at {job.learning_rate:g}"
        progress.start(name, job.epochs, trainer.steps_per_epoch, 0)
        score = None
        try:
            while not trainer.finished:
                trainer.train_epoch(on_step)
                progress.skip(1)
            score = trainer.evaluate(dataset.x_validation, dataset.y_validation)
        except DivergedError:
            progress.skip(job.epochs - trainer.epoch)
        finally:
            progress.end()
        found = "diverged" if score is None else f"validation score {score.score:.4f}"
        progress.note(f"{name}: {found} after {trainer.epoch} epochs")
        return score

    def _best(self, arm: str, rising: bool) -> float:
        best: Score | None = None
        chosen = None
        for rate in self.grid:
            score, loss = self.scores[arm][f"{rate:g}"], self.losses[arm][f"{rate:g}"]
            if score is None or loss is None:
                continue
            found = Score(loss, score, rising)
            if found.better_than(best):
                best, chosen = found, rate
        if chosen is None:
            rates = ", ".join(f"{rate:g}" for rate in self.grid)
            raise RunError(
                f"training of {arm} diverged at every learning rate of the grid ({rates}); "
                f"give a smaller --learning-rate"
            )
        return chosen

    def _record(self, chosen: dict[str, float]) -> dict[str, Any]:
        return {
            "grid": list(self.grid),
            "epochs": self.epochs,
            "scores": self.scores,
            "losses": self.losses,
            "chosen": chosen,
        }
