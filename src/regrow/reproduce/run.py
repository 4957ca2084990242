"""Doing the parts of a recipe, several at a time, none twice; and writing down what they found."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

import regrow
from regrow.data import DataError
from regrow.data.sources import read
from regrow.data.text import TEXTS, read_text
from regrow.files import read_json, write_json
from regrow.measure import pictures
from regrow.reproduce.recipe import (
    Context,
    Figures,
    Outcome,
    Outcomes,
    Part,
    Recipe,
    Scale,
)
from regrow.reproduce.systems import recipe_of
from regrow.training.errors import OptionError, Stopped
from regrow.training.interrupt import Interruption
from regrow.training.machine import describe_machine, session

_LOOK = 0.5  # seconds between two looks at what was asked for meanwhile


class Halted(Stopped):
    """Somebody asked a reproduction to stop; finished parts are kept."""

    def __str__(self) -> str:
        return f"stopped; finished parts are kept in {self.run_dir}, the same command continues"


@dataclass(frozen=True)
class Job:
    """What to reproduce, and how.

    Args:
        system: Name of the system.
        scale: ``quick``, ``small`` or ``paper``.
        seeds: How many; default: those of the scale.
        data_dir: Folder of the data; default: ``REGROW_DATA``.
        jobs: Parts at a time; default: as many as there are cores.
        out: Folder that outcome and pictures go to.
        runs: Folder that keeps the finished parts until all are done.
        quiet: Whether to show no progress.
    """

    system: str
    scale: str = "small"
    seeds: int | None = None
    data_dir: str | None = None
    jobs: int | None = None
    out: str = "results"
    runs: str = "runs/reproduce"
    quiet: bool = False


@dataclass(frozen=True)
class Reproduction:
    """What came out.

    Attributes:
        record: What the file holds.
        path: The file.
        pictures: Their files.
    """

    record: dict[str, Any]
    path: Path
    pictures: list[Path]


def reproduce(job: Job) -> Reproduction:
    """Do all parts of a system's recipe and write ``results/NAME.json`` and its pictures.

    Every part has one thread; parts run side by side. A part that was finished before an
    interruption is not done again.

    Raises:
        OptionError: No such system or scale, or it does not work yet.
        DataError: Data or memory are missing.
        Halted: A signal asked for it.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> job = Job("nnstd", "quick", out=folder, runs=f"{folder}/runs", jobs=1, quiet=True)
        >>> reproduce(job).path.name  # doctest: +SKIP
        'nnstd-quick.json'
    """
    recipe, scale = _checked(job)
    folder = job.data_dir or os.environ.get("REGROW_DATA") or None
    _check_data(job, scale, folder)
    context = Context(scale.settings, folder)
    seeds = range(scale.seeds if job.seeds is None else job.seeds)
    started, begin = datetime.now().astimezone(), time.perf_counter()
    workshop = Workshop(job, context, lambda done: list(recipe.parts(scale.settings, seeds, done)))
    done = workshop.run()
    record = {
        "system": job.system,
        "scale": job.scale,
        "command": _command(job),
        "seeds": len(seeds),
        "settings": asdict(scale.settings),
        "started": started.isoformat(timespec="seconds"),
        "seconds": round(time.perf_counter() - begin, 1),
        "seconds_of_parts": round(sum(outcome.seconds for outcome in done), 1),
        "jobs": workshop.jobs,
        "machine": describe_machine(),
        "regrow": regrow.__version__,
        "torch": torch.__version__,
        "commits": sorted({outcome.commit for outcome in done if outcome.commit}),
        "parts": [asdict(outcome) for outcome in done],
    }
    told = _tell(record, recipe, scale, _path(job))
    workshop.clear()
    return told


def redraw(job: Job) -> Reproduction:
    """Make claims, tables and pictures of an outcome anew from its parts; nothing is run.

    For who has changed how a recipe tells what it found.

    Raises:
        OptionError: No such system or scale, or it does not work yet.
        DataError: There is no outcome, or it is one of other settings.
    """
    recipe, scale = _checked(job)
    path = _path(job)
    if not path.exists():
        raise DataError(f"outcome of {job.system} must be in {path}, got no such file")
    record = read_json(path)
    if record["settings"] != json.loads(json.dumps(asdict(scale.settings))):
        raise DataError(f"{path} must be of the settings that the recipe has, got one of others")
    for drawn in record["pictures"]:
        (path.parent / drawn["file"]).unlink(missing_ok=True)
    return _tell(record, recipe, scale, path)


def _tell(record: dict[str, Any], recipe: Recipe, scale: Scale, path: Path) -> Reproduction:
    """Judge and draw what was found, and write it."""
    done, settings = Outcomes([Outcome(**part) for part in record["parts"]]), scale.settings
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn = {
        shows: pictures.save_png(figure, path.with_name(f"{path.stem}-{i}.png"))
        for i, (shows, figure) in enumerate(recipe.pictures(settings, done).items(), start=1)
    }
    record = record | {
        "claims": [asdict(c) | {"verdict": c.verdict} for c in recipe.claims(settings, done)],
        "tables": [asdict(table) for table in recipe.tables(settings, done)],
        "pictures": [{"file": file.name, "shows": shows} for shows, file in drawn.items()],
    }
    write_json(path, record)
    return Reproduction(record, path, list(drawn.values()))


def _checked(job: Job) -> tuple[Recipe, Scale]:
    recipe = recipe_of(job.system)
    if job.scale not in recipe.scales:
        raise OptionError("scale", f"be one of {', '.join(recipe.scales)}", job.scale)
    if job.seeds is not None and job.seeds < 1:
        raise OptionError("seeds", "be a whole number >= 1", job.seeds)
    if job.jobs is not None and job.jobs < 1:
        raise OptionError("jobs", "be a whole number >= 1", job.jobs)
    return recipe, recipe.scales[job.scale]


def _path(job: Job) -> Path:
    name = job.system if job.scale == "small" else f"{job.system}-{job.scale}"
    return Path(job.out).expanduser() / f"{name}.json"


class Workshop:
    """Does parts in processes of their own, and keeps what they found in files.

    Args:
        job: What was asked for.
        context: What parts are called with.
        parts: Gives all parts that can be named, from what is done.
    """

    def __init__(
        self, job: Job, context: Context, parts: Callable[[Outcomes], Sequence[Part]]
    ) -> None:
        self.context, self._parts, self._quiet = context, parts, job.quiet
        self.jobs = job.jobs or os.cpu_count() or 1
        self.folder = Path(job.runs).expanduser() / f"{job.system}-{job.scale}"
        self._bar: Any = None
        self._title = f"{job.system} ({job.scale})"
        self._commit = _commit()

    def run(self) -> Outcomes:
        """Do what is not done yet, in rounds, until no new part is named."""
        self.folder.mkdir(parents=True, exist_ok=True)
        done: dict[str, Outcome] = {}
        with self._progress():
            while True:
                named = {p.key(self.context.settings): p for p in self._parts(_sorted(done))}
                open_parts = {key: p for key, p in named.items() if key not in done}
                if not open_parts:
                    return Outcomes([done[key] for key in named])
                kept = {key: self._kept(key) for key in open_parts}
                done |= {key: outcome for key, outcome in kept.items() if outcome is not None}
                left = {key: p for key, p in open_parts.items() if key not in done}
                self._bar.total = len(named)
                self._bar.update(len(done) - self._bar.n)
                for key, outcome in self._work(left):
                    write_json(self.folder / f"{key}.json", asdict(outcome))
                    done[key] = outcome
                    self._bar.update()

    def clear(self) -> None:
        """Forget the finished parts: the outcome holds them."""
        for path in self.folder.glob("*.json"):
            path.unlink()
        self.folder.rmdir()

    def _work(self, parts: dict[str, Part]) -> Iterator[tuple[str, Outcome]]:
        beside = {key: p for key, p in parts.items() if not p.alone}
        lone = {key: p for key, p in parts.items() if p.alone}
        for some, jobs in ((beside, self.jobs), (lone, 1)):
            if some:
                yield from self._beside(some, jobs) if jobs > 1 else self._here(some)

    def _here(self, parts: dict[str, Part]) -> Iterator[tuple[str, Outcome]]:
        for key, p in parts.items():
            self._bar.set_postfix_str(p.label[:40])
            yield key, self._outcome(p, *_timed(p, self.context))

    def _beside(self, parts: dict[str, Part], jobs: int) -> Iterator[tuple[str, Outcome]]:
        jobs = min(jobs, len(parts))
        pool = ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=_settle)
        waiting: dict[Future[tuple[Figures, float]], str] = {
            pool.submit(_timed, p, self.context): key for key, p in parts.items()
        }
        try:
            with Interruption() as interruption:
                while waiting:
                    ready, _ = wait(waiting, _LOOK, return_when=FIRST_COMPLETED)
                    if interruption.requested is not None:
                        raise Halted(self.folder, interruption.requested)
                    for future in ready:
                        key = waiting.pop(future)
                        yield key, self._outcome(parts[key], *future.result())
        except BrokenProcessPool as error:
            raise RuntimeError(
                f"a process of {self._title} must live until its part is done, got one killed "
                f"(is there memory for {jobs} at a time?); finished parts are kept in {self.folder}"
            ) from error
        except BaseException:
            _give_up(pool)
            raise
        finally:
            pool.shutdown(cancel_futures=True)

    def _outcome(self, p: Part, figures: Figures, seconds: float) -> Outcome:
        return Outcome(p.run.__name__, dict(p.arguments), figures, round(seconds, 2), self._commit)

    def _kept(self, key: str) -> Outcome | None:
        path = self.folder / f"{key}.json"
        return Outcome(**read_json(path)) if path.exists() else None

    @contextmanager
    def _progress(self) -> Iterator[None]:
        self._bar = tqdm(desc=self._title, unit="part", disable=self._quiet, dynamic_ncols=True)
        with self._bar:
            try:
                yield
            except KeyboardInterrupt:
                raise Halted(self.folder, signal.SIGINT) from None


def _sorted(done: dict[str, Outcome]) -> Outcomes:
    return Outcomes(list(done.values()))


def _settle() -> None:
    """Leave it to the parent to stop for a signal, and take one core."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)


def _timed(part: Part, context: Context) -> tuple[Figures, float]:
    begin = time.perf_counter()
    with session(1):
        figures = part.run(context, **part.arguments)
    return figures, time.perf_counter() - begin


def _give_up(pool: ProcessPoolExecutor) -> None:
    """End what is at work."""
    for process in list((pool._processes or {}).values()):
        process.terminate()


def _check_data(job: Job, scale: Scale, folder: str | None) -> None:
    """Refuse before anything has begun what cannot be done here."""
    what = f"scale {job.scale} of {job.system}"
    if scale.missing:
        raise DataError(f"{what} {scale.missing}")
    for source in scale.data:
        try:
            _find(source, folder)
        except (OSError, ValueError) as error:
            raise DataError(f"{what} needs {source}: {error}") from error
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    if scale.memory > there:
        raise DataError(f"{what} needs {scale.memory:g} GiB of memory, got {there:.0f}")


def _find(source: str, folder: str | None) -> None:
    if source in TEXTS:
        read_text(source, Path(folder).expanduser() if folder else None)
    else:
        read(source, data_dir=folder)


def _command(job: Job) -> str:
    words = ["regrow", "reproduce", job.system]
    words += [] if job.scale == "small" else ["--scale", job.scale]
    words += [] if job.seeds is None else ["--seeds", str(job.seeds)]
    return shlex.join(words)


def _commit() -> str | None:
    """Commit that the code is from, with a plus where files have changed since; None if unknown."""
    root = Path(__file__).parents[3]
    if not (root / ".git").exists():
        return None
    git = ["git", "-C", str(root)]
    try:
        head = subprocess.run(
            [*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True
        )
        changed = subprocess.run(
            [*git, "status", "--porcelain", "--", "src", "native"], capture_output=True, text=True
        )
    except OSError:
        return None
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "") or None
