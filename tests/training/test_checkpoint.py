"""Checkpoints: whole or not there, whatever happens while they are written."""

from pathlib import Path

import pytest
import torch

from regrow.training import RunError
from regrow.training.checkpoint import load_checkpoint, read_state, save_checkpoint


def save(folder: Path, value: int) -> None:
    save_checkpoint(folder, {"value": value, "tensor": torch.full((64,), float(value))})


def stored(folder: Path) -> int | None:
    state = load_checkpoint(folder)
    return None if state is None else state["value"]


def test_last_and_previous_are_kept(tmp_path: Path) -> None:
    assert stored(tmp_path) is None
    for value in (1, 2, 3):
        save(tmp_path, value)
    assert stored(tmp_path) == 3
    assert read_state(tmp_path / "previous.pt")["value"] == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last.pt", "previous.pt"]


@pytest.mark.parametrize("call", [1, 2])
def test_crash_between_write_and_replace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    save(tmp_path, 1)
    save(tmp_path, 2)
    real, calls = Path.replace, []

    def replace(self: Path, target: Path) -> Path:
        calls.append(self)
        if len(calls) == call:
            raise OSError("power cut")
        return real(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(OSError, match="power cut"):
        save(tmp_path, 3)
    monkeypatch.undo()
    assert stored(tmp_path) == 2
    save(tmp_path, 4)
    assert stored(tmp_path) == 4


def test_torn_temporary_file_is_ignored(tmp_path: Path) -> None:
    save(tmp_path, 1)
    (tmp_path / ".last.pt.tmp").write_bytes(b"PK torn")
    assert stored(tmp_path) == 1
    save(tmp_path, 2)
    assert not (tmp_path / ".last.pt.tmp").exists()


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "text"])
def test_damaged_checkpoint_falls_back_to_the_previous(tmp_path: Path, damage: str) -> None:
    save(tmp_path, 1)
    save(tmp_path, 2)
    path = tmp_path / "last.pt"
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[content.index(torch.full((64,), 2.0).numpy().tobytes()) + 10] ^= 1
    changed = {"truncated": content[: len(content) // 2], "empty": b"", "text": b"hello"}
    path.write_bytes(changed.get(damage, content))
    assert stored(tmp_path) == 1
    assert (tmp_path / "damaged.pt").exists()
    save(tmp_path, 3)
    assert read_state(tmp_path / "previous.pt")["value"] == 1
    assert stored(tmp_path) == 3


def test_nothing_intact_is_refused_in_a_sentence(tmp_path: Path) -> None:
    for name in ("last.pt", "previous.pt"):
        (tmp_path / name).write_bytes(b"no")
    with pytest.raises(RunError) as caught:
        load_checkpoint(tmp_path)
    assert str(caught.value) == (
        f"checkpoint {tmp_path}/last.pt is damaged (File is not a zip file), and no earlier one "
        f"is intact; delete {tmp_path} to train this arm again from its start"
    )


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    torch.save({"format": 1, "path": Path("x")}, tmp_path / "last.pt")
    with pytest.raises(RunError, match="is damaged"):
        load_checkpoint(tmp_path)


def test_other_format_is_refused(tmp_path: Path) -> None:
    torch.save({"format": 99}, tmp_path / "last.pt")
    with pytest.raises(RunError, match=r"must be of format 1, got 99"):
        load_checkpoint(tmp_path)
