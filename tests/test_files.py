"""Files are the old one or the new one, never half of either."""

from __future__ import annotations

from pathlib import Path

import pytest

from regrow.files import read_json, write_atomically, write_json


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_json(tmp_path / "result.json", {"a": [1, 2.5, None]})
    assert read_json(tmp_path / "result.json") == {"a": [1, 2.5, None]}
    with pytest.raises(ValueError, match="Out of range float values"):
        write_json(tmp_path / "result.json", {"a": float("nan")})
    assert read_json(tmp_path / "result.json") == {"a": [1, 2.5, None]}


def test_the_old_file_may_be_kept_beside(tmp_path: Path) -> None:
    path, previous = tmp_path / "last", tmp_path / "previous"
    for content in (b"1", b"2", b"3"):
        write_atomically(path, lambda file, text=content: file.write(text), previous=previous)
    assert (path.read_bytes(), previous.read_bytes()) == (b"3", b"2")


def test_a_crash_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    write_json(path, {"a": 1})

    def write(file: object) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, write)
    assert path.read_text() == '{\n  "a": 1\n}\n'
    assert [p.name for p in tmp_path.iterdir()] == ["result.json"]
