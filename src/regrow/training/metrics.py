"""The measurements of a run: one JSON line per arm, seed and epoch, and TensorBoard events."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from regrow.files import write_atomically

Row = dict[str, Any]


class MetricsFile:
    """``metrics.jsonl`` of a run: appended to, and cut back when a run is continued.

    Args:
        path: The file; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, row: Row) -> None:
        """Add a line and bring it to the disk, before any checkpoint that knows of it."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def rows(self, arm: str, seed: int) -> list[Row]:
        """The lines of one arm and seed."""
        return [row for row in self._intact() if (row["arm"], row["seed"]) == (arm, seed)]

    def cut(self, arm: str, seed: int, epoch: int) -> None:
        """Forget what a kill left behind: later epochs of an arm and seed, and torn lines."""
        if not self.path.exists():
            return
        kept = [
            row
            for row in self._intact()
            if (row["arm"], row["seed"]) != (arm, seed) or row["epoch"] <= epoch
        ]
        text = "".join(json.dumps(row, allow_nan=False) + "\n" for row in kept)
        if text != self.path.read_text(encoding="utf-8", errors="replace"):
            write_atomically(self.path, lambda file: file.write(text.encode()))

    def _intact(self) -> Iterator[Row]:
        if not self.path.exists():
            return
        for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                yield json.loads(line)
            except json.JSONDecodeError:
                continue


def tensorboard_writer() -> Any:
    """TensorBoard's writer, or None where the package is not installed; the first call is slow."""
    if find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter


class Events:
    """TensorBoard events of one arm and seed; does nothing where the package is not installed.

    Args:
        folder: Where the event files go.
        first_step: Events from this step on that an earlier process wrote are void.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        writer = tensorboard_writer()
        self._writer: Any = writer and writer(str(folder), purge_step=first_step)

    def add(self, row: Row) -> None:
        """Write the numbers of a metrics line, at its step."""
        if self._writer is None:
            return
        for name, value in row.items():
            if isinstance(value, (int, float)) and name not in ("seed", "epoch", "step"):
                self._writer.add_scalar(name, value, row["step"])
        self._writer.flush()

    def close(self) -> None:
        """Finish the event file."""
        if self._writer is not None:
            self._writer.close()
