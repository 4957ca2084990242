"""Text as characters."""

import gzip
from pathlib import Path

import pytest
import torch

from regrow.data import DataError, load
from regrow.data.splits import SplitOptions
from regrow.data.text import Text, build_text, read_text


def test_targets_are_the_next_characters() -> None:
    text = Text("toy", "abcdefg" * 10, "abc", "gfe")
    data = build_text(text, 2, SplitOptions())
    assert data.class_names == tuple("abcdefg")
    assert data.x_train[:3].tolist() == [[0, 1], [2, 3], [4, 5]]
    assert data.y_train[:3].tolist() == [[1, 2], [3, 4], [5, 6]]
    assert data.x_test.tolist() == [[6, 5]]
    assert data.y_test.tolist() == [[5, 4]]
    assert data.x_train.dtype == torch.int64
    assert len(data.x_train) == (70 - 1) // 2
    assert (data.task, data.n_features, data.n_classes) == ("language", 2, 7)


def test_a_character_that_training_does_not_know() -> None:
    data = build_text(Text("toy", "ab" * 20, "ab!", "b\N{SNOWMAN}a"), 2, SplitOptions())
    assert data.class_names == ("a", "b", "\N{REPLACEMENT CHARACTER}")
    assert data.y_validation.tolist() == [[1, 2]]
    assert data.x_test.tolist() == [[1, 2]]
    assert data.notes == ("characters without a training example, read as one: 2",)


def test_limits_keep_the_first_windows() -> None:
    text = Text("toy", "abcd" * 50, "abcd" * 20, "dcba" * 20)
    data = build_text(text, 3, SplitOptions(limit_train=20, limit_test=5))
    assert [len(x) for x in (data.x_train, data.x_validation, data.x_test)] == [18, 2, 5]
    whole = build_text(text, 3, SplitOptions())
    assert torch.equal(data.x_train, whole.x_train[:18])


def test_too_short() -> None:
    with pytest.raises(DataError) as error:
        build_text(Text("toy", "abc" * 4, "abc", "abc"), 2, SplitOptions())
    assert str(error.value) == (
        "the training part of toy must have at least 10 windows of 2 characters, got 5"
    )
    with pytest.raises(DataError, match="validation part of toy must have at least 1 window"):
        build_text(Text("toy", "abc" * 40, "a", "abc"), 2, SplitOptions())
    with pytest.raises(DataError, match="context must be at least 1, got 0"):
        build_text(Text("toy", "abc" * 40, "a", "abc"), 0, SplitOptions())


def test_shakespeare_is_cut_in_tenths(tmp_path: Path) -> None:
    (tmp_path / "tiny-shakespeare").mkdir()
    file = tmp_path / "tiny-shakespeare" / "input.txt.gz"
    file.write_bytes(gzip.compress(b"0123456789" * 2))
    found = read_text("tiny-shakespeare", tmp_path)
    assert (found.train, found.validation, found.test) == ("0123456789012345", "67", "89")
    assert found.notes == (f"read from {file.parent}",)


def test_books_without_their_licence(tmp_path: Path) -> None:
    head, foot = "*** START OF THIS PROJECT GUTENBERG EBOOK X ***", "*** END OF THIS PROJECT"
    (tmp_path / "gutenberg").mkdir()
    for name, letter in (("a.txt", "a"), ("b.txt", "b")):
        text = f"licence\r\n{head}\r\n\r\n{letter * 19}\r\n\r\n{foot} GUTENBERG ***\r\nlicence\r\n"
        (tmp_path / "gutenberg" / name).write_text("\N{BYTE ORDER MARK}" + text, newline="")
    found = read_text("gutenberg", tmp_path)
    assert found.train == "a" * 16 + "b" * 16
    assert found.test == "a\nb\n"
    assert found.notes[1] == "2 texts, each divided into training, validation and test"


def test_wikitext_with_and_without_its_training_part(tmp_path: Path) -> None:
    folder = tmp_path / "wikitext-2-raw"
    folder.mkdir()
    (folder / "wiki.valid.raw").write_text("0123456789")
    (folder / "wiki.test.raw").write_text("xyz")
    found = read_text("wikitext-2", tmp_path)
    assert (found.train, found.validation, found.test) == ("012345678", "9", "xyz")
    assert "nine tenths of its validation part" in found.notes[1]
    (folder / "wiki.train.raw").write_text("abc")
    found = read_text("wikitext-2", tmp_path)
    assert (found.train, found.validation, found.test) == ("abc", "0123456789", "xyz")
    assert len(found.notes) == 1


def test_ones_own_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    file.write_text("to be or not to be\n" * 30)
    data = load(file, context=4)
    assert (data.name, data.task, data.class_names[0]) == ("mine", "language", "\n")
    for arguments, sentence in (
        ({"target": "x"}, "target must be left out for mine.txt, which has its own, got 'x'"),
        ({"task": "regression"}, "task of mine.txt must be left out, got 'regression'"),
    ):
        with pytest.raises(DataError) as error:
            load(file, **arguments)  # type: ignore[arg-type]
        assert str(error.value) == sentence
    file.write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(DataError, match="must be UTF-8 text"):
        load(file)


def test_what_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REGROW_DATA", raising=False)
    start = "gutenberg must lie in a folder named by --data-dir or REGROW_DATA "
    for folder, ending in (
        (None, "got neither"),
        (tmp_path, f"got {tmp_path}, which lacks it"),
        (tmp_path / "no", f"got {tmp_path}/no, which is not a folder"),
    ):
        with pytest.raises(FileNotFoundError) as error:
            load("gutenberg", data_dir=folder)
        assert str(error.value).startswith(start)
        assert str(error.value).endswith(ending)


def test_real_texts(data_dir: Path) -> None:
    data = load("tiny-shakespeare", data_dir=data_dir, context=100)
    assert data.n_classes == 65
    assert sum(len(x) for x in (data.x_train, data.x_validation, data.x_test)) == 11_153
    data = load("gutenberg", data_dir=data_dir)
    letters = "".join(data.class_names[i] for i in data.x_train[:20].flatten())
    assert "Gutenberg" not in letters
    data = load("wikitext-2", data_dir=data_dir)
    assert data.n_classes is not None
    assert data.n_classes > 100
