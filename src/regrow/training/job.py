"""One training of a run: measured, checkpointed, and finished with its result."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from regrow.data import Dataset
from regrow.files import write_json
from regrow.training.checkpoint import load_checkpoint, save_checkpoint, write_state
from regrow.training.errors import DivergedError, Stopped
from regrow.training.history import History
from regrow.training.interrupt import Interruption
from regrow.training.loop import Job, Tally, Trainer
from regrow.training.machine import PeakMemory
from regrow.training.metrics import Events, MetricsFile, Row
from regrow.training.options import TrainOptions
from regrow.training.progress import Progress
from regrow.training.result import describe_result
from regrow.training.score import Score


class JobRunner:
    """Trains one arm with one seed to its end, wherever it was left before.

    Args:
        run_dir: The run directory.
        options: The options of the run.
        dataset: What to learn.
        job: Which training this is.
        progress: Shows it.
        interruption: Says when to stop.
    """

    def __init__(
        self,
        run_dir: Path,
        options: TrainOptions,
        dataset: Dataset,
        job: Job,
        progress: Progress,
        interruption: Interruption,
    ) -> None:
        self.run_dir, self.options, self.dataset, self.job = run_dir, options, dataset, job
        self.progress, self.interruption = progress, interruption
        self.folder = job_folder(run_dir, job.arm, job.seed)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.metrics = MetricsFile(run_dir / "metrics.jsonl")
        self.memory = PeakMemory()
        state = load_checkpoint(self.folder)
        self.trainer = Trainer(options, dataset, job, state)
        if state is None:
            self.history = History.begin(self.trainer)
        else:
            self.history = History.from_state(state["history"])
        self.metrics.cut(job.arm, job.seed, self.trainer.epoch)

    def run(self) -> None:
        """Train, and write ``result.json``, or ``diverged.json`` where the loss ran away.

        Raises:
            Stopped: A signal asked for it; the state is saved.
        """
        trainer = self.trainer
        name = f"{self.job.arm} seed {self.job.seed}"
        done = trainer.steps
        self.progress.start(name, self.job.epochs, trainer.steps_per_epoch, done)
        events = Events(self._events_folder(), trainer.steps + 1)
        try:
            while not trainer.finished:
                self._epoch(events)
        except DivergedError as error:
            write_json(
                self.folder / "diverged.json",
                {
                    "arm": self.job.arm,
                    "seed": self.job.seed,
                    "epoch": error.epoch,
                    "learning_rate": self.job.learning_rate,
                    "reason": str(error),
                },
            )
            self.progress.note(f"{error}; try a smaller --learning-rate")
            self.progress.skip(self.job.epochs - trainer.epoch)
        else:
            self._finish()
        finally:
            events.close()
            self.progress.end()

    def _epoch(self, events: Events) -> None:
        self.memory.begin()
        measured: list[Score] = []

        def measure() -> Score:
            measured.extend(self._measure())
            return measured[0]

        tally = self.trainer.train_epoch(self._after_step, measure)
        self.history.saw_peak(self._peak())
        row = self._row(tally, *measured)
        self.metrics.append(row)
        self._save()
        events.add(row)
        self.progress.epoch(row)
        self._stop_if_asked()

    def _measure(self) -> tuple[Score, Score]:
        """Scores on the validation and test part; keeps the network if it is the best so far."""
        trainer, dataset = self.trainer, self.dataset
        self.history.saw_peak(self._peak())
        with trainer.judged():
            validation = trainer.evaluate(dataset.x_validation, dataset.y_validation)
            test = trainer.evaluate(dataset.x_test, dataset.y_test)
            if self.history.saw_epoch(trainer, validation, test):
                best = {"epoch": trainer.epoch, "model": trainer.model.state_dict()}
                write_state(self.folder / "best.pt", best)
        self.memory.begin()  # the update that follows counts, the evaluation does not
        return validation, test

    def _peak(self) -> int | None:
        """Peak memory of the epoch, without the marks of the exploration rate."""
        peak, exploration = self.memory.read(), self.trainer.exploration
        if peak is None or exploration is None:
            return peak
        return max(0, peak - exploration.nbytes)

    def _after_step(self, trainer: Trainer, loss: float) -> None:
        self.progress.step(loss)
        if trainer.tally.batches == trainer.steps_per_epoch:
            return  # the end of the epoch saves, after it has measured
        every = self.options.checkpoint_every
        due = every is not None and trainer.steps % every == 0
        if due or self.interruption.requested is not None:
            self._save()
        self._stop_if_asked()

    def _stop_if_asked(self) -> None:
        if self.interruption.requested is not None:
            raise Stopped(self.run_dir, self.interruption.requested)

    def _save(self) -> None:
        state = self.trainer.state_dict()
        state["history"] = self.history.state_dict()
        save_checkpoint(self.folder, state)

    def _row(self, tally: Tally, validation: Score, test: Score) -> Row:
        exploration = self.trainer.exploration
        return {
            "arm": self.job.arm,
            "seed": self.job.seed,
            "epoch": self.trainer.epoch,
            "step": self.trainer.steps,
            "train_loss": tally.loss / tally.samples,
            "validation_loss": validation.loss,
            "validation_score": validation.score,
            "test_loss": test.loss,
            "test_score": test.score,
            "seconds": tally.seconds,
            "learning_rate": self.trainer.learning_rate,
            "connections": self.trainer.connections,
            "flops": self.trainer.flops,
            "exploration": exploration.total() if exploration else None,
            "dropped": tally.dropped,
            "grown": tally.grown,
        }

    def _finish(self) -> None:
        rows = self.metrics.rows(self.job.arm, self.job.seed)
        history = self.history
        result: dict[str, Any] = {
            "arm": self.job.arm,
            "seed": self.job.seed,
            "epochs": self.job.epochs,
            "learning_rate": self.job.learning_rate,
            "test_score": rows[-1]["test_score"],
            "test_loss": rows[-1]["test_loss"],
            "best_epoch": history.best_epoch,
            "test_score_at_best": history.best_test,
            "peak_bytes": history.peak_bytes,
            "seconds_per_epoch": statistics.median(row["seconds"] for row in rows),
            **describe_result(self.trainer),
        }
        history.write_topology(self.folder / "topology.npz", self.trainer)
        write_json(self.folder / "result.json", result)

    def _events_folder(self) -> Path:
        return self.run_dir / "tensorboard" / self.job.arm / f"seed-{self.job.seed}"


def job_folder(run_dir: Path, arm: str, seed: int) -> Path:
    """Folder of one arm and seed in a run directory."""
    return run_dir / "arms" / arm / f"seed-{seed}"


def is_done(folder: Path) -> bool:
    """Whether the training of a folder has come to its end, good or bad."""
    return (folder / "result.json").exists() or (folder / "diverged.json").exists()


def epochs_done(folder: Path) -> int:
    """Epochs that the newest intact checkpoint of a folder holds."""
    state = load_checkpoint(folder)
    return 0 if state is None else int(state["epoch"])
