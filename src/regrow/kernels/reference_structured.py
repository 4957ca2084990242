"""The products of weights with a structure in plain torch: the oracle for every fast kernel.

The structure is undone: what tells it becomes compressed rows, and `reference` does the rest.
"""

from __future__ import annotations

from torch import Tensor

from regrow.kernels import reference
from regrow.topology import Block, NofM
from regrow.topology.order import column_order

KINDS = {"block": Block, "nm": NofM}

Both = tuple[Tensor | None, Tensor | None]
Parts = tuple[Tensor, ...]


def forward(
    x: Tensor,
    values: Tensor,
    parts: Parts,
    kind: str,
    form: tuple[int, int],
    bias: Tensor | None = None,
) -> Tensor:
    """Multiply a batch by a weight with a structure: ``y = x @ W.T + bias``.

    Args:
        x: Activations ``[batch, n_in]``.
        values: Connection values ``[nnz]``, row by row.
        parts: Where they are, as `Topology.parts` says.
        kind: ``block`` or ``nm``.
        form: Rows and columns of a block, or N and M.
        bias: Offsets ``[n_out]`` or None.

    Returns:
        Outputs ``[batch, n_out]``.

    Example:
        The weight ``[[0, 2], [3, 0]]`` has one of every two:

        >>> import torch
        >>> places = torch.tensor([1, 0], dtype=torch.uint8)
        >>> forward(torch.tensor([[1.0, 10.0]]), torch.tensor([2.0, 3.0]), (places,), "nm", (1, 2))
        tensor([[20.,  3.]])
    """
    n_out = rows_of(x.shape[1], values.shape[0], parts[0], kind, form)
    rows = KINDS[kind](*form).rows_of(parts, n_out, x.shape[1])
    return reference.linear_forward(x, values, rows, bias)


def backward(
    grad: Tensor,
    x: Tensor,
    values: Tensor,
    parts: Parts,
    kind: str,
    form: tuple[int, int],
    need_x: bool = True,
    need_values: bool = True,
) -> Both:
    """Differentiate `forward` with respect to its activations and its values.

    Args:
        grad: Gradient of the outputs ``[batch, n_out]``.
        x: As in `forward`.
        values: As there.
        parts: As there.
        kind: As there.
        form: As there.
        need_x: Whether the gradient of the activations is wanted.
        need_values: Whether the gradient of the values is wanted.

    Returns:
        Gradients ``[batch, n_in]`` and ``[nnz]``; None for one that is not wanted.
    """
    rows = KINDS[kind](*form).rows_of(parts, grad.shape[1], x.shape[1])
    columns = column_order(*rows, x.shape[1])
    return reference.linear_backward(grad, x, values, (*rows, *columns), need_x, need_values)


def rows_of(n_in: int, nnz: int, first: Tensor, kind: str, form: tuple[int, int]) -> int:
    """Rows of the weight, from the first of its parts."""
    if kind == "block":
        return (first.shape[0] - 1) * form[0]
    return nnz // (n_in // form[1] * form[0])
