"""`regrow select` as a user types it, on tiny tables."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest

from regrow.cli import main
from regrow.selection.planted import planted

DATA = planted(120, 12, informative=3, redundant=1, clusters=1, seed=0)
NAMES = [f"gene {i}" for i in range(12)]


def written(folder: Path, table=DATA.table, labels=DATA.labels, names=NAMES) -> str:
    path = folder / "toy.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*names, "tumour"])
        writer.writerows([*row, label] for row, label in zip(table, labels, strict=True))
    return str(path)


def chosen(folder: Path, *arguments: str, code: int = 0) -> None:
    few = ["--epochs", "3", "--seeds", "2", "--threads", "1", "--quiet"]
    assert main(["select", *arguments, *few, "--out", str(folder / "out")]) == code


@pytest.mark.parametrize("method", ["quickselection", "wast", "neurofs", "attribution"])
def test_what_is_written_fits_together(tmp_path: Path, method: str, capsys) -> None:
    chosen(tmp_path, written(tmp_path), "--target", "tumour", "-k", "4", "--method", method)
    said = capsys.readouterr().out
    assert "4 of 12 features of toy" in said
    out = tmp_path / "out"
    with (out / "ranking.csv").open() as file:
        ranking = list(csv.DictReader(file))
    assert [int(line["rank"]) for line in ranking] == list(range(1, 13))
    shares = [float(line["importance"]) for line in ranking]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(1.0, abs=1e-4)
    best = [line["feature"] for line in ranking[:4]]
    with (out / "selected.csv").open() as file:
        heads, *rows = csv.reader(file)
    assert heads == [*best, "tumour"]
    places = [NAMES.index(name) for name in best]
    np.testing.assert_allclose(
        np.array([row[:4] for row in rows], dtype=float), DATA.table[:, places], rtol=1e-5
    )
    figures = json.loads((out / "selection.json").read_text())
    assert figures["chosen"] == best
    assert figures["counts"] == [1, 2, 4, 8]
    assert set(figures["accuracy"]) == {method, "f-test", "trees", "variance", "chance"}
    assert all(0 <= v <= 1 for seeds in figures["accuracy"].values() for s in seeds for v in s)
    page = (out / "report.html").read_text()
    assert all(name in page for name in best)
    assert sorted(p.name for p in (out / "figures").iterdir()) == ["accuracy.png", "importance.png"]


def test_images_get_a_map(tmp_path: Path) -> None:
    chosen(tmp_path, "digits", "-k", "8", "--method", "wast", "--against", "chance")
    assert (tmp_path / "out" / "figures" / "pixels.png").exists()


def test_without_a_target_there_is_a_ranking_and_no_comparison(tmp_path: Path, capsys) -> None:
    chosen(tmp_path, written(tmp_path), "-k", "4", "--method", "wast")
    assert "There is no comparison of accuracies: there is no target." in capsys.readouterr().out
    figures = json.loads((tmp_path / "out" / "selection.json").read_text())
    assert figures["features"] == 13
    assert figures["accuracy"] == {}


def test_a_seed_repeats_everything(tmp_path: Path) -> None:
    tables = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        chosen(tmp_path / name, written(tmp_path), "--target", "tumour", "-k", "3")
        tables.append((tmp_path / name / "out" / "ranking.csv").read_text())
    assert tables[0] == tables[1]


TEXT = [*NAMES[:11], "colour"]


@pytest.mark.parametrize(
    ("change", "arguments", "sentence"),
    [
        ({}, ["-k", "13"], "k must be at most the number of features, 12, got 13"),
        ({}, ["-k", "0"], "k must be a whole number >= 1, got 0"),
        ({}, ["--method", "magic"], "method must be one of quickselection, wast, neurofs"),
        ({}, ["--against", "luck"], "against must be one of variance, laplacian"),
        ({}, ["--test", "1"], "test must be in (0, 1), got 1.0"),
        ({"table": np.ones((120, 12))}, [], "must vary, got constant columns only"),
        (
            {"table": np.where(np.arange(12) == 3, np.nan, DATA.table)},
            [],
            "must be complete, got missing values in gene 3",
        ),
        (
            {"table": np.where(np.arange(12) == 11, "red", DATA.table.astype(str)), "names": TEXT},
            [],
            "must be numbers, got text in colour",
        ),
        ({"labels": np.ones(120, int)}, [], "all 120 rows have the same target"),
        ({"labels": DATA.table[:, 0]}, [], "the target is a quantity"),
        ({"labels": np.arange(120)}, [], "the target has 120 different values in 120 rows"),
    ],
)
def test_bad_input_gets_one_sentence(
    tmp_path: Path, change: dict, arguments: list[str], sentence: str, capsys
) -> None:
    file = written(tmp_path, **change)
    chosen(tmp_path, file, "--target", "tumour", "-k", "4", *arguments, code=2)
    said = capsys.readouterr().err
    assert re.fullmatch(r"regrow: .*\n", said)
    assert sentence in said
    assert not (tmp_path / "out").exists()
