"""Data sets from arrays in memory."""

import numpy as np
import pytest

from regrow.data import DataError, from_arrays


def test_arrays_are_split_and_standardised() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(5.0, 3.0, (200, 4))
    data = from_arrays(x, rng.integers(0, 2, 200), name="made", test=0.5, validation=0.0, seed=1)
    assert (data.name, len(data.x_train), len(data.x_test)) == ("made", 100, 100)
    assert len(data.x_validation) == 0
    assert abs(float(data.x_train.mean())) < 1e-5
    assert data.feature_names == ("x0", "x1", "x2", "x3")
    small = from_arrays(x, rng.integers(0, 2, 200), limit_train=50, limit_test=10)
    assert (len(small.y_train), len(small.y_validation), len(small.y_test)) == (45, 5, 10)


def test_numbers_make_a_regression() -> None:
    x = np.linspace(0, 1, 60)[:, None]
    assert from_arrays(x, 2 * x[:, 0], task="auto").task == "regression"


@pytest.mark.parametrize(("x", "y"), [((5, 2), (4,)), ((5,), (5,)), ((5, 2), (5, 1))])
def test_arrays_that_do_not_fit(x: tuple[int, ...], y: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="arrays must be"):
        from_arrays(np.zeros(x), np.zeros(y))
