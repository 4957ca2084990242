import contextlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrow.data import DataError
from regrow.data.arrays import read_npz
from regrow.data.table import Pixels, Raw, Table

X = np.array([[1.0, 5.0], [2.0, 6.0], [3.0, 7.0]])
Y = np.array([0, 1, 0])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "toy.npz"


def read(file: Path, target: str | int | None = None, /, **arrays: Any) -> Raw:
    np.savez(file, **arrays)
    return read_npz(file, target)


def columns(raw: Raw) -> dict[str, list[object]]:
    assert isinstance(raw.features, Table)
    return {column.name: column.values.tolist() for column in raw.features.columns}


@pytest.mark.parametrize("names", [("x", "y"), ("X", "Y"), ("X", "y")])
def test_x_and_y(file: Path, names: tuple[str, str]) -> None:
    raw = read(file, **{names[0]: X, names[1]: Y})
    assert columns(raw) == {"x0": [1, 2, 3], "x1": [5, 6, 7]}
    assert raw.target.values.tolist() == [0, 1, 0]
    assert (raw.name, raw.official_train, raw.class_names) == ("toy", None, None)


def test_a_split_of_its_own(file: Path) -> None:
    raw = read(file, x_train=X, y_train=Y, X_test=X[:1], y_test=Y[:1, None])
    assert columns(raw) == {"x0": [1, 2, 3, 1], "x1": [5, 6, 7, 5]}
    assert raw.target.values.tolist() == [0, 1, 0, 0]
    assert raw.official_train == 3


def test_names_and_classes(file: Path) -> None:
    names = {"feature_names": ["a", "b"], "classes": ["no", "yes"], "target": "sick"}
    raw = read(file, x=X, y=Y, **names)
    assert list(columns(raw)) == ["a", "b"]
    assert (raw.class_names, raw.target.name) == (("no", "yes"), "sick")
    assert read_npz(file, "sick").target.values.tolist() == [0, 1, 0]


def test_codes_of_categories(file: Path) -> None:
    codes = np.array([[0.0], [1.0], [7.0], [np.nan]])
    raw = read(file, x=codes, y=[0, 1, 0, 1], feature_names=["c-d"], categories_c_d=["u", "v"])
    assert columns(raw) == {"c-d": ["u", "v", None, None]}


def test_target_names_another_array(file: Path) -> None:
    raw = read(file, "age", x=X, y=Y, age=[30, 40, 50])
    assert raw.target.values.tolist() == [30, 40, 50]
    arrays = {"x_train": X, "x_test": X, "age_train": [1, 2, 3], "age_test": [4, 5, 6]}
    raw = read(file, "age_train", **arrays)
    assert raw.target.values.tolist() == [1, 2, 3, 4, 5, 6]


def test_target_names_a_column_of_x(file: Path) -> None:
    raw = read(file, "b", x=X, feature_names=["a", "b"])
    assert (columns(raw), raw.target.values.tolist()) == ({"a": [1, 2, 3]}, [5, 6, 7])


def test_one_array_a_column(file: Path) -> None:
    raw = read(file, "c", x=[1, 2], b=["u", "?"], c=[True, False])
    assert columns(raw) == {"x": [1, 2], "b": ["u", None]}
    assert raw.target.kind == "flag"


def test_one_feature(file: Path) -> None:
    assert columns(read(file, x=[1, 2], y=[0, 1])) == {"x0": [1, 2]}


@pytest.mark.parametrize(
    ("shape", "plane"),
    [
        ((3, 4, 5), (4, 5)),
        ((3, 1, 4, 5), (4, 5)),
        ((3, 4, 5, 1), (4, 5)),
        ((3, 3, 4, 5), (3, 4, 5)),
        ((3, 4, 5, 3), (3, 4, 5)),
        ((3, 2, 4, 5), None),
    ],
)
def test_images(file: Path, shape: tuple[int, ...], plane: tuple[int, ...] | None) -> None:
    raw = read(file, x=np.zeros(shape, np.uint8), y=Y)
    assert isinstance(raw.features, Pixels)
    assert raw.features.values.shape == (3, np.prod(shape[1:]))
    assert (raw.features.shape, raw.features.peak) == (plane, 255.0)


OBJECTS = np.array([0, "a", None], dtype=object)
KEYS = "or one array a column with target naming one of them"


@pytest.mark.parametrize(
    ("arrays", "target", "sentence"),
    [
        ({"x": X}, None, "target must name a column of file FILE: x0, x1"),
        ({"x": X[:, :, None]}, None, "file FILE must hold the array 'y', got x"),
        ({"a": Y}, None, "file FILE must hold x and y, x_train, y_train, x_test and y_test, "
         f"{KEYS}, got a"),
        ({"x_train": X, "y_train": Y}, None, "file FILE must hold the array 'x_test', got x_train, "
         "y_train"),
        ({"x": X, "y": OBJECTS}, None, "array 'y' of FILE must hold numbers or text, got Python "
         "objects, which are never unpickled"),
        ({"x": X, "y": Y[:2]}, None, "array 'y' of FILE must have the shape (3,), one label a row, "
         "got (2,)"),
        ({"x": X, "y": np.eye(3)}, None, "array 'y' of FILE must have the shape (3,), one label a "
         "row, got (3, 3)"),
        ({"x_train": X, "y_train": Y, "x_test": X[:, :1], "y_test": Y}, None, "x_test of FILE must "
         "have the shape of x_train but for the rows, (2,), got (1,)"),
        ({"x": X, "y": Y, "feature_names": ["a"]}, None, "feature_names of FILE must be as many as "
         "the features, 2, got 1"),
        ({"x": X, "y": Y, "feature_names": ["a", "a"]}, None, "column names must be distinct, got "
         "'a' twice"),
        ({"x": X[:0], "y": Y[:0]}, None, "x of FILE must have rows and features, got shape (0, 2)"),
        ({"x": X * 1j, "y": Y}, None, "column 'x0' must hold numbers, text or dates, got "
         "complex128"),
        ({"x": np.full((3, 2, 2), "a"), "y": Y}, None, "images in FILE must hold numbers, got <U1"),
        ({"x": X, "y": Y, "target": "Goal"}, "goal", "target must be an array of labels in file "
         "FILE (y, Goal), got 'goal'; did you mean 'Goal'?"),
        ({"a": X, "b": Y}, "b", "array 'a' of FILE must have the shape (3,) of the target, got "
         "(3, 2)"),
    ],
)  # fmt: skip
def test_refusals(file: Path, arrays: dict[str, Any], target: str | None, sentence: str) -> None:
    with pytest.raises(DataError) as error:
        read(file, target, **arrays)
    assert str(error.value) == sentence.replace("FILE", str(file))


def test_damaged_archives(file: Path) -> None:
    np.savez_compressed(file, x=np.random.Generator(np.random.PCG64(0)).random((40, 4)), y=Y)
    whole = file.read_bytes()
    single = io.BytesIO()
    np.save(single, X)
    flipped = whole[:400] + bytes(255 - byte for byte in whole[400:500]) + whole[500:]
    for content, start in (
        (b"", f"file {file} must be a complete npz file: "),
        (b"PK\x03\x04", f"file {file} must be a complete npz file: "),
        (whole[:-30], f"file {file} must be a complete npz file: "),
        (b"x" * 100, f"file {file} must be a complete npz file: "),
        (flipped, f"array 'x' of {file} must be complete: "),
        (single.getvalue(), f"file {file} must be an npz file, got a single array"),
    ):
        file.write_bytes(content)
        with pytest.raises(DataError) as error:
            read_npz(file)
        assert str(error.value).startswith(start)


@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=4))
def test_any_damage_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]]
) -> None:
    file = tmp_path_factory.mktemp("damage") / "toy.npz"
    np.savez_compressed(file, x=X, y=Y)
    content = bytearray(file.read_bytes())
    for position, value in changes:
        content[position % len(content)] = value
    file.write_bytes(content)
    with contextlib.suppress(DataError):
        read_npz(file)
