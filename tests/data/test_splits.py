from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrow.data import DataError
from regrow.data.splits import SplitOptions, divide, make_parts, quotas


@pytest.mark.parametrize(
    ("sizes", "count", "keep", "expected"),
    [
        ([5, 3, 2], 4, 1, [2, 1, 1]),
        ([5, 3, 2], 5, 0, [3, 1, 1]),
        ([1, 1, 8], 5, 1, [0, 0, 5]),
        ([4, 0], 2, 1, [2, 0]),
        ([3, 3], 10, 1, [2, 2]),
        ([3], 0, 1, [0]),
        ([], 0, 1, []),
    ],
)
def test_quotas_by_hand(sizes: list[int], count: int, keep: int, expected: list[int]) -> None:
    assert quotas(np.array(sizes, np.int64), count, keep).tolist() == expected


@given(st.lists(st.integers(0, 50), min_size=1, max_size=8), st.integers(0, 200), st.integers(0, 2))
def test_quotas_are_exact_and_within_one_of_the_proportion(
    sizes: list[int], count: int, keep: int
) -> None:
    array = np.array(sizes, np.int64)
    taken = quotas(array, count, keep)
    capacity = np.maximum(array - keep, 0)
    assert taken.sum() == min(count, capacity.sum())
    assert np.all((taken >= 0) & (taken <= capacity))
    if keep == 0 and 0 < count <= array.sum():
        assert np.all(np.abs(taken - array * count / array.sum()) < 1)


def test_divide_draws_each_class_in_proportion() -> None:
    labels = np.repeat([0, 1, 2], [60, 30, 10])
    stay, drawn = divide(np.arange(100), labels, 20, np.random.Generator(np.random.PCG64(1)))
    assert np.bincount(labels[drawn]).tolist() == [12, 6, 2]
    assert sorted([*stay, *drawn]) == list(range(100))


def test_every_row_is_drawn_as_often() -> None:
    rng = np.random.Generator(np.random.PCG64(0))
    labels = np.repeat([0, 1], [8, 4])
    counts = np.zeros(12)
    for _ in range(4000):
        counts[divide(np.arange(12), labels, 3, rng)[1]] += 1
    np.testing.assert_allclose(counts, 1000, rtol=0.1)


@given(
    labels=st.lists(st.integers(0, 4), min_size=10, max_size=80),
    missing=st.sets(st.integers(0, 79)),
    seed=st.integers(0, 2**32),
    validation=st.sampled_from([0.0, 0.1, 0.5]),
    test=st.sampled_from([0.01, 0.2, 0.9]),
    classification=st.booleans(),
    official=st.booleans(),
)
def test_parts_are_a_partition(
    labels: list[int],
    missing: set[int],
    seed: int,
    validation: float,
    test: float,
    classification: bool,
    official: bool,
) -> None:
    rows = np.array([i for i in range(len(labels)) if i not in missing], np.int64)
    given_labels = np.array(labels) if classification else None
    split = int(rows[10]) if official and len(rows) > 10 else None
    if len(rows) < 10:
        return
    options = SplitOptions(seed, validation, test)
    parts = make_parts(rows, given_labels, options, official_train=split)
    everything = np.concatenate([parts.train, parts.validation, parts.test])
    assert np.sort(everything).tolist() == rows.tolist()
    if split is not None:
        assert parts.test.tolist() == rows[rows >= split].tolist()
    if classification and split is None:
        assert set(np.array(labels)[parts.train]) == set(np.array(labels)[rows])
    if not classification:
        assert (len(parts.validation) > 0) == (validation > 0 and len(rows) - len(parts.test) > 1)
    again = make_parts(rows, given_labels, options, official_train=split)
    assert again.train.tolist() == parts.train.tolist()


def test_sizes_of_ten_rows() -> None:
    parts = make_parts(np.arange(10), None, SplitOptions())
    assert [len(part) for part in (parts.train, parts.validation, parts.test)] == [7, 1, 2]


def test_the_seed_matters_and_the_test_part_is_drawn_first() -> None:
    rows, labels = np.arange(100), np.arange(100) % 3
    one = make_parts(rows, labels, SplitOptions(seed=1))
    other = make_parts(rows, labels, SplitOptions(seed=2))
    limited = make_parts(rows, labels, SplitOptions(seed=1, validation=0.3, limit_train=20))
    assert one.test.tolist() != other.test.tolist()
    assert one.test.tolist() == limited.test.tolist()


def test_limits_bound_training_with_validation() -> None:
    parts = make_parts(
        np.arange(100), np.arange(100) % 4, SplitOptions(limit_train=40, limit_test=8)
    )
    assert [len(part) for part in (parts.train, parts.validation, parts.test)] == [36, 4, 8]
    assert np.bincount(parts.test % 4).tolist() == [2, 2, 2, 2]


def test_first_rows_of_an_official_split() -> None:
    options = SplitOptions(limit_train=12, limit_test=3, validation=0)
    parts = make_parts(np.arange(50), np.arange(50) % 2, options, official_train=30, first=True)
    assert parts.train.tolist() == list(range(12))
    assert parts.test.tolist() == [30, 31, 32]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"validation": 1.0}, "validation must be in [0, 1), got 1.0"),
        ({"test": 0}, "test must be in (0, 1), got 0"),
        ({"limit_train": 9}, "limit_train must be at least 10, got 9"),
        ({"limit_test": 0}, "limit_test must be at least 1, got 0"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(DataError) as error:
        SplitOptions(**options)
    assert str(error.value) == sentence


@pytest.mark.parametrize(
    ("n", "official", "sentence"),
    [
        (3, None, "the data must have at least 10 rows with a target, got 3"),
        (20, 9, "the data must have at least 10 training rows with a target, got 9"),
        (20, 20, "the test split must have at least 1 row with a target, got 0"),
    ],
)
def test_too_few_rows(n: int, official: int | None, sentence: str) -> None:
    with pytest.raises(DataError) as error:
        make_parts(np.arange(n), None, SplitOptions(), official_train=official)
    assert str(error.value) == sentence
