"""What a run shows while it works: bars on a terminal, lines elsewhere, or nothing."""

from __future__ import annotations

import sys
import time
from typing import Any, TextIO

from regrow.training.metrics import Row


class Progress:
    """Shows nothing; the others build on it.

    A run calls `plan` once, then `start`, `step`, `epoch` and `end` for every training.
    """

    def plan(self, epochs: int) -> None:
        """Say how many epochs all trainings together still have."""

    def start(self, label: str, epochs: int, steps_per_epoch: int, steps_done: int) -> None:
        """Begin a training, or go on with it."""

    def step(self, loss: float) -> None:
        """One optimizer step is done."""

    def epoch(self, row: Row) -> None:
        """An epoch is done and measured; `row` is its metrics line."""

    def skip(self, epochs: int) -> None:
        """Count epochs as done that will not be trained."""

    def end(self) -> None:
        """The training is over."""

    def note(self, text: str) -> None:
        """Show a sentence."""

    def close(self) -> None:
        """The run is over, or stops."""


class LineProgress(Progress):
    """One line an epoch, for logs.

    Args:
        file: Where to write; default: standard error.
    """

    def __init__(self, file: TextIO | None = None) -> None:
        self._file = sys.stderr if file is None else file
        self._label, self._epochs, self._first = "", 0, 0
        self._started = 0.0

    def start(self, label: str, epochs: int, steps_per_epoch: int, steps_done: int) -> None:
        """Remember what the next lines are about."""
        self._label, self._epochs = label, epochs
        self._first = steps_done // steps_per_epoch
        self._started = time.monotonic()

    def epoch(self, row: Row) -> None:
        """Print the line of an epoch."""
        done = row["epoch"] - self._first
        left = (time.monotonic() - self._started) / done * (self._epochs - row["epoch"])
        self.note(
            f"{self._label}: epoch {row['epoch']}/{self._epochs}, loss {row['train_loss']:.4f}, "
            f"validation score {row['validation_score']:.4f}, {_clock(left)} left"
        )

    def note(self, text: str) -> None:
        """Print a sentence."""
        print(text, file=self._file, flush=True)


class BarProgress(Progress):
    """Two bars: the training at work, and the whole run with the time left.

    Args:
        file: A terminal; default: standard error.
    """

    def __init__(self, file: TextIO | None = None) -> None:
        self._file = sys.stderr if file is None else file
        self._run: Any = None
        self._job: Any = None
        self._epochs, self._steps_per_epoch, self._score = 0, 1, ""

    def plan(self, epochs: int) -> None:
        """Open the bar of the run."""
        self._run = self._bar(epochs, "whole run", "epoch", 1)

    def start(self, label: str, epochs: int, steps_per_epoch: int, steps_done: int) -> None:
        """Open the bar of a training."""
        self._epochs, self._steps_per_epoch, self._score = epochs, steps_per_epoch, ""
        self._job = self._bar(epochs * steps_per_epoch, label, "step", 0, initial=steps_done)

    def step(self, loss: float) -> None:
        """Move the bar of the training."""
        epoch = min(self._epochs, self._job.n // self._steps_per_epoch + 1)
        text = f"epoch {epoch}/{self._epochs} loss {loss:.4f}{self._score}"
        self._job.set_postfix_str(text, refresh=False)
        self._job.update()

    def epoch(self, row: Row) -> None:
        """Show the score, and move the bar of the run."""
        self._score = f" score {row['validation_score']:.4f}"
        self.skip(1)

    def skip(self, epochs: int) -> None:
        """Move the bar of the run."""
        if self._run is not None:
            self._run.update(epochs)

    def end(self) -> None:
        """Close the bar of the training."""
        if self._job is not None:
            self._job.close()
            self._job = None

    def note(self, text: str) -> None:
        """Print a sentence above the bars."""
        from tqdm import tqdm

        tqdm.write(text, file=self._file)

    def close(self) -> None:
        """Close both bars."""
        self.end()
        if self._run is not None:
            self._run.close()
            self._run = None

    def _bar(self, total: int, label: str, unit: str, position: int, **more: Any) -> Any:
        from tqdm import tqdm

        return tqdm(
            total=total,
            desc=label,
            unit=unit,
            position=position,
            leave=False,
            file=self._file,
            dynamic_ncols=True,
            **more,
        )


def default_progress(quiet: bool = False) -> Progress:
    """Bars where standard error is a terminal, else lines; nothing if quiet."""
    if quiet:
        return Progress()
    return BarProgress() if sys.stderr.isatty() else LineProgress()


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
