"""Structures that the connections of a weight may have: blocks, N of M, constant fan-in.

A structure says nothing about values, which stay in the row order of all connections. It says how
few numbers tell where the connections are, and these are what kernels that use it read.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from regrow.topology.order import column_order

Rows = tuple[Tensor, Tensor]


class Structure(ABC):
    """What a structure is asked for; all by the row order of connections, in O(connections)."""

    @abstractmethod
    def fault(self, rows: Rows, columns: int) -> str | None:
        """What speaks against connections having this structure, or None.

        Args:
            rows: Row pointers int64 ``[rows + 1]`` and columns int32 ``[nnz]``.
            columns: Number of columns of the weight.
        """

    @abstractmethod
    def parts(self, rows: Rows, columns: int) -> tuple[Tensor, ...]:
        """The few numbers that tell where connections of this structure are."""

    @abstractmethod
    def rows_of(self, parts: tuple[Tensor, ...], n_rows: int, columns: int) -> Rows:
        """The row order that `parts` tells."""

    @abstractmethod
    def count(self, parts: tuple[Tensor, ...]) -> int:
        """The number of connections that `parts` tells."""


@dataclass(frozen=True)
class NofMStructure(Structure):
    """``n`` connections among every ``m`` consecutive columns of a row."""

    n: int
    m: int

    def __post_init__(self) -> None:
        """Refuse what no group can hold."""
        if not 1 <= self.n <= self.m:
            raise ValueError(
                f"n of NofM must be in [1, m], got {self.n} of {self.m} consecutive columns"
            )

    @property
    def density(self) -> float:
        """Kept fraction of the positions."""
        return self.n / self.m

    def __str__(self) -> str:
        """As it is usually written."""
        return f"{self.n}:{self.m}"

    def fault(self, rows: Rows, columns: int) -> str | None:
        """What is not as it must be; as `Structure.fault`."""
        indptr, indices = rows
        if columns % self.m:
            return f"{columns} columns, which are no multiple of {self.m}"
        groups = columns // self.m
        bad = (indptr.diff() != groups * self.n).nonzero()
        if len(bad):
            row = int(bad[0])
            return f"{int(indptr[row + 1] - indptr[row])} connections in row {row}"
        group = indices.view(-1, groups, self.n).div(self.m, rounding_mode="floor")
        bad = (group != torch.arange(groups, device=group.device)[:, None]).nonzero()
        if len(bad):
            row, place = int(bad[0, 0]), int(bad[0, 1]) * self.m
            return f"another number of them from column {place} of row {row}"
        return None

    def parts(self, rows: Rows, columns: int) -> tuple[Tensor, ...]:
        """The place of each connection in its group ``[nnz]``: uint8, or int32 if it must."""
        places = rows[1] % self.m
        return (places.to(torch.uint8) if self.m <= 256 else places,)

    def rows_of(self, parts: tuple[Tensor, ...], n_rows: int, columns: int) -> Rows:
        """From the places."""
        places = parts[0]
        groups = columns // self.m
        first = torch.arange(groups, dtype=torch.int32, device=places.device) * self.m
        indices = (places.view(-1, groups, self.n) + first[:, None]).reshape(-1)
        indptr = torch.arange(n_rows + 1, device=places.device) * (groups * self.n)
        return indptr, indices

    def count(self, parts: tuple[Tensor, ...]) -> int:
        """One for each place."""
        return parts[0].numel()


@dataclass(frozen=True)
class BlockStructure(Structure):
    """Connections that stand and fall together: ``rows`` x ``columns`` of them, on a grid."""

    rows: int
    columns: int

    def __post_init__(self) -> None:
        """Refuse an empty block."""
        if min(self.rows, self.columns) < 1:
            raise ValueError(
                f"rows and columns of Block must be at least 1, got {self.rows} and {self.columns}"
            )

    @property
    def size(self) -> int:
        """Connections of a block."""
        return self.rows * self.columns

    def __str__(self) -> str:
        """As it is usually written."""
        return f"{self.rows}x{self.columns} blocks"

    def fault(self, rows: Rows, columns: int) -> str | None:
        """What is not as it must be; as `Structure.fault`."""
        indptr, indices = rows
        if (len(indptr) - 1) % self.rows or columns % self.columns:
            return f"a weight of {len(indptr) - 1} x {columns}"
        if indices.numel() % self.size:
            return f"{indices.numel()} connections"
        lengths = indptr.diff().view(-1, self.rows)
        bad = ((lengths != lengths[:, :1]) | (lengths % self.columns != 0)).nonzero()
        if len(bad):
            return f"a broken block in row {int(bad[0, 0]) * self.rows + int(bad[0, 1])}"
        runs = indices.view(-1, self.columns)
        along = torch.arange(self.columns, dtype=torch.int32, device=indices.device)
        bad = ((runs != runs[:, :1] + along) | (runs[:, :1] % self.columns != 0)).nonzero()
        if len(bad):
            place = int(bad[0, 0]) * self.columns + int(bad[0, 1])
            row = int(torch.searchsorted(indptr, place, right=True)) - 1
            return f"a broken block in row {row} at column {int(indices[place])}"
        heads = runs[:, 0]
        bad = (heads != heads[self._in_first_row(indptr)]).nonzero()
        if len(bad):
            place = int(bad[0]) * self.columns
            row = int(torch.searchsorted(indptr, place, right=True)) - 1
            return f"a broken block in row {row} at column {int(indices[place])}"
        return None

    def parts(self, rows: Rows, columns: int) -> tuple[Tensor, ...]:
        """The blocks, compressed by block rows and by block columns.

        Returns:
            First block of each block row int64, block column of each block int32; first block of
            each block column int64, and of each block in that order its block row and its place in
            the other order, int32.
        """
        indptr, indices = rows
        starts = (indptr[:: self.rows] // self.size).contiguous()
        counts = starts.diff()
        first = (indptr[: -1 : self.rows] // self.columns).repeat_interleave(counts)
        blocks = torch.arange(int(starts[-1]), device=indices.device)
        heads = first + blocks - starts[:-1].repeat_interleave(counts)
        found = indices[heads * self.columns].div(self.columns, rounding_mode="floor")
        return starts, found, *column_order(starts, found, columns // self.columns)

    def rows_of(self, parts: tuple[Tensor, ...], n_rows: int, columns: int) -> Rows:
        """From the blocks of each block row."""
        starts, found = parts[:2]
        device, counts = found.device, starts.diff()
        lengths = (counts * self.columns).repeat_interleave(self.rows)
        indptr = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        per_row = counts.repeat_interleave(self.rows)
        runs = torch.arange(found.numel() * self.rows, device=device)
        runs -= (per_row.cumsum(0) - per_row).repeat_interleave(per_row)
        runs += starts[:-1].repeat_interleave(self.rows).repeat_interleave(per_row)
        along = torch.arange(self.columns, dtype=torch.int32, device=device)
        return indptr, (found[runs, None] * self.columns + along).reshape(-1)

    def count(self, parts: tuple[Tensor, ...]) -> int:
        """Those of a block, for each."""
        return parts[1].numel() * self.size

    def _in_first_row(self, indptr: Tensor) -> Tensor:
        """For each run of a row, the run at the same place of the first row of its block row."""
        starts = indptr // self.columns
        counts, own = starts.diff(), starts[:-1]
        first = own[:: self.rows].repeat_interleave(self.rows)
        runs = torch.arange(int(starts[-1]), device=indptr.device)
        return runs - (own - first).repeat_interleave(counts)


@dataclass(frozen=True)
class FanInStructure(Structure):
    """Every row has ``n`` connections."""

    n: int

    def __post_init__(self) -> None:
        """Refuse rows without connections."""
        if self.n < 1:
            raise ValueError(f"n of FanIn must be at least 1, got {self.n}")

    def __str__(self) -> str:
        """In words."""
        return f"fan-in of {self.n}"

    def fault(self, rows: Rows, columns: int) -> str | None:
        """What is not as it must be; as `Structure.fault`."""
        bad = (rows[0].diff() != self.n).nonzero()
        if len(bad):
            row = int(bad[0])
            return f"{int(rows[0][row + 1] - rows[0][row])} connections in row {row}"
        return None

    def parts(self, rows: Rows, columns: int) -> tuple[Tensor, ...]:
        """The column of each connection, int32 ``[nnz]``."""
        return (rows[1],)

    def rows_of(self, parts: tuple[Tensor, ...], n_rows: int, columns: int) -> Rows:
        """From the columns."""
        return torch.arange(n_rows + 1, device=parts[0].device) * self.n, parts[0]

    def count(self, parts: tuple[Tensor, ...]) -> int:
        """One for each column."""
        return parts[0].numel()
