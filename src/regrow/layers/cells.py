"""The weights of one layer and direction of a recurrent network, and its walk along sequences."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from regrow.kernels import dispatch
from regrow.kernels.recurrence import recurrence, situation
from regrow.layers.linear import SparseLinear
from regrow.topology import Topology

# By cell, the gates in torch's order: those of one weight are stacked in its rows.
GATES = {
    "tanh": ("state",),
    "relu": ("state",),
    "gru": ("reset", "update", "new"),
    "lstm": ("input", "forget", "cell", "output"),
}


class SparseRecurrence(SparseLinear):
    """The recurrent weight of a cell: a linear layer from the state to the gates of a next step.

    Called, it walks the cell along whole sequences; the products of the state with the weight are
    all that is done step by step. Everything else is as in ``SparseLinear``, whose input here is
    the state before each step.

    Attributes:
        cell: Which cell it is of: ``tanh``, ``relu``, ``gru`` or ``lstm``.
    """

    cell: str

    def forward(  # type: ignore[override]
        self,
        projected: Tensor,
        h: Tensor,
        c: Tensor,
        reverse: bool = False,
        sizes: Sequence[int] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Walk along sequences.

        Args:
            projected: The input's part of the gates ``[steps, batch, gates * hidden]``; with
                ``sizes`` packed, ``[rows, gates * hidden]``.
            h: First state ``[batch, hidden]``.
            c: First memory, likewise; without elements for cells that have none.
            reverse: Whether to walk from the last step to the first.
            sizes: Rows of each step of packed sequences.

        Returns:
            The states, in the form of ``projected``, and last state and memory.
        """
        operands = self.operands()
        return _walk(self, self.values, operands, projected, h, c, reverse, sizes)

    def situation(self, x: Tensor) -> dispatch.Situation:
        """Where ``auto`` files its decision on training steps of such a projected input."""
        h = x.new_empty(x.shape[-2], self.in_features, dtype=self.values.dtype)
        steps = x.shape[0] if x.dim() == 3 else 1
        return situation(h, self.out_features, self.topology.nnz, steps, True)


class DenseRecurrence(nn.Linear):
    """A recurrent weight with every connection, held as a dense matrix; as ``SparseRecurrence``."""

    cell: str

    def forward(  # type: ignore[override]
        self,
        projected: Tensor,
        h: Tensor,
        c: Tensor,
        reverse: bool = False,
        sizes: Sequence[int] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As of ``SparseRecurrence``."""
        # What a full topology looks like to the operator, which then needs no indices.
        starts = torch.arange(self.out_features + 1, device=h.device) * self.in_features
        none = starts[:0]
        operands = (starts, none.int(), none, none.int(), none.int())
        values = self.weight.reshape(-1)
        return _walk(self, values, operands, projected, h, c, reverse, sizes)


def _walk(
    layer: SparseRecurrence | DenseRecurrence,
    values: Tensor,
    operands: tuple[Tensor, ...],
    projected: Tensor,
    h: Tensor,
    c: Tensor,
    reverse: bool,
    sizes: Sequence[int] | None,
) -> tuple[Tensor, Tensor, Tensor]:
    given = (projected, h, c, values)
    training = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in given)
    compute = layer.compute if isinstance(layer, SparseRecurrence) else "dense"
    rows = list(sizes) if sizes is not None else [h.shape[0]] * projected.shape[0]
    # Autocast lowers the products of the input; states add up over steps and stay as they are.
    flat = projected.reshape(-1, projected.shape[-1]).to(values.dtype).contiguous()
    begin = (h.to(values.dtype).contiguous(), c.to(values.dtype).contiguous())
    options = (rows, layer.cell, reverse, compute, training)
    with torch.autocast(flat.device.type, enabled=False):
        y, h, c = recurrence(flat, *begin, values, layer.bias, operands, *options)
    return y.view(*projected.shape[:-1], h.shape[1]), h, c


class RecurrentCell(nn.Module):
    """One layer and direction: ``input`` and ``hidden``, each a sparse layer, or dense.

    Args:
        cell: ``tanh``, ``relu``, ``gru`` or ``lstm``.
        input_size: Features of the input.
        hidden_size: Features of the state.
        bias: Whether both weights have a bias, as torch's do.
        topologies: Of ``input`` and ``hidden``; a weight that is missing is dense.
        compute: ``auto``, ``csr`` or ``dense``.
        generator: CPU generator, torch's default one if None.
        device: Of all parameters.
        dtype: Of all parameters.
    """

    def __init__(
        self,
        cell: str,
        input_size: int,
        hidden_size: int,
        bias: bool,
        topologies: Mapping[str, Topology],
        *,
        compute: str,
        generator: torch.Generator | None,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        super().__init__()
        gates = GATES[cell]
        width = len(gates) * hidden_size
        place: dict[str, Any] = {"device": device, "dtype": dtype}
        sparse: dict[str, Any] = {"compute": compute, "generator": generator, **place}
        given = {part: {"topology": found, **sparse} for part, found in topologies.items()}
        self.input: SparseLinear | nn.Linear
        self.hidden: SparseRecurrence | DenseRecurrence
        if "input" in given:
            self.input = SparseLinear(input_size, width, bias, **given["input"])
        else:
            self.input = nn.Linear(input_size, width, bias, **place)
        if "hidden" in given:
            self.hidden = SparseRecurrence(hidden_size, width, bias, **given["hidden"])
        else:
            self.hidden = DenseRecurrence(hidden_size, width, bias, **place)
        self.hidden.cell = cell
        if len(gates) > 1:
            rows = {
                gate: slice(i * hidden_size, (i + 1) * hidden_size) for i, gate in enumerate(gates)
            }
            for layer in (self.input, self.hidden):
                if isinstance(layer, SparseLinear):
                    layer.row_groups = rows

    def forward(
        self, x: Tensor, h: Tensor, c: Tensor, reverse: bool, sizes: Sequence[int] | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Project all steps at once, and walk; as of ``SparseRecurrence.forward``."""
        out: tuple[Tensor, Tensor, Tensor] = self.hidden(self.input(x), h, c, reverse, sizes)
        return out


def weight_shapes(
    cell: str, input_size: int, hidden_size: int, num_layers: int, bidirectional: bool
) -> dict[str, tuple[int, int]]:
    """Dense shape of every weight of a recurrent network, by its path."""
    directions = 2 if bidirectional else 1
    width = len(GATES[cell]) * hidden_size
    shapes = {}
    for i in range(num_layers * directions):
        features = input_size if i < directions else directions * hidden_size
        shapes[f"cells.{i}.input"] = (width, features)
        shapes[f"cells.{i}.hidden"] = (width, hidden_size)
    return shapes


def check_sizes(
    name: str, input_size: int, hidden_size: int, num_layers: int, dropout: float
) -> None:
    """Refuse sizes and a dropout that cannot be, naming the layer."""
    sizes = {"input_size": input_size, "hidden_size": hidden_size, "num_layers": num_layers}
    for word, size in sizes.items():
        if size < 1:
            raise ValueError(f"{word} of {name} must be at least 1, got {size}")
    if not 0 <= dropout <= 1:
        raise ValueError(f"dropout of {name} must be in [0, 1], got {dropout}")
    if dropout and num_layers == 1:
        warnings.warn(
            f"dropout of {name} acts between layers, and there is one layer only", stacklevel=4
        )
