"""Checkpoints that survive a kill at any moment."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from regrow.files import write_atomically
from regrow.training.errors import RunError

FORMAT = 1

State = dict[str, Any]


def save_checkpoint(folder: Path, state: State) -> None:
    """Write ``last.pt``, keeping the one before it as ``previous.pt``.

    Args:
        folder: Folder of one arm and seed; it must exist.
        state: Tensors, numbers, texts, and lists and dicts of them.
    """
    path = folder / "last.pt"
    write_state(path, state, previous=folder / "previous.pt")


def write_state(path: Path, state: State, *, previous: Path | None = None) -> None:
    """Write one state file atomically."""
    content = {"format": FORMAT, **state}
    write_atomically(path, lambda file: torch.save(content, file), previous=previous)


def load_checkpoint(folder: Path) -> State | None:
    """The newest intact checkpoint of a folder, or None where there is none yet.

    A damaged ``last.pt`` is put aside as ``damaged.pt``, so that the next save cannot move it over
    the intact one.

    Raises:
        RunError: There are checkpoints, and none of them is intact.
    """
    last, previous = folder / "last.pt", folder / "previous.pt"
    complaints = []
    for path in (last, previous):
        if not path.exists():
            continue
        try:
            state = read_state(path)
        except RunError as error:
            complaints.append(str(error))
            continue
        if complaints:
            last.replace(folder / "damaged.pt")
        return state
    if complaints:
        raise RunError(
            f"{complaints[0]}, and no earlier one is intact; "
            f"delete {folder} to train this arm again from its start"
        )
    return None


def read_state(path: Path) -> State:
    """Read one state file.

    Raises:
        RunError: It is damaged, not a checkpoint, or of a later version of regrow.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # torch itself does not look at the checksums
        if damaged is not None:
            raise zipfile.BadZipFile(f"checksum of {damaged} differs")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (
        zipfile.BadZipFile,
        pickle.UnpicklingError,
        RuntimeError,
        EOFError,
        OSError,
        ValueError,
    ) as error:
        raise RunError(f"checkpoint {path} is damaged ({_first_line(error)})") from error
    version = state.get("format") if isinstance(state, dict) else None
    if version != FORMAT:
        raise RunError(f"checkpoint {path} must be of format {FORMAT}, got {version}")
    del state["format"]
    return dict(state)


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0].rstrip(".") or type(error).__name__
