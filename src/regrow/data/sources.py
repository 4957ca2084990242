"""Data sets behind names and paths."""

from __future__ import annotations

import os
from pathlib import Path

from regrow.data.arrays import read_npz
from regrow.data.dataset import Dataset, build
from regrow.data.digits import read_digits
from regrow.data.errors import DataError
from regrow.data.images import CIFAR10, FASHION_MNIST, MNIST, read_images
from regrow.data.matlab import read_mat
from regrow.data.splits import SplitOptions
from regrow.data.table import Raw, close_match
from regrow.data.tabular import read_csv, read_parquet
from regrow.data.text import TEXTS, build_text, read_text, read_text_file

IMAGES = {"mnist": MNIST, "fashion-mnist": FASHION_MNIST, "cifar10": CIFAR10}
"""Image data sets by name."""

SOURCES = ("digits", *IMAGES, *TEXTS)
"""Names that `load` understands besides paths."""

SUFFIXES = (".csv", ".csv.gz", ".parquet", ".npz", ".mat", ".txt", ".txt.gz")
"""Endings of the files that `load` reads."""


def load(
    source: str | os.PathLike[str],
    *,
    target: str | int | None = None,
    task: str = "auto",
    data_dir: str | os.PathLike[str] | None = None,
    seed: int = 0,
    validation: float = 0.1,
    test: float = 0.2,
    limit_train: int | None = None,
    limit_test: int | None = None,
    context: int = 128,
) -> Dataset:
    """Load a data set, split it and make its features numbers.

    The same arguments give the same parts. Splits are stratified for classification. A test split
    that the source has (mnist, fashion-mnist, cifar10, wikitext-2, npz with x_test) is respected.
    What is learned from data is learned from the training part alone.

    Args:
        source: "digits" (in the package); "mnist", "fashion-mnist", "cifar10", or, as characters,
            "tiny-shakespeare", "wikitext-2", "gutenberg" (read from `data_dir`); or a path to a
            .csv, .csv.gz, .parquet, .npz, .mat, .txt or .txt.gz file, also relative to `data_dir`.
        target: The column to predict, by name or by position from 0 (-1 is the last); for CSV and
            Parquet files, and for npz files whose labels are not under y.
        task: "classification", "regression" or "auto": text and true/false are classes, and so
            are whole numbers of which at most 20 differ and each occurs twice on average.
        data_dir: The folder of the data; falls back to the environment variable REGROW_DATA.
        seed: Starts the generator of the splits, at least 0.
        validation: Fraction of the training rows held out to choose by, in [0, 1).
        test: Fraction of all rows held out, in (0, 1); unused where the source has a test split.
        limit_train: Keep at most this many training rows, validation included, at least 10: the
            first of named images and of text, elsewhere a seeded sample.
        limit_test: Keep at most this many test rows, chosen likewise.
        context: Characters of a row of text.

    Returns:
        The data set.

    Raises:
        FileNotFoundError: If a file or folder is not there.
        DataError: If the data or the arguments cannot be used; one sentence says why.
        ImportError: If pandas is needed and not installed.

    Example:
        >>> data = load("digits", limit_train=500, limit_test=100)
        >>> len(data.y_train), len(data.y_validation), len(data.y_test)
        (450, 50, 100)
    """
    options = SplitOptions(seed, validation, test, limit_train, limit_test)
    folder, name = _folder(data_dir), os.fspath(source)
    if name in SOURCES:
        _check_named(name, target, task)
        if name in TEXTS:
            return build_text(read_text(name, folder), context, options)
        raw = read(name, data_dir=folder)
        return build(raw, task=task, options=options, first=name in IMAGES)
    file = _find_file(name, folder)
    if file.name.lower().endswith((".txt", ".txt.gz")):
        _check_named(file.name, target, task)
        return build_text(read_text_file(file), context, options)
    return build(_read_file(file, target), task=task, options=options)


def read(
    source: str | os.PathLike[str],
    target: str | int | None = None,
    *,
    data_dir: str | os.PathLike[str] | None = None,
) -> Raw:
    """Read a table or images as they are: not split, nothing made a number.

    Args:
        source: As of `load`, but no text.
        target: As of `load`.
        data_dir: As of `load`.

    Raises:
        FileNotFoundError: If a file or folder is not there.
        DataError: If the data or the arguments cannot be used.
        ImportError: If a package for this kind of file is not installed.

    Example:
        >>> read("digits").target.name
        'digit'
    """
    folder, name = _folder(data_dir), os.fspath(source)
    if name in SOURCES:
        _check_named(name, target, "auto")
        if name in TEXTS:
            raise DataError(f"source must be a table or images, got the text {name!r}")
        return read_images(IMAGES[name], folder) if name in IMAGES else read_digits()
    file = _find_file(name, folder)
    if file.name.lower().endswith((".txt", ".txt.gz")):
        raise DataError(f"source must be a table or images, got the text {file.name!r}")
    return _read_file(file, target)


def _folder(data_dir: str | os.PathLike[str] | None) -> Path | None:
    named = data_dir if data_dir is not None else os.environ.get("REGROW_DATA")
    return Path(named).expanduser() if named else None


def _check_named(source: str, target: str | int | None, task: str) -> None:
    if target is not None:
        raise DataError(f"target must be left out for {source}, which has its own, got {target!r}")
    text = source in TEXTS or source.lower().endswith((".txt", ".txt.gz"))
    if task != "auto" and (text or task == "regression"):
        must = "be left out" if text else "be classification"
        raise DataError(f"task of {source} must {must}, got {task!r}")


def _find_file(source: str, folder: Path | None) -> Path:
    path = Path(source).expanduser()
    places = [path] if folder is None else [path, folder / path]
    found = next((place for place in places if place.exists()), None)
    if found is None:
        if not path.name.lower().endswith(SUFFIXES):
            raise DataError(
                f"source must be one of {', '.join(SOURCES)} or a path to a "
                f"{', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]} file, got {source!r}"
                f"{close_match(source, SOURCES)}"
            )
        looked = " and ".join(str(place) for place in places)
        raise FileNotFoundError(f"data file must exist, got none at {looked}")
    if found.is_dir():
        raise DataError(f"source must be a file, got the folder {found}")
    if not found.name.lower().endswith(SUFFIXES):
        raise DataError(
            f"data file must end in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}, got {found.name}"
        )
    if found.stat().st_size == 0:
        raise DataError(f"file {found} must hold data, got an empty file")
    return found


def _read_file(path: Path, target: str | int | None) -> Raw:
    name = path.name.lower()
    if name.endswith(".npz"):
        return read_npz(path, target)
    if name.endswith(".mat"):
        return read_mat(path, target)
    return read_parquet(path, target) if name.endswith(".parquet") else read_csv(path, target)
