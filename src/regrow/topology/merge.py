"""From one set of connections to the next: one merge, and one pass over what belongs to them."""

from __future__ import annotations

import torch
from torch import Tensor

from regrow.topology import extension

Rows = tuple[Tensor, Tensor]

_WORDS = (1, 2, 4, 8)


def rising(numbers: Tensor) -> bool:
    """Whether int64 numbers never fall."""
    if extension.usable(numbers):
        numbers = numbers.contiguous()
        return bool(
            extension.native.rises(numbers.data_ptr(), numbers.numel(), torch.get_num_threads())
        )
    return not bool((numbers[1:] < numbers[:-1]).any())


def merged(
    rows: Rows, columns: int, keep: Tensor, grown: Tensor
) -> tuple[Tensor, Tensor, Tensor, int]:
    """Merge the connections that are kept with the grown ones.

    Args:
        rows: Pointers and columns of the connections before.
        columns: Number of columns.
        keep: Which stay, bool ``[nnz]``.
        grown: Flat positions, int64, never falling, inside the shape.

    Returns:
        The new pointers and columns; the origin of each new connection, int32: its number before,
        or -1 - i for the i-th grown one; and -1, or the first grown position that was there
        already.
    """
    kept = int(torch.count_nonzero(keep))
    if not extension.usable(rows[1], keep, grown):
        return _merged(rows, columns, keep, grown)
    (indptr, indices), keep, grown = rows, keep.contiguous(), grown.contiguous()
    made = kept + grown.numel()
    new = torch.empty_like(indptr), indices.new_empty(made), indices.new_empty(made)
    clash = extension.native.rewire(
        indptr.data_ptr(),
        indices.data_ptr(),
        indptr.numel() - 1,
        columns,
        indices.numel(),
        keep.data_ptr(),
        kept,
        grown.data_ptr(),
        grown.numel(),
        *(part.data_ptr() for part in new),
        torch.get_num_threads(),
    )
    return *new, clash


def rows_kept(rows: Rows, keep: Tensor) -> Rows:
    """Pointers and columns of the connections that are kept.

    Args:
        rows: Pointers and columns of the connections before.
        keep: Which stay, bool ``[nnz]``.
    """
    indptr, indices = rows
    if not extension.usable(indices, keep):
        before = torch.cat([indptr.new_zeros(1), keep.cumsum(0)])
        return before[indptr], indices[keep]
    keep, pointers = keep.contiguous(), torch.empty_like(indptr)
    given = indptr.data_ptr(), indptr.numel() - 1, indices.numel(), keep.data_ptr()
    extension.native.keep_pointers(*given, pointers.data_ptr(), torch.get_num_threads())
    return pointers, _compressed(indices, keep, int(pointers[-1]))


def _merged(
    rows: Rows, columns: int, keep: Tensor, grown: Tensor
) -> tuple[Tensor, Tensor, Tensor, int]:
    indptr, indices = rows
    count = torch.arange(indptr.numel() - 1, device=indices.device)
    row_of = torch.repeat_interleave(count, indptr.diff(), output_size=indices.numel())
    kept = row_of.mul_(columns).add_(indices)[keep]
    slots = torch.searchsorted(kept, grown).add_(torch.arange(len(grown), device=grown.device))
    fresh = keep.new_zeros(len(kept) + len(grown))
    fresh[slots] = True
    positions = kept.new_empty(len(fresh))
    positions[~fresh] = kept
    positions[fresh] = grown
    origin = indices.new_empty(len(fresh))
    origin[~fresh] = keep.nonzero().view(-1).int()
    origin[fresh] = torch.arange(-1, -1 - len(grown), -1, dtype=torch.int32, device=grown.device)
    repeated = positions[1:][positions[1:] == positions[:-1]]
    clash = int(repeated[0]) if len(repeated) else -1
    return *compressed(positions, indptr.numel() - 1, columns), origin, clash


def compressed(positions: Tensor, rows: int, columns: int) -> Rows:
    """Row order of flat positions that rise."""
    starts = torch.arange(rows + 1, device=positions.device) * columns
    return torch.searchsorted(positions, starts), (positions % columns).to(torch.int32)


def survivors(entries: Tensor, keep: Tensor) -> Tensor:
    """The entries that are kept, in order: ``entries[keep]``.

    Args:
        entries: One per connection ``[nnz]``.
        keep: Which stay, bool ``[nnz]``.
    """
    if not extension.usable(entries, keep) or entries.itemsize not in _WORDS:
        return entries[keep]
    entries, keep = entries.detach().contiguous(), keep.contiguous()
    return _compressed(entries, keep, int(torch.count_nonzero(keep)))


def _compressed(entries: Tensor, keep: Tensor, kept: int) -> Tensor:
    found = entries.new_empty(kept)
    extension.native.survivors(
        entries.itemsize,
        entries.data_ptr(),
        keep.data_ptr(),
        entries.numel(),
        kept,
        found.data_ptr(),
        torch.get_num_threads(),
    )
    return found


def carried(old: Tensor, start: Tensor, origin: Tensor) -> Tensor:
    """One entry per new connection: those of kept ones, and the starts of grown ones.

    Args:
        old: One entry per old connection ``[old nnz]``.
        start: One per grown connection ``[grown]``, by position, of the dtype of ``old``; may be
            one number, expanded.
        origin: Of each new connection, as ``merged`` returns it.
    """
    if not extension.usable(old, start, origin) or old.itemsize not in _WORDS:
        new, fresh = old.new_empty(len(origin)), origin < 0
        new[~fresh] = old[origin[~fresh]]
        new[fresh] = start
        return new
    old, start = old.detach().contiguous(), start.detach()
    alike = start.stride(0) == 0
    start = start if alike else start.contiguous()
    new = old.new_empty(len(origin))
    extension.native.carry(
        old.itemsize,
        old.data_ptr(),
        old.numel(),
        start.data_ptr(),
        start.numel(),
        0 if alike else 1,
        origin.data_ptr(),
        new.numel(),
        new.data_ptr(),
        torch.get_num_threads(),
    )
    return new
