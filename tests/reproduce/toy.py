"""A recipe that costs nothing, for tests of the frame; workers import it by name."""

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from regrow.reproduce.recipe import (
    Claim,
    Context,
    Figures,
    Outcomes,
    Part,
    Recipe,
    Scale,
    Table,
    part,
    tuned,
)


@dataclass(frozen=True)
class Settings:
    """Where the parts leave traces, and what goes wrong."""

    traces: str = ""
    broken: str = ""
    dies: int | None = None
    sleeps: float = 0.0


def measure(context: Context, rate: float, seed: int) -> Figures:
    """Leave a trace; the best rate is 0.1."""
    settings: Settings = context.settings
    time.sleep(settings.sleeps)
    if seed == 1 and settings.broken and Path(settings.broken).exists():
        raise ValueError(f"seed {seed} is broken")
    if seed == settings.dies:
        os.kill(os.getpid(), signal.SIGKILL)
    with (Path(settings.traces) / f"{rate:g}-{seed}").open("a") as file:
        file.write("x")
    return {"validation": -abs(rate - 0.1), "test": rate + seed}


def parts(settings: Settings, seeds: range, done: Outcomes) -> Iterator[Part]:
    """Tuned, and one part that is alone."""
    yield from tuned(measure, (0.01, 0.1, 1.0), seeds, done)
    yield part(measure, alone=True, rate=0.5, seed=77)


def recipe(settings: Settings, **scale: object) -> Recipe:
    """A recipe with these settings."""
    return Recipe(
        scales={
            "quick": Scale(settings, seeds=2, **scale),  # type: ignore[arg-type]
            "small": Scale(settings, seeds=4, data=("no-such-set.csv",)),
            "paper": Scale(settings, missing="needs a planet of its own"),
        },
        parts=parts,
        claims=lambda settings, done: [
            Claim("rates are chosen by validation", done.final.text("test"), True, "us"),
            Claim("nobody decides this", "a | b", None),
        ],
        tables=lambda settings, done: [Table("toy", ["seed", "test"], [[0, 0.1], [1, "b"]], "n")],
        pictures=lambda settings, done: {"nothing": Figure()},
    )
