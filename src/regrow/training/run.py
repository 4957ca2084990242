"""A whole run: every arm with every seed, in a directory that can be continued after any stop."""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

import regrow
from regrow.data import Dataset, load
from regrow.evolution import methods
from regrow.evolution.starts import STARTS
from regrow.files import read_json, write_json
from regrow.topology.allocation import ALLOCATIONS
from regrow.training.arm import beginning, method_parts, steps_of_an_epoch
from regrow.training.compute import Decisions, decide_compute
from regrow.training.errors import OptionError, RunError, Stopped
from regrow.training.fingerprint import fingerprint
from regrow.training.interrupt import Interruption
from regrow.training.job import JobRunner, epochs_done, is_done, job_folder
from regrow.training.loop import Job
from regrow.training.machine import describe_machine, session
from regrow.training.metrics import tensorboard_writer
from regrow.training.model import DEFAULT_DENSITY, Beginning, build_model, check_model
from regrow.training.options import TrainOptions
from regrow.training.progress import Progress
from regrow.training.table import Results, format_table, read_results
from regrow.training.tune import Tuning

# All that a run killed before its config.json was there can have left; it is begun anew.
_EARLY = {".lock", "dataset.json", ".dataset.json.tmp", ".config.json.tmp"}


@dataclass(frozen=True)
class RunResult:
    """What a finished run left.

    Attributes:
        run_dir: The run directory.
        report: The page that shows it; None where no training came to its end.
        results: By arm, one ``result.json`` for each seed.
        task: ``classification`` or ``regression``.
        diverged: Whether a training was given up because its loss ran away.
    """

    run_dir: Path
    report: Path | None
    results: Results
    task: str
    diverged: bool

    @property
    def table(self) -> str:
        """The results as a table of text."""
        return format_table(self.results, self.task)


def train(
    options: TrainOptions, *, progress: Progress | None = None, command: str | None = None
) -> RunResult:
    """Train every arm of a run with every seed, and write all of it to a run directory.

    Args:
        options: What to train, on what, how.
        progress: Shows the work; default: nothing is shown.
        command: What the user typed, for the report; default: one that means the same.

    Raises:
        OptionError: An option cannot be used.
        DataError: The data cannot be used.
        Stopped: A signal asked for it; `resume` continues.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     options = TrainOptions(epochs=1, learning_rate=0.1, out=folder, threads=1)
        ...     result = train(options)
        >>> result.results["set"][0]["connections"]
        8448
    """
    progress = progress or Progress()
    _check_names(options)
    options = _resolved(options)
    dataset = _load(options)
    check_model(options, dataset)
    run_dir = _new_folder(options)
    with _locked(run_dir):
        config = {
            **options.to_dict(),
            **({} if command is None else {"command": command}),
            "started": datetime.now().astimezone().isoformat(timespec="seconds"),
            "regrow": regrow.__version__,
            "torch": torch.__version__,
            "machine": describe_machine(),
        }
        write_json(run_dir / "dataset.json", _describe(dataset))
        write_json(run_dir / "config.json", config)
        return _Run(run_dir, options, dataset, progress).run()


def resume(
    run_dir: str | os.PathLike[str],
    *,
    threads: int | None = None,
    progress: Progress | None = None,
) -> RunResult:
    """Continue a run where it was left; the result is that of a run that was never stopped.

    Args:
        run_dir: A run directory.
        threads: Default: as many as the run had. Another number may change the last bits.
        progress: Shows the work; default: nothing is shown.

    Raises:
        RunError: It is no run directory, is in use, or is damaged, or its data have changed.
        Stopped: A signal asked for it.
    """
    progress = progress or Progress()
    run_dir = Path(run_dir)
    config = read_config(run_dir)
    options = TrainOptions.from_dict(config)
    if threads is not None:
        options = replace(options, threads=threads)
    _check_names(options)
    with _locked(run_dir):
        dataset = _load(options)
        if read_json(run_dir / "dataset.json") != _describe(dataset):
            raise RunError(f"data of {run_dir} must be as they were when it started; they changed")
        if config["torch"] != torch.__version__:
            progress.note(
                f"the run started with torch {config['torch']} and continues with "
                f"{torch.__version__}, so its last bits may differ"
            )
        return _Run(run_dir, options, dataset, progress).run()


def read_config(run_dir: Path) -> dict[str, Any]:
    """The ``config.json`` of a run directory.

    Raises:
        RunError: There is none, or it cannot be read.
    """
    path = run_dir / "config.json"
    if not path.exists():
        raise RunError(f"run directory must hold a config.json, got none in {run_dir}")
    try:
        config = read_json(path)
    except ValueError as error:
        raise RunError(f"{path} must be JSON ({error})") from error
    if not isinstance(config, dict):
        raise RunError(f"{path} must hold the options of a run, got {type(config).__name__}")
    return config


class _Run:
    """A run directory at work."""

    def __init__(
        self, run_dir: Path, options: TrainOptions, dataset: Dataset, progress: Progress
    ) -> None:
        self.run_dir, self.options, self.dataset = run_dir, options, dataset
        self.progress = progress

    def run(self) -> RunResult:
        """Do what is not done yet, and write the report."""
        assert self.options.threads is not None
        try:
            with session(self.options.threads), Interruption() as interruption:
                self._announce()
                decisions = self._decisions()
                rates = self._learning_rates(decisions, interruption)
                self._jobs(decisions, rates, interruption)
            self.progress.close()
            results = read_results(self.run_dir, self.options)
            report = self._report() if any(results.values()) else None
        except KeyboardInterrupt:
            raise Stopped(self.run_dir, signal.SIGINT) from None
        finally:
            self.progress.close()
        done = sum(map(len, results.values()))
        diverged = done < len(self._folders())
        return RunResult(self.run_dir, report, results, self.dataset.task, diverged)

    def _announce(self) -> None:
        self.progress.note(self.dataset.describe())
        total = steps_of_an_epoch(self.options, self.dataset) * self.options.epochs
        for arm in self.options.arms:
            if arm == "dense":
                continue
            parts = method_parts(self.options, arm, total, self.dataset)
            every = parts.get("every", methods()[arm].every)
            if isinstance(every, int) and every >= total:
                self.progress.note(
                    f"{arm} updates every {every} steps and so not at all in {total}; "
                    f"give a smaller --every"
                )

    def _decisions(self) -> dict[str, Decisions]:
        """Compute of every layer of every arm; measured once in the life of a run."""
        path = self.run_dir / "compute.json"
        if path.exists():
            stored: dict[str, Decisions] = read_json(path)
            return stored
        batch = self.dataset.x_train[: self.options.batch_size]
        decided: dict[str, Decisions] = {}
        for arm in self.options.arms:
            decided[arm] = {}
            for start in self._beginnings(arm):
                model = build_model(self.options, arm, self.dataset, self.options.seed, start)
                found = decide_compute(model, batch, self.options.compute)
                for layer, entries in found.items():
                    decided[arm].setdefault(layer, []).extend(entries)
        write_json(path, decided)
        return decided

    def _beginnings(self, arm: str) -> list[Beginning]:
        """What of an arm is measured: its start, and some densities from there to its end."""
        total = steps_of_an_epoch(self.options, self.dataset) * self.options.epochs
        start = beginning(arm, method_parts(self.options, arm, total, self.dataset))
        if start.density is None:
            return [start]
        end = self.options.density or DEFAULT_DENSITY
        between = math.sqrt(start.density * end)
        return [start, replace(start, density=between), replace(start, density=end)]

    def _learning_rates(
        self, decisions: dict[str, Decisions], interruption: Interruption
    ) -> dict[str, float]:
        options = self.options
        rate = options.learning_rate
        left = sum(
            options.epochs - epochs_done(folder)
            for folder in self._folders().values()
            if not is_done(folder)
        )
        if not isinstance(rate, str):
            self.progress.plan(left)
            return dict.fromkeys(options.arms, rate)
        tuning = Tuning(self.run_dir, options)
        self.progress.plan(left + tuning.epochs_left)
        return tuning.run(self.dataset, decisions, self.progress, interruption)

    def _jobs(
        self,
        decisions: dict[str, Decisions],
        rates: dict[str, float],
        interruption: Interruption,
    ) -> None:
        tensorboard_writer()  # what it takes to load is not to be counted for the first training
        for (arm, seed), folder in self._folders().items():
            if is_done(folder):
                continue
            job = Job(arm, seed, rates[arm], self.options.epochs, decisions[arm])
            JobRunner(
                self.run_dir, self.options, self.dataset, job, self.progress, interruption
            ).run()

    def _folders(self) -> dict[tuple[str, int], Path]:
        return {
            (arm, seed): job_folder(self.run_dir, arm, seed)
            for seed in self.options.all_seeds
            for arm in self.options.arms
        }

    def _report(self) -> Path:
        from regrow.training.report import write_report

        return write_report(self.run_dir)


def _check_names(options: TrainOptions) -> None:
    known = sorted([*methods(), "dense"])
    for arm in options.arms:
        if arm not in known:
            name = "method" if arm == options.method else "compare"
            raise OptionError(name, f"be one of {', '.join(known)}", arm)
    for name, registered in (("allocation", ALLOCATIONS), ("start", STARTS)):
        value = getattr(options, name)
        if value is not None and value not in registered:
            raise OptionError(name, f"be one of {', '.join(registered)}", value)


def _resolved(options: TrainOptions) -> TrainOptions:
    """The options with what depends on the machine and the moment filled in."""
    density = options.density
    if density is None and options.epsilon is None:
        density = DEFAULT_DENSITY
    data = Path(options.data).expanduser()
    folder = options.data_dir or os.environ.get("REGROW_DATA") or None
    name = data.name.split(".")[0]
    out = options.out or f"runs/{name}-{options.method}-{time.strftime('%Y%m%d-%H%M%S')}"
    return replace(
        options,
        density=density,
        data=str(data.resolve()) if data.is_file() else options.data,
        data_dir=str(Path(folder).expanduser().resolve()) if folder else None,
        threads=options.threads or torch.get_num_threads(),
        out=out,
    )


def _load(options: TrainOptions) -> Dataset:
    return load(
        options.data,
        target=options.target,
        task=options.task,
        data_dir=options.data_dir,
        seed=options.seed,
        limit_train=options.limit_train,
        limit_test=options.limit_test,
        context=options.context,
    )


def _describe(dataset: Dataset) -> dict[str, Any]:
    return {**dataset.to_json(), "fingerprint": fingerprint(dataset)}


def _new_folder(options: TrainOptions) -> Path:
    assert options.out is not None
    run_dir = Path(options.out).expanduser()
    if run_dir.exists() and not run_dir.is_dir():
        raise OptionError("out", "be the path of a folder", f"the file {run_dir}")
    if (run_dir / "config.json").exists():
        raise OptionError(
            "out", "be a new folder, or be continued with --resume", f"{run_dir}, which has a run"
        )
    if run_dir.exists() and any(path.name not in _EARLY for path in run_dir.iterdir()):
        raise OptionError("out", "be a new or empty folder", f"{run_dir}, which has files")
    run_dir.mkdir(parents=True, exist_ok=True)
    return run_dir


@contextmanager
def _locked(run_dir: Path) -> Iterator[None]:
    """Keep a second process from writing to the same run; a killed one leaves no lock behind."""
    try:
        import fcntl
    except ImportError:  # Windows has no such lock
        yield
        return
    with (run_dir / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RunError(f"run {run_dir} must not be in use, got one at work on it") from error
        yield
