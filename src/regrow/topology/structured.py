"""Initial patterns with a structure: constant fan-in or fan-out, N of M, blocks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from regrow.topology.patterns import sample_distinct
from regrow.topology.sampling import sample_in_groups
from regrow.topology.structure import BlockStructure, FanInStructure, NofMStructure
from regrow.topology.topology import Topology, checked_shape


@dataclass(frozen=True)
class NofM(NofMStructure):
    """``n`` connections among every ``m`` consecutive columns of a row.

    As an initial pattern it decides the number of connections too.

    Example:
        >>> NofM(2, 4).density
        0.5
        >>> NofM(2, 4)((3, 8), 12)
        Topology(shape=(3, 8), nnz=12, density=0.5)

    References:
        A. Mishra et al., "Accelerating sparse deep neural networks", 2021.
    """

    def __call__(
        self, shape: Sequence[int], connections: int, *, generator: torch.Generator | None = None
    ) -> Topology:
        """A random topology of this form; the connections asked for must be those it has."""
        topology = nm_topology(shape, self.n, self.m, generator=generator)
        if connections != topology.nnz:
            raise ValueError(
                f"connections of a topology of {self.n} of {self.m} of shape {tuple(shape)} must "
                f"be {topology.nnz}, got {connections}; leave density and allocation to the pattern"
            )
        return topology


@dataclass(frozen=True)
class Block(BlockStructure):
    """Connections that stand and fall together: ``rows`` x ``columns`` of them, on a grid.

    As an initial pattern it takes the number of whole blocks nearest to what is asked for.

    Example:
        >>> Block(4, 8).size
        32
    """

    def __call__(
        self, shape: Sequence[int], connections: int, *, generator: torch.Generator | None = None
    ) -> Topology:
        """A random topology of such blocks."""
        blocks = max(1, round(connections / self.size))
        return block_topology(shape, blocks * self.size, self, generator=generator)


@dataclass(frozen=True)
class FanIn(FanInStructure):
    """Every row has ``n`` connections.

    As an initial pattern it decides the number of connections too.

    Example:
        >>> FanIn(2)((3, 8), 6).degrees()[0]
        tensor([2, 2, 2])

    References:
        M. Lasby, A. Golubeva, U. Evci, M. Nica, Y. Ioannou, "Dynamic sparse training with
        structured sparsity", 2024.
    """

    def __call__(
        self, shape: Sequence[int], connections: int, *, generator: torch.Generator | None = None
    ) -> Topology:
        """A random topology of this form; the connections asked for must be those it has."""
        topology = fan_in_topology(shape, self.n, generator=generator)
        if connections != topology.nnz:
            raise ValueError(
                f"connections of a topology of shape {tuple(shape)} with a fan-in of {self.n} must "
                f"be {topology.nnz}, got {connections}"
            )
        return topology


def fan_in_topology(
    shape: Sequence[int], fan_in: int, *, generator: torch.Generator | None = None
) -> Topology:
    """Every row has the same number of connections, at random columns; in O(connections).

    Args:
        shape: Dense shape of the weight.
        fan_in: Connections of each row, in ``[1, columns]``.
        generator: CPU generator to draw from; torch's default one if None.

    Raises:
        ValueError: The fan-in is not in range.

    Example:
        >>> fan_in_topology((4, 10), 3).degrees()[0]
        tensor([3, 3, 3, 3])

    References:
        M. Lasby, A. Golubeva, U. Evci, M. Nica, Y. Ioannou, "Dynamic sparse training with
        structured sparsity", 2024.
    """
    rows, columns = _matrix(shape)
    _check_degree("fan_in", fan_in, columns, shape)
    sizes = torch.full((rows,), columns)
    drawn = sample_in_groups(sizes, torch.full_like(sizes, fan_in), generator)
    return Topology(shape, drawn).declare(FanIn(fan_in))


def fan_out_topology(
    shape: Sequence[int], fan_out: int, *, generator: torch.Generator | None = None
) -> Topology:
    """Every column has the same number of connections, at random rows; in O(connections).

    Args:
        shape: Dense shape of the weight.
        fan_out: Connections of each column, in ``[1, rows]``.
        generator: CPU generator to draw from; torch's default one if None.

    Raises:
        ValueError: The fan-out is not in range.

    Example:
        >>> fan_out_topology((10, 4), 3).degrees()[1]
        tensor([3, 3, 3, 3])
    """
    rows, columns = _matrix(shape)
    _check_degree("fan_out", fan_out, rows, shape)
    sizes = torch.full((columns,), rows)
    drawn = sample_in_groups(sizes, torch.full_like(sizes, fan_out), generator)
    return Topology(shape, drawn % rows * columns + drawn // rows)


def nm_topology(
    shape: Sequence[int], n: int, m: int, *, generator: torch.Generator | None = None
) -> Topology:
    """``n`` connections at random among every ``m`` consecutive columns of each row.

    Args:
        shape: Dense shape of the weight; ``m`` divides its number of columns.
        n: Connections of each group.
        m: Columns of each group.
        generator: CPU generator to draw from; torch's default one if None.

    Raises:
        ValueError: The columns are no multiple of ``m``, or ``n`` is not in ``[1, m]``.

    Example:
        >>> nm_topology((3, 8), 2, 4).mask().view(3, 2, 4).sum(-1)
        tensor([[2, 2],
                [2, 2],
                [2, 2]])
    """
    group = NofM(n, m)
    rows, columns = _matrix(shape)
    if columns % m:
        raise ValueError(
            f"columns of a topology of {n} of {m} must be a multiple of {m}, "
            f"got {columns} in shape {tuple(shape)}"
        )
    sizes = torch.full((rows * columns // m,), m)
    drawn = sample_in_groups(sizes, torch.full_like(sizes, group.n), generator)
    return Topology(shape, drawn).declare(group)


def block_topology(
    shape: Sequence[int],
    connections: int,
    block: Block,
    *,
    generator: torch.Generator | None = None,
) -> Topology:
    """Blocks of connections on a grid, at random places; in O(connections).

    Args:
        shape: Dense shape of the weight; the block divides its rows and its columns.
        connections: Number of connections, a multiple of the block's size.
        block: Form of a block.
        generator: CPU generator to draw from; torch's default one if None.

    Raises:
        ValueError: Block and shape, or block and number of connections, do not go together.

    Example:
        >>> block_topology((2, 4), 4, Block(2, 2), generator=torch.Generator().manual_seed(0))
        Topology(shape=(2, 4), nnz=4, density=0.5)
    """
    rows, columns = _matrix(shape)
    if rows % block.rows or columns % block.columns:
        raise ValueError(
            f"shape of a topology of blocks of {block.rows} x {block.columns} must be a multiple "
            f"of them, got {rows} x {columns}"
        )
    blocks, rest = divmod(connections, block.size)
    if rest or not 1 <= connections <= rows * columns:
        raise ValueError(
            f"connections of a topology of blocks of {block.rows} x {block.columns} must be a "
            f"multiple of {block.size} in [{block.size}, {rows * columns}], got {connections}"
        )
    wide = columns // block.columns
    drawn = sample_distinct(rows // block.rows * wide, blocks, generator)
    first = drawn // wide * block.rows * columns + drawn % wide * block.columns
    down, along = torch.arange(block.rows), torch.arange(block.columns)
    inside = (down[:, None] * columns + along).reshape(-1)
    return Topology(shape, (first[:, None] + inside).reshape(-1)).declare(block)


def _matrix(shape: Sequence[int]) -> tuple[int, int]:
    size = checked_shape(shape)
    return size[0], math.prod(size[1:])


def _check_degree(name: str, degree: int, most: int, shape: Sequence[int]) -> None:
    if not 1 <= degree <= most:
        raise ValueError(
            f"{name} of a topology of shape {tuple(shape)} must be in [1, {most}], got {degree}"
        )
