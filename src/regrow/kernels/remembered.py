"""Decisions that outlive a process: one small file for each kind of machine and build.

The file belongs to nobody in particular. It is replaced as a whole, so a reader sees an old or a
new one; where two processes write at once, one of them wins and what the other one knew is measured
again some day. Whatever is wrong with it, it is as if it were not there.
"""

from __future__ import annotations

import json
import os
import tempfile
import zlib
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from regrow.kernels import native
from regrow.kernels.machine import processor

# The oldest go where there are more: a file stays readable in a millisecond or two.
_MOST = 2000
_PATTERN = "decisions-*.json"

Entries = dict[str, dict[str, Any]]


def folder() -> Path | None:
    """Where decisions are stored, or None if they are not.

    That is what the environment variable ``REGROW_CACHE`` says (``off``: nowhere), else the folder
    ``regrow`` in the user's folder for caches: ``$XDG_CACHE_HOME``, or ``~/.cache``.
    """
    named = os.environ.get("REGROW_CACHE")
    if named == "off":
        return None
    try:
        if named:
            return Path(named).expanduser()
        base = Path(os.environ.get("XDG_CACHE_HOME", ""))
        return (base if base.is_absolute() else Path.home() / ".cache") / "regrow"
    except RuntimeError:  # the user has no home
        return None


def recall(key: str) -> dict[str, Any] | None:
    """What is stored under a key for this machine and build, unchecked; None if nothing is."""
    path = _path()
    return None if path is None else _read(path).get(key)


def store(key: str, entry: Mapping[str, Any]) -> None:
    """Add an entry for this machine and build; where it cannot be written, nothing happens.

    Args:
        key: Of a situation.
        entry: Plain values, ready for JSON.
    """
    path = _path()
    if path is None:
        return
    entries = _read(path)
    entries.pop(key, None)
    entries[key] = dict(entry)
    kept = dict(list(entries.items())[-_MOST:])
    text = json.dumps({"machine": _machine(), "decisions": kept})
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        _replace(path, text)


def forget() -> int:
    """Delete what is stored, of all machines and builds that share the folder.

    Returns:
        How many files there were.
    """
    where = folder()
    count = 0
    if where is not None and where.is_dir():
        for path in where.glob(_PATTERN):
            path.unlink(missing_ok=True)
            count += 1
    return count


def _replace(path: Path, text: str) -> None:
    descriptor, name = tempfile.mkstemp(prefix=".decisions-", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _read(path: Path) -> Entries:
    """The entries of a file; none if it is missing, damaged, or of another machine or build."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(content, dict) or content.get("machine") != _machine():
        return {}
    entries = content.get("decisions")
    if not isinstance(entries, dict):
        return {}
    return {key: entry for key, entry in entries.items() if isinstance(entry, dict)}


def _path() -> Path | None:
    where = folder()
    if where is None:
        return None
    name = zlib.crc32(json.dumps(_machine()).encode())
    return where / _PATTERN.replace("*", f"{name:08x}")


def _machine() -> dict[str, str]:
    """Everything that makes a time of another process worthless when it differs."""
    return {
        "processor": _processor(),
        "kernels": native.isa() if native.available() else "reference",
        "build": _build(),
        "torch": torch.__version__,
        "regrow": _version(),
    }


_processor = cache(processor)


def _version() -> str:
    try:
        return version("regrow")
    except PackageNotFoundError:  # the sources are used as they lie
        return "unknown"


@cache
def _build() -> str:
    """Checksum of the extension: a new build may be faster under the same version."""
    spec = find_spec("regrow._native") if native.available() else None
    if spec is None or spec.origin is None:
        return ""
    return f"{zlib.crc32(Path(spec.origin).read_bytes()):08x}"
