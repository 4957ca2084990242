"""From row order to column order, in O(connections)."""

from __future__ import annotations

import torch
from torch import Tensor

from regrow.topology import extension


def column_order(indptr: Tensor, indices: Tensor, columns: int) -> tuple[Tensor, Tensor, Tensor]:
    """List the connections of a matrix column by column, rows rising within each.

    Args:
        indptr: Row pointers, int64 ``[rows + 1]``.
        indices: Column of each connection, int32 ``[nnz]``.
        columns: Number of columns.

    Returns:
        Column pointers int64 ``[columns + 1]``, the row of each connection int32 ``[nnz]``, and
        where it stands in row order int32 ``[nnz]``.

    Example:
        >>> indptr, indices = torch.tensor([0, 2, 3]), torch.tensor([0, 2, 0], dtype=torch.int32)
        >>> [part.tolist() for part in column_order(indptr, indices, 3)]
        [[0, 2, 2, 3], [0, 1, 0], [0, 2, 1]]
    """
    if torch.compiler.is_compiling():
        return torch.ops.regrow.column_order(indptr, indices, columns)  # type: ignore[no-any-return]
    return _ordered(indptr, indices, columns)


def _ordered(indptr: Tensor, indices: Tensor, columns: int) -> tuple[Tensor, Tensor, Tensor]:
    # Made under inference mode, the tensors could not take part in training later.
    with torch.inference_mode(False):
        if not extension.usable(indices):
            return sorted_columns(indptr, indices, columns)
        rows, nnz = indptr.numel() - 1, indices.numel()
        pointers = torch.empty(columns + 1, dtype=torch.int64)
        row_of, slot_of = torch.empty_like(indices), torch.empty_like(indices)
        given = (indptr.data_ptr(), indices.data_ptr(), rows, columns, nnz)
        made = (pointers.data_ptr(), row_of.data_ptr(), slot_of.data_ptr())
        extension.native.transpose(*given, *made, torch.get_num_threads())
        return pointers, row_of, slot_of


def sorted_columns(indptr: Tensor, indices: Tensor, columns: int) -> tuple[Tensor, Tensor, Tensor]:
    """As ``column_order``, in plain torch."""
    by_column, slot_of = torch.sort(indices, stable=True)
    ids = torch.arange(columns + 1, device=indices.device, dtype=indices.dtype)
    pointers = torch.searchsorted(by_column, ids)
    slot_of = slot_of.to(torch.int32)
    count = torch.arange(indptr.numel() - 1, device=indices.device, dtype=torch.int32)
    row_of = torch.repeat_interleave(count, indptr.diff(), output_size=indices.numel())
    return pointers, row_of[slot_of], slot_of


def _fake(indptr: Tensor, indices: Tensor, columns: int) -> tuple[Tensor, Tensor, Tensor]:
    return indptr.new_empty(columns + 1), torch.empty_like(indices), torch.empty_like(indices)


# A compiler cannot look through pointers, so for it the whole is one operator.
torch.library.custom_op("regrow::column_order", _ordered, mutates_args=()).register_fake(_fake)
