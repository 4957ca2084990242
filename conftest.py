"""Whatever is run, tests or examples in docstrings: the user's own folders are left alone."""

import os
import tempfile

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Store decisions about compute in a folder of this run."""
    folder = tempfile.TemporaryDirectory(prefix="regrow-cache-")
    config.add_cleanup(folder.cleanup)
    os.environ["REGROW_CACHE"] = folder.name
