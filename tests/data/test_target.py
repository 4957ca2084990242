import numpy as np
import pytest

from regrow.data import DataError
from regrow.data.table import Column, array_column, text_column
from regrow.data.target import decide_task, prepare_target, scale_target


def numbers(values: list[float]) -> Column:
    return Column("y", np.array(values, np.float64))


@pytest.mark.parametrize(
    ("column", "task"),
    [
        (text_column("y", ["a", "b", "a"]), "classification"),
        (Column("y", np.array([0.0, 1.0]), "flag"), "classification"),
        (numbers([0, 1] * 5), "classification"),
        (numbers([-1, 1] * 5), "classification"),
        (numbers([*range(20)] * 2), "classification"),
        (numbers([*range(21)] * 2), "regression"),
        (numbers([1, 2, 3]), "regression"),
        (numbers([0.5, 1.5] * 5), "regression"),
        (Column("y", np.array([0.0, 86400.0] * 5), "date"), "regression"),
    ],
)
def test_decide_task(column: Column, task: str) -> None:
    assert decide_task(column) == task


@pytest.mark.parametrize(
    ("column", "names"),
    [
        (numbers([10, 9, 10, 9]), ("9", "10")),
        (text_column("y", ["10", "9", "10", "9"]), ("9", "10")),
        (text_column("y", ["b", "a", "b", "a"]), ("a", "b")),
        (array_column("y", np.array([True, False, True, False])), ("false", "true")),
        (text_column("y", ["True", "False", "True", "False"]), ("false", "true")),
        (text_column("y", ["2020-01-02", "2020-01-01"] * 2), ("2020-01-01", "2020-01-02")),
    ],
)
def test_classes_are_sorted_and_named(column: Column, names: tuple[str, ...]) -> None:
    target = prepare_target(column)
    assert target.class_names == names
    assert target.values.tolist() == [1, 0, 1, 0]
    assert target.labels is target.values


def test_classes_of_broken_numbers_when_asked() -> None:
    target = prepare_target(numbers([0.5, 2, 0.5, 2]), "classification")
    assert target.class_names == ("0.5", "2")


def test_rows_without_a_target_are_dropped() -> None:
    target = prepare_target(numbers([0, np.nan, 1, 0, np.inf, 1]))
    assert target.rows.tolist() == [0, 2, 3, 5]
    assert target.values[target.rows].tolist() == [0, 1, 0, 1]
    assert target.notes == ("dropped 2 rows without a target",)


def test_a_class_of_one_row_is_noted() -> None:
    target = prepare_target(text_column("y", [*"aabbc", "b"]))
    assert target.notes == ("kept classes with a single row in training: c",)


def test_names_that_the_source_gives() -> None:
    target = prepare_target(numbers([0, 1, 0, 1]), class_names=("no", "yes", "maybe"))
    assert (target.task, target.class_names) == ("classification", ("no", "yes", "maybe"))
    text = prepare_target(text_column("y", [*"abab"]), class_names=("no", "yes"))
    assert text.class_names == ("a", "b")


def test_regression_may_be_asked_for() -> None:
    target = prepare_target(numbers([0, 1, 0, 1]), "regression")
    assert (target.task, target.labels, target.class_names) == ("regression", None, ())


@pytest.mark.parametrize(
    ("column", "task", "names", "sentence"),
    [
        (numbers([0, 1]), "rank", None,
         "task must be one of auto, classification, regression, got 'rank'"),
        (numbers([np.nan, np.inf]), "auto", None,
         "target 'y' must have values, got none in 2 rows"),
        (text_column("y", [*"aaaa"]), "auto", None,
         "target 'y' must have at least two classes, got one: 'a'"),
        (numbers([3, 3, 3]), "auto", None,
         "target 'y' must have at least two classes, got one: '3'"),
        (numbers([0.5, 0.5, 0.5]), "auto", None, "target 'y' must vary, got 0.5 in all rows"),
        (text_column("y", [*"abab"]), "regression", None,
         "task must be classification where the target is text, as 'y' is ('a'), got regression"),
        (text_column("y", [*"abcd"]), "auto", None,
         "target 'y' must have two rows a class on average for classification, got 4 classes in 4 "
         "rows"),
        (numbers([0, 2, 0, 2]), "auto", ("no", "yes"),
         "labels of 'y' must be whole numbers from 0 to 1, got 2"),
        (numbers([0, 0.5, 0, 1]), "auto", ("no", "yes"),
         "labels of 'y' must be whole numbers from 0 to 1, got 0.5"),
    ],
)  # fmt: skip
def test_refusals(column: Column, task: str, names: tuple[str, ...] | None, sentence: str) -> None:
    with pytest.raises(DataError) as error:
        prepare_target(column, task, names)
    assert str(error.value) == sentence


def test_scale_uses_the_training_rows() -> None:
    scaled, (mean, std) = scale_target(np.array([1.0, 3.0, 100.0]), np.array([0, 1]), "y")
    assert (mean, std) == (2.0, 1.0)
    assert scaled.tolist() == [-1.0, 1.0, 98.0]


@pytest.mark.parametrize("size", [1e-200, 1.0, 1e307])
def test_scale_of_extreme_numbers(size: float) -> None:
    scaled, (mean, std) = scale_target(np.array([-1.0, 1.0, 1.0, -1.0]) * size, np.arange(4), "y")
    np.testing.assert_allclose(scaled, [-1, 1, 1, -1])
    np.testing.assert_allclose([mean, std], [0, size])


def test_scale_refuses_one_value() -> None:
    with pytest.raises(DataError) as error:
        scale_target(np.array([2.0, 2.0, 5.0]), np.array([0, 1]), "y")
    assert str(error.value) == "target 'y' must vary among the training rows, got 2 in all"
