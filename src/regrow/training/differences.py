"""Whether two runs are the same, bit for bit, in all that is not measured time or memory."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from regrow.files import read_json
from regrow.training.checkpoint import read_state

# Measured on a clock, or by the memory of a process: never twice the same.
_MEASURED = {"seconds", "seconds_per_epoch", "peak_bytes", "milliseconds", "reason"}


def differences(first: Path, second: Path) -> list[str]:
    """Compare the checkpoints, metrics, results and topologies of two runs.

    Args:
        first: A run directory.
        second: Another one, or a continued copy.

    Returns:
        What differs, one sentence each; empty if nothing does.
    """
    names = [_files(run_dir) for run_dir in (first, second)]
    found = [f"only one run has {name}" for name in sorted(names[0] ^ names[1])]
    for name in sorted(names[0] & names[1]):
        a, b = _read(first / name), _read(second / name)
        found += [f"{name}: {place} differs" for place in _unequal(a, b, "")]
    return found


def _files(run_dir: Path) -> set[str]:
    patterns = ("metrics.jsonl", "tuning.json", "arms/*/*/*")
    names = {str(p.relative_to(run_dir)) for pattern in patterns for p in run_dir.glob(pattern)}
    # Which older state is kept beside the last depends on where the run was stopped.
    return {n for n in names if Path(n).name not in ("previous.pt", "damaged.pt")}


def _read(path: Path) -> Any:
    if path.suffix == ".pt":
        return read_state(path)
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            return dict(arrays)
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return read_json(path)


def _unequal(a: Any, b: Any, place: str) -> Iterator[str]:
    if type(a) is not type(b):
        yield place or "content"
    elif isinstance(a, Mapping):
        if list(a) != list(b):
            yield f"{place}: the keys"
            return
        for key in a:
            if key not in _MEASURED:
                yield from _unequal(a[key], b[key], f"{place}/{key}")
    elif isinstance(a, Sequence) and not isinstance(a, str):
        if len(a) != len(b):
            yield f"{place}: the length"
            return
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            yield from _unequal(x, y, f"{place}/{i}")
    elif not _same(a, b):
        yield place or "content"


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        a, b = a.numpy(), b.numpy()
    if isinstance(a, np.ndarray):
        return bool(a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes())
    return bool(a == b)
