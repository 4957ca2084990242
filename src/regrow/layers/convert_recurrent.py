"""torch's recurrent modules made sparse, and dense again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from regrow.layers.base import SparseLayer
from regrow.layers.cells import RecurrentCell, weight_shapes
from regrow.layers.conversion import Start, register
from regrow.layers.recurrent import SparseGRU, SparseLSTM, SparseRNN
from regrow.topology import Topology

SparseModule = SparseRNN | SparseGRU | SparseLSTM
DenseModule = nn.RNN | nn.GRU | nn.LSTM

_SUFFIXES = {"input": "ih", "hidden": "hh"}


class _RecurrentConversion:
    layout = None

    def __init__(self, dense: type[DenseModule], sparse: type[SparseModule]) -> None:
        self._dense, self._sparse = dense, sparse

    def shapes(self, module: Any) -> dict[str, tuple[int, ...]]:
        if module.proj_size:
            raise ValueError(
                f"proj_size of a recurrent layer to make sparse must be 0, got {module.proj_size}; "
                f"exclude it from sparsify"
            )
        return dict(
            weight_shapes(
                _cell(module),
                module.input_size,
                module.hidden_size,
                module.num_layers,
                module.bidirectional,
            )
        )

    def parameters(self, module: Any) -> tuple[str, ...]:
        sides = ("", "_reverse") if module.bidirectional else ("",)
        return tuple(
            f"weight_{kind}_l{i}{side}"
            for i in range(module.num_layers)
            for side in sides
            for kind in _SUFFIXES.values()
        )

    def weights(self, module: Any) -> dict[str, torch.Tensor]:
        names = zip(self.shapes(module), self.parameters(module), strict=True)
        return {ours: getattr(module, theirs).detach() for ours, theirs in names}

    def sparse(self, module: Any, topologies: Mapping[str, Topology], start: Start) -> SparseModule:
        first = next(module.parameters())
        layer = self._sparse(
            **_options(module),
            topologies=topologies,
            compute=start.compute,
            generator=start.generator,
            device=first.device,
            dtype=first.dtype,
        )
        for part, weight, bias, topology in _weights(module, layer, topologies):
            held = _held(part)
            new = start.values == "init"
            _fill(
                held, None if new else weight if topology is None else start.kept(weight, topology)
            )
            held.requires_grad_(weight.requires_grad)
            if bias is not None:
                _fill(part.bias, None if new else bias)
                part.bias.requires_grad_(bias.requires_grad)
        return layer

    def dense(self, layer: Any) -> DenseModule:
        first = next(layer.parameters())
        dense = self._dense(**_options(layer), device=first.device, dtype=first.dtype)
        for part, weight, bias, _ in _weights(dense, layer, {}):
            _fill(weight, part.weight)
            weight.requires_grad_(_held(part).requires_grad)
            if bias is not None:
                _fill(bias, part.bias)
                bias.requires_grad_(part.bias.requires_grad)
        return dense


def _held(part: Any) -> nn.Parameter:
    held = part.values if isinstance(part, SparseLayer) else part.weight
    assert isinstance(held, nn.Parameter)
    return held


def _fill(parameter: nn.Parameter, content: torch.Tensor | None) -> None:
    if content is not None:
        with torch.no_grad():
            parameter.copy_(content)


def _cell(module: Any) -> str:
    return str(module.mode).removeprefix("RNN_").lower()


def _options(module: Any) -> dict[str, Any]:
    """What both kinds take to be made."""
    words = ("input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout")
    options = {word: getattr(module, word) for word in (*words, "bidirectional")}
    cell = _cell(module)
    return {**options, "nonlinearity": cell} if cell in ("tanh", "relu") else options


def _weights(
    dense: Any, sparse: SparseModule, topologies: Mapping[str, Topology]
) -> Iterator[tuple[Any, nn.Parameter, nn.Parameter | None, Topology | None]]:
    """Each part of a sparse network with torch's weight and bias for it, and its topology."""
    directions = 2 if sparse.bidirectional else 1
    for i, cell in enumerate(sparse.cells):
        assert isinstance(cell, RecurrentCell)
        place = f"l{i // directions}" + ("_reverse" if i % directions else "")
        for name, kind in _SUFFIXES.items():
            weight = getattr(dense, f"weight_{kind}_{place}")
            bias = getattr(dense, f"bias_{kind}_{place}") if sparse.bias else None
            yield getattr(cell, name), weight, bias, topologies.get(f"cells.{i}.{name}")


register(nn.RNN, SparseRNN, _RecurrentConversion(nn.RNN, SparseRNN))
register(nn.GRU, SparseGRU, _RecurrentConversion(nn.GRU, SparseGRU))
register(nn.LSTM, SparseLSTM, _RecurrentConversion(nn.LSTM, SparseLSTM))
