"""What can go wrong in a run, each with its one sentence."""

from __future__ import annotations

from pathlib import Path


class OptionError(ValueError):
    """An option that cannot be used, told as: name, what it must be, what it is.

    Args:
        name: Name of the option as in `TrainOptions`.
        must: What it must be, to follow "must".
        got: The value given.

    Example:
        >>> print(OptionError("epochs", "be a whole number >= 1", 0))
        epochs must be a whole number >= 1, got 0
    """

    def __init__(self, name: str, must: str, got: object) -> None:
        super().__init__(name, must, got)
        self.name, self.must, self.got = name, must, got

    def __str__(self) -> str:
        shown = self.got if isinstance(self.got, str) else _plain(self.got)
        return f"{self.name} must {self.must}, got {shown}"


class RunError(ValueError):
    """A run directory that cannot be read, written or continued."""


class DivergedError(ArithmeticError):
    """The loss of a training is no longer finite.

    Args:
        arm: Name of the arm.
        epoch: Epoch, counted from 1, in which it happened.
        learning_rate: Learning rate of the training.
    """

    def __init__(self, arm: str, epoch: int, learning_rate: float) -> None:
        super().__init__(arm, epoch, learning_rate)
        self.arm, self.epoch, self.learning_rate = arm, epoch, learning_rate

    def __str__(self) -> str:
        return (
            f"training of {self.arm} diverged in epoch {self.epoch} "
            f"at learning rate {self.learning_rate:g}"
        )


class Stopped(Exception):  # noqa: N818 - not an error: somebody asked for it
    """A run was asked to stop and has saved where it was.

    Args:
        run_dir: The run directory to continue from.
        signal_number: The signal that asked (2 for Ctrl-C).
    """

    def __init__(self, run_dir: Path, signal_number: int) -> None:
        super().__init__(run_dir, signal_number)
        self.run_dir, self.signal_number = run_dir, signal_number

    def __str__(self) -> str:
        return f"stopped; continue with: regrow train --resume {self.run_dir}"


def _plain(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return " ".join(str(entry) for entry in value) or "nothing"
    return str(value)
