"""Units: what is dropped and grown as a whole. A layer is seen as a matrix of its units."""

from __future__ import annotations

import math
from functools import cached_property

import torch
from torch import Tensor

from regrow.layers import SparseLayer
from regrow.topology import Block, Topology

UNITS = ("element", "kernel", "neuron")


class Units:
    """A layer as a matrix of units, each a block of neighbouring positions.

    Args:
        layer: The layer; its topology is made of whole units.
        block: Rows and columns of a unit.
        path: Of the layer, for errors.

    Raises:
        ValueError: The layer's shape or topology is not made of whole units.

    Example:
        >>> import regrow
        >>> topology = Topology((2, 4), torch.tensor([2, 3, 6, 7]))
        >>> units = Units(regrow.SparseLinear(4, 2, topology=topology), Block(2, 2))
        >>> units.topology
        Topology(shape=(1, 2), nnz=1, density=0.5)
        >>> units.pooled(torch.tensor([1.0, 2.0, 3.0, 6.0]))
        tensor([3.])
        >>> units.positions(torch.tensor([0]))
        tensor([0, 1, 4, 5])
    """

    def __init__(self, layer: SparseLayer, block: Block, path: str = "the layer") -> None:
        rows, columns = layer.topology.matrix_shape
        if rows % block.rows or columns % block.columns:
            raise ValueError(
                f"unit of {path} must divide its {rows} rows and {columns} columns, "
                f"got {block.rows} x {block.columns}"
            )
        self.layer = layer
        self.block = block
        self.shape = rows // block.rows, columns // block.columns
        self._grouped = None
        if block.size == 1:
            return
        units = self._of(layer.topology.positions).unique()
        self._grouped = Topology(self.shape, units)
        if units.numel() * block.size != layer.topology.nnz:
            raise ValueError(
                f"topology of {path} must be made of whole units of {block.rows} x "
                f"{block.columns}, got {layer.topology.nnz} connections in {units.numel()} units"
            )

    @property
    def topology(self) -> Topology:
        """Which units there are, in the shape of the matrix of units."""
        if self._grouped is not None:
            return self._grouped
        # Asked for anew, so that nothing here holds on to connections that are gone.
        own = self.layer.topology
        return own if own.shape == self.shape else Topology.trusted(self.shape, *own.csr())

    @property
    def size(self) -> int:
        """Positions of a unit."""
        return self.block.size

    @property
    def free(self) -> int:
        """Number of units that can grow."""
        barred = 0 if self.closed is None else self.closed.numel()
        return self.topology.shape.numel() - self.topology.nnz - barred

    @cached_property
    def closed(self) -> Tensor | None:
        """Units that can never grow, since a position of theirs is closed; rising."""
        closed = self.layer.closed
        if closed is None or self.size == 1:
            return closed
        units: Tensor = self._of(closed).unique()
        return units[~torch.isin(units, self.topology.positions)]

    def pooled(self, scores: Tensor) -> Tensor:
        """Mean score of each unit ``[units]``, from one score per connection ``[nnz]``."""
        if self.size == 1:
            return scores
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
        total = scores.new_zeros(self.topology.nnz)
        return total.index_add_(0, self._unit_of_each, scores) / self.size

    def spread(self, keep: Tensor) -> Tensor:
        """For each connection what is given for its unit."""
        return keep if self.size == 1 else keep[self._unit_of_each]

    def positions(self, units: Tensor) -> Tensor:
        """Flat positions of all connections of some units, given by their own flat positions."""
        if self.size == 1:
            return units
        columns = self.layer.topology.matrix_shape[1]
        first = units // self.shape[1] * self.block.rows * columns
        first += units % self.shape[1] * self.block.columns
        down = torch.arange(self.block.rows, device=units.device)[:, None] * columns
        inside = (down + torch.arange(self.block.columns, device=units.device)).reshape(-1)
        return (first[:, None] + inside).reshape(-1)

    def units_of(self, topology: Topology) -> Topology:
        """The units that a topology of the layer touches."""
        if self.size == 1:
            return Topology.trusted(self.shape, *topology.csr())
        return Topology(self.shape, self._of(topology.positions).unique())

    def pooled_rows(self, scores: Tensor) -> Tensor:
        """Mean score of each unit of consecutive rows of units, from those of all positions."""
        if self.size == 1:
            return scores
        tile = scores.view(-1, self.block.rows, self.shape[1], self.block.columns)
        return tile.mean((1, 3), dtype=torch.promote_types(scores.dtype, torch.float32)).view(-1)

    @cached_property
    def _unit_of_each(self) -> Tensor:
        units = self._of(self.layer.topology.positions)
        return torch.searchsorted(self.topology.positions, units)

    def _of(self, positions: Tensor) -> Tensor:
        columns = self.layer.topology.matrix_shape[1]
        row, column = positions // columns, positions % columns
        return row // self.block.rows * self.shape[1] + column // self.block.columns


def block_of(unit: str | Block, layer: SparseLayer) -> Block:
    """Rows and columns of a unit of a layer.

    Raises:
        ValueError: The unit is unknown.
    """
    if isinstance(unit, Block):
        return unit
    if unit == "element":
        return Block(1, 1)
    if unit == "kernel":
        return Block(1, math.prod(layer.topology.shape[2:]))
    if unit == "neuron":
        return Block(1, layer.topology.matrix_shape[1])
    raise ValueError(f"unit must be one of {', '.join(UNITS)} or a Block, got {unit!r}")
