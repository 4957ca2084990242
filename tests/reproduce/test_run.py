"""The frame: every part once, side by side or not, and nothing lost when something stops it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from regrow.data import DataError
from regrow.files import read_json
from regrow.reproduce import run as frame
from regrow.reproduce.recipe import TRIAL, Outcome, Outcomes, part, tuned
from regrow.reproduce.run import Job, redraw, reproduce
from regrow.reproduce.show import held, markdown, text
from regrow.training.errors import OptionError

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # workers import the toy by its name

import toy  # noqa: E402

TRACES = {"0.01-10000", "0.1-10000", "1-10000", "0.1-0", "0.1-1", "0.5-77"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "traces").mkdir()
    return tmp_path


def play(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    jobs: int = 1,
    scale: str = "quick",
    **more: Any,
) -> frame.Reproduction:
    settings = toy.Settings(str(folder / "traces"), **more)
    monkeypatch.setattr(frame, "recipe_of", lambda name: toy.recipe(settings))
    job = Job("toy", scale, jobs=jobs, out=str(folder), runs=str(folder / "runs"), quiet=True)
    return reproduce(job)


@pytest.mark.parametrize("jobs", [1, 2])
def test_every_part_is_done_once_and_later_ones_know_of_earlier_ones(
    folder: Path, monkeypatch: pytest.MonkeyPatch, jobs: int
) -> None:
    done = play(folder, monkeypatch, jobs=jobs)
    traces = {path.name: path.read_text() for path in (folder / "traces").iterdir()}
    assert traces == dict.fromkeys(TRACES, "x")
    record = read_json(done.path)
    assert done.path.name == "toy-quick.json"
    assert [part["arguments"]["rate"] for part in record["parts"]].count(0.1) == 3
    assert record["seeds"] == 2
    assert record["settings"]["dies"] is None
    assert [path.name for path in done.pictures] == ["toy-quick-1.png"]
    assert not (folder / "runs" / "toy-quick").exists()


@pytest.mark.parametrize("jobs", [1, 2])
def test_finished_parts_survive_a_failure(
    folder: Path, monkeypatch: pytest.MonkeyPatch, jobs: int
) -> None:
    (folder / "broken").touch()
    with pytest.raises(ValueError, match="seed 1 is broken"):
        play(folder, monkeypatch, jobs=jobs, broken=str(folder / "broken"))
    kept = {path.name for path in (folder / "traces").iterdir()}
    assert kept >= {name for name in TRACES if name.endswith("10000")}
    (folder / "broken").unlink()
    done = play(folder, monkeypatch, jobs=jobs, broken=str(folder / "broken"))
    traces = {path.name: path.read_text() for path in (folder / "traces").iterdir()}
    assert set(traces) == TRACES
    assert [name for name, trace in traces.items() if trace != "x"] in ([], ["0.1-0"])
    assert len(done.record["parts"]) == len(TRACES)


def test_a_killed_worker_is_told_in_a_sentence(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RuntimeError, match=r"must live until its part is done, got one killed"):
        play(folder, monkeypatch, jobs=2, dies=0)


def test_what_is_missing_is_said_before_anything_begins(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match="scale paper of toy needs a planet of its own"):
        play(folder, monkeypatch, scale="paper")
    with pytest.raises(DataError, match=r"scale small of toy needs no-such-set.csv: .*"):
        play(folder, monkeypatch, scale="small")
    monkeypatch.setattr(frame, "recipe_of", lambda name: toy.recipe(toy.Settings(), memory=1e6))
    with pytest.raises(DataError, match=r"needs 1e\+06 GiB of memory, got"):
        reproduce(Job("toy", "quick", quiet=True))
    assert not list((folder / "traces").iterdir())


@pytest.mark.parametrize(
    ("job", "message"),
    [
        (Job("toys"), "NAME must be one of .*itop.*, got toys"),
        (Job("seft"), "NAME must be a system that works today, one of .*, got seft"),
        (Job("itop", "large"), "scale must be one of quick, small, paper, got large"),
        (Job("itop", seeds=0), "seeds must be a whole number >= 1, got 0"),
        (Job("itop", jobs=-1), "jobs must be a whole number >= 1, got -1"),
    ],
)
def test_bad_input(job: Job, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        reproduce(job)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_and_the_same_command_continues(folder: Path, number: int) -> None:
    code = f"""
import sys
sys.path.insert(0, {str(HERE)!r})
import toy
from regrow.reproduce import run as frame
if __name__ == "__main__":
    settings = toy.Settings({str(folder / "traces")!r}, sleeps=0.2)
    frame.recipe_of = lambda name: toy.recipe(settings)
    from regrow import cli
    sys.exit(cli.main(["reproduce", "toy", "--scale", "quick", "--jobs", "2", "--quiet",
                       "--seeds", "30", "--out", {str(folder)!r},
                       "--runs", {str(folder / "runs")!r}]))
"""
    program = folder / "program.py"
    program.write_text(code)
    command = [sys.executable, str(program)]
    stopped = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    parts = folder / "runs" / "toy-quick"
    patience = time.monotonic() + 120
    while len(list(parts.glob("*.json"))) < 6 and time.monotonic() < patience:
        time.sleep(0.02)
    stopped.send_signal(number)
    _, said = stopped.communicate(timeout=60)
    assert stopped.returncode == 128 + number
    assert "finished parts are kept in" in said
    kept = {path.name for path in parts.glob("*.json")}
    assert len(kept) >= 6
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert len(read_json(folder / "toy-quick.json")["parts"]) == 3 + 30 + 1
    doubled = [path for path in (folder / "traces").iterdir() if path.read_text() != "x"]
    assert len(doubled) <= 2  # at most those that were at work when the signal came


def test_an_outcome_is_told_anew_from_its_parts(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = play(folder, monkeypatch)
    job = Job("toy", "quick", out=str(folder), quiet=True)
    before = done.path.read_bytes()
    done.pictures[0].unlink()
    again = redraw(job)
    assert again.path.read_bytes() == before
    assert again.pictures == done.pictures
    assert done.pictures[0].exists()
    assert {path.read_text() for path in (folder / "traces").iterdir()} == {"x"}
    monkeypatch.setattr(frame, "recipe_of", lambda name: toy.recipe(toy.Settings("elsewhere")))
    with pytest.raises(DataError, match="must be of the settings that the recipe has"):
        redraw(job)
    with pytest.raises(DataError, match=r"outcome of toy must be in .*, got no such file"):
        redraw(Job("toy", "quick", out=str(folder / "nowhere")))


def test_a_part_is_another_one_with_other_settings() -> None:
    one = part(toy.measure, rate=0.1, seed=0)
    keys = {one.key(toy.Settings()), one.key(toy.Settings(sleeps=1.0))}
    keys.add(part(toy.measure, rate=0.1, seed=1).key(toy.Settings()))
    assert len(keys) == 3


def test_a_rate_that_diverged_is_not_the_best() -> None:
    done = Outcomes(
        [
            Outcome("measure", {"rate": rate, "seed": TRIAL}, {"validation": value})
            for rate, value in ((1.0, float("nan")), (0.1, 0.3), (0.01, 0.2))
        ]
    )
    chosen = list(tuned(toy.measure, (1.0, 0.1, 0.01), range(2), done))
    assert [p.arguments["rate"] for p in chosen[3:]] == [0.1, 0.1]
    assert not done.final


def test_what_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = play(folder, monkeypatch).record
    assert held(record) == "1 of 1"
    assert "held      rates are chosen by validation" in text(record)
    page = markdown(record, "../results")
    assert "| nobody decides this |  | a \\| b | reported |" in page
    assert "![nothing](../results/toy-quick-1.png)" in page
    assert os.sep not in record["pictures"][0]["file"]
