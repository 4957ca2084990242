"""Schedules: their ends, their shape, and what they need."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrow.evolution.schedules import (
    Adaptive,
    Constant,
    Cosine,
    Cubic,
    Decay,
    Linear,
    Pals,
    Phases,
    Polynomial,
    Steps,
)


def test_constant() -> None:
    assert [Constant(0.3)(step, until) for step, until in ((0, None), (5, 3))] == [0.3, 0.3]


@pytest.mark.parametrize(
    "schedule",
    [
        Cosine(0.5, 0.1),
        Cubic(0.9, 0.1),
        Cubic(0.1, 0.9),
        Linear(0.9, 0.1),
        Linear(0.1, 0.9),
        Polynomial(0.9, 0.1, 0.5),
        Steps(0.9, 0.1, 4),
        Steps(0.1, 0.9, 1),
    ],
)
@given(step=st.integers(0, 300), until=st.integers(1, 200))
def test_from_start_to_end_without_turning_back(schedule, step: int, until: int) -> None:
    assert schedule(0, until) == pytest.approx(schedule.start)
    assert schedule(until, until) == pytest.approx(schedule.end)
    assert schedule(until + step, until) == schedule(until, until)
    low, high = sorted((schedule.start, schedule.end))
    assert low - 1e-12 <= schedule(step, until) <= high + 1e-12
    ahead = (schedule(step + 1, until) - schedule(step, until)) * (schedule.end - schedule.start)
    assert ahead >= -1e-12


def test_values_by_hand() -> None:
    assert Cosine(0.3)(25, 100) == pytest.approx(0.3 * (1 + 2**-0.5) / 2)
    assert Cosine(0.5, 0.005)(50, 100) == pytest.approx((0.5 + 0.005) / 2)
    assert Cubic(1.0, 0.2)(50, 100) == pytest.approx(0.2 + 0.8 / 8)
    assert Linear(1.0, 0.2)(25, 100) == pytest.approx(0.8)
    assert Polynomial(1.0, 0.2, 2)(50, 100) == pytest.approx(0.2 + 0.8 / 4)
    assert [Steps(0.4, 0.1, 3)(n, 90) for n in (0, 29, 30, 60, 89, 90)] == pytest.approx(
        [0.4, 0.4, 0.3, 0.2, 0.2, 0.1]
    )
    assert Decay(0.5)(1800, None) == pytest.approx(0.5 * 0.99**3)


def test_one_family() -> None:
    for step in range(0, 101, 10):
        assert Polynomial(0.9, 0.1, 1)(step, 100) == pytest.approx(Linear(0.9, 0.1)(step, 100))
        assert Polynomial(0.9, 0.1)(step, 100) == pytest.approx(Cubic(0.9, 0.1)(step, 100))


def test_phases_end_compressed() -> None:
    phases = Phases(1.0, 0.1, 5)
    assert [phases(n, None) for n in range(0, 20, 5)] == [1.0, 0.1, 1.0, 0.1]
    assert phases(22, 20) == 0.1


@pytest.mark.parametrize(
    ("schedule", "name"),
    [
        (Cosine(0.3), "cosine"),
        (Cubic(1.0, 0.1), "cubic"),
        (Linear(0.3), "linear"),
        (Polynomial(0.3), "polynomial"),
        (Steps(0.3, 0.1, 2), "steps"),
    ],
)
def test_the_end_must_be_known(schedule, name: str) -> None:
    sentence = f"the {name} schedule needs its end: give until in optimiser steps"
    with pytest.raises(ValueError, match=sentence):
        schedule(0, None)


def test_an_end_at_zero_is_the_end() -> None:
    assert Cosine(0.3)(0, 0) == pytest.approx(0.3)
    assert Cosine(0.3)(1, 0) == 0.0


def decided(pals: Pals, reports: list[tuple[float, float]]) -> tuple[list[float], dict]:
    memory: dict[str, float] = {}
    states = []
    for loss, density in reports:
        pals.decide(loss, density, memory)
        states.append(memory["pals_state"])
    return states, memory


def test_the_rules_of_pals_one_by_one() -> None:
    assert isinstance(Pals(), Adaptive)
    assert not isinstance(Cubic(1.0, 0.1), Adaptive)
    pals = Pals(factor=1.1, freedom=1.1, start=0.8, end=0.1)
    states, memory = decided(
        pals,
        [
            (1.0, 1.0),  # above 0.8: shrink; the best loss so far, at density 1
            (9.0, 0.9),  # still above 0.8, whatever the loss
            (1.05, 0.7),  # within 1.1 of the best: shrink
            (1.2, 0.6),  # too bad, and sparser than the best: expand
            (0.8, 0.65),  # the best again, now at 0.65: shrink
            (0.9, 0.7),  # too bad, yet denser than the best: stay
            (0.85, 0.1),  # good, but sparse enough: stay
            (0.99, 0.09),  # too bad: expand
        ],
    )
    assert states == [-1, -1, -1, 1, -1, 0, 0, 1]
    assert memory == {"pals_loss": 0.8, "pals_density": 0.65, "pals_state": 1}


def test_the_targets_of_pals_are_those_of_its_curves() -> None:
    # The first shrink at fraction 0.5 gives sparsity 0.025, 0.05 and 0.1 in the published curves.
    for factor, sparsity in ((1.05, 0.025), (1.1, 0.05), (1.2, 0.1)):
        target = Pals(factor).target(1.0, 0.5, {"pals_state": -1.0})
        assert target == pytest.approx(1 - sparsity)
    assert Pals(1.2).target(0.5, 0.3, {"pals_state": 1.0}) == pytest.approx(0.53)
    assert Pals(1.2).target(0.5, 0.3, {"pals_state": 0.0}) == 0.5
    assert Pals(1.2).target(0.5, 0.3, {}) == 0.5
    assert Pals(1.2).target(0.99, 0.5, {"pals_state": 1.0}) == 1.0
