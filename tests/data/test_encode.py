import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrow.data import DataError, encode
from regrow.data.encode import fit_pixels, fit_table
from regrow.data.table import Column, Pixels, Table, text_column

ALL = np.arange(4)


def number(name: str, *values: float) -> Column:
    return Column(name, np.array(values, np.float64))


def features(column: Column, train: np.ndarray, rows: np.ndarray) -> dict[str, list[float]]:
    encoder = fit_table(Table((column,)), train)
    return dict(zip(encoder.names, encoder.encode(rows).T.tolist(), strict=True))


def test_numbers_are_standardised_by_training_rows() -> None:
    column = number("a", 1, 3, 1, 3, 10)
    assert features(column, ALL, np.array([0, 1, 4])) == {"a": [-1.0, 1.0, 8.0]}


def test_missing_becomes_the_training_median_and_is_marked() -> None:
    column = number("a", 0, 4, 2, np.nan, np.inf, 1000)
    encoder = fit_table(Table((column,)), ALL)
    assert encoder.names == ("a", "a (missing)")
    filled = encoder.encode(np.array([2, 3, 4]))
    assert filled[0, 0] == filled[1, 0] == filled[2, 0]
    assert filled[:, 1].tolist() == [0, 1, 1]
    assert encoder.notes == (
        "missing values set to the training median and marked: a",
        "infinite values read as missing: a",
    )


def test_no_mark_where_training_misses_nothing() -> None:
    assert features(number("a", 1, 3, 1, 3, np.nan), ALL, np.array([4])) == {"a": [0.0]}


def test_equal_values_with_gaps_keep_the_mark() -> None:
    column = number("a", 5, 5, np.nan, 5)
    assert features(column, ALL, ALL) == {"a": [0, 0, 0, 0], "a (missing)": [0, 0, 1, 0]}


def test_flags_stay_zero_and_one() -> None:
    column = text_column("open", ["True", "False", None, "True"])
    assert features(column, ALL, ALL) == {"open": [1, 0, 1, 1], "open (missing)": [0, 0, 1, 0]}


def test_dates_become_standardised_seconds() -> None:
    column = text_column("day", ["2020-01-01", "2020-01-03"] * 2)
    encoder = fit_table(Table((column,)), ALL)
    assert encoder.encode(ALL).ravel().tolist() == [-1, 1, -1, 1]
    assert encoder.notes == ("dates read as seconds: day",)


def test_text_becomes_sorted_levels() -> None:
    column = text_column("c", [*"bbaaac", None, "new"])
    expected = {
        "c=a": [0, 1, 0, 0],
        "c=b": [1, 0, 0, 0],
        "c=c": [0, 0, 0, 0],
        "c=(missing)": [0, 0, 1, 0],
    }
    assert features(column, np.arange(7), np.array([0, 2, 6, 7])) == expected


def test_rare_levels_share_a_feature(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode, "MAX_LEVELS", 1)
    column = text_column("c", [*"aaabbcc", "new"])
    encoder = fit_table(Table((column,)), np.arange(7))
    assert encoder.names == ("c=a", "c=(other)")
    assert encoder.encode(np.array([0, 3, 5, 7])).tolist() == [[1, 0], [0, 1], [0, 1], [0, 0]]
    assert encoder.notes == ("levels beyond the 1 most frequent joined: c",)


@pytest.mark.parametrize(
    ("column", "note"),
    [
        (number("a", 2, 2, 2, 2, 7), "dropped as constant in training: a"),
        (text_column("a", [*"xxxxy"]), "dropped as constant in training: a"),
        (number("a", *[np.nan] * 4, 1), "dropped without values in training: a"),
        (text_column("a", [*"????x"]), "dropped without values in training: a"),
        (text_column("a", [*"vwxyz"]), "dropped as text that differs from row to row: a"),
        (number("Id", 1, 2, 3, 4, 5), "dropped as a counter of the rows: Id"),
        (number("", 0, 1, 2, 3, 4), "dropped as a counter of the rows: "),
    ],
)
def test_columns_that_say_nothing_are_dropped(column: Column, note: str) -> None:
    encoder = fit_table(Table((column, number("b", 1, 2, 1, 2, 1))), ALL)
    assert (encoder.names, encoder.notes) == (("b",), (note,))


@pytest.mark.parametrize("column", [number("time", 0, 1, 2, 3), number("id", 7, 3, 9, 1)])
def test_other_numbers_are_no_counter(column: Column) -> None:
    assert fit_table(Table((column,)), ALL).names == (column.name,)


def test_notes_are_joined() -> None:
    constant = [number(f"c{i}", 1, 1, 1, 1) for i in range(7)]
    encoder = fit_table(Table((*constant, number("b", 1, 2, 1, 2))), ALL)
    assert encoder.notes == ("dropped as constant in training: c0, c1, c2, c3, c4 and 2 more",)


def test_no_feature_left() -> None:
    with pytest.raises(DataError) as error:
        fit_table(Table((number("a", 1, 1, 1, 1),)), ALL)
    assert str(error.value) == (
        "the data must have at least one usable feature column besides the target, got 1 "
        "(dropped as constant in training: a)"
    )


def test_too_many_levels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode, "MAX_ONE_HOT", 3)
    columns = tuple(text_column(name, [*"xxyy"]) for name in "ab")
    with pytest.raises(DataError) as error:
        fit_table(Table(columns), ALL)
    assert str(error.value) == "text columns must give at most 3 features, got 4 from 2 columns"


def test_wild_values_stay_finite() -> None:
    column = number("a", 1e-300, 2e-300, 1e-300, 2e-300, 1e308, -1e308)
    assert features(column, ALL, np.array([4, 5])) == {"a": [10_000.0, -10_000.0]}
    huge = number("a", 1.7e308, -1.7e308, 1.7e308, -1.7e308)
    assert features(huge, ALL, ALL) == {"a": [1, -1, 1, -1]}


cells = st.one_of(st.none(), st.sampled_from(["1", "2.5", "-3", "a", "b", "True", "2020-01-01"]))


@given(st.lists(cells, min_size=12, max_size=12), st.lists(cells, min_size=4, max_size=4))
def test_rows_outside_training_never_reach_it(before: list[str], after: list[str]) -> None:
    train, anchor = np.arange(8), number("b", *range(12))
    arrays = []
    for tail in (before[8:], after):
        column = text_column("a", [*before[:8], *tail])
        encoder = fit_table(Table((column, anchor)), train)
        arrays.append((encoder.names, encoder.encode(train).tolist()))
        assert np.isfinite(encoder.encode(np.arange(12))).all()
    assert arrays[0] == arrays[1]


def test_pixels_share_one_mean_so_that_blanks_stay_equal() -> None:
    pixels = Pixels(np.array([[0, 0, 255], [0, 255, 0], [255, 255, 255]], np.uint8), None, 255.0)
    encoder = fit_pixels(pixels, np.array([0, 1]))
    assert encoder.names == ("pixel 0", "pixel 1", "pixel 2")
    assert encoder.mean == pytest.approx(1 / 3)
    encoded = encoder.encode(np.array([0, 1]))
    assert np.unique(encoded).size == 2
    assert encoded.mean() == pytest.approx(0, abs=1e-6)
    assert encoded.std() == pytest.approx(1)


def test_names_of_pixels() -> None:
    pixels = Pixels(np.eye(4, dtype=np.uint8), (2, 2), 1.0)
    names = ("pixel 0,0", "pixel 0,1", "pixel 1,0", "pixel 1,1")
    assert fit_pixels(pixels, ALL).names == names


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (np.ones((4, 2)), "the images must hold pixels that differ, got one value in all"),
        (np.ones((4, 0)), "the images must hold pixels that differ, got one value in all"),
        (np.full((4, 2), np.nan), "pixels must be finite float32 numbers, got NaN or an infinite "
         "value"),
        (np.full((4, 2), 1e300), "pixels must be finite float32 numbers, got NaN or an infinite "
         "value"),
    ],
)  # fmt: skip
def test_pixels_refused(values: np.ndarray, sentence: str) -> None:
    with pytest.raises(DataError) as error:
        fit_pixels(Pixels(values, None), ALL)
    assert str(error.value) == sentence
