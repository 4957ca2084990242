"""The learning rate over a training."""

import pytest

from regrow.training.rates import rate_factor


@pytest.mark.parametrize("schedule", ["constant", "cosine", "step"])
@pytest.mark.parametrize("warm_up", [0.0, 0.3])
def test_factors_are_positive_and_at_most_one(schedule: str, warm_up: float) -> None:
    factors = [rate_factor(schedule, warm_up, step, 50) for step in range(50)]
    assert all(0 < factor <= 1 for factor in factors)
    if warm_up:
        assert factors[0] == pytest.approx(1 / 15, rel=0.01)
        assert factors[:10] == sorted(factors[:10])
    else:
        assert factors == sorted(factors, reverse=True)
        assert factors[0] == 1


def test_a_training_of_one_step() -> None:
    assert rate_factor("cosine", 0.5, 0, 1) == 1
