"""What benchmarks have in common: figures of one layer's rounds, and the file that they go to."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import regrow
from regrow.files import write_json
from regrow.training.machine import describe_machine


def figures(taken: Sequence[tuple[float, float]]) -> dict[str, float]:
    """Milliseconds of the rounds of one layer, each the seconds of a forward and backward pass."""
    forward, backward = ([1e3 * part for part in parts] for parts in zip(*taken, strict=True))
    total = [a + b for a, b in zip(forward, backward, strict=True)]
    return {
        "forward": statistics.median(forward),
        "backward": statistics.median(backward),
        "step": statistics.median(total),
        "best_forward": min(forward),
        "best_backward": min(backward),
        "best_step": min(total),
        "rounds": len(taken),
    }


def write(path: Path | None, settings: dict[str, Any], found: dict[str, Any]) -> None:
    """Write settings, machine, versions and what was found as JSON, where a path is given."""
    if path is None:
        return
    machine = describe_machine()
    about = {
        "machine": {key: machine[key] for key in ("processor", "cores", "kernels")},
        "regrow": regrow.__version__,
        "torch": torch.__version__,
    }
    write_json(path, {**settings, **about, **found})
