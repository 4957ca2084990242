"""Schedules: their ends, their shape, and what they need."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrow.evolution.schedules import Constant, Cosine, Cubic


def test_constant() -> None:
    assert [Constant(0.3)(step, until) for step, until in ((0, None), (5, 3))] == [0.3, 0.3]


@pytest.mark.parametrize("schedule", [Cosine(0.5, 0.1), Cubic(0.9, 0.1), Cubic(0.1, 0.9)])
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


@pytest.mark.parametrize(
    ("schedule", "name"), [(Cosine(0.3), "cosine"), (Cubic(1.0, 0.1), "cubic")]
)
def test_the_end_must_be_known(schedule, name: str) -> None:
    sentence = f"the {name} schedule needs its end: give until in optimiser steps"
    with pytest.raises(ValueError, match=sentence):
        schedule(0, None)


def test_an_end_at_zero_is_the_end() -> None:
    assert Cosine(0.3)(0, 0) == pytest.approx(0.3)
    assert Cosine(0.3)(1, 0) == 0.0
