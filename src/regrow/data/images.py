"""MNIST, Fashion-MNIST and CIFAR-10 from a folder the user names, in their own or npz form."""

from __future__ import annotations

import gzip
import math
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regrow.data.arrays import read_npz
from regrow.data.errors import DataError
from regrow.data.table import Column, Pixels, Raw

IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


@dataclass(frozen=True)
class ImageSource:
    """A named image data set that is read from a folder.

    Args:
        name: The name of the source and of its folder or npz file.
        origin: Where the files come from.
        class_names: Names of the labels 0, 1, ...
    """

    name: str
    origin: str
    class_names: tuple[str, ...]


MNIST = ImageSource(
    "mnist",
    "Y. LeCun, C. Cortes and C. Burges, http://yann.lecun.com/exdb/mnist, or a mirror",
    tuple("0123456789"),
)
FASHION_MNIST = ImageSource(
    "fashion-mnist",
    "Zalando Research, https://github.com/zalandoresearch/fashion-mnist",
    (
        "T-shirt/top",
        "trouser",
        "pullover",
        "dress",
        "coat",
        "sandal",
        "shirt",
        "sneaker",
        "bag",
        "ankle boot",
    ),
)
CIFAR10 = ImageSource(
    "cifar10",
    "A. Krizhevsky, https://www.cs.toronto.edu/~kriz/cifar.html, the binary version",
    (
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    ),
)
CIFAR_FILES = (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin")
CIFAR_SHAPE = (3, 32, 32)

# A copy of 20,000 + 5,000 images; what is stored are differences, which pack better.
_CIFAR_COPY = "cifar10_jpeg_20k_5k.npz"


def read_images(source: ImageSource, folder: Path | None) -> Raw:
    """Find and read an image data set.

    Looked at in turn: FOLDER/NAME/ and FOLDER/ for the four IDX files (gzip or plain), or the
    six of CIFAR-10 (also in FOLDER/cifar-10-batches-bin/), then FOLDER/NAME.npz and
    FOLDER/NAME/NAME.npz with x_train, y_train, x_test and y_test.

    Args:
        source: What to read.
        folder: Where to look.

    Raises:
        FileNotFoundError: If the folder is not named, or the files are not in it.
        DataError: If a file is damaged or the files do not fit together.
    """
    if folder is None:
        raise FileNotFoundError(_sentence(source, "got neither"))
    if not folder.is_dir():
        raise FileNotFoundError(_sentence(source, f"got {folder}, which is not a folder"))
    if source is CIFAR10:
        return _read_cifar(folder)
    lacking: tuple[str, ...] = IDX_FILES
    for place in (folder / source.name, folder):
        found = [_find_idx(place, name) for name in IDX_FILES]
        files = [file for file in found if file is not None]
        if len(files) == len(IDX_FILES):
            return _read_four(source, place, files)
        if files:
            lacking = tuple(n for n, f in zip(IDX_FILES, found, strict=True) if f is None)
    for file in (folder / f"{source.name}.npz", folder / source.name / f"{source.name}.npz"):
        if file.is_file():
            return _read_archive(source, file)
    missing = "them" if lacking == IDX_FILES else " and ".join(lacking)
    raise FileNotFoundError(_sentence(source, f"got {folder}, which lacks {missing}"))


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """Read an IDX file of bytes, gzip or plain (told by its first bytes, not by its name).

    Args:
        path: The file.
        dimensions: 1 for labels, 3 for images.

    Returns:
        uint8 of the shape in the header.

    Raises:
        DataError: If the file is not a complete IDX file of bytes with these dimensions.
    """
    content = _content(path)
    magic = bytes((0, 0, 8, dimensions))
    if content[:4] != magic:
        raise DataError(f"IDX file {path} must start with {magic.hex()}, got {content[:4].hex()!r}")
    start = 4 + 4 * dimensions
    sizes = [int.from_bytes(content[i : i + 4], "big") for i in range(4, start, 4)]
    expected = start
    if len(content) >= start:
        n_values = 1
        for size in sizes:
            n_values *= size
        expected += n_values
    if len(content) != expected:
        raise DataError(f"IDX file {path} must hold {expected:,} bytes, got {len(content):,}")
    return np.frombuffer(content, np.uint8, offset=start).reshape(sizes)


def _read_cifar(folder: Path) -> Raw:
    places = (folder / CIFAR10.name, folder / "cifar-10-batches-bin", folder)
    for place in places:
        files = [place / name for name in CIFAR_FILES]
        if all(file.is_file() for file in files):
            return _cifar(np.concatenate([_records(file) for file in files]), place)
        if (place / _CIFAR_COPY).is_file():
            return _read_copy(place / _CIFAR_COPY)
    for file in (folder / "cifar10.npz", folder / "cifar10" / "cifar10.npz"):
        if file.is_file():
            return _read_archive(CIFAR10, file)
    raise FileNotFoundError(_sentence(CIFAR10, f"got {folder}, which lacks them"))


def _records(file: Path) -> NDArray[np.uint8]:
    """Labels and pixels, uint8 ``[n, 3073]``, of one of CIFAR-10's binary files."""
    content, size = _content(file), 1 + math.prod(CIFAR_SHAPE)
    if not content or len(content) % size:
        raise DataError(f"file {file} must hold records of {size:,} bytes, got {len(content):,}")
    return np.frombuffer(content, np.uint8).reshape(-1, size)


def _cifar(records: NDArray[np.uint8], place: Path) -> Raw:
    return Raw(
        CIFAR10.name,
        Pixels(records[:, 1:], CIFAR_SHAPE, 255.0),
        Column("label", records[:, 0].astype(np.float64)),
        official_train=5 * len(records) // 6,
        class_names=CIFAR10.class_names,
        notes=(f"read from {place}",),
    )


def _read_copy(file: Path) -> Raw:
    raw = _read_archive(CIFAR10, file)
    assert isinstance(raw.features, Pixels)
    planes = raw.features.values.reshape(-1, *CIFAR_SHAPE)
    planes = np.cumsum(planes, axis=-1, dtype=np.uint8)
    planes[:, ::2] += planes[:, 1:2]  # red and blue are stored as differences from green
    values = planes.reshape(len(planes), -1)
    return replace(raw, features=Pixels(values, CIFAR_SHAPE, 255.0))


def _content(path: Path) -> bytes:
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"file {path} must be readable to its end: {error}") from error


def _find_idx(folder: Path, name: str) -> Path | None:
    dotted = name.replace("-idx", ".idx")  # the names some unpackers give
    for candidate in (f"{name}.gz", name, f"{dotted}.gz", dotted):
        if (folder / candidate).is_file():
            return folder / candidate
    return None


def _read_four(source: ImageSource, place: Path, files: list[Path]) -> Raw:
    train, test = read_idx(files[0], 3), read_idx(files[2], 3)
    train_labels, test_labels = read_idx(files[1], 1), read_idx(files[3], 1)
    for images, labels, file in ((train, train_labels, files[1]), (test, test_labels, files[3])):
        if len(images) != len(labels):
            raise DataError(
                f"labels in {file} must be as many as the images, {len(images):,}, "
                f"got {len(labels):,}"
            )
    if train.shape[1:] != test.shape[1:]:
        raise DataError(
            f"test images in {files[2]} must have the shape of the training images, "
            f"{train.shape[1:]}, got {test.shape[1:]}"
        )
    height, width = train.shape[1:]
    values: NDArray[Any] = np.concatenate([train, test]).reshape(-1, height * width)
    labels = np.concatenate([train_labels, test_labels]).astype(np.float64)
    pixels = Pixels(values, (height, width), 255.0)
    return Raw(
        source.name,
        pixels,
        Column("label", labels),
        official_train=len(train),
        class_names=source.class_names,
        notes=(f"read from {place}",),
    )


def _read_archive(source: ImageSource, file: Path) -> Raw:
    raw = read_npz(file)
    if not isinstance(raw.features, Pixels) or raw.official_train is None:
        raise DataError(f"file {file} must hold images [n, height, width] under x_train and x_test")
    return replace(
        raw, name=source.name, class_names=source.class_names, notes=(f"read from {file}",)
    )


def _sentence(source: ImageSource, got: str) -> str:
    files = ", ".join(CIFAR_FILES if source is CIFAR10 else [f"{name}.gz" for name in IDX_FILES])
    return (
        f"{source.name} must lie in a folder named by --data-dir or REGROW_DATA as {files} "
        f"(from {source.origin}) or as {source.name}.npz, {got}"
    )
