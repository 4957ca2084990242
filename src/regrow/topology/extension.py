"""The C++ extension, or None: every function here that uses it has a torch twin.

The twin is what the native code is tested against, and what runs without the extension and off
the CPU. Both give the same result, except that a random draw takes other numbers from the
generator: results repeat on one build, not from one build to another.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

native: Any
try:
    from regrow import _native as native
except ImportError:  # not built; `regrow.kernels.native.reason()` tells why
    native = None


def usable(*tensors: Tensor) -> bool:
    """Whether native code may read these tensors by address, once they are contiguous."""
    return native is not None and all(tensor.device.type == "cpu" for tensor in tensors)


def seed(generator: torch.Generator | None) -> int:
    """Draw the seed of a native generator, so that one seed decides everything."""
    return int(torch.empty((), dtype=torch.int64).random_(generator=generator))
