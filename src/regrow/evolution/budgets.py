"""Budgets: what keeps its number of connections.

A budget is a part of a layer: a run of flat positions, row after row or column after column. A
scope divides a layer into such parts; dropping and growing then work on parts, whatever they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from regrow.layers import SparseLayer
from regrow.topology import NofM, Topology


@dataclass(frozen=True)
class Parts:
    """The budgets of one layer.

    Attributes:
        bounds: Where each part begins, and the number of all positions, int64 ``[parts + 1]``,
            rising from 0.
        by_column: Whether positions are counted down the columns instead of along the rows.

    Example:
        >>> halves = Parts(torch.tensor([0, 6, 12]))
        >>> halves.of(Topology((4, 3), torch.tensor([0, 5, 7])))
        tensor([0, 0, 1])
    """

    bounds: Tensor
    by_column: bool = False

    def __len__(self) -> int:
        """Number of parts."""
        return self.bounds.numel() - 1

    @property
    def width(self) -> int | None:
        """Positions of a part where all have as many, else None."""
        widths = self.bounds.diff()
        return int(widths[0]) if bool((widths == widths[0]).all()) else None

    def turned(self, topology: Topology) -> Topology:
        """The topology as these parts count positions: itself, or its transpose."""
        if not self.by_column:
            return topology
        pointers, rows, _ = topology.csc()
        return Topology.trusted(topology.matrix_shape[::-1], pointers, rows)

    def turned_back(self, positions: Tensor, rows: int, columns: int) -> Tensor:
        """Flat positions, row after row, of positions as these parts count them."""
        if not self.by_column:
            return positions
        return positions % rows * columns + positions // rows

    def of(self, topology: Topology) -> Tensor:
        """Part of each connection, int64 ``[nnz]``, in the order of the connections."""
        rows, _ = topology.matrix_shape
        positions = topology.positions
        if self.by_column:
            positions = topology.csr()[1].long() * rows + topology.rows
        bounds = self.bounds.to(positions.device)
        return torch.searchsorted(bounds, positions, right=True) - 1

    def held(self, topology: Topology) -> Tensor:
        """Connections in each part, int64 ``[parts]``."""
        if len(self) == 1:
            return torch.tensor([topology.nnz])
        ordered = self.turned(topology).positions
        return torch.searchsorted(ordered, self.bounds.to(ordered.device)).diff().cpu()


ScopeFunction = Callable[[SparseLayer, int, int], Parts]


def layer(layer: SparseLayer, rows: int, columns: int) -> Parts:
    """The whole layer is one budget."""
    return Parts(torch.tensor([0, rows * columns]))


def gate(layer: SparseLayer, rows: int, columns: int) -> Parts:
    """Each gate of a recurrent weight, each part of a fused projection; else the whole layer."""
    groups = layer.row_groups.values()
    if not groups:
        return Parts(torch.tensor([0, rows * columns]))
    height = layer.topology.matrix_shape[0] // rows
    if any(group.start % height for group in groups):
        raise ValueError(f"a gate must be whole units of {height} rows")
    starts = [group.start // height * columns for group in groups]
    return Parts(torch.tensor([*starts, rows * columns]))


def row(layer: SparseLayer, rows: int, columns: int) -> Parts:
    """Each row, so that every output keeps its number of inputs."""
    return Parts(torch.arange(rows + 1) * columns)


def column(layer: SparseLayer, rows: int, columns: int) -> Parts:
    """Each column, so that every input keeps its number of outputs."""
    return Parts(torch.arange(columns + 1) * rows, by_column=True)


SCOPES: dict[str, ScopeFunction] = {
    "layer": layer,
    "global": layer,
    "gate": gate,
    "row": row,
    "column": column,
}


def groups_of(pattern: NofM) -> ScopeFunction:
    """The scope of ``n`` of ``m``: every ``m`` consecutive columns of a row hold ``n``."""

    def consecutive(layer: SparseLayer, rows: int, columns: int) -> Parts:
        if columns % pattern.m:
            raise ValueError(f"its {columns} columns are no multiple of {pattern.m}")
        parts = Parts(torch.arange(0, rows * columns + 1, pattern.m))
        held = parts.held(layer.topology)
        if not bool((held == pattern.n).all()):
            wrong = int((held != pattern.n).nonzero()[0])
            raise ValueError(
                f"every {pattern.m} consecutive columns must hold {pattern.n} connections, "
                f"got {int(held[wrong])}"
            )
        return parts

    return consecutive
