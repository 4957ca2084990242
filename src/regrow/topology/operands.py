"""The index tensors of a weight, as operators take them."""

from __future__ import annotations

from typing import Any

from torch import Tensor


class Operands(tuple[Tensor, ...]):
    """Row order and column order of the connections of one weight, in one tuple of five tensors.

    Row pointers int64 ``[rows + 1]``, column of each connection int32 ``[nnz]``; column pointers
    int64 ``[columns + 1]``, row of each connection in column order and its slot in row order, both
    int32 ``[nnz]``.

    Attributes:
        checked: What kernels keep of having looked at the tensors, so that they look once.
    """

    checked: Any = None
