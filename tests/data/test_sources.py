from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from regrow.data import SOURCES, DataError, Dataset, load


@pytest.fixture(autouse=True)
def _no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REGROW_DATA", raising=False)


def write_npz(file: Path, rows: int = 20) -> None:
    np.savez(file, x=np.arange(rows) ** 2, y=np.arange(rows) % 2)


def same(one: Dataset, other: Dataset) -> bool:
    return torch.equal(one.x_train, other.x_train) and torch.equal(one.y_test, other.y_test)


def test_digits() -> None:
    data = load("digits")
    assert [len(y) for y in (data.y_train, data.y_validation, data.y_test)] == [1294, 144, 359]
    assert data.x_train.mean().item() == pytest.approx(0, abs=1e-5)
    assert data.x_train.std(correction=0).item() == pytest.approx(1, abs=1e-5)
    counts = torch.bincount(data.y_test)
    assert counts.max() - counts.min() <= 2


def test_the_seed_decides() -> None:
    assert same(load("digits"), load("digits", seed=0))
    assert not same(load("digits"), load("digits", seed=1))


def test_limits_sample_where_there_is_no_official_split() -> None:
    data = load("digits", limit_train=100, limit_test=50, validation=0)
    assert (len(data.y_train), len(data.y_test)) == (100, 50)
    assert torch.bincount(data.y_train).tolist() == pytest.approx([10] * 10, abs=1)


@pytest.mark.parametrize("as_path", [True, False])
def test_a_path_also_below_the_data_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_path: bool
) -> None:
    file = tmp_path / "toy.NPZ"
    np.savez(tmp_path / "toy.npz", x=np.arange(20) ** 2, y=np.arange(20) % 2)
    (tmp_path / "toy.npz").rename(file)
    direct = load(file if as_path else str(file))
    assert direct.name == "toy"
    assert same(direct, load("toy.NPZ", data_dir=tmp_path))
    monkeypatch.setenv("REGROW_DATA", str(tmp_path))
    assert same(direct, load(Path("toy.NPZ")))


def test_csv_end_to_end(tmp_path: Path) -> None:
    pytest.importorskip("pandas", reason="pandas is in the extra `tabular`")
    file = tmp_path / "people.csv"
    rows = [
        f"{i},{20 + i % 7},{'fm'[i % 2]},{i % 2 == 0},{'no' if i % 3 else 'yes'}" for i in range(40)
    ]
    file.write_text("\n".join(["id,age,sex,member,bought", *rows]))
    data = load(file, target="bought")
    assert data.feature_names == ("age", "sex=f", "sex=m", "member")
    assert data.class_names == ("no", "yes")
    assert len(data.y_test) == 8
    assert same(data, load(file, target="4"))
    assert load(file, target="age", task="regression").target_scale is not None
    assert load(file, target="age").task == "classification"


def test_three_rows(tmp_path: Path) -> None:
    write_npz(tmp_path / "toy.npz", 3)
    with pytest.raises(DataError) as error:
        load(tmp_path / "toy.npz", task="regression")
    assert str(error.value) == "the data must have at least 10 rows with a target, got 3"


ENDINGS = ".csv, .csv.gz, .parquet, .npz, .mat, .txt or .txt.gz"
KNOWN = f"source must be one of {', '.join(SOURCES)} or a path to a {ENDINGS}"


@pytest.mark.parametrize(
    ("source", "options", "sentence"),
    [
        ("cifar", {}, f"{KNOWN} file, got 'cifar'; did you mean 'cifar10'?"),
        ("fashion_mnist", {}, f"{KNOWN} file, got 'fashion_mnist'; did you mean 'fashion-mnist'?"),
        ("TMP/a.xlsx", {}, f"data file must end in {ENDINGS}, got a.xlsx"),
        ("TMP", {}, "source must be a file, got the folder TMP"),
        ("TMP/empty.csv", {}, "file TMP/empty.csv must hold data, got an empty file"),
        ("digits", {"target": "y"}, "target must be left out for digits, which has its own, got "
         "'y'"),
        ("mnist", {"task": "regression"}, "task of mnist must be classification, got 'regression'"),
        ("digits", {"task": "rank"}, "task must be one of auto, classification, regression, got "
         "'rank'"),
        ("digits", {"validation": -0.5}, "validation must be in [0, 1), got -0.5"),
    ],
)  # fmt: skip
def test_refusals(tmp_path: Path, source: str, options: dict[str, Any], sentence: str) -> None:
    (tmp_path / "a.xlsx").write_bytes(b"x")
    (tmp_path / "empty.csv").touch()
    with pytest.raises(DataError) as error:
        load(source.replace("TMP", str(tmp_path)), **options)
    assert str(error.value) == sentence.replace("TMP", str(tmp_path))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as error:
        load("no/such.csv", target="y", data_dir=tmp_path)
    expected = f"data file must exist, got none at no/such.csv and {tmp_path / 'no/such.csv'}"
    assert str(error.value) == expected


@pytest.mark.parametrize("source", [name for name in SOURCES if name != "digits"])
def test_a_source_without_its_folder(source: str) -> None:
    with pytest.raises(FileNotFoundError, match="--data-dir or REGROW_DATA"):
        load(source)


def test_fashion_mnist_first_rows(data_dir: Path) -> None:
    if not (data_dir / "fashion-mnist").is_dir():
        pytest.skip(f"no fashion-mnist in {data_dir}")
    options: dict[str, Any] = {"limit_train": 2000, "limit_test": 1000, "validation": 0}
    data = load("fashion-mnist", data_dir=data_dir, **options)
    assert data.x_train.shape == (2000, 784)
    # The first labels of the published files.
    assert data.y_train[:10].tolist() == [9, 0, 0, 3, 0, 2, 7, 2, 5, 5]
    assert data.y_test[:10].tolist() == [9, 2, 1, 1, 6, 1, 4, 6, 5, 7]
    assert data.image_shape == (28, 28)
    other_seed = load("fashion-mnist", data_dir=data_dir, seed=1, **options)
    assert same(data, other_seed)


@pytest.mark.parametrize(
    ("name", "task", "features"),
    [("adult", "classification", 107), ("cal_housing", "regression", 8)],
)
def test_tabular_sets(data_dir: Path, name: str, task: str, features: int) -> None:
    file = data_dir / "tabular" / f"{name}.npz"
    if not file.is_file():
        pytest.skip(f"no {name} in {data_dir}")
    data = load(file)
    assert (data.task, data.n_features) == (task, features)
    assert data.x_train.isfinite().all()
    assert data.x_test.isfinite().all()
