"""What all tests share: deterministic examples, one torch thread a worker, the data folder."""

import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings

# The same examples on every machine and every run; a run can be slow when a core is shared.
settings.register_profile("regrow", deadline=None, derandomize=True, print_blob=True)
# For hunting: `pytest --hypothesis-profile explore` draws new examples, and more of them.
settings.register_profile("explore", deadline=None, max_examples=1000, print_blob=True)
settings.load_profile("regrow")


@pytest.fixture(scope="session", autouse=True)
def _one_thread_per_worker() -> None:
    """Two workers with a thread pool each would wait for one another's cores."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data sets; tests that need one are skipped where there is none."""
    default = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("REGROW_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no data folder at {folder}: set REGROW_DATA to the folder that holds it")
    return folder
