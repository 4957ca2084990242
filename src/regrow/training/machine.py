"""The machine a run is on: what it is, how much memory a training took, and settings for a run."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from regrow.kernels.machine import describe_machine

__all__ = ["PeakMemory", "describe_machine", "session"]

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


@contextmanager
def session(threads: int) -> Iterator[None]:
    """Within this context torch computes repeatably, with so many threads.

    Threads, the choice of algorithms and torch's random generator are as before afterwards.
    """
    before = torch.get_num_threads()
    strict = torch.are_deterministic_algorithms_enabled()
    deterministic: Any = torch.utils.deterministic
    fill = deterministic.fill_uninitialized_memory
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    deterministic.fill_uninitialized_memory = False
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.set_num_threads(before)
        torch.use_deterministic_algorithms(strict)
        deterministic.fill_uninitialized_memory = fill


class PeakMemory:
    """Peak memory of a training above what the process held before it; Linux only.

    The peak that the kernel keeps for a process is reset before each epoch, so several trainings
    in one process can be told apart. Pages of program files, which are read in as code is first
    run, are not counted. Make it before the network is built.
    """

    def __init__(self) -> None:
        self._base: int | None = None
        if sys.platform == "linux" and _reset():
            _return_free_memory()
            self._base = _status()["RssAnon"]

    def begin(self) -> None:
        """Forget the peak so far, and what an evaluation left in the heap."""
        if self._base is not None:
            _return_free_memory()
            _reset()

    def read(self) -> int | None:
        """Peak in bytes since `begin`, above the level at the start; None if not known."""
        if self._base is None:
            return None
        now = _status()
        return max(0, now["VmHWM"] - now["RssFile"] - now["RssShmem"] - self._base)


def _reset() -> bool:
    try:
        _CLEAR.write_text("5")
        return "RssAnon" in _status()
    except OSError:
        return False


def _status() -> dict[str, int]:
    """The memory of this process by the kernel's names, in bytes."""
    lines = (line.split() for line in _STATUS.read_text().splitlines())
    return {
        words[0].removesuffix(":"): int(words[1]) * 1024
        for words in lines
        if len(words) == 3 and words[2] == "kB"
    }


def _return_free_memory() -> None:
    """Give freed heap pages back, or a small training after a large one seems to need none."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
