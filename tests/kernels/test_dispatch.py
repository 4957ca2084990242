"""The choice by measurement: remembered, explained, stored, and the faster one."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from regrow import SparseLinear
from regrow.kernels import dispatch, native
from regrow.kernels.dispatch import Situation


@pytest.fixture(autouse=True)
def _own_decisions() -> Iterator[None]:
    kept = dispatch.decisions()
    dispatch.forget()
    yield
    dispatch.forget()
    dispatch.load_decisions(kept)


def situation(nnz: int = 50, batch: int = 4, **changes: object) -> Situation:
    fields = Situation.of(torch.ones(batch, 10), 10, nnz, True).__dict__ | changes
    return Situation(**fields)


class Work:
    """Two candidates that take given times and count their calls."""

    def __init__(self, csr: float, dense: float) -> None:
        self.calls = {"csr": 0, "dense": 0}
        self.seconds = {"csr": csr, "dense": dense}
        self.asked = 0

    def __call__(self) -> dict[str, Callable[[], None]]:
        self.asked += 1
        return {name: lambda name=name: self.run(name) for name in self.calls}

    def run(self, name: str) -> None:
        self.calls[name] += 1
        end = time.perf_counter() + self.seconds[name]
        while time.perf_counter() < end:
            pass


@pytest.mark.parametrize("winner", ["csr", "dense"])
def test_the_faster_candidate_is_chosen_once(winner: str) -> None:
    # A factor of 100, so that a busy machine cannot turn it.
    times = {"csr": 0.02, "dense": 0.02, winner: 0.0002}
    work = Work(**times)
    assert dispatch.choose(situation(), work) == winner
    assert dispatch.choose(situation(), work) == winner
    assert work.asked == 1
    decision = dispatch.lookup(situation())
    assert decision.compute == winner
    assert set(decision.milliseconds) == {"csr", "dense"}
    assert decision.milliseconds[winner] == min(decision.milliseconds.values())
    assert re.fullmatch(r"measured: csr [\d.e+-]+ ms against dense [\d.e+-]+ ms", decision.reason)


def test_a_candidate_far_behind_is_not_run_again() -> None:
    work = Work(csr=0.0001, dense=0.05)
    dispatch.choose(situation(), work)
    assert work.calls["dense"] < work.calls["csr"]


def test_close_candidates_are_timed_more_often() -> None:
    apart, close = Work(csr=0.0001, dense=0.002), Work(csr=0.0005, dense=0.0005)
    dispatch.choose(situation(), apart)
    dispatch.choose(situation(batch=8), close)
    assert apart.calls["csr"] <= close.calls["csr"]
    assert close.calls["csr"] == close.calls["dense"] <= 1 + dispatch._MOST_ROUNDS


def test_an_outcome_is_clear_when_it_is_confirmed_and_far_enough_apart() -> None:
    assert dispatch._clear({"csr": [1.0, 1.1, 9.0], "dense": [2.0, 2.1, 2.2]})
    assert dispatch._clear({"csr": [1.0, 1.1], "dense": [50.0]})
    assert not dispatch._clear({"csr": [1.0, 1.1], "dense": [1.1, 1.1]})
    assert not dispatch._clear({"csr": [1.0, 1.1], "dense": [2.0, 5.0]})
    assert dispatch._clear({"csr": [1.0, 1.0]})


def test_a_disturbed_candidate_is_timed_until_it_was_not() -> None:
    delays = iter([0.0, 0.03, 0.03, 0.02, 0.0, 0.0])

    def disturbed() -> None:
        time.sleep(next(delays, 0.0))

    trials = {"csr": disturbed, "dense": lambda: time.sleep(0.01)}
    assert dispatch.choose(situation(), lambda: trials) == "csr"


def test_trials_keep_no_graph() -> None:
    seen = []

    def work() -> None:
        seen.append(torch.is_grad_enabled())

    dispatch.choose(situation(), lambda: {"csr": work, "dense": work})
    assert seen
    assert not any(seen)


def test_decisions_survive_json_and_forgetting() -> None:
    dispatch.choose(situation(), Work(0.0, 0.002))
    stored = json.loads(json.dumps(dispatch.decisions()))
    dispatch.forget()
    assert dispatch.decisions() == {}
    assert dispatch.lookup(situation()) is None
    dispatch.load_decisions(stored)
    assert dispatch.decisions() == stored

    def never() -> dict:
        raise AssertionError("measured again")

    assert dispatch.choose(situation(), never) == "csr"


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        (
            {"compute": "csr"},
            "decision for 'a' must have compute, reason and milliseconds, got compute",
        ),
        (
            {"compute": "gpu", "reason": "", "milliseconds": {}},
            "decision for 'a' must be one of csr, dense, block, nm, got 'gpu'",
        ),
        (
            {"compute": "csr", "reason": "", "milliseconds": {"csr": "x"}},
            "milliseconds of the decision for 'a' must be numbers, got {'csr': 'x'}",
        ),
    ],
)
def test_what_is_no_decision_is_refused(entry: dict, sentence: str) -> None:
    good = {"compute": "csr", "reason": "", "milliseconds": {}}
    with pytest.raises(ValueError, match=re.escape(sentence)):
        dispatch.load_decisions({"b": good, "a": entry})
    assert dispatch.decisions() == {}


def never() -> dict:
    raise AssertionError("measured")


@pytest.mark.parametrize(
    ("changes", "compute", "reason"),
    [
        ({"nnz": 100}, "dense", "every position is connected"),
        ({"device": "cuda"}, "dense", "no sparse kernels for cuda"),
        (
            {"device": "cuda", "n_out": 40_000, "n_in": 40_000},
            "csr",
            "a dense weight would take 6.0 GiB",
        ),
        ({"n_out": 40_000, "n_in": 40_000}, "csr", "a dense weight would take 6.0 GiB"),
        (
            {"n_out": 20_000, "n_in": 20_000, "dtype": "float64"},
            "csr",
            "a dense weight would take 3.0 GiB",
        ),
    ],
)
def test_what_needs_no_trial(changes: dict, compute: str, reason: str) -> None:
    assert dispatch.choose(situation(**changes), never) == compute
    assert dispatch.lookup(situation(**changes)).reason == reason
    assert dispatch.lookup(situation(**changes)).milliseconds == {}


def test_low_densities_need_no_trial_where_kernels_are_fast(monkeypatch: pytest.MonkeyPatch):
    low = situation(n_out=1000, n_in=1000, nnz=1000)
    monkeypatch.setattr(native, "available", lambda: True)
    assert dispatch.choose(low, never) == "csr"
    assert dispatch.lookup(low).reason == "density below 0.02, where csr always wins"
    dispatch.forget()
    monkeypatch.setattr(native, "available", lambda: False)
    assert dispatch.choose(low, Work(0.002, 0.0)) == "dense"


@pytest.mark.parametrize(
    ("batch", "bucket"), [(1, 1), (2, 2), (3, 4), (64, 64), (65, 128), (1000, 1024)]
)
def test_batches_share_a_bucket(batch: int, bucket: int) -> None:
    assert Situation.of(torch.ones(batch, 3), 2, 3, True).batch == bucket


def test_an_empty_batch_decides_for_no_other() -> None:
    empty, one = (Situation.of(torch.ones(n, 3), 2, 3, True) for n in (0, 1))
    assert empty.key != one.key


def test_threads_dtype_and_training_are_part_of_the_situation() -> None:
    first = situation()
    assert first.threads == torch.get_num_threads()
    others = [situation(threads=99), situation(dtype="float64"), situation(training=False)]
    assert len({first.key, *(other.key for other in others)}) == 4
    assert first.key == (
        f"10x10 nnz={first.nnz} batch=4 float32 cpu threads={first.threads} training"
    )


@given(st.integers(1, 3000), st.data())
def test_rounded_connections_stay_near_and_full_means_full(total: int, data: st.DataObject):
    nnz = data.draw(st.integers(0, total))
    found = Situation.of(torch.ones(2, total), 1, nnz, True).nnz
    assert (found == total) == (nnz == total)
    assert abs(found - nnz) <= max(1, 0.05 * nnz)


@pytest.mark.parametrize(
    ("nnz", "total", "rounded"), [(990, 1000, 999), (100, 100, 100), (99, 100, 99), (0, 9, 0)]
)
def test_nearly_full_is_not_full(nnz: int, total: int, rounded: int) -> None:
    assert Situation.of(torch.ones(2, total), 1, nnz, True).nnz == rounded


def test_a_layer_reports_what_it_chose() -> None:
    layer = SparseLinear(30, 20, density=0.3)
    layer(torch.ones(4, 30)).sum().backward()
    with torch.no_grad():
        layer(torch.ones(4, 30))
    keys = list(dispatch.decisions())
    assert len(keys) == 2
    assert keys[0].endswith("training")
    assert keys[1].endswith("inference")
    assert all("batch=4 float32 cpu" in key for key in keys)
