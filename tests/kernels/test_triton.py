"""The Triton kernels against the oracle, interpreted on the CPU in a process of their own."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("triton_interpreted.py")


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
def test_products_equal_the_reference_in_the_interpreter() -> None:
    result = subprocess.run(
        [sys.executable, SCRIPT],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert result.stdout == "9 forms agree\n"


def test_nothing_of_it_is_imported_before_it_is_used() -> None:
    code = (
        "import sys, regrow; regrow.SparseLinear(4, 4, density=0.5);"
        "print('regrow.kernels.triton_structured' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
