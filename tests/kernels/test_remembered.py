"""Decisions across processes: found again, never half there, never in the way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from regrow.kernels import dispatch, native, remembered
from regrow.kernels.dispatch import Situation

ENTRY = {"compute": "csr", "reason": "measured", "milliseconds": {"csr": 1.0, "dense": 2.0}}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("REGROW_CACHE", str(folder))
    monkeypatch.setattr(dispatch, "_decisions", {})
    return folder


def only_file(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


def situation() -> Situation:
    return Situation.of(torch.ones(4, 10), 10, 50, True)


def never() -> dict:
    raise AssertionError("measured")


def quick() -> dict:
    return {"csr": lambda: None, "dense": lambda: torch.ones(200, 200) @ torch.ones(200, 200)}


def test_the_folder_follows_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("REGROW_CACHE", "~/mine")
    assert remembered.folder() == tmp_path / "mine"
    monkeypatch.setenv("REGROW_CACHE", "off")
    assert remembered.folder() is None
    monkeypatch.delenv("REGROW_CACHE")
    assert remembered.folder() == tmp_path / "xdg" / "regrow"
    for ignored in ("", "not/absolute"):
        monkeypatch.setenv("XDG_CACHE_HOME", ignored)
        assert remembered.folder() == tmp_path / ".cache" / "regrow"


def test_nobody_without_a_home_stores_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("REGROW_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    assert remembered.folder() is None
    remembered.store("a", ENTRY)
    assert remembered.recall("a") is None


def test_what_is_stored_is_recalled(cache: Path) -> None:
    assert remembered.recall("a") is None
    assert not cache.exists()
    remembered.store("a", ENTRY)
    remembered.store("b", ENTRY | {"compute": "dense"})
    assert remembered.recall("a") == ENTRY
    assert remembered.recall("b")["compute"] == "dense"
    assert json.loads(only_file(cache).read_text())["machine"]["torch"] == torch.__version__
    assert remembered.forget() == 1
    assert remembered.recall("a") is None
    assert remembered.forget() == 0


def test_off_stores_nothing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remembered.store("a", ENTRY)
    monkeypatch.setenv("REGROW_CACHE", "off")
    assert remembered.recall("a") is None
    remembered.store("b", ENTRY)
    assert remembered.forget() == 0
    assert list(json.loads(only_file(cache).read_text())["decisions"]) == ["a"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\x00",
        b"[]",
        b"[" * 100_000,
        b"{}",
        b'{"machine": {}, "decisions": {"a": {}}}',
    ],
)
def test_a_damaged_file_is_as_none_and_is_replaced(cache: Path, content: bytes) -> None:
    remembered.store("a", ENTRY)
    path = only_file(cache)
    path.write_bytes(content)
    assert remembered.recall("a") is None
    remembered.store("b", ENTRY)
    assert remembered.recall("b") == ENTRY
    assert only_file(cache) == path


def test_entries_of_another_form_are_measured_anew(cache: Path) -> None:
    key = situation().key
    good = dict(ENTRY)
    for bad in (
        {"compute": "csr"},
        good | {"compute": "gpu"},
        good | {"compute": ["csr"]},
        good | {"milliseconds": 3},
        good | {"milliseconds": {"csr": "fast"}},
        good | {"milliseconds": {"csr": float("nan")}},
    ):
        remembered.store(key, bad)
        dispatch._decisions.clear()
        dispatch.choose(situation(), quick)
        assert set(remembered.recall(key)["milliseconds"]) == {"csr", "dense"}
    path = only_file(cache)
    for entries in ([], {key: 3}, {key: None}):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"decisions": entries}))
        dispatch._decisions.clear()
        dispatch.choose(situation(), quick)
        assert remembered.recall(key) is not None


def test_a_file_of_another_machine_or_build_is_not_used(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remembered.store("a", ENTRY)
    for name in ("_processor", "_build"):
        with monkeypatch.context() as patch:
            patch.setattr(remembered, name, lambda: "another")
            assert remembered.recall("a") is None
            remembered.store("b", ENTRY)
    assert len(list(cache.iterdir())) == 3
    assert remembered.recall("b") is None
    content = json.loads(only_of(cache, "a").read_text())
    content["machine"]["torch"] = "0.1"  # as if two fingerprints had met in one name
    only_of(cache, "a").write_text(json.dumps(content))
    assert remembered.recall("a") is None


def only_of(folder: Path, key: str) -> Path:
    (path,) = (p for p in folder.iterdir() if key in json.loads(p.read_text())["decisions"])
    return path


def test_a_place_that_cannot_be_written_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    occupied = tmp_path / "file"
    occupied.write_text("")
    for place in (occupied, occupied / "below", "/proc/nowhere"):
        monkeypatch.setenv("REGROW_CACHE", str(place))
        remembered.store("a", ENTRY)
        assert remembered.recall("a") is None
        assert remembered.forget() == 0


def test_a_failed_write_leaves_the_old_file_alone(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remembered.store("a", ENTRY)

    def fail(*_: object) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fail)
        remembered.store("b", ENTRY)
    assert remembered.recall("a") == ENTRY
    assert remembered.recall("b") is None
    only_file(cache)


def test_the_oldest_go_where_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "_MOST", 3)
    for key in "abcad":
        remembered.store(key, ENTRY)
    assert [key for key in "abcd" if remembered.recall(key)] == ["a", "c", "d"]


def test_many_writers_never_leave_half_a_file(cache: Path) -> None:
    def write(writer: int) -> None:
        for i in range(20):
            remembered.store(f"{writer} {i}", ENTRY)
            assert remembered.recall("first") == ENTRY

    remembered.store("first", ENTRY)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    assert remembered.recall("first") == ENTRY
    only_file(cache)


def test_a_decision_is_measured_once_and_found_by_later_processes(cache: Path) -> None:
    chosen = dispatch.choose(situation(), quick)
    dispatch._decisions.clear()
    assert dispatch.choose(situation(), never) == chosen
    dispatch.forget()
    assert not list(cache.iterdir())
    with pytest.raises(AssertionError, match="measured"):
        dispatch.choose(situation(), never)


def test_what_is_known_without_measuring_is_not_stored(cache: Path) -> None:
    dispatch.choose(Situation.of(torch.ones(4, 10), 10, 100, True), never)
    assert not cache.exists()


@pytest.mark.skipif(not native.available(), reason=native.reason())
def test_another_process_finds_it(cache: Path) -> None:
    code = """
import regrow, torch
from regrow.kernels import dispatch
torch.set_num_threads(1)
measured, ask = [], dispatch._measured
dispatch._measured = lambda trials: measured.append(1) or ask(trials)
layer = regrow.SparseLinear(64, 48, density=0.3)
layer(torch.ones(8, 64)).sum().backward()
print(len(measured), next(iter(dispatch.decisions().values())))
"""
    first, second = (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
        ).stdout
        for _ in range(2)
    )
    assert first[0] == "1"
    assert second == "0" + first[1:]
    only_file(cache)


def test_threads_that_meet_a_new_situation_measure_once() -> None:
    asked = []

    def trials() -> dict:
        asked.append(1)
        return quick()

    with ThreadPoolExecutor(8) as pool:
        chosen = set(pool.map(lambda _: dispatch.choose(situation(), trials), range(32)))
    assert len(chosen) == len(asked) == 1
