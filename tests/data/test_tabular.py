import gzip
import sys
from pathlib import Path

import numpy as np
import pytest

from regrow.data import DataError
from regrow.data.table import Column, Raw, Table
from regrow.data.tabular import read_csv, read_parquet

pandas = pytest.importorskip("pandas", reason="pandas is in the extra `tabular`")


def csv(tmp_path: Path, text: str, target: str | int | None = "y") -> Raw:
    file = tmp_path / "toy.csv"
    file.write_text(text, encoding="utf-8")
    return read_csv(file, target)


def columns(raw: Raw) -> dict[str, Column]:
    assert isinstance(raw.features, Table)
    return {column.name: column for column in raw.features.columns}


def test_kinds_of_columns(tmp_path: Path) -> None:
    text = "n,i,flag,text,mixed,y\n1.5,1,True,a,1,no\n,2,False, ? ,x,yes\n-1e3,3,True,None,2,no\n"
    raw = csv(tmp_path, text)
    got = columns(raw)
    assert raw.name == "toy"
    assert {name: column.kind for name, column in got.items()} == {
        "n": "number", "i": "number", "flag": "flag", "text": "text", "mixed": "text",
    }  # fmt: skip
    np.testing.assert_array_equal(got["n"].values, [1.5, np.nan, -1000])
    assert got["flag"].values.tolist() == [1, 0, 1]
    assert got["text"].values.tolist() == ["a", None, "None"]
    assert got["mixed"].values.tolist() == ["1", "x", "2"]
    assert raw.target.values.tolist() == ["no", "yes", "no"]


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_other_separators(tmp_path: Path, separator: str) -> None:
    raw = csv(tmp_path, "'a,b'|c|y\n1|2|3\n".replace("|", separator))
    assert list(columns(raw)) == ["'a,b'", "c"]
    assert raw.notes == (f"columns are separated by {separator!r}",)


def test_quotes_spaces_and_byte_order_mark(tmp_path: Path) -> None:
    raw = csv(tmp_path, '\ufeff"a, b", c , y\n1, "x, z", 0\n')
    got = columns(raw)
    assert list(got) == ["a, b", "c"]
    assert got["c"].values.tolist() == ["x, z"]


def test_blank_lines_are_skipped(tmp_path: Path) -> None:
    assert columns(csv(tmp_path, "\n\na,y\n\n1,2\n\n"))["a"].values.tolist() == [1]


@pytest.mark.parametrize("text", ["5,1,3\n4,1,7\n", "5.1,setosa,3\n4.9,setosa,7\n"])
def test_a_file_without_names(tmp_path: Path, text: str) -> None:
    raw = csv(tmp_path, text, "-1")
    assert list(columns(raw)) == ["0", "1"]
    assert raw.target.values.tolist() == [3, 7]
    assert raw.notes == ("the first line holds numbers, so columns are named by position",)


@pytest.mark.parametrize("header", ["0,1,2", "country,2018,2019"])
def test_numbers_as_names(tmp_path: Path, header: str) -> None:
    raw = csv(tmp_path, f"{header}\n7,8,9\n", -1)
    assert [*columns(raw), raw.target.name] == header.split(",")


def test_gzip(tmp_path: Path) -> None:
    file = tmp_path / "toy.csv.gz"
    file.write_bytes(gzip.compress(b"a,y\n1,2\n"))
    raw = read_csv(file, "y")
    assert (raw.name, raw.target.values.tolist()) == ("toy", [2])


@pytest.mark.parametrize(
    ("text", "target", "sentence"),
    [
        ("a,b,y\n1,2,3\n", None, "target must name a column of file FILE: a, b, y"),
        ("a,b,y\n1,2,3\n", "z", "target must be a column of file FILE (a, b, y), got 'z'"),
        ("a,b,Salary\n1,2,3\n", "salry", "target must be a column of file FILE (a, b, Salary), got "
         "'salry'; did you mean 'Salary'?"),
        ("a,b,y\n1,2,3\n", "3", "target must be a column of file FILE (a, b, y), got '3'"),
        ("a,a ,y\n1,2,3\n", "y", "column names must be distinct, got 'a' twice"),
        ("a,b,y\n", "y", "file FILE must hold rows, got none below the column names"),
        ("\n \n", "y", "file FILE must hold a line of column names and rows, got nothing"),
        ("a,y\n1,2\n1,2,3\n", "y", "file FILE must be a table of even rows: Error tokenizing data. "
         "C error: Expected 2 fields in line 3, saw 3"),
        ("a,y\n1,2,3\n1,2,3\n", "y", "file FILE must be a table of even rows: Length of header or "
         "names does not match length of data. This leads to a loss of data with index_col=False."),
    ],
)  # fmt: skip
def test_refusals(tmp_path: Path, text: str, target: str | None, sentence: str) -> None:
    with pytest.raises(DataError) as error:
        csv(tmp_path, text, target)
    assert str(error.value) == sentence.replace("FILE", str(tmp_path / "toy.csv"))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"caf\xe9,y\n1,2\n", "UTF-8 text: 'utf-8' codec can't decode byte 0xe9"),
        (
            b"a,y\n" + b"x,2\n" * 99_999 + b"caf\xe9,2\n",
            "UTF-8 text: 'utf-8' codec can't decode byte 0xe9",
        ),
        (
            gzip.compress(b"a,y\n1,2\n", mtime=0)[:-9],
            "readable to its end: Compressed file ended before",
        ),
    ],
    ids=["first line", "later line", "cut gzip"],
)
def test_damaged_csv(tmp_path: Path, content: bytes, problem: str) -> None:
    file = tmp_path / "toy.csv"
    file.write_bytes(content)
    with pytest.raises(DataError) as error:
        read_csv(file, "y")
    assert str(error.value).startswith(f"file {file} must be {problem}")


def test_parquet(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is in the extra `tabular`")
    file = tmp_path / "toy.parquet"
    frame = pandas.DataFrame(
        {
            "day": pandas.to_datetime(["1970-01-02", None]),
            "zone": pandas.to_datetime(["1970-01-01T00:00+01:00"] * 2),
            "long": pandas.to_timedelta([1, None], unit="h"),
            "level": pandas.Categorical(["u", None]),
            "whole": pandas.array([1, None], dtype="Int64"),
            "maybe": pandas.array([True, None], dtype="boolean"),
            "text": ["a", None],
            7: [1, 2],
            "y": [0.5, 1.5],
        }
    )
    frame.columns = frame.columns.map(str)
    frame.to_parquet(file)
    raw = read_parquet(file, "y")
    got = {name: (column.kind, column.values.tolist()) for name, column in columns(raw).items()}
    nan = pytest.approx(np.nan, nan_ok=True)
    assert got == {
        "day": ("date", [86400, nan]),
        "zone": ("date", [-3600, -3600]),
        "long": ("number", [3600, nan]),
        "level": ("text", ["u", None]),
        "whole": ("number", [1, nan]),
        "maybe": ("flag", [1, nan]),
        "text": ("text", ["a", None]),
        "7": ("number", [1, 2]),
    }


@pytest.mark.parametrize("content", [b"PAR1", b"x" * 100], ids=["short", "wrong"])
def test_damaged_parquet(tmp_path: Path, content: bytes) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is in the extra `tabular`")
    file = tmp_path / "toy.parquet"
    file.write_bytes(content)
    with pytest.raises(DataError) as error:
        read_parquet(file, "y")
    assert str(error.value).startswith(f"file {file} must be a complete Parquet file: ")


@pytest.mark.parametrize(("name", "module"), [("toy.csv", "pandas"), ("toy.parquet", "pyarrow")])
def test_a_missing_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    reader = read_csv if module == "pandas" else read_parquet
    with pytest.raises(ImportError) as error:
        reader(tmp_path / name, "y")
    assert str(error.value) == (
        f"{Path(name).suffix} files are read with {module}, which is not installed: "
        "pip install 'regrow[tabular]'"
    )
