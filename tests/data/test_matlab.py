import re
from pathlib import Path

import numpy as np
import pytest

from regrow.data import load
from regrow.data.errors import DataError
from regrow.data.sources import read

scipy_io = pytest.importorskip("scipy.io", reason="SciPy is not installed")
sparse = pytest.importorskip("scipy.sparse", reason="SciPy is not installed")

X = np.arange(40.0).reshape(20, 2) % 7
Y = np.arange(20)[:, None] % 2 + 1


def written(folder: Path, **variables: object) -> Path:
    scipy_io.savemat(folder / "toy.mat", variables)
    return folder / "toy.mat"


@pytest.mark.parametrize("names", [("X", "Y"), ("fea", "gnd"), ("x", "label")])
def test_the_usual_names_are_understood(tmp_path: Path, names: tuple[str, str]) -> None:
    raw = read(written(tmp_path, **{names[0]: X, names[1]: Y}))
    assert np.array_equal([column.values for column in raw.features.columns], X.T)
    assert np.array_equal(raw.target.values, Y.ravel())
    assert raw.target.name == names[1]


def test_a_sparse_matrix_and_a_named_target(tmp_path: Path) -> None:
    file = written(tmp_path, data=sparse.csc_matrix(X), Y=Y, other=3 - Y)
    raw = read(file, target="other")
    assert np.array_equal(raw.features.columns[1].values, X[:, 1])
    assert np.array_equal(raw.target.values, (3 - Y).ravel())


def test_it_can_be_trained_on(tmp_path: Path) -> None:
    data = load(written(tmp_path, X=X, Y=Y))
    assert (data.n_features, data.n_classes) == (2, 2)


@pytest.mark.parametrize(
    ("variables", "target", "sentence"),
    [
        ({"X": X}, None, "must hold its labels as Y, y, gnd, label, labels, got X"),
        ({"Y": Y}, None, "must hold its features as X, x, fea, data, got Y"),
        ({"X": X, "Y": Y}, "Z", "(X, Y), got 'Z'"),
        ({"X": X, "Y": Y[:5]}, None, "labels 'Y' of TMP must be one a row, 20, got 5"),
        ({"X": np.array(["a", "b"]), "Y": Y}, None, "must be a matrix of numbers, got <U1"),
    ],
)
def test_refusals(tmp_path: Path, variables: dict, target: str | None, sentence: str) -> None:
    file = written(tmp_path, **variables)
    with pytest.raises(DataError, match=re.escape(sentence.replace("TMP", str(file)))):
        read(file, target)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "toy.mat").write_bytes(b"no matlab at all" * 20)
    with pytest.raises(DataError, match=r"must be a MATLAB file up to 7\.2"):
        read(tmp_path / "toy.mat")
