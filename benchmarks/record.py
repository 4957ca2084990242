"""What benchmarks have in common: rounds, figures of one layer's rounds, and where they go."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

import regrow
from regrow.files import write_json
from regrow.training.machine import describe_machine

Figures = TypeVar("Figures")


def in_turns(
    work: Mapping[str, Callable[[], Figures]], seconds: float, least: int = 3
) -> dict[str, list[Figures]]:
    """Let all do their work in turns, for so long and so many rounds at least; what each returns.

    So whatever else the machine does meets all of them. Each works twice in its turn, and the
    second time counts: as in training, caches and memory are as it has left them itself.
    """
    found: dict[str, list[Figures]] = {name: [] for name in work}
    end, rounds = time.perf_counter() + seconds, 0
    while time.perf_counter() < end or rounds < least:
        for name, do in work.items():
            do()
            found[name].append(do())
        rounds += 1
    return found


def timed(do: Callable[[], object]) -> Callable[[], float]:
    """The same work, saying how many milliseconds it has taken."""

    def work() -> float:
        start = time.perf_counter()
        do()
        return 1e3 * (time.perf_counter() - start)

    return work


def rewire(evolution: regrow.Evolution) -> None:
    """Update the topology, and build the column order which the step after it would build."""
    assert evolution.step() is not None
    for layer in regrow.sparse_layers(evolution.model).values():
        layer.topology.csc()


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
