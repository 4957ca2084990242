"""Recurrent layers with sparse weights: RNN, GRU and LSTM."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, Literal, TypedDict, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import PackedSequence

from regrow.layers.cells import RecurrentCell, check_sizes, weight_shapes
from regrow.topology import Topology, random_topology
from regrow.topology.allocation import check_density

State = Tensor | tuple[Tensor, Tensor]
Sequences = Tensor | PackedSequence


class SparseOptions(TypedDict, total=False):
    """What a sparse recurrent layer takes beyond torch's own arguments; see there."""

    density: float | None
    topologies: Mapping[str, Topology] | None
    compute: str
    generator: torch.Generator | None
    device: torch.device | str | None
    dtype: torch.dtype | None


class _SparseRecurrent(nn.Module):
    """What the three have in common: weights, layers, directions and the forms of the input."""

    _remembers: ClassVar[bool] = False

    def __init__(
        self,
        cell: str,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        bias: bool,
        batch_first: bool,
        dropout: float,
        bidirectional: bool,
        *,
        density: float | None = None,
        topologies: Mapping[str, Topology] | None = None,
        compute: str = "auto",
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        check_sizes(name, input_size, hidden_size, num_layers, dropout)
        self.mode = cell
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.bias, self.batch_first = bias, batch_first
        self.dropout, self.bidirectional = float(dropout), bidirectional
        shapes = weight_shapes(cell, input_size, hidden_size, num_layers, bidirectional)
        if (density is None) == (topologies is None):
            raise ValueError(f"{name} needs a density or topologies, not both or neither")
        if density is not None:
            check_density(density, name)
            topologies = {
                weight: random_topology(
                    shape, max(1, round(density * math.prod(shape))), generator=generator
                )
                for weight, shape in shapes.items()
            }
        assert topologies is not None
        if unknown := set(topologies) - set(shapes):
            raise ValueError(
                f"topologies of {name} must be of {', '.join(shapes)}, got {min(unknown)}"
            )
        self.cells = nn.ModuleList(
            RecurrentCell(
                cell,
                shapes[f"cells.{i}.input"][1],
                hidden_size,
                bias,
                {
                    part: topologies[weight]
                    for part in ("input", "hidden")
                    if (weight := f"cells.{i}.{part}") in topologies
                },
                compute=compute,
                generator=generator,
                device=device,
                dtype=dtype,
            )
            for i in range(len(shapes) // 2)
        )

    def forward(self, x: Sequences, state: State | None = None) -> tuple[Sequences, State]:
        """Map sequences to the states of the last layer; arguments and results as torch's.

        Args:
            x: ``[steps, batch, input_size]``, batch and steps exchanged with ``batch_first``,
                without a batch ``[steps, input_size]``, or a ``PackedSequence``.
            state: First state ``[layers * directions, batch, hidden_size]`` (a pair of states for
                an LSTM), without the batch where the input has none; zeros if None.

        Returns:
            States of the last layer, both directions side by side, in the form of the input, and
            the last state of every layer and direction.

        Raises:
            ValueError: Input or state are of another shape, or there is no step.
            TypeError: Input and values differ in dtype, and autocast does not lower the input.
        """
        if isinstance(x, PackedSequence):
            return self._forward_packed(x, state)
        name = type(self).__name__
        if x.dim() not in (2, 3) or x.shape[-1] != self.input_size:
            raise ValueError(
                f"input of {name} must be (steps, batch, {self.input_size}), or without the batch, "
                f"got shape {tuple(x.shape)}"
            )
        batched = x.dim() == 3
        steps_first = x.transpose(0, 1) if batched and self.batch_first else x
        sequences = steps_first if batched else x.unsqueeze(1)
        if sequences.shape[0] == 0:
            raise ValueError(f"input of {name} must have a step at least, got none")
        h, c = self._first(state, sequences, sequences.shape[1], batched)
        y, h, c = self._layers(sequences, h, c, None)
        if not batched:
            return y.squeeze(1), self._state(h.squeeze(1), c.squeeze(1) if c.numel() else c)
        return y.transpose(0, 1) if self.batch_first else y, self._state(h, c)

    def _forward_packed(
        self, x: PackedSequence, state: State | None
    ) -> tuple[PackedSequence, State]:
        if x.data.shape[-1] != self.input_size:
            raise ValueError(
                f"input of {type(self).__name__} must have {self.input_size} features, "
                f"got {x.data.shape[-1]}"
            )
        sizes = [int(n) for n in x.batch_sizes]
        h, c = self._first(state, x.data, sizes[0], True)
        if x.sorted_indices is not None:
            h = h.index_select(1, x.sorted_indices)
            c = c.index_select(1, x.sorted_indices) if c.numel() else c
        y, h, c = self._layers(x.data, h, c, sizes)
        if x.unsorted_indices is not None:
            h = h.index_select(1, x.unsorted_indices)
            c = c.index_select(1, x.unsorted_indices) if c.numel() else c
        packed = PackedSequence(y, x.batch_sizes, x.sorted_indices, x.unsorted_indices)
        return packed, self._state(h, c)

    def _layers(
        self, x: Tensor, h: Tensor, c: Tensor, sizes: list[int] | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """All layers and directions; states ``[layers * directions, batch, hidden]``."""
        directions = 2 if self.bidirectional else 1
        last_h, last_c = [], []
        for layer in range(self.num_layers):
            if layer and self.dropout:
                x = functional.dropout(x, self.dropout, self.training)
            found = []
            for side in range(directions):
                i = layer * directions + side
                memory = c[i] if self._remembers else c
                y, end, memory = self.cells[i](x, h[i], memory, side == 1, sizes)
                found.append(y)
                last_h.append(end)
                last_c.append(memory)
            x = torch.cat(found, -1) if directions == 2 else found[0]
        return x, torch.stack(last_h), torch.stack(last_c) if self._remembers else c

    def _first(
        self, state: State | None, x: Tensor, batch: int, batched: bool
    ) -> tuple[Tensor, Tensor]:
        """First state and memory, checked, with a batch axis; an empty memory where none is."""
        shape = (len(self.cells), batch, self.hidden_size)
        empty = x.new_empty(0)
        if state is None:
            zeros = x.new_zeros(shape)
            return zeros, zeros if self._remembers else empty
        parts = state if isinstance(state, tuple) else (state,)
        want = shape if batched else (shape[0], shape[2])
        count = 2 if self._remembers else 1
        if len(parts) != count or any(tuple(part.shape) != want for part in parts):
            form = f"a pair of states of shape {want}" if count == 2 else f"of shape {want}"
            got = " and ".join(str(tuple(part.shape)) for part in parts)
            raise ValueError(f"first state of {type(self).__name__} must be {form}, got {got}")
        full = [part if batched else part.unsqueeze(1) for part in parts]
        return full[0], full[1] if self._remembers else empty

    def _state(self, h: Tensor, c: Tensor) -> State:
        return (h, c) if self._remembers else h

    def flatten_parameters(self) -> None:
        """For callers of torch's layers: there is nothing to flatten."""

    def extra_repr(self) -> str:
        """Sizes and options that are not torch's defaults."""
        options = {
            "num_layers": (self.num_layers, 1),
            "bias": (self.bias, True),
            "batch_first": (self.batch_first, False),
            "dropout": (self.dropout, 0.0),
            "bidirectional": (self.bidirectional, False),
        }
        told = [f", {name}={value}" for name, (value, usual) in options.items() if value != usual]
        kind = ", nonlinearity=relu" if self.mode == "relu" else ""
        return f"{self.input_size}, {self.hidden_size}{kind}{''.join(told)}"


class SparseRNN(_SparseRecurrent):
    """An Elman network with sparse weights; stands where ``torch.nn.RNN`` stood.

    Every weight is a sparse layer at ``cells.N.input`` or ``cells.N.hidden``, N counting layers
    and, within them, directions; so evolution, optimisers and state dicts treat it as any other.
    The input's products of all steps are one product. Values start as in ``SparseLinear``.

    Args:
        input_size: Features of the input.
        hidden_size: Features of the state.
        num_layers: Layers on top of each other.
        nonlinearity: ``tanh`` or ``relu``.
        bias: Whether the weights have biases, two to a cell as torch's.
        batch_first: Whether the batch is the first axis of input and output.
        dropout: Probability of dropping the outputs of each layer but the last, in training.
        bidirectional: Whether to walk in both directions.
        **options: ``density``, the kept fraction of each weight, in (0, 1]; or ``topologies`` by
            weight, such as ``cells.0.hidden``, those that are missing dense; ``compute``
            (``auto``, ``csr`` or ``dense``); a CPU ``generator`` for places and values;
            ``device``; ``dtype``.

    Raises:
        ValueError: A size, density, dropout, nonlinearity or compute that cannot be, or both or
            neither of density and topologies.

    Example:
        >>> layer = SparseRNN(16, 32, density=0.1)
        >>> y, h = layer(torch.ones(5, 3, 16))
        >>> y.shape, h.shape
        (torch.Size([5, 3, 32]), torch.Size([1, 3, 32]))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: Literal["tanh", "relu"] = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        **options: Unpack[SparseOptions],
    ) -> None:
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(
                f"nonlinearity of SparseRNN must be tanh or relu, got {nonlinearity!r}"
            )
        super().__init__(
            nonlinearity,
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            **options,
        )


class SparseGRU(_SparseRecurrent):
    """A GRU with sparse weights; stands where ``torch.nn.GRU`` stood.

    The gates ``reset``, ``update`` and ``new`` are the ``row_groups`` of every weight; the reset
    gate is applied after the recurrent product, as torch does. All else is as in ``SparseRNN``.

    Args:
        input_size: Features of the input.
        hidden_size: Features of the state.
        num_layers: Layers on top of each other.
        bias: Whether the weights have biases, two to a cell as torch's.
        batch_first: Whether the batch is the first axis of input and output.
        dropout: Probability of dropping the outputs of each layer but the last, in training.
        bidirectional: Whether to walk in both directions.
        **options: As of ``SparseRNN``.

    Raises:
        ValueError: As in ``SparseRNN``.

    Example:
        >>> layer = SparseGRU(16, 32, num_layers=2, density=0.1)
        >>> y, h = layer(torch.ones(5, 3, 16))
        >>> y.shape, h.shape
        (torch.Size([5, 3, 32]), torch.Size([2, 3, 32]))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        **options: Unpack[SparseOptions],
    ) -> None:
        super().__init__(
            "gru",
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            **options,
        )


class SparseLSTM(_SparseRecurrent):
    """An LSTM with sparse weights; stands where ``torch.nn.LSTM`` stood.

    The gates ``input``, ``forget``, ``cell`` and ``output`` are the ``row_groups`` of every weight.
    Evolution with ``scope="layer"`` moves connections between them, with ``scope="gate"`` each
    keeps its number. All else is as in ``SparseRNN``.

    Args:
        input_size: Features of the input.
        hidden_size: Features of the state.
        num_layers: Layers on top of each other.
        bias: Whether the weights have biases, two to a cell as torch's.
        batch_first: Whether the batch is the first axis of input and output.
        dropout: Probability of dropping the outputs of each layer but the last, in training.
        bidirectional: Whether to walk in both directions.
        proj_size: Must be 0: projections of the state are not supported.
        **options: As of ``SparseRNN``.

    Raises:
        ValueError: As in ``SparseRNN``, or a projection is asked for.

    Example:
        >>> layer = SparseLSTM(16, 32, density=0.1)
        >>> y, (h, c) = layer(torch.ones(5, 3, 16))
        >>> y.shape, c.shape
        (torch.Size([5, 3, 32]), torch.Size([1, 3, 32]))
        >>> layer.cells[0].hidden
        SparseRecurrence(32 -> 128, density=0.1001, connections=410, bias=True, compute=auto)
        >>> list(layer.cells[0].hidden.row_groups)
        ['input', 'forget', 'cell', 'output']

    References:
        S. Liu et al., "Selfish sparse RNN training", 2021, for the redistribution among gates.
    """

    _remembers = True

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        **options: Unpack[SparseOptions],
    ) -> None:
        if proj_size:
            raise ValueError(f"proj_size of SparseLSTM must be 0, got {proj_size}")
        super().__init__(
            "lstm",
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            **options,
        )
