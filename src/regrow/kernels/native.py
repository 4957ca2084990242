"""The products of a sparse layer by the C++ extension: the same functions as `reference`, fast.

CPU tensors of float32 or float64 only; the products of a layer also take activations of bfloat16
beside values of float32, and sum in float32.  Dtypes and shapes are checked here, on every call;
that the indices are in range is not, for `Topology` checks them once (see `check_structure` for
arrays of unknown origin).  The number of threads is that of torch, and no result depends on it, bit
for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from regrow.topology.operands import Operands

try:
    from regrow import _native
except ImportError as error:
    _native = None
    _REASON = f"the C++ extension regrow._native could not be loaded: {error}"
else:
    _REASON = ""
    # Kernels run on torch's own threads where its library is known: see native/team.h.
    any(_native.use_team(str(path)) for path in Path(torch.__file__).parent.glob("lib/libgomp*"))

_FLOATS = (torch.float32, torch.float64)
_BITS = 16  # of a word of marks
# Samples of the longest vector.  Up to so many of bfloat16, empty places cost more than is gained.
_FEW = 16


def available() -> bool:
    """Whether the C++ extension is there."""
    return _native is not None


def reason() -> str:
    """Why the extension is not there, in a sentence; empty where it is."""
    return _REASON


def isa() -> str:
    """Name of the instruction set in use: ``avx512``, ``avx2`` or ``portable``.

    It is the best that the processor has, or what the environment variable ``REGROW_ISA`` names.

    Raises:
        ValueError: If ``REGROW_ISA`` names one that this processor or build has not.
    """
    name: str = _native.isa()
    return name


def stored(x: Tensor, computed: torch.dtype) -> torch.dtype:
    """The dtype in which a product takes activations that are like ``x``, beside such values."""
    return _activations(x, computed) if x.shape[0] > _FEW else computed


def by_features(x: Tensor) -> bool:
    """Whether activations ``[batch, n]`` are feature-major, and in a way that products can use.

    The samples of a feature are next to each other then: whole vectors of them, aligned.
    """
    batch, features = x.shape
    return (
        x.stride() == (1, batch)
        and features > 1
        and _fits(batch, x.dtype)
        and x.is_cpu
        and x.data_ptr() % 64 == 0
    )


def linear_forward(
    x: Tensor,
    values: Tensor,
    operands: Sequence[Tensor],
    bias: Tensor | None = None,
    relu: bool = False,
    feature_major: bool = False,
) -> Tensor:
    """Multiply a batch by a sparse weight; as `reference.linear_forward`.

    The input is taken as it lies where it is feature-major, and so is the gradient in the backward
    pass; the result is feature-major only if that is asked for, and can be (see `by_features`).
    """
    index = _index(operands)
    (batch, _), dtype = _matrix("x", x), _float("values", values)
    n_out = index.n_out
    activations = _activations(x, dtype)
    x, x_by_features = _laid_out("x", x, activations, batch, index.n_in)
    values = _ready("values", values, dtype, index.nnz)
    if bias is not None:
        bias = _ready("bias", bias, dtype, n_out)
    y_by_features = feature_major and n_out > 1 and _fits(batch, activations)
    y = x.new_empty((n_out, batch)).t() if y_by_features else x.new_empty((batch, n_out))
    _native.linear_forward(
        values.itemsize,
        activations != dtype,
        x.data_ptr(),
        values.data_ptr(),
        *index.rows(),
        0 if bias is None else bias.data_ptr(),
        y.data_ptr(),
        relu,
        x_by_features,
        y_by_features,
        batch,
        *index.sizes,
        torch.get_num_threads(),
    )
    return y


def linear_backward(
    grad: Tensor,
    x: Tensor,
    values: Tensor,
    operands: Sequence[Tensor],
    need_x: bool = True,
    need_values: bool = True,
    y: Tensor | None = None,
    dbias: Tensor | None = None,
) -> tuple[Tensor | None, Tensor | None]:
    """Differentiate `linear_forward`; as `reference.linear_backward`."""
    index = _index(operands)
    (batch, _), dtype = _matrix("grad", grad), _float("values", values)
    n_out = index.n_out
    activations = _activations(x, dtype)
    grad, grad_by_features = _laid_out("grad", grad, activations, batch, n_out)
    x, x_by_features = _laid_out("x", x, activations, batch, index.n_in)
    values = _ready("values", values, dtype, index.nnz)
    y_by_features = False
    if y is not None:
        y, y_by_features = _laid_out("y", y, activations, batch, n_out)
        if grad_by_features and not y_by_features:
            grad, grad_by_features = grad.contiguous(), False
    if dbias is not None:
        dbias = _target("dbias", dbias, dtype, n_out)
    dx = torch.empty_like(x) if need_x else None
    dvalues = torch.empty_like(values) if need_values else None
    _native.linear_backward(
        values.itemsize,
        activations != dtype,
        grad.data_ptr(),
        0 if y is None else y.data_ptr(),
        x.data_ptr(),
        values.data_ptr(),
        *index.rows(),
        *index.columns(),
        0 if dx is None else dx.data_ptr(),
        0 if dvalues is None else dvalues.data_ptr(),
        0 if dbias is None else dbias.data_ptr(),
        x_by_features,
        grad_by_features,
        y_by_features,
        batch,
        *index.sizes,
        torch.get_num_threads(),
    )
    return dx, dvalues


class _Index:
    """Index tensors of a weight that have been checked, and their sizes."""

    __slots__ = ("_columns", "_rows", "n_in", "n_out", "nnz", "sizes")

    def __init__(self, operands: Sequence[Tensor]) -> None:
        indptr, indices, t_indptr, t_indices, t_perm = operands
        (self.n_out,), (self.n_in,) = (
            (n - 1 for n in _vector(name, pointers))
            for name, pointers in (("indptr", indptr), ("t_indptr", t_indptr))
        )
        (self.nnz,) = _vector("indices", indices)
        self.sizes = self.n_in, self.n_out, self.nnz
        self._rows = (
            _ready("indptr", indptr, torch.int64, self.n_out + 1),
            _ready("indices", indices, torch.int32, self.nnz),
        )
        self._columns = (
            _ready("t_indptr", t_indptr, torch.int64, self.n_in + 1),
            _ready("t_indices", t_indices, torch.int32, self.nnz),
            _ready("t_perm", t_perm, torch.int32, self.nnz),
        )

    # Where they are is asked for at every call: torch moves tensors that are sent to a process.

    def rows(self) -> tuple[int, ...]:
        """Addresses of the row order."""
        indptr, indices = self._rows
        return indptr.data_ptr(), indices.data_ptr()

    def columns(self) -> tuple[int, ...]:
        """Addresses of the column order."""
        indptr, indices, perm = self._columns
        return indptr.data_ptr(), indices.data_ptr(), perm.data_ptr()


def _index(operands: Sequence[Tensor]) -> _Index:
    """What is known of index tensors; those of a topology are looked at once."""
    if not isinstance(operands, Operands):
        return _Index(operands)
    if operands.checked is None:
        operands.checked = _Index(operands)
    index: _Index = operands.checked
    return index


def scatter(
    values: Tensor, indptr: Tensor, indices: Tensor, n_columns: int, out: Tensor | None = None
) -> Tensor:
    """Write the values into a dense tensor that is zero elsewhere; as `reference.scatter`.

    Args:
        values: Of the whole weight ``[nnz]``.
        indptr: Row pointers, int64; of a strip of rows, those from its first row on.
        indices: Column of each connection of the whole weight, int32 ``[nnz]``.
        n_columns: Columns of the weight.
        out: Where to write the rows, ``[rows, n_columns]``; default: a new tensor.
    """
    n_rows = _vector("indptr", indptr)[0] - 1
    (nnz,), dtype = _vector("values", values), _float("values", values)
    values = _ready("values", values, dtype, nnz)
    indptr = _ready("indptr", indptr, torch.int64, n_rows + 1)
    indices = _ready("indices", indices, torch.int32, nnz)
    dense = _target("out", out, dtype, n_rows, n_columns)
    _native.scatter(
        dense.itemsize,
        values.data_ptr(),
        indptr.data_ptr(),
        indices.data_ptr(),
        dense.data_ptr(),
        n_rows,
        n_columns,
        nnz,
        torch.get_num_threads(),
    )
    return dense


def gather(dense: Tensor, indptr: Tensor, indices: Tensor, out: Tensor | None = None) -> Tensor:
    """Read the values at the connections out of a dense tensor; as `reference.gather`.

    Args:
        dense: All rows, or a strip of them, ``[rows, columns]``.
        indptr: As in `scatter`.
        indices: As in `scatter`.
        out: Values of the whole weight ``[nnz]``, of which those of the rows are written; default:
            a new tensor.
    """
    (n_rows, n_columns), dtype = _matrix("dense", dense), _float("dense", dense)
    (nnz,) = _vector("indices", indices)
    dense = _ready("dense", dense, dtype, n_rows, n_columns)
    indptr = _ready("indptr", indptr, torch.int64, n_rows + 1)
    indices = _ready("indices", indices, torch.int32, nnz)
    values = _target("out", out, dtype, nnz)
    _native.gather(
        dense.itemsize,
        dense.data_ptr(),
        indptr.data_ptr(),
        indices.data_ptr(),
        values.data_ptr(),
        n_rows,
        n_columns,
        nnz,
        torch.get_num_threads(),
    )
    return values


def mark(indptr: Tensor, indices: Tensor, n_columns: int) -> Tensor:
    """One bit for each position, set at the connections: int16 ``[rows, ceil(n_columns / 16)]``."""
    n_rows, (nnz,) = _vector("indptr", indptr)[0] - 1, _vector("indices", indices)
    indptr = _ready("indptr", indptr, torch.int64, n_rows + 1)
    indices = _ready("indices", indices, torch.int32, nnz)
    marks = torch.empty((n_rows, -(-n_columns // _BITS)), dtype=torch.int16)
    _native.mark(
        indptr.data_ptr(),
        indices.data_ptr(),
        marks.data_ptr(),
        n_rows,
        n_columns,
        nnz,
        torch.get_num_threads(),
    )
    return marks


def expand(values: Tensor, indptr: Tensor, marks: Tensor, out: Tensor) -> None:
    """As `scatter` into ``out``, led by what `mark` says of the rows instead of by indices."""
    _between(_native.expand, values, out, indptr, marks)


def compress(dense: Tensor, indptr: Tensor, marks: Tensor, out: Tensor) -> None:
    """As `gather` into ``out``, led by what `mark` says of the rows instead of by indices."""
    _between(_native.compress, out, dense, indptr, marks)


def _between(
    kernel: Callable[..., None], values: Tensor, dense: Tensor, indptr: Tensor, marks: Tensor
) -> None:
    """Run a kernel that reads one of values and dense rows, and writes the other."""
    (n_rows, n_columns), dtype = _matrix("dense", dense), _float("values", values)
    (nnz,) = _vector("values", values)
    kernel(
        values.itemsize,
        _target("values", values, dtype, nnz).data_ptr(),
        _ready("indptr", indptr, torch.int64, n_rows + 1).data_ptr(),
        _ready("marks", marks, torch.int16, n_rows, -(-n_columns // _BITS)).data_ptr(),
        _target("dense", dense, dtype, n_rows, n_columns).data_ptr(),
        n_rows,
        n_columns,
        nnz,
        torch.get_num_threads(),
    )


def pair_products(grad: Tensor, x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Sum ``grad[b, row] * x[b, column]`` over the batch; as `reference.pair_products`.

    Raises:
        IndexError: If a row or a column is out of range; these positions come from anywhere.
    """
    (batch, n_out), (_, n_in) = _matrix("grad", grad), _matrix("x", x)
    (count,), dtype = _vector("rows", rows), _float("grad", grad)
    grad = _ready("grad", grad, dtype, batch, n_out)
    x = _ready("x", x, dtype, batch, n_in)
    rows = _ready("rows", rows, torch.int64, count)
    columns = _ready("columns", columns, torch.int64, count)
    products = torch.empty(count, dtype=dtype)
    _native.pair_products(
        products.itemsize,
        grad.data_ptr(),
        x.data_ptr(),
        rows.data_ptr(),
        columns.data_ptr(),
        products.data_ptr(),
        batch,
        n_in,
        n_out,
        count,
        torch.get_num_threads(),
    )
    return products


def check_structure(indptr: Tensor, indices: Tensor, n_columns: int) -> None:
    """Check in O(nnz) that two arrays are the connections of a weight, row by row.

    Args:
        indptr: First connection of every row, int64 ``[n_rows + 1]``.
        indices: Column of every connection, int32 ``[nnz]``.
        n_columns: Number of columns.

    Raises:
        ValueError: Naming the first bad place, if ``indptr`` does not rise from 0 to nnz, or an
            index is not in ``[0, n_columns)`` or not above the one before it in its row.
    """
    n_rows, nnz = _vector("indptr", indptr)[0] - 1, _vector("indices", indices)[0]
    indptr = _ready("indptr", indptr, torch.int64, n_rows + 1)
    indices = _ready("indices", indices, torch.int32, nnz)
    _native.check_structure(indptr.data_ptr(), indices.data_ptr(), n_rows, n_columns, nnz)


def _matrix(name: str, tensor: Tensor) -> tuple[int, int]:
    if tensor.dim() != 2:
        raise ValueError(f"{name} must have 2 dimensions, got shape {list(tensor.shape)}")
    rows, columns = tensor.shape
    return rows, columns


def _vector(name: str, tensor: Tensor) -> tuple[int]:
    if tensor.dim() != 1:
        raise ValueError(f"{name} must have 1 dimension, got shape {list(tensor.shape)}")
    return (tensor.shape[0],)


def _float(name: str, tensor: Tensor) -> torch.dtype:
    if tensor.dtype not in _FLOATS:
        raise TypeError(f"{name} must be float32 or float64, got {_dtype(tensor.dtype)}")
    return tensor.dtype


def _activations(x: Tensor, values: torch.dtype) -> torch.dtype:
    """The dtype that activations must have beside values of this one."""
    low = x.dtype == torch.bfloat16 and values == torch.float32
    return torch.bfloat16 if low else values


def _ready(name: str, tensor: Tensor, dtype: torch.dtype, *shape: int) -> Tensor:
    """The tensor itself, or its contiguous copy, if it is what a kernel can read."""
    if not tensor.is_cpu:
        raise ValueError(f"{name} must be on the CPU, got a tensor on {tensor.device}")
    if tensor.dtype != dtype:
        raise TypeError(f"{name} must be {_dtype(dtype)}, got {_dtype(tensor.dtype)}")
    if tensor.shape != shape:
        raise ValueError(f"{name} must have shape {list(shape)}, got {list(tensor.shape)}")
    return tensor.contiguous()


def _fits(batch: int, dtype: torch.dtype) -> bool:
    """Whether feature-major activations of so many samples are whole vectors."""
    return batch % _FEW == 0 and batch > _FEW and dtype in _FLOATS


def _laid_out(name: str, tensor: Tensor, dtype: torch.dtype, *shape: int) -> tuple[Tensor, bool]:
    """Activations as a kernel can read them, and whether they are feature-major."""
    alike = not tensor.is_contiguous() and tensor.dtype == dtype and tensor.shape == shape
    if alike and by_features(tensor):
        return tensor, True
    return _ready(name, tensor, dtype, *shape), False


def _target(name: str, given: Tensor | None, dtype: torch.dtype, *shape: int) -> Tensor:
    """What a kernel is to write to: the tensor given, if it can, or a new one."""
    if given is None:
        return torch.empty(shape, dtype=dtype)
    if not given.is_contiguous():
        raise ValueError(f"{name} must be contiguous, got strides {list(given.stride())}")
    return _ready(name, given, dtype, *shape)


def _dtype(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
