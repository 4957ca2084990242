"""Text as characters: tiny-shakespeare, WikiText-2, Gutenberg books and files of one's own."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from regrow.data.dataset import Dataset
from regrow.data.errors import DataError
from regrow.data.splits import MIN_ROWS, SplitOptions

TEXTS = {
    "tiny-shakespeare": "A. Karpathy, https://github.com/karpathy/char-rnn, as input.txt",
    "wikitext-2": "S. Merity, C. Xiong, J. Bradbury, R. Socher, Pointer sentinel mixture models, "
    "2016, as wiki.train.*, wiki.valid.* and wiki.test.*",
    "gutenberg": "Project Gutenberg, https://www.gutenberg.org, as .txt files",
}
"""Names of the texts that are read from a folder, and where they come from."""

_GUTENBERG = re.compile(r"\*\*\* ?START OF TH[^\n]*\n(?P<book>.*?)\n\*\*\* ?END OF TH", re.DOTALL)
_UNKNOWN = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True)
class Text:
    """Texts as they were read.

    Args:
        name: The name shown to people.
        train: What to learn from.
        validation: What to choose by.
        test: What to judge by.
        notes: What the reader did that a person should know.
    """

    name: str
    train: str
    validation: str
    test: str
    notes: tuple[str, ...] = ()


def read_text(name: str, folder: Path | None) -> Text:
    """Find and read a text by its name.

    Looked at in turn: FOLDER/NAME, other folders whose names begin with NAME, and FOLDER itself.
    Files may be packed with gzip. Gutenberg's header and licence are left out. A text without
    parts of its own is divided into the first eight tenths, the ninth and the last.

    Args:
        name: A key of `TEXTS`.
        folder: Where to look.

    Raises:
        FileNotFoundError: If the folder is not named, or the files are not in it.
        DataError: If a file is damaged.
    """
    if folder is None:
        raise FileNotFoundError(_sentence(name, "got neither"))
    if not folder.is_dir():
        raise FileNotFoundError(_sentence(name, f"got {folder}, which is not a folder"))
    others = sorted(path for path in folder.glob(f"{name}*") if path.is_dir())
    for place in dict.fromkeys([folder / name, *others, folder]):
        found = _wikitext(place) if name == "wikitext-2" else _whole(name, place)
        if found is not None:
            return found
    raise FileNotFoundError(_sentence(name, f"got {folder}, which lacks it"))


def read_text_file(path: Path) -> Text:
    """Read one's own text, UTF-8, plain or gzip; divided as `read_text` says.

    Raises:
        DataError: If the file is damaged or not UTF-8.
    """
    return _divided(path.name.split(".")[0] or path.name, [_content(path)], ())


def build_text(text: Text, context: int, options: SplitOptions) -> Dataset:
    """Make a data set of characters: each sample is a window, its target the window one further.

    Windows do not overlap; what does not fill a window at the end of a part is left out. The
    characters are those of the training part, and one for all others where there are any.

    Args:
        text: What was read.
        context: Characters of a window, at least 1.
        options: Limits, which keep the first windows of a part; fractions and seed are not used.

    Returns:
        A data set of task "language": x and y int64 ``[windows, context]``.

    Raises:
        DataError: If there are too few characters.

    Example:
        >>> data = build_text(Text("abc", "abcab" * 20, "abcab", "abcad"), 2, SplitOptions())
        >>> data.x_train[:2].tolist(), data.y_train[:2].tolist()
        ([[0, 1], [2, 0]], [[1, 2], [0, 1]])
        >>> data.class_names
        ('a', 'b', 'c', '�')
    """
    if context < 1:
        raise DataError(f"context must be at least 1, got {context}")
    known = sorted(set(text.train))
    strange = sorted((set(text.validation) | set(text.test)) - set(known))
    names = [*known, _UNKNOWN] if strange else known
    notes = list(text.notes)
    if strange:
        notes.append(f"characters without a training example, read as one: {len(strange):,}")
    count = options.limit_train
    held_out = None if count is None else max(1, round(options.validation * count))
    limits = (None if count is None or held_out is None else count - held_out, held_out)
    parts = [
        _windows(part, names, context, limit)
        for part, limit in zip(
            (text.train, text.validation, text.test), (*limits, options.limit_test), strict=True
        )
    ]
    for what, least, (x, _) in zip(
        ("training", "validation", "test"), (MIN_ROWS, 1, 1), parts, strict=True
    ):
        if len(x) < least:
            raise DataError(
                f"the {what} part of {text.name} must have at least {least} windows of "
                f"{context:,} characters, got {len(x):,}"
            )
    return Dataset(
        text.name,
        "language",
        *parts[0],
        *parts[1],
        *parts[2],
        feature_names=tuple(f"character {i}" for i in range(context)),
        class_names=tuple(names),
        image_shape=None,
        target_scale=None,
        notes=tuple(notes),
    )


def _whole(name: str, place: Path) -> Text | None:
    if name == "tiny-shakespeare":
        files = [file for file in (place / "input.txt.gz", place / "input.txt") if file.is_file()]
        files = files[:1]
    else:
        files = sorted([*place.glob("*.txt.gz"), *place.glob("*.txt")]) if place.is_dir() else []
    if not files:
        return None
    texts = [_book(_content(file)) if name == "gutenberg" else _content(file) for file in files]
    notes: tuple[str, ...] = (f"read from {place}",)
    if len(files) > 1:
        notes = (*notes, f"{len(files):,} texts, each divided into training, validation and test")
    return _divided(name, texts, notes)


def _wikitext(place: Path) -> Text | None:
    parts = {}
    for part in ("train", "valid", "test"):
        files = sorted(place.glob(f"wiki.{part}.*")) if place.is_dir() else []
        if files:
            parts[part] = _content(files[0])
    if not {"valid", "test"} <= parts.keys():
        return None
    notes: tuple[str, ...] = (f"read from {place}",)
    if "train" in parts:
        return Text("wikitext-2", parts["train"], parts["valid"], parts["test"], notes)
    cut = 9 * len(parts["valid"]) // 10
    notes = (*notes, "its training part is not there: nine tenths of its validation part train")
    return Text("wikitext-2", parts["valid"][:cut], parts["valid"][cut:], parts["test"], notes)


def _divided(name: str, texts: Sequence[str], notes: tuple[str, ...]) -> Text:
    shares = [(0, 8), (8, 9), (9, 10)]
    train, validation, test = (
        "".join(text[low * len(text) // 10 : high * len(text) // 10] for text in texts)
        for low, high in shares
    )
    return Text(name, train, validation, test, notes)


def _book(text: str) -> str:
    found = _GUTENBERG.search(text)
    return found["book"].strip() + "\n" if found else text


def _content(path: Path) -> str:
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
        return content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise DataError(f"file {path} must be UTF-8 text: {error}") from error
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"file {path} must be readable to its end: {error}") from error


def _windows(
    text: str, names: Sequence[str], context: int, limit: int | None
) -> tuple[Tensor, Tensor]:
    codes: NDArray[np.uint32] = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    table = np.full(int(codes.max(initial=0)) + 1, len(names) - 1, np.int64)
    for i, name in enumerate(names):
        if ord(name) < len(table):
            table[ord(name)] = i
    ids = torch.from_numpy(table[codes])
    count = max(0, len(ids) - 1) // context
    if limit is not None:
        count = min(count, limit)
    end = count * context
    x, y = ids[:end], ids[1 : end + 1]
    return x.reshape(count, context).clone(), y.reshape(count, context).clone()


def _sentence(name: str, got: str) -> str:
    return (
        f"{name} must lie in a folder named by --data-dir or REGROW_DATA "
        f"(from {TEXTS[name]}), {got}"
    )
