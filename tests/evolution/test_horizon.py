"""When updates are due."""

from __future__ import annotations

import pytest

from regrow import Method
from regrow.evolution.horizon import Horizon


def horizon(total: int | None = None, epoch: int | None = None, **parts: object) -> Horizon:
    return Horizon.of(Method("mine", **parts), epoch, total)


def due(horizon: Horizon, steps: int) -> list[int]:
    return [step for step in range(steps + 1) if horizon.due(step)]


def test_updates_come_between_begin_and_until() -> None:
    assert due(horizon(every=3), 10) == [3, 6, 9]
    assert due(horizon(every=3, begin=3, until=9), 12) == [6, 9]
    assert due(horizon(every=3, begin=4), 12) == [6, 9, 12]
    assert due(horizon(every=None), 12) == []
    assert due(horizon(every="epoch", epoch=5), 12) == [5, 10]


def test_shares_of_the_training() -> None:
    assert due(horizon(40, every=10, begin=0.25, until=0.75), 40) == [20, 30]
    whole = horizon(40, every=10, until=1.0)
    assert (whole.until, whole.end) == (40, 40)
    one = horizon(40, every=1, until=1)
    assert one.until == 1


def test_schedules_count_from_begin_to_the_end() -> None:
    assert horizon(every=1, begin=10, until=50).place(30) == (20, 40)
    assert horizon(every=1, begin=10, until=50).place(3) == (0, 40)
    assert horizon(100, every=1).place(30) == (30, 100)
    assert horizon(100, every=1).until is None
    assert horizon(every=1).place(30) == (30, None)


def test_what_is_due_soon() -> None:
    every = horizon(every=4)
    assert [every.due_within(step, 2) for step in range(1, 5)] == [False, True, True, False]


@pytest.mark.parametrize("given", [True, -1, 1.5, "end"])
def test_times_out_of_range_are_refused(given: object) -> None:
    with pytest.raises(ValueError, match="until of mine must be a number of optimiser steps or a"):
        horizon(100, every=1, until=given)
