import gzip
from pathlib import Path

import numpy as np
import pytest

from regrow.data import DataError
from regrow.data.images import (
    CIFAR10,
    CIFAR_FILES,
    FASHION_MNIST,
    IDX_FILES,
    MNIST,
    read_idx,
    read_images,
)
from regrow.data.table import Pixels

IMAGES = np.arange(24, dtype=np.uint8).reshape(4, 2, 3)
LABELS = np.array([0, 1, 0, 9], np.uint8)


def idx(array: np.ndarray) -> bytes:
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes((0, 0, 8, array.ndim)) + sizes + array.tobytes()


def write_four(folder: Path, ending: str = "", labels: np.ndarray = LABELS) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    arrays = (IMAGES, labels, IMAGES[:2], labels[:2])
    for name, array in zip(IDX_FILES, arrays, strict=True):
        content = idx(array)
        (folder / f"{name}{ending}").write_bytes(gzip.compress(content) if ending else content)


@pytest.mark.parametrize("place", ["", "mnist"])
@pytest.mark.parametrize("ending", ["", ".gz"])
def test_idx_files_in_the_folder_or_below(tmp_path: Path, place: str, ending: str) -> None:
    write_four(tmp_path / place, ending)
    raw = read_images(MNIST, tmp_path)
    assert isinstance(raw.features, Pixels)
    assert raw.features.values.tolist() == [*IMAGES.reshape(4, 6).tolist(),
                                            *IMAGES[:2].reshape(2, 6).tolist()]  # fmt: skip
    assert raw.features.shape == (2, 3)
    assert raw.target.values.tolist() == [0, 1, 0, 9, 0, 1]
    assert raw.official_train == 4
    assert raw.class_names == tuple("0123456789")
    assert raw.notes == (f"read from {tmp_path / place}",)


def test_names_with_a_dot(tmp_path: Path) -> None:
    write_four(tmp_path)
    for name in IDX_FILES:
        (tmp_path / name).rename(tmp_path / name.replace("-idx", ".idx"))
    assert read_images(MNIST, tmp_path).official_train == 4


@pytest.mark.parametrize("file", ["fashion-mnist.npz", "fashion-mnist/fashion-mnist.npz"])
def test_npz_in_the_folder_or_below(tmp_path: Path, file: str) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    np.savez(tmp_path / file, x_train=IMAGES, y_train=LABELS, x_test=IMAGES, y_test=LABELS)
    raw = read_images(FASHION_MNIST, tmp_path)
    assert (raw.name, raw.official_train) == ("fashion-mnist", 4)
    assert raw.class_names is not None
    assert raw.class_names[9] == "ankle boot"
    assert raw.notes == (f"read from {tmp_path / file}",)


def test_npz_without_images(tmp_path: Path) -> None:
    file = tmp_path / "mnist.npz"
    np.savez(file, x=np.eye(3), y=np.arange(3))
    with pytest.raises(DataError) as error:
        read_images(MNIST, tmp_path)
    assert str(error.value) == (
        f"file {file} must hold images [n, height, width] under x_train and x_test"
    )


def needed(got: str) -> str:
    return (
        "mnist must lie in a folder named by --data-dir or REGROW_DATA as "
        "train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz, "
        "t10k-labels-idx1-ubyte.gz (from Y. LeCun, C. Cortes and C. Burges, "
        f"http://yann.lecun.com/exdb/mnist, or a mirror) or as mnist.npz, got {got}"
    )


def test_missing_files_are_named(tmp_path: Path) -> None:
    cases: list[tuple[Path | None, str]] = [
        (None, "neither"),
        (tmp_path / "none", f"{tmp_path / 'none'}, which is not a folder"),
        (tmp_path, f"{tmp_path}, which lacks them"),
    ]
    for folder, got in cases:
        with pytest.raises(FileNotFoundError) as error:
            read_images(MNIST, folder)
        assert str(error.value) == needed(got)


def test_one_missing_file_is_named(tmp_path: Path) -> None:
    write_four(tmp_path / "mnist")
    (tmp_path / "mnist" / IDX_FILES[3]).unlink()
    with pytest.raises(FileNotFoundError) as error:
        read_images(MNIST, tmp_path)
    assert str(error.value) == needed(f"{tmp_path}, which lacks t10k-labels-idx1-ubyte")


def test_as_many_labels_as_images(tmp_path: Path) -> None:
    write_four(tmp_path, labels=LABELS[:3])
    with pytest.raises(DataError) as error:
        read_images(MNIST, tmp_path)
    assert str(error.value) == (
        f"labels in {tmp_path / IDX_FILES[1]} must be as many as the images, 4, got 3"
    )


def test_images_of_one_shape(tmp_path: Path) -> None:
    write_four(tmp_path)
    (tmp_path / IDX_FILES[2]).write_bytes(idx(IMAGES[:2, :, :2]))
    with pytest.raises(DataError) as error:
        read_images(MNIST, tmp_path)
    assert str(error.value) == (
        f"test images in {tmp_path / IDX_FILES[2]} must have the shape of the training images, "
        "(2, 3), got (2, 2)"
    )


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "must start with 00000801, got ''"),
        (idx(IMAGES), "must start with 00000801, got '00000803'"),
        (b"\0\0\x0d\x01\0\0\0\0", "must start with 00000801, got '00000d01'"),
        (b"\0\0\x08\x01\0", "must hold 8 bytes, got 5"),
        (idx(LABELS)[:-1], "must hold 12 bytes, got 11"),
        (idx(LABELS) + b"x", "must hold 12 bytes, got 13"),
        (b"\0\0\x08\x01\xff\xff\xff\xff", "must hold 4,294,967,303 bytes, got 8"),
    ],
)
def test_damaged_idx(tmp_path: Path, content: bytes, problem: str) -> None:
    for ending, written in (("", content), (".gz", gzip.compress(content))):
        file = tmp_path / f"labels{ending}"
        file.write_bytes(written)
        with pytest.raises(DataError) as error:
            read_idx(file, 1)
        assert str(error.value) == f"IDX file {file} {problem}"


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda whole: whole[:-9], "Compressed file ended before the end-of-stream marker was"),
        (lambda whole: whole[:-8] + bytes(4) + whole[-4:], "CRC check failed"),
        (lambda whole: whole[:10] + b"\xff" * 9, "Error -3 while decompressing data: invalid"),
        (lambda whole: whole[:5], "Compressed file ended before the end-of-stream marker was"),
    ],
)
def test_damaged_gzip(tmp_path: Path, damage: object, problem: str) -> None:
    file = tmp_path / "labels.gz"
    assert callable(damage)
    file.write_bytes(damage(gzip.compress(idx(LABELS))))
    with pytest.raises(DataError) as error:
        read_idx(file, 1)
    assert str(error.value).startswith(f"file {file} must be readable to its end: {problem}")


@pytest.mark.parametrize("source", [MNIST, FASHION_MNIST])
def test_the_real_files(data_dir: Path, source: object) -> None:
    assert source in (MNIST, FASHION_MNIST)
    chosen = MNIST if source is MNIST else FASHION_MNIST
    if not (data_dir / chosen.name).is_dir():
        pytest.skip(f"no {chosen.name} in {data_dir}")
    raw = read_images(chosen, data_dir)
    assert isinstance(raw.features, Pixels)
    assert raw.features.values.shape == (70_000, 784)
    assert raw.official_train == 60_000
    assert np.bincount(raw.target.values[60_000:].astype(int)).sum() == 10_000
    mean = 0.1307 if chosen is MNIST else 0.2860  # the published means of the training pixels
    assert raw.features.values[:60_000].mean() / 255 == pytest.approx(mean, abs=5e-5)


def cifar_records(labels: np.ndarray) -> bytes:
    pixels = np.arange(len(labels) * 3072).reshape(len(labels), 3072) % 251
    return np.concatenate([labels[:, None], pixels], axis=1).astype(np.uint8).tobytes()


@pytest.mark.parametrize("place", ["", "cifar10", "cifar-10-batches-bin"])
def test_cifar_in_its_binary_form(tmp_path: Path, place: str) -> None:
    (tmp_path / place).mkdir(exist_ok=True)
    for i, name in enumerate(CIFAR_FILES):
        (tmp_path / place / name).write_bytes(cifar_records(np.array([i, 9])))
    raw = read_images(CIFAR10, tmp_path)
    assert isinstance(raw.features, Pixels)
    assert raw.features.shape == (3, 32, 32)
    assert raw.official_train == 10
    assert raw.target.values.tolist() == [0, 9, 1, 9, 2, 9, 3, 9, 4, 9, 5, 9]
    assert raw.features.values[1, :3].tolist() == [3072 % 251, 3073 % 251, 3074 % 251]
    (tmp_path / place / CIFAR_FILES[2]).write_bytes(b"short")
    with pytest.raises(DataError) as error:
        read_images(CIFAR10, tmp_path)
    assert str(error.value).endswith("must hold records of 3,073 bytes, got 5")


def test_cifar_stored_as_differences(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 3, 32, 32), dtype=np.uint8)
    stored = images.copy()
    stored[:, 0] -= images[:, 1]
    stored[:, 2] -= images[:, 1]
    stored = np.diff(stored, axis=-1, prepend=np.zeros((4, 3, 32, 1), np.uint8)).astype(np.uint8)
    labels = np.array([0, 1, 2, 3])
    np.savez(
        tmp_path / "cifar10_jpeg_20k_5k.npz",
        x_train=stored, y_train=labels, x_test=stored, y_test=labels,
    )  # fmt: skip
    raw = read_images(CIFAR10, tmp_path)
    assert isinstance(raw.features, Pixels)
    assert np.array_equal(raw.features.values[:4], images.reshape(4, -1))


def test_cifar_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"cifar10 must lie in .* data_batch_1.bin, .*lacks"
    ):
        read_images(CIFAR10, tmp_path)


def test_real_cifar(data_dir: Path) -> None:
    raw = read_images(CIFAR10, data_dir)
    assert isinstance(raw.features, Pixels)
    means = raw.features.values[:1000].reshape(-1, 3, 1024).mean((0, 2)) / 255
    assert means == pytest.approx([0.493, 0.483, 0.447], abs=0.02)
    assert raw.class_names is not None
    assert raw.class_names[0] == "airplane"
