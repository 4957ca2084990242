import re

import numpy as np
import pytest

from regrow.data import DataError
from regrow.data.table import (
    MISSING,
    Column,
    Table,
    array_column,
    check_distinct,
    close_match,
    find_name,
    listing,
    resolve,
    text_column,
)

ALL = np.arange(3)


@pytest.mark.parametrize("sign", [*MISSING, " ? ", None])
def test_signs_of_a_missing_value(sign: str | None) -> None:
    assert text_column("a", [sign]).missing.tolist() == [True]


def test_none_is_a_level_of_text() -> None:
    assert text_column("garage", ["None", "brick"]).values.tolist() == ["None", "brick"]


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        (np.array([1, 2], np.uint8), "number", [1.0, 2.0]),
        (np.array([True, False]), "flag", [1.0, 0.0]),
        (np.array(["1970-01-02", "1970-01-01"], "datetime64[D]"), "date", [86400.0, 0.0]),
        (np.array(["a", "?"]), "text", ["a", None]),
        (np.array([b"a", b"b"]), "text", ["a", "b"]),
    ],
)
def test_array_column_follows_the_dtype(
    values: np.ndarray, kind: str, expected: list[object]
) -> None:
    column = array_column("c", values)
    assert (column.kind, column.values.tolist()) == (kind, expected)


def test_missing_date() -> None:
    column = array_column("c", np.array(["NaT", "1970-01-01"], "datetime64[s]"))
    assert column.missing.tolist() == [True, False]


def test_complex_numbers_are_refused() -> None:
    with pytest.raises(DataError) as error:
        array_column("c", np.array([1j]))
    assert str(error.value) == "column 'c' must hold numbers, text or dates, got complex128"


@pytest.mark.parametrize(
    ("cells", "kind", "expected"),
    [
        (["True", "false", None], "flag", [1.0, 0.0, np.nan]),
        (["1", "-2.5e1", "None"], "number", [1.0, -25.0, np.nan]),
        (["1970-01-01T00:01", "1970-01-01 00:00:02", "?"], "date", [60.0, 2.0, np.nan]),
        (["1970-01-01T00:01+00:01", "1970-01-01", "?"], "date", [0.0, 0.0, np.nan]),
    ],
)
def test_resolve_reads_text(cells: list[str], kind: str, expected: list[float]) -> None:
    column = resolve(text_column("c", cells), ALL)
    assert column.kind == kind
    np.testing.assert_array_equal(column.values, expected)


@pytest.mark.parametrize("cells", [["1_000", "2", "3"], ["1", "x", "3"], ["None", "None", "?"]])
def test_resolve_leaves_text(cells: list[str]) -> None:
    assert resolve(text_column("c", cells), ALL).kind == "text"


def test_resolve_without_dates() -> None:
    column = text_column("c", ["2020-01-01"] * 3)
    assert resolve(column, ALL, dates=False) is column


def test_rows_outside_training_do_not_decide() -> None:
    column = resolve(text_column("c", ["1", "2", "broken"]), np.array([0, 1]))
    np.testing.assert_array_equal(column.values, [1, 2, np.nan])


def test_names_must_be_distinct() -> None:
    with pytest.raises(DataError) as error:
        Table((Column("a", np.zeros(1)), Column("a", np.zeros(1))))
    assert str(error.value) == "column names must be distinct, got 'a' twice"
    check_distinct(["a", "A"])


@pytest.mark.parametrize(("target", "position"), [("b", 1), ("-1", 2), (0, 0), ("1", 2), (1, 1)])
def test_find_name_by_name_then_position(target: str | int, position: int) -> None:
    assert find_name(target, ["a", "b", "1"], "file f") == position


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        (None, "target must name a column of file f: Height, weight"),
        ("heigth", "target must be a column of file f (Height, weight), got 'heigth'; did you "
         "mean 'Height' or 'weight'?"),
        ("2", "target must be a column of file f (Height, weight), got '2'"),
        (-3, "target must be a column of file f (Height, weight), got '-3'"),
    ],
)  # fmt: skip
def test_find_name_refuses(target: str | int | None, sentence: str) -> None:
    with pytest.raises(DataError, match=f"^{re.escape(sentence)}$"):
        find_name(target, ["Height", "weight"], "file f")


def test_close_match_prefers_the_first_of_equal_names() -> None:
    assert close_match("label", ["Label", "LABEL"]) == "; did you mean 'Label'?"
    assert close_match("zzz", ["Label"]) == ""


def test_listing_is_cut() -> None:
    assert listing([str(i) for i in range(1203)], 3) == "0, 1, 2 and 1,200 more"
