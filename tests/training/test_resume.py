"""Stopped and continued is the same as never stopped, bit for bit."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from regrow.training import Progress, RunError, Stopped, TrainOptions, resume, train
from regrow.training.checkpoint import read_state
from regrow.training.differences import differences

from .conftest import Crash, CrashAt, Make

STEPS = 6 * 3


def crash_and_resume(options: TrainOptions, *steps: int) -> Path:
    """Run, crash so many steps on, resume, crash again, ..., and come to the end."""
    work: Callable[[Progress], object] = lambda progress: train(options, progress=progress)  # noqa: E731
    assert options.out is not None
    for step in steps:
        with pytest.raises(Crash):
            work(CrashAt(step))
        work = lambda progress: resume(options.out or "", progress=progress)  # noqa: E731
    work(Progress())
    return Path(options.out)


def undisturbed(options: TrainOptions) -> Path:
    return train(options).run_dir


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("method", ["set", "rigl", "static", "dense"])
def test_resume_at_a_random_step(make_options: Make, method: str, optimizer: str) -> None:
    common = {
        "method": method,
        "optimizer": optimizer,
        "learning_rate": 0.05 if optimizer == "sgd" else 0.003,
        "dropout": 0.2,
        "every": 4,
        "checkpoint_every": 1,
    }
    whole = undisturbed(make_options("whole", **common))
    step = random.Random(f"{method} {optimizer}").randrange(2, STEPS)
    parts = crash_and_resume(make_options("parts", **common), step)
    assert differences(whole, parts) == []
    if method in ("set", "rigl"):
        rows = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
        assert sum(row["dropped"] for row in rows) > 0
        assert all(row["dropped"] == row["grown"] for row in rows)


@pytest.mark.parametrize("optimizer", ["adamw", "rmsprop", "adagrad", "local-age-adam", "snt-asgd"])
def test_resume_with_the_other_optimizers(make_options: Make, optimizer: str) -> None:
    common = {"optimizer": optimizer, "learning_rate": 0.003, "checkpoint_every": 5}
    whole = undisturbed(make_options("whole", **common))
    assert differences(whole, crash_and_resume(make_options("parts", **common), 8)) == []


def test_resume_with_checkpoints_at_epochs_only(make_options: Make) -> None:
    whole = undisturbed(make_options("whole"))
    parts = crash_and_resume(make_options("parts"), 1, 4, 10, 12)
    assert differences(whole, parts) == []


def test_twins_seeds_and_tuning_resume(make_options: Make) -> None:
    common = {"compare": ["dense"], "seeds": 2, "learning_rate": "auto", "epochs": 1}
    whole = undisturbed(make_options("whole", **common))
    # 10 pilots of 6 steps, then 4 trainings of 6 steps.
    parts = crash_and_resume(make_options("parts", **common), 20, 45, 8, 4)
    assert differences(whole, parts) == []
    tuning = json.loads((parts / "tuning.json").read_text())
    assert tuning["chosen"].keys() == {"set", "dense"}


def test_finished_trainings_are_not_repeated(make_options: Make) -> None:
    run_dir = undisturbed(make_options(compare=["static"]))
    before = {path: path.stat().st_mtime_ns for path in run_dir.glob("arms/*/*/*")}
    result = resume(run_dir, progress=CrashAt(1))
    assert {path: path.stat().st_mtime_ns for path in run_dir.glob("arms/*/*/*")} == before
    assert set(result.results) == {"set", "static"}


def test_damaged_last_checkpoint(make_options: Make) -> None:
    whole = undisturbed(make_options("whole"))
    options = make_options("parts")
    with pytest.raises(Crash):
        train(options, progress=CrashAt(15))
    folder = Path(options.out or "") / "arms" / "set" / "seed-0"
    assert read_state(folder / "last.pt")["epoch"] == 2
    os.truncate(folder / "last.pt", 1000)
    resume(options.out or "")
    assert differences(whole, Path(options.out or "")) == []


def test_lines_that_the_checkpoint_does_not_know_are_dropped(make_options: Make) -> None:
    whole = undisturbed(make_options("whole"))
    options = make_options("parts")
    with pytest.raises(Crash):
        train(options, progress=CrashAt(8))
    metrics = Path(options.out or "") / "metrics.jsonl"
    line = json.loads(metrics.read_text())
    metrics.write_text(metrics.read_text() + json.dumps({**line, "epoch": 2}) + '\n{"arm": "s')
    resume(options.out or "")
    assert differences(whole, Path(options.out or "")) == []


def test_input_maps_survive(make_options: Make) -> None:
    parts = crash_and_resume(make_options("parts"), 8)
    with np.load(parts / "arms" / "set" / "seed-0" / "topology.npz") as arrays:
        assert arrays["hidden1/input_map"].shape == (4, 64)
        assert arrays["hidden1/input_map_epochs"].tolist() == [0, 1, 2, 3]
        assert (arrays["hidden1/input_map"][0] == arrays["hidden1/start_out"]).all()
        assert (arrays["hidden1/input_map"][-1] == arrays["hidden1/end_out"]).all()
        assert arrays["hidden1/end_in"].sum() == len(arrays["hidden1/values"])


def test_what_auto_chose_is_kept(make_options: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    options = make_options(compute="auto")
    with pytest.raises(Crash):
        train(options, progress=CrashAt(8))
    chosen = json.loads((Path(options.out or "") / "compute.json").read_text())["set"]

    def refuse(*_: object) -> None:
        raise AssertionError("a run must not measure twice")

    monkeypatch.setattr("regrow.training.run.decide_compute", refuse)
    layers = resume(options.out or "").results["set"][0]["layers"]
    for layer in layers:
        assert layer["compute"] == chosen[layer["path"]][0]["compute"]
        assert layer["reason"] == chosen[layer["path"]][0]["reason"]


def test_other_threads_are_allowed(make_options: Make) -> None:
    options = make_options()
    with pytest.raises(Crash):
        train(options, progress=CrashAt(8))

    class Threads(Progress):
        def step(self, loss: float) -> None:
            assert torch.get_num_threads() == 2

    resume(options.out or "", threads=2, progress=Threads())


def test_changed_data_are_refused(make_options: Make, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    lines = [f"{i},{i % 7},{i % 2}" for i in range(60)]
    table.write_text("\n".join(["a,b,y", *lines]))
    options = make_options(data=str(table), target="y", limit_train=None, limit_test=None)
    run_dir = undisturbed(options)
    table.write_text("\n".join(["a,b,y", *lines]).replace("3,3,1", "3,4,1"))
    with pytest.raises(RunError) as caught:
        resume(run_dir)
    assert str(caught.value) == (
        f"data of {run_dir} must be as they were when it started; they changed"
    )


def test_resume_needs_a_run(tmp_path: Path) -> None:
    with pytest.raises(RunError) as caught:
        resume(tmp_path / "nowhere")
    assert str(caught.value) == (
        f"run directory must hold a config.json, got none in {tmp_path}/nowhere"
    )
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(RunError, match="must be JSON"):
        resume(tmp_path)


def test_a_run_in_use_is_refused(make_options: Make) -> None:
    fcntl = pytest.importorskip("fcntl")
    run_dir = undisturbed(make_options(epochs=1))
    with (run_dir / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(RunError) as caught:
            resume(run_dir)
    assert str(caught.value) == f"run {run_dir} must not be in use, got one at work on it"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_saves_the_step_and_stops(make_options: Make, number: signal.Signals) -> None:
    class Signal(CrashAt):
        def step(self, loss: float) -> None:
            self.left -= 1
            if self.left == 0:
                signal.raise_signal(number)

    whole = undisturbed(make_options("whole"))
    options = make_options("parts")
    with pytest.raises(Stopped) as caught:
        train(options, progress=Signal(9))
    assert str(caught.value) == f"stopped; continue with: regrow train --resume {options.out}"
    assert caught.value.signal_number == number
    run_dir = Path(options.out or "")
    assert read_state(run_dir / "arms" / "set" / "seed-0" / "last.pt")["steps"] == 9
    resume(run_dir)
    assert differences(whole, run_dir) == []


def test_settings_of_torch_are_given_back(make_options: Make) -> None:
    threads = torch.get_num_threads()
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    train(make_options(epochs=1))
    assert torch.equal(torch.rand(2), expected)
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.skipif(os.name == "nt", reason="there is no SIGKILL")
def test_sigkill_and_resume(make_options: Make) -> None:
    common = {"epochs": 40, "checkpoint_every": 3, "method": "rigl", "every": 5}
    whole = undisturbed(make_options("whole", **common))
    options = make_options("killed", **common)
    run_dir = Path(options.out or "")
    code = (
        "import json, sys; from regrow.training import TrainOptions, train; "
        "train(TrainOptions(**json.loads(sys.argv[1])))"
    )
    command = [sys.executable, "-c", code, json.dumps(options.to_dict())]
    process = subprocess.Popen(command)
    metrics = run_dir / "metrics.jsonl"
    while process.poll() is None:
        if metrics.exists() and metrics.read_text().count("\n") >= 3:
            process.kill()
            break
        time.sleep(0.002)
    assert process.wait() == -signal.SIGKILL
    resume(run_dir)
    assert differences(whole, run_dir) == []
