"""A run directory as it is found: finished, unfinished, or with parts missing."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from regrow.training.errors import RunError

Row = Mapping[str, Any]
Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation over seeds.

    Args:
        mean: Mean of the finite values.
        deviation: Their sample standard deviation; None for a single value.
        count: How many there are.
    """

    mean: float
    deviation: float | None
    count: int

    @staticmethod
    def of(values: Iterable[Any]) -> Spread | None:
        """Summarise the finite numbers among some values; None if there are none.

        Example:
            >>> Spread.of([1.0, 3.0, None, float("nan")])
            Spread(mean=2.0, deviation=1.4142135623730951, count=2)
        """
        finite = [number for number in map(as_number, values) if number is not None]
        if not finite:
            return None
        deviation = statistics.stdev(finite) if len(finite) > 1 else None
        return Spread(statistics.fmean(finite), deviation, len(finite))


@dataclass(frozen=True)
class Training:
    """One arm with one seed.

    Args:
        arm: Name of the arm.
        seed: Seed.
        rows: Its lines of the metrics, one per epoch, in order.
        result: Its result, empty while it has not finished.
        diverged: Why it was given up, empty if it was not.
        arrays: Its degree vectors, values and input map, empty if there are none.
    """

    arm: str
    seed: int
    rows: tuple[Row, ...] = ()
    result: Row = field(default_factory=dict)
    diverged: Row = field(default_factory=dict)
    arrays: Arrays = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        """Whether it has a result."""
        return bool(self.result)

    @property
    def done(self) -> bool:
        """Whether it has come to an end, good or bad."""
        return bool(self.result or self.diverged)

    def get(self, key: str) -> float | None:
        """A number of the result, or what the metrics say so far; None if unknown."""
        if self.result:
            return as_number(self.result.get(key))
        if key == "seconds_per_epoch":
            seconds = [as_number(row.get("seconds")) for row in self.rows]
            known = [value for value in seconds if value is not None]
            return statistics.median(known) if known else None
        return as_number(self.rows[-1].get(key)) if self.rows else None

    def column(self, key: str) -> list[float]:
        """A column of the metrics, not a number where it is missing."""
        numbers = [as_number(row.get(key)) for row in self.rows]
        return [math.nan if number is None else number for number in numbers]

    @property
    def layers(self) -> list[Row]:
        """The layers of its result."""
        found = self.result.get("layers")
        return [layer for layer in found if isinstance(layer, dict)] if found else []

    @property
    def paths(self) -> list[str]:
        """Paths of the sparse layers with degree vectors, in the order of the model."""
        ending = "/end_in"
        return [key.removesuffix(ending) for key in self.arrays if key.endswith(ending)]

    @property
    def moved(self) -> bool:
        """Whether its connections are elsewhere at the end than at the start."""
        found = self.arrays
        return any(
            not np.array_equal(found[f"{path}/start_{kind}"], found[f"{path}/end_{kind}"])
            for path in self.paths
            for kind in ("in", "out")
            if f"{path}/start_{kind}" in found and f"{path}/end_{kind}" in found
        )

    @property
    def evolves(self) -> bool:
        """Whether connections were ever replaced."""
        return any(as_number(row.get("grown")) for row in self.rows)


@dataclass(frozen=True)
class Run:
    """Everything that a run directory holds.

    Args:
        folder: The run directory.
        config: Its resolved options and machine.
        dataset: What was learned.
        tuning: Learning rates that were tried, empty if one was given.
        arms: Names of the arms, the main one first.
        trainings: All of them, by arm in that order and by seed.
        expected: How many trainings the options ask for.
        problems: Sentences about files that could not be read.
    """

    folder: Path
    config: Row
    dataset: Row
    tuning: Row
    arms: tuple[str, ...]
    trainings: tuple[Training, ...]
    expected: int
    problems: tuple[str, ...]

    @property
    def main(self) -> str:
        """The arm that the run is about."""
        return self.arms[0] if self.arms else ""

    @property
    def twin(self) -> str | None:
        """The dense arm beside the main one, if it has been trained at all."""
        return "dense" if self.main != "dense" and self.of("dense") else None

    @property
    def task(self) -> str:
        """What is learned; classification if it is not known."""
        return str(self.dataset.get("task", "classification"))

    @property
    def classifies(self) -> bool:
        """Whether the score is an accuracy; otherwise it is R squared or bits per character."""
        return self.task not in ("regression", "language")

    @property
    def rising(self) -> bool:
        """Whether a higher score is a better one."""
        return self.task != "language"

    @property
    def n_done(self) -> int:
        """How many trainings have come to an end."""
        return sum(training.done for training in self.trainings)

    @property
    def finished(self) -> bool:
        """Whether every training asked for has come to an end."""
        return self.n_done >= max(self.expected, 1)

    @property
    def started(self) -> datetime:
        """When it started, as written in its options, else the age of the file."""
        for key in ("started", "date", "created"):
            try:
                return datetime.fromisoformat(str(self.config.get(key)))
            except ValueError:
                continue
        return datetime.fromtimestamp((self.folder / "config.json").stat().st_mtime, tz=UTC)

    def of(self, arm: str) -> list[Training]:
        """The trainings of an arm that have begun, by seed."""
        return [training for training in self.trainings if training.arm == arm]

    def spread(self, arm: str, key: str) -> Spread | None:
        """A number of an arm over its seeds: the finished ones, or all while none has finished."""
        trainings = self.of(arm)
        finished = [training for training in trainings if training.finished]
        return Spread.of(training.get(key) for training in finished or trainings)

    def mean(self, arm: str, key: str) -> float | None:
        """The mean of a number of an arm over its seeds."""
        found = self.spread(arm, key)
        return found.mean if found else None


def read_run(folder: Path) -> Run:
    """Read a run directory, whatever state it is in.

    Args:
        folder: The run directory; it must hold a ``config.json``.

    Returns:
        What it holds; files that cannot be read are told of and treated as missing.

    Raises:
        RunError: The folder is no run directory.
    """
    if not (folder / "config.json").is_file():
        raise RunError(f"regrow report needs a run directory; {folder} has no config.json")
    problems: list[str] = []
    config = _object(folder / "config.json", problems)
    rows = _metrics(folder / "metrics.jsonl", problems)
    trainings = _trainings(folder, rows, problems)
    asked = [config.get("method"), *(config.get("compare") or ())]
    names = [name for name in asked if isinstance(name, str)]
    order = tuple(dict.fromkeys([*names, *(training.arm for training in trainings)]))
    seeds = config.get("seeds", 1)
    count = len(seeds) if isinstance(seeds, list) else int(as_number(seeds) or 1)
    return Run(
        folder=folder,
        config=config,
        dataset=_object(folder / "dataset.json", problems),
        tuning=_object(folder / "tuning.json", problems, needed=False),
        arms=order,
        trainings=tuple(sorted(trainings, key=lambda t: (order.index(t.arm), t.seed))),
        expected=max(count * len(names), len(trainings)),
        problems=tuple(problems),
    )


def as_number(value: Any) -> float | None:
    """A finite number as a float, None for everything else.

    Example:
        >>> as_number(3), as_number(float("inf")), as_number("3"), as_number(True)
        (3.0, None, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) else None


def _object(path: Path, problems: list[str], *, needed: bool = True) -> dict[str, Any]:
    if not needed and not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        content = None
    if isinstance(content, dict):
        return content
    problems.append(f"{path.name} could not be read.")
    return {}


def _metrics(path: Path, problems: list[str]) -> list[Row]:
    """The intact lines; of an epoch that was repeated after a resume, the last."""
    if not path.exists():
        return []
    found: dict[tuple[str, int, int], Row] = {}
    torn = 0
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
            found[str(row["arm"]), int(row["seed"]), int(row["epoch"])] = row
        except (ValueError, KeyError, TypeError):
            torn += 1
    if torn:
        problems.append(f"{torn} line(s) of metrics.jsonl could not be read.")
    return list(found.values())


def _trainings(folder: Path, rows: list[Row], problems: list[str]) -> list[Training]:
    places = {(str(row["arm"]), int(row["seed"])) for row in rows}
    for place in folder.glob("arms/*/seed-*"):
        number = place.name.removeprefix("seed-")
        ended = any((place / name).exists() for name in ("result.json", "diverged.json"))
        if number.isdigit() and ended:
            places.add((place.parent.name, int(number)))
    trainings = []
    for arm, seed in sorted(places):
        place = folder / "arms" / arm / f"seed-{seed}"
        mine = [row for row in rows if (row["arm"], row["seed"]) == (arm, seed)]
        trainings.append(
            Training(
                arm=arm,
                seed=seed,
                rows=tuple(sorted(mine, key=lambda row: int(row["epoch"]))),
                result=_object(place / "result.json", problems, needed=False),
                diverged=_object(place / "diverged.json", problems, needed=False),
                arrays=_arrays(place / "topology.npz", problems),
            )
        )
    return trainings


def _arrays(path: Path, problems: list[str]) -> dict[str, NDArray[Any]]:
    if not path.exists():
        return {}
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}
    except (OSError, ValueError, EOFError, BadZipFile):
        problems.append(f"{path.relative_to(path.parents[3])} could not be read.")
        return {}
