"""The machine that a process runs on, for records of runs and of decisions."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

from regrow.kernels import native


def describe_machine() -> dict[str, Any]:
    """Processor, cores, system and Python, for the record of a run.

    Example:
        >>> sorted(describe_machine())
        ['cores', 'kernels', 'processor', 'python', 'system']
    """
    return {
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "system": platform.platform(),
        "python": platform.python_version(),
        "kernels": native.isa() if native.available() else f"reference: {native.reason()}",
    }


def processor() -> str:
    """Name of the processor, as exactly as the system tells it."""
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
