"""The positions of the stored weights of one layer, and the change from one set to the next."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from regrow.topology.merge import carried, compressed, merged, rising, rows_kept, survivors
from regrow.topology.operands import Operands
from regrow.topology.order import column_order
from regrow.topology.structure import Structure

CSR = tuple[Tensor, Tensor]
CSC = tuple[Tensor, Tensor, Tensor]

_INT32_MAX = 2**31 - 1


class Topology:
    """The connections of one layer: sorted, distinct positions in a dense shape.

    A topology is immutable; an update of the network makes a new one. It is held in row order
    (4 bytes a connection and 8 bytes a row), and the column order that a backward pass needs is
    built on first use (8 bytes a connection more). Layers and their deep copies share one object.
    A structure that the connections have, such as blocks, may be declared, and is told by less.

    Rows are the first axis of ``shape``, columns all others taken together: for a linear layer the
    rows are its outputs and the columns its inputs.

    Args:
        shape: Dense shape of the weight, at least two axes; at most 2**31 - 1 rows and columns.
        positions: Flat positions in ``shape``, int64 ``[nnz]``, distinct, in any order, each in
            ``[0, prod(shape))``.

    Raises:
        ValueError: A position is repeated or outside the shape, or the shape is not usable.
        TypeError: The positions are not a one-dimensional tensor of integers.

    Example:
        >>> import torch
        >>> topology = Topology((2, 3), torch.tensor([5, 0, 1]))
        >>> topology.nnz, topology.density
        (3, 0.5)
        >>> topology.positions
        tensor([0, 1, 5])
        >>> topology.mask().int()
        tensor([[1, 1, 0],
                [0, 0, 1]], dtype=torch.int32)
    """

    __slots__ = ("_claim", "_csc", "_csr", "_operands", "_parts", "_shape", "_structure")

    def __init__(self, shape: Sequence[int], positions: Tensor) -> None:
        self._shape = checked_shape(shape)
        _check_integers("positions", positions)
        positions = positions.to(torch.int64)
        ordered = positions if rising(positions) else positions.sort().values
        self._check_distinct(ordered)
        self._csr: CSR | None = compressed(ordered, *self.matrix_shape)
        self._csc: CSC | None = None
        self._structure: Structure | None = None
        self._claim: Structure | None = None
        self._parts: tuple[Tensor, ...] | None = None
        self._operands: Operands | None = None

    @classmethod
    def from_csr(cls, shape: Sequence[int], indptr: Tensor, indices: Tensor) -> Topology:
        """Build a topology from compressed rows, as ``csr()`` returns and checkpoints hold them.

        Args:
            shape: Dense shape of the weight.
            indptr: Row pointers, integer ``[rows + 1]``, from 0 to nnz, never falling.
            indices: Column of each connection, integer ``[nnz]``, rising within each row.

        Raises:
            ValueError: The arrays do not describe distinct connections inside the shape.
            TypeError: An array is not a one-dimensional tensor of integers.
        """
        shape = checked_shape(shape)
        rows, columns = shape[0], math.prod(shape[1:])
        _check_integers("indices", indices)
        if indptr.shape != (rows + 1,):
            raise ValueError(
                f"indptr of a topology of shape {tuple(shape)} must have {rows + 1} entries, "
                f"got {tuple(indptr.shape)}"
            )
        _check_integers("indptr", indptr)
        indptr = indptr.to(torch.int64).contiguous()
        lengths = indptr.diff()
        nnz = indices.numel()
        if int(indptr[0]) != 0 or int(indptr[-1]) != nnz or bool((lengths < 0).any()):
            raise ValueError(
                f"indptr of a topology of shape {tuple(shape)} must rise from 0 to {nnz}, "
                f"got {int(indptr[0])} to {int(indptr[-1])}"
            )
        if nnz and (int(indices.min()) < 0 or int(indices.max()) >= columns):
            raise ValueError(
                f"indices of a topology of shape {tuple(shape)} must be in [0, {columns}), "
                f"got {int(indices.min())} to {int(indices.max())}"
            )
        indices = indices.to(torch.int32).contiguous()
        rises = indices.diff() > 0
        starts = indptr[1:-1]
        starts = starts[(starts > 0) & (starts < nnz)]
        rises[starts - 1] = True
        if not bool(rises.all()):
            raise ValueError(
                f"indices of a topology of shape {tuple(shape)} must rise within each row"
            )
        return cls.trusted(shape, indptr, indices)

    @classmethod
    def trusted(cls, shape: Sequence[int], indptr: Tensor, indices: Tensor) -> Topology:
        """As ``from_csr``, but of arrays that are right by construction: nothing is checked."""
        self = cls.__new__(cls)
        self._shape = torch.Size(shape)
        self._csr, self._csc = (indptr, indices), None
        self._structure = self._claim = self._parts = self._operands = None
        return self

    @property
    def shape(self) -> torch.Size:
        """Dense shape of the weight."""
        return self._shape

    @property
    def matrix_shape(self) -> tuple[int, int]:
        """Rows and columns: the first axis, and all others taken together."""
        return self._shape[0], math.prod(self._shape[1:])

    @property
    def nnz(self) -> int:
        """Number of connections."""
        if self._csr is not None:
            return self._csr[1].numel()
        assert self._structure is not None
        return self._structure.count(self.parts())

    @property
    def density(self) -> float:
        """Kept fraction of the positions, in [0, 1]."""
        return self.nnz / self._shape.numel()

    @property
    def device(self) -> torch.device:
        """Where the indices live."""
        return (self._csr or self.parts())[0].device

    @property
    def nbytes(self) -> int:
        """Bytes held by the indices now: row order, column order and parts, if they are there."""
        held = (*(self._csr or ()), *(self._csc or ()), *(self._parts or ()))
        return sum({tensor.data_ptr(): tensor.nbytes for tensor in held}.values())

    @property
    def rows(self) -> Tensor:
        """Row of each connection, int64 ``[nnz]``."""
        count = torch.arange(self.matrix_shape[0], device=self.device)
        return torch.repeat_interleave(count, self.csr()[0].diff(), output_size=self.nnz)

    @property
    def positions(self) -> Tensor:
        """Flat positions in the dense shape, int64 ``[nnz]``, rising; computed at each call."""
        return self.rows.mul_(self.matrix_shape[1]).add_(self.csr()[1])

    def csr(self) -> CSR:
        """Row order: pointers int64 ``[rows + 1]`` and the column of each connection int32."""
        if self._csr is None:
            assert self._structure is not None
            self._csr = self._structure.rows_of(self.parts(), *self.matrix_shape)
        return self._csr

    def csc(self) -> CSC:
        """Column order of the same connections, built once.

        Returns:
            Column pointers int64 ``[columns + 1]``, the row of each connection int32 ``[nnz]``,
            and where its value stands in row order int32 ``[nnz]``.
        """
        if self._csc is None:
            self._csc = column_order(*self.csr(), self.matrix_shape[1])
        return self._csc

    def forget_columns(self) -> None:
        """Free the column order, two thirds of what is held; it is built again on next use."""
        self._csc = self._operands = None

    def operands(self) -> Operands:
        """Row order and column order together, one and the same tuple at every call."""
        if self._operands is None:
            self._operands = Operands((*self.csr(), *self.csc()))
        return self._operands

    @property
    def structure(self) -> Structure | None:
        """The structure that was declared and still holds: blocks, N of M, fan-in, or None.

        A rewiring and a copy inherit it; whether it holds is found out here, once.
        """
        if self._claim is not None:
            claim, self._claim = self._claim, None
            if claim.fault(self.csr(), self.matrix_shape[1]) is None:
                self._structure = claim
        return self._structure

    def declare(self, structure: Structure) -> Topology:
        """The same connections, known to have a structure, which faster kernels may use.

        Args:
            structure: A ``Block``, ``NofM`` or ``FanIn``.

        Raises:
            ValueError: The connections do not have it.

        Example:
            >>> from regrow.topology import Block
            >>> topology = Topology((2, 4), torch.tensor([2, 3, 6, 7])).declare(Block(2, 2))
            >>> topology.structure
            Block(rows=2, columns=2)
        """
        fault = structure.fault(self.csr(), self.matrix_shape[1])
        if fault is not None:
            raise ValueError(
                f"topology of shape {tuple(self._shape)} must have {structure}, got {fault}"
            )
        declared = self.trusted(self._shape, *self.csr())
        declared._csc, declared._structure = self._csc, structure
        return declared

    def inheriting(self, structure: Structure) -> Topology:
        """The same connections, of which ``structure`` is this one if they have it, else None."""
        heir = self.trusted(self._shape, *self.csr())
        heir._csc, heir._claim = self._csc, structure
        return heir

    def parts(self) -> tuple[Tensor, ...]:
        """The few numbers that tell where connections of the structure are, formed once.

        Returns:
            Of blocks: first block of each block row (int64) and block column of each block (int32);
            first block of each block column (int64), and for each block in that order its block row
            and its place in the other order (int32). Of N of M: the place of each connection in its
            group, uint8 ``[nnz]``. Of a fan-in: the column of each connection, int32 ``[nnz]``.
            Without a structure, nothing.
        """
        if self._parts is None:
            structure = self.structure
            if structure is None:
                return ()
            # Made under inference mode, the tensors could not take part in training later.
            with torch.inference_mode(False):
                self._parts = structure.parts(self.csr(), self.matrix_shape[1])
        return self._parts

    def forget_rows(self) -> None:
        """Free row and column order where the structure tells both; formed again on next use."""
        if self.structure is not None:
            self.parts()
            self._csr = self._csc = self._operands = None

    def mask(self) -> Tensor:
        """Dense boolean mask in the dense shape; for looking at, never used in training."""
        mask = torch.zeros(self._shape.numel(), dtype=torch.bool, device=self.device)
        mask[self.positions] = True
        return mask.view(self._shape)

    def degrees(self) -> tuple[Tensor, Tensor]:
        """Connections of each row (int64 ``[rows]``) and of each column (int64 ``[columns]``).

        For a linear layer: in-degrees of the outputs, and out-degrees of the inputs.

        Example:
            >>> topology = Topology((2, 3), torch.tensor([0, 1, 5]))
            >>> [degree.tolist() for degree in topology.degrees()]
            [[2, 1], [1, 1, 1]]
        """
        indptr, indices = self.csr()
        return indptr.diff(), torch.bincount(indices, minlength=self.matrix_shape[1])

    def sums(self, values: Tensor, axis: int) -> Tensor:
        """Add up one number per connection over each row (axis 0) or each column (axis 1).

        Args:
            values: ``[nnz]``.
            axis: Which end of a connection it is added to.

        Returns:
            ``[rows]`` or ``[columns]``.

        Example:
            >>> topology = Topology((2, 3), torch.tensor([0, 1, 5]))
            >>> [topology.sums(torch.tensor([1.0, 2.0, 4.0]), axis).tolist() for axis in (0, 1)]
            [[3.0, 4.0], [1.0, 2.0, 4.0]]
        """
        ends = self.csr()[1].long() if axis else self.rows
        return values.new_zeros(self.matrix_shape[axis]).index_add_(0, ends, values)

    def kept(self, keep: Tensor) -> Topology:
        """The connections that stay, and no others.

        Args:
            keep: Which connections stay, bool ``[nnz]``.

        Example:
            >>> topology = Topology((2, 3), torch.tensor([0, 1, 5]))
            >>> topology.kept(torch.tensor([True, False, True])).positions
            tensor([0, 5])
        """
        self._check_keep(keep)
        topology = self.trusted(self._shape, *rows_kept(self.csr(), keep))
        topology._claim = self.structure
        return topology

    def joined(self, positions: Tensor) -> Topology:
        """These connections and others.

        Args:
            positions: Flat positions to add, int64, distinct, none of them taken.

        Raises:
            ValueError: A position is taken already, repeated, or outside the shape.

        Example:
            >>> Topology((2, 3), torch.tensor([0, 5])).joined(torch.tensor([2])).positions
            tensor([0, 2, 5])
        """
        everything = torch.ones(self.nnz, dtype=torch.bool, device=self.device)
        return self.rewire(everything, positions).topology

    def to(self, device: torch.device | str) -> Topology:
        """The same topology on another device (itself if it is there already)."""
        if torch.empty(0, device=device).device == self.device:
            return self
        moved = self.trusted(self._shape, *(part.to(device) for part in self.csr()))
        moved._structure, moved._claim = self._structure, self._claim
        return moved

    def rewire(self, keep: Tensor, grown: Tensor) -> Rewiring:
        """Keep some connections, add others, and know where every survivor went.

        Args:
            keep: Which connections stay, bool ``[nnz]``.
            grown: Flat positions to add, int64, distinct, none of them kept.

        Returns:
            The new topology with the way from the old order of connections to the new one.

        Raises:
            ValueError: A grown position is kept already, repeated, or outside the shape, or
                ``keep`` is of another form.

        Example:
            >>> old = Topology((2, 3), torch.tensor([0, 1, 5]))
            >>> change = old.rewire(torch.tensor([True, False, True]), torch.tensor([3]))
            >>> change.topology.positions
            tensor([0, 3, 5])
            >>> change.carry(torch.tensor([10.0, 11.0, 15.0]), torch.zeros(1))
            tensor([10.,  0., 15.])
        """
        self._check_keep(keep)
        _check_integers("grown positions", grown)
        grown, order = grown.to(self.device, torch.int64), None
        if not rising(grown):
            grown, order = grown.sort()
        self._check_inside(grown)
        indptr, indices, origin, clash = merged(self.csr(), self.matrix_shape[1], keep, grown)
        if clash >= 0:
            raise _repeated(self._shape, clash)
        topology = self.trusted(self._shape, indptr, indices)
        topology._claim = self.structure
        return Rewiring(topology, keep, origin, order, grown.numel())

    def _check_keep(self, keep: Tensor) -> None:
        if keep.dtype != torch.bool or keep.shape != (self.nnz,):
            raise ValueError(
                f"keep of a topology must be torch.bool of shape ({self.nnz},), "
                f"got {keep.dtype} of shape {tuple(keep.shape)}"
            )

    def _check_distinct(self, ordered: Tensor) -> None:
        self._check_inside(ordered)
        repeated = ordered[1:] == ordered[:-1]
        if bool(repeated.any()):
            raise _repeated(self._shape, int(ordered[1:][repeated][0]))

    def _check_inside(self, ordered: Tensor) -> None:
        total = self._shape.numel()
        if ordered.numel() and (int(ordered[0]) < 0 or int(ordered[-1]) >= total):
            bad = int(ordered[0]) if int(ordered[0]) < 0 else int(ordered[-1])
            raise ValueError(
                f"positions of a topology of shape {tuple(self._shape)} must be in "
                f"[0, {total}), got {bad}"
            )

    def __eq__(self, other: object) -> bool:
        """Equal shape and equal positions."""
        if not isinstance(other, Topology):
            return NotImplemented
        if self is other:
            return True
        return self._shape == other._shape and all(
            torch.equal(mine, theirs.to(mine.device))
            for mine, theirs in zip(self.csr(), other.csr(), strict=True)
        )

    def __hash__(self) -> int:
        """Hash of shape and size, equal for equal topologies."""
        return hash((self._shape, self.nnz))

    def __deepcopy__(self, memo: dict[int, Any]) -> Topology:
        """Itself: immutable values need no copy."""
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the row order and the structure; the column order is rebuilt on use."""
        return _rebuild, (tuple(self._shape), *self.csr(), self.structure)

    def __repr__(self) -> str:
        """Shape, number of connections and density."""
        return f"Topology(shape={tuple(self._shape)}, nnz={self.nnz}, density={self.density:.4g})"


@dataclass(frozen=True)
class Rewiring:
    """The step from one topology to the next.

    Attributes:
        topology: The new topology.
        keep: Which old connections stay, bool ``[old nnz]``.
        origin: Of each new connection, int32 ``[new nnz]``: its number before, or -1 - i for the
            i-th grown one by position.
        order: For each grown connection, by position, its place in the order they were given;
            None where they were given by position.
        grown: Number of added connections.
    """

    topology: Topology
    keep: Tensor
    origin: Tensor
    order: Tensor | None
    grown: int

    @property
    def fresh(self) -> Tensor:
        """Which new connections are grown, bool ``[new nnz]``; computed at each call."""
        return self.origin < 0

    def carry(self, old: Tensor, start: Tensor) -> Tensor:
        """Move one number per connection to the new topology, in its order.

        Args:
            old: One entry per old connection ``[old nnz]``.
            start: One entry per grown connection ``[grown]``, in the order they were given.

        Returns:
            One entry per new connection ``[new nnz]``; those of survivors are bit-equal.

        Raises:
            ValueError: There is not one start for each grown connection.
        """
        if start.shape != (self.grown,):
            raise ValueError(
                f"start of grown connections must have shape ({self.grown},), "
                f"got {tuple(start.shape)}"
            )
        if start.stride(0) == 0:  # all alike, in whatever order
            return carried(old, start[:1].to(old).expand(self.grown), self.origin)
        start = start.to(old)
        return carried(old, start if self.order is None else start[self.order], self.origin)

    def survivors(self, old: Tensor) -> Tensor:
        """The entries of connections that stay, in their order, of one per old connection."""
        return survivors(old, self.keep)


def _rebuild(
    shape: tuple[int, ...], indptr: Tensor, indices: Tensor, structure: Structure | None = None
) -> Topology:
    topology = Topology.from_csr(shape, indptr, indices)
    topology._claim = structure
    return topology


def checked_shape(shape: Sequence[int], connections: int = 0) -> torch.Size:
    """Refuse a shape that cannot be indexed, or more connections than can."""
    size = torch.Size(int(n) for n in shape)
    if len(size) < 2 or min(size) < 1:
        raise ValueError(
            f"shape of a topology must have two or more axes of at least 1, got {tuple(size)}"
        )
    if max(size[0], math.prod(size[1:])) > _INT32_MAX:
        raise ValueError(
            f"shape of a topology must have at most {_INT32_MAX} rows and columns, "
            f"got {tuple(size)}"
        )
    if connections > _INT32_MAX:
        raise ValueError(
            f"connections of a topology of shape {tuple(size)} must be at most {_INT32_MAX}, "
            f"got {connections}"
        )
    return size


def _check_integers(name: str, entries: Tensor) -> None:
    if (
        not isinstance(entries, Tensor)
        or entries.dim() != 1
        or entries.dtype == torch.bool
        or entries.is_floating_point()
        or entries.is_complex()
    ):
        form = type(entries).__name__
        if isinstance(entries, Tensor):
            form = f"{entries.dtype} of shape {tuple(entries.shape)}"
        raise TypeError(
            f"{name} of a topology must be a one-dimensional tensor of integers, got {form}"
        )
    if entries.numel() > _INT32_MAX:
        raise ValueError(
            f"{name} of a topology must be at most {_INT32_MAX}, got {entries.numel()}"
        )


def _repeated(shape: torch.Size, position: int) -> ValueError:
    return ValueError(
        f"positions of a topology of shape {tuple(shape)} must be distinct, "
        f"got {position} more than once"
    )
