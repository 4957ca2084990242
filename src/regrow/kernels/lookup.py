"""Rows of a sparse table by their number, as one torch operator: the arithmetic of an embedding.

Only the stored entries of the rows that are looked up are read, and only they get a gradient. It is
a gather and a scatter, for which torch's own kernels serve on every device.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional

from regrow.kernels import capture, dispatch, ops
from regrow.kernels.operator import differentiable

Backward = Callable[..., Tensor]


def situation(
    ids: Tensor, values: Tensor, rows: int, columns: int, training: bool
) -> dispatch.Situation:
    """Where a decision on a table holds: for about as many ids, of any numbers."""
    like = values.new_empty(1).expand(ids.numel(), columns)
    return dispatch.Situation.of(like, rows, values.numel(), training, "lookup")


def _lookup(
    ids: Tensor,
    values: Tensor,
    indptr: Tensor,
    indices: Tensor,
    columns: int,
    compute: str,
    training: bool,
) -> Tensor:
    """Rows of a sparse table.

    Args:
        ids: Numbers of rows, int32 or int64 ``[n]``.
        values: One value per connection ``[nnz]``.
        indptr: Row pointers, int64 ``[rows + 1]``.
        indices: Column of each connection, int32 ``[nnz]``.
        columns: Width of the table.
        compute: ``csr``, ``dense`` or ``auto``.
        training: Whether a backward pass is to follow, so that ``auto`` weighs it too.

    Returns:
        ``[n, columns]``.

    Raises:
        IndexError: A number outside ``[0, rows)``.
    """
    rows = indptr.numel() - 1
    if ids.numel():
        low, high = (int(n) for n in ids.aminmax())
        if low < 0 or high >= rows:
            bad = low if low < 0 else high
            raise IndexError(
                f"ids of an embedding with {rows} rows must be in [0, {rows}), got {bad}"
            )
    ids = ids.long()
    compute = _resolve(compute, ids, values, indptr, indices, columns, training)
    return _forward(compute, ids, values, indptr, indices, columns)


def _lookup_backward(
    grad: Tensor,
    ids: Tensor,
    values: Tensor,
    indptr: Tensor,
    indices: Tensor,
    columns: int,
    compute: str,
) -> Tensor:
    """Gradient of ``lookup`` with respect to the values ``[nnz]``.

    Args:
        grad: Gradient of the result ``[n, columns]``.
        ids: As in ``lookup``, and so are the others.
        values: As there.
        indptr: As there.
        indices: As there.
        columns: As there.
        compute: As there; ``auto`` takes what the forward pass has measured.
    """
    capture.record(values, ids, grad)
    ids = ids.long()
    compute = _resolve(compute, ids, values, indptr, indices, columns, True)
    return _values_gradient(compute, grad, ids, values, indptr, indices)


def _forward(
    compute: str, ids: Tensor, values: Tensor, indptr: Tensor, indices: Tensor, columns: int
) -> Tensor:
    if compute == "dense":
        dense = ops.sparse_kernels(values).scatter(values, indptr, indices, columns)
        return functional.embedding(ids, dense)
    slots, places = _read(ids, indptr, indices, columns)
    flat = values.new_zeros(ids.numel() * columns)
    return flat.scatter_(0, places, values[slots]).view(ids.numel(), columns)


def _values_gradient(
    compute: str, grad: Tensor, ids: Tensor, values: Tensor, indptr: Tensor, indices: Tensor
) -> Tensor:
    columns = grad.shape[1]
    if compute == "dense":
        dense = values.new_zeros(indptr.numel() - 1, columns).index_add_(0, ids, grad)
        return cast(Tensor, ops.sparse_kernels(values).gather(dense, indptr, indices))
    slots, places = _read(ids, indptr, indices, columns)
    return torch.zeros_like(values).index_add_(0, slots, grad.reshape(-1)[places])


def _read(ids: Tensor, indptr: Tensor, indices: Tensor, columns: int) -> tuple[Tensor, Tensor]:
    """Which stored entries the rows have, and where each of them stands in the result."""
    starts = indptr[ids]
    lengths = indptr[ids + 1] - starts
    ends = lengths.cumsum(0)
    total = int(ends[-1]) if ends.numel() else 0
    count = torch.arange(ids.numel(), device=ids.device)
    owner = torch.repeat_interleave(count, lengths, output_size=total)
    slots = torch.arange(total, device=ids.device).add_((starts - ends + lengths)[owner])
    return slots, owner.mul_(columns).add_(indices[slots])


def _resolve(
    compute: str,
    ids: Tensor,
    values: Tensor,
    indptr: Tensor,
    indices: Tensor,
    columns: int,
    training: bool,
) -> str:
    """What ``auto`` means here: measured at the first call of a situation, then remembered."""
    if compute != "auto":
        return compute
    found = situation(ids, values, indptr.numel() - 1, columns, training)

    def trials() -> dispatch.Trials:
        grad = values.new_ones(ids.numel(), columns)

        def work(compute: str) -> None:
            _forward(compute, ids, values, indptr, indices, columns)
            if training:
                _values_gradient(compute, grad, ids, values, indptr, indices)

        # A dense table is worth a thought only where most of it would be looked up.
        names = ("csr", "dense") if found.batch >= found.n_out else ("csr",)
        return {name: lambda name=name: work(name) for name in names}  # type: ignore[misc]

    return dispatch.choose(found, trials)


def _fake(ids, values, indptr, indices, columns, compute, training):  # type: ignore[no-untyped-def]
    return values.new_empty(ids.shape[0], columns)


def _backward_fake(grad, ids, values, *rest):  # type: ignore[no-untyped-def]
    return torch.empty_like(values)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, columns, compute, _ = inputs
    ctx.save_for_backward(*tensors)
    ctx.options = (columns, compute)


def _gradients(ctx: Any, grad: Tensor, backward: Backward) -> tuple[Tensor | None, ...]:
    into_values = backward(grad.contiguous(), *ctx.saved_tensors, *ctx.options)
    return None, into_values, *(None,) * 5


def _flops(*args, **kwargs) -> int:  # type: ignore[no-untyped-def]
    """Rows are copied, and added up on the way back, as torch's own embedding does."""
    return 0


lookup = differentiable(
    "lookup",
    _lookup,
    _lookup_backward,
    fakes=(_fake, _backward_fake),
    flops=(_flops, _flops),
    setup=_setup_context,
    gradients=_gradients,
)
