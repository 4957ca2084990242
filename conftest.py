"""Whatever is run, tests or examples in docstrings: the user's own folders are left alone."""

import os
import tempfile
from typing import Any

import pytest

# Nothing to collect: programs that a test starts in a process of their own.
collect_ignore = ["tests/kernels/triton_interpreted.py"]


def pytest_configure(config: pytest.Config) -> None:
    """Store decisions about compute in a folder of this run."""
    folder = tempfile.TemporaryDirectory(prefix="regrow-cache-")
    config.add_cleanup(folder.cleanup)
    os.environ["REGROW_CACHE"] = folder.name


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say how many cases of the conformance suite have passed."""
    passed = [r for r in terminalreporter.stats.get("passed", []) if "/conformance/" in r.nodeid]
    if passed:
        exact = sum("test_every_update_is_exact" in report.nodeid for report in passed)
        terminalreporter.write_line(
            f"conformance: {len(passed):,} cases, in {exact:,} of them a method on a kind of layer "
            f"with a compute and an optimiser, update by update"
        )
