"""Weights and their rewiring, by hand and against sets."""

from __future__ import annotations

import re

import numpy as np
import pytest

from regrow import matrixform as mf


def test_by_hand() -> None:
    weight = mf.SparseWeight((2, 3), [1, 3, 5], [2.0, 3.0, 4.0])
    assert weight.matrix().tolist() == [[0, 2, 0], [3, 0, 4]]
    x, dy = np.array([[1.0, 10.0, 100.0]]), np.array([[1.0, 2.0]])
    assert weight.forward(x).tolist() == [[20, 403]]
    assert weight.backward(dy).tolist() == [[6, 2, 8]]
    assert weight.gradient(dy, x).tolist() == [10, 2, 200]


def test_no_entry_at_all() -> None:
    weight = mf.SparseWeight((2, 3), [], np.empty(0))
    assert weight.forward(np.ones((1, 3))).tolist() == [[0, 0]]
    assert weight.gradient(np.ones((1, 2)), np.ones((1, 3))).shape == (0,)


@pytest.mark.parametrize("positions", [[0, 6], [-1, 2], [2, 1], [1, 1]])
def test_positions_outside_or_out_of_order(positions: list[int]) -> None:
    with pytest.raises(ValueError, match=r"must rise within \[0, 6\)"):
        mf.SparseWeight((2, 3), positions, [1.0, 2.0])


def test_refusals() -> None:
    with pytest.raises(ValueError, match="one value per position"):
        mf.SparseWeight((2, 3), [0, 1], [1.0])
    with pytest.raises(ValueError, match="two axes"):
        mf.DenseWeight([1.0])
    weight = mf.DenseWeight([[1.0]])
    with pytest.raises(ValueError, match="bias must have 1 numbers, got 2"):
        mf.Linear(weight, [1.0, 2.0])
    with pytest.raises(ValueError, match=re.escape("keep must be in (0, 1], got 0")):
        mf.Linear(weight, keep=0)
    with pytest.raises(ValueError, match="needs a generator"):
        mf.Linear(weight, keep=0.5)


def test_rules_of_pruning() -> None:
    values = np.array([0.5, -0.1, 3.0, -2.0, 0.2, -0.3])
    assert np.flatnonzero(mf.nearest_zero(values, 0.5)).tolist() == [1, 4, 5]
    assert np.flatnonzero(mf.nearest_zero_by_sign(values, 1 / 3)).tolist() == [1, 4]
    assert np.flatnonzero(mf.below_threshold(values, 0.3)).tolist() == [1, 4, 5]
    ties = np.array([1.0, 1.0, 1.0, 1.0])
    assert mf.nearest_zero(ties, 0.5).tolist() == [True, True, False, False]


def test_rewiring_keeps_number_and_survivors_and_grows_outside_the_old_support() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        positions = np.sort(rng.choice(60, 20, replace=False))
        weight = mf.SparseWeight((6, 10), positions, rng.standard_normal(20))
        pruned = mf.nearest_zero_by_sign(weight.parameter.value, 0.3)
        changed = mf.rewire(weight, pruned, rng, mf.normal)
        assert changed.nnz == 20
        survivors = positions[~pruned]
        assert set(survivors) <= set(changed.positions)
        assert set(changed.positions) & set(positions) == set(survivors)
        kept = np.isin(changed.positions, survivors)
        assert changed.parameter.value[kept].tolist() == weight.parameter.value[~pruned].tolist()
        assert not changed.parameter.gradient.any()


def test_a_full_weight_cannot_grow() -> None:
    weight = mf.SparseWeight((1, 2), [0, 1], [1.0, 2.0])
    with pytest.raises(ValueError, match="with 0 free positions cannot grow 1 entries"):
        mf.rewire(weight, np.array([True, False]), np.random.default_rng(0))
