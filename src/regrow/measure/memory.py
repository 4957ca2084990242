"""Bytes that a training really holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from regrow.evolution import Evolution
from regrow.layers import SparseLayer
from regrow.topology import Topology


@dataclass(frozen=True)
class LayerMemory:
    """Bytes of one layer; what several layers share is the first one's.

    Attributes:
        path: Path in the model.
        values: Of parameters: values, dense weights, biases.
        row_order: Of the places of connections in row order: 4 a connection, 8 a row.
        column_order: Of the order that backward passes need, once one has run: 8 a connection and
            8 a column.
        gradients: Of the gradients that are there now.
        optimizer: Of the optimiser's state of these parameters.
        buffers: Of buffers, such as running statistics.
    """

    path: str
    values: int = 0
    row_order: int = 0
    column_order: int = 0
    gradients: int = 0
    optimizer: int = 0
    buffers: int = 0

    @property
    def total(self) -> int:
        """All together."""
        return sum(getattr(self, name) for name in _PARTS)


_PARTS = tuple(field.name for field in fields(LayerMemory) if field.name != "path")


@dataclass(frozen=True)
class Memory:
    """Bytes of all layers, and of the evolution; ``str()`` gives the table.

    Attributes:
        layers: Every module that holds something of its own.
        evolution: What the evolution keeps beside: trackers, positions ever seen, its generator.
        dense_twin: Bytes of values, gradients and optimiser state if sparse layers had every
            connection, and of the buffers.
    """

    layers: list[LayerMemory]
    evolution: int
    dense_twin: int

    @property
    def total(self) -> int:
        """All together."""
        return sum(layer.total for layer in self.layers) + self.evolution

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {**asdict(self), "total": self.total}

    def __str__(self) -> str:
        """A table, one row a layer."""
        sums = {name: sum(getattr(layer, name) for layer in self.layers) for name in _PARTS}
        layers = [*self.layers]
        if self.evolution:
            layers.append(LayerMemory("evolution"))
        head = ["layer", *(name.replace("_", " ") for name in _PARTS), "total"]
        rows = [
            [layer.path, *(f"{getattr(layer, name):,}" for name in _PARTS), f"{layer.total:,}"]
            for layer in layers
        ]
        if self.evolution:
            rows[-1][-1] = f"{self.evolution:,}"
        rows.append(["total", *(f"{sums[name]:,}" for name in _PARTS), f"{self.total:,}"])
        widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
        return "\n".join(
            row[0].ljust(widths[0])
            + "".join(f"  {cell.rjust(w)}" for cell, w in zip(row[1:], widths[1:], strict=True))
            for row in [head, *rows]
        )


def memory(
    model: nn.Module,
    optimizer: torch.optim.Optimizer | None = None,
    evolution: Evolution | None = None,
) -> Memory:
    """Count the bytes that are held now, tensor by tensor; each counts once.

    Activations, which live within a step, are not among them.

    Args:
        model: Any torch module.
        optimizer: Whose state counts; none if None.
        evolution: What it keeps counts; nothing if None.

    Returns:
        One entry for each module that holds something of its own.

    Example:
        >>> import regrow
        >>> model = regrow.SparseLinear(1000, 1000, density=0.01, compute="csr")
        >>> optimizer = torch.optim.Adam(model.parameters())
        >>> model(torch.ones(1, 1000)).sum().backward()
        >>> optimizer.step()
        >>> (found,) = memory(model, optimizer).layers
        >>> found.values, found.row_order, found.column_order, found.gradients
        (44000, 48008, 88008, 44000)
        >>> found.optimizer  # two moments, and two step counts
        88008
    """
    seen: set[int] = set()
    layers = []
    twin = 0
    for path, module in model.named_modules():
        layer = _held(path, module, optimizer, seen)
        if layer.total:
            layers.append(layer)
            twin += _of_twin(layer, module, optimizer)
    kept = (
        0 if evolution is None else sum(_bytes(t, seen) for t in _tensors(evolution.state_dict()))
    )
    return Memory(layers, kept, twin)


def _held(
    path: str, module: nn.Module, optimizer: torch.optim.Optimizer | None, seen: set[int]
) -> LayerMemory:
    own = [p for p in module.parameters(recurse=False) if id(p) not in seen]
    seen.update(id(parameter) for parameter in own)
    row_order = column_order = 0
    if isinstance(module, SparseLayer) and id(module.topology) not in seen:
        seen.add(id(module.topology))
        row_order = sum(part.nbytes for part in module.topology.csr())
        column_order = module.topology.nbytes - row_order
    state = [] if optimizer is None else [optimizer.state.get(p, {}) for p in own]
    return LayerMemory(
        path,
        sum(parameter.nbytes for parameter in own),
        row_order,
        column_order,
        sum(parameter.grad.nbytes for parameter in own if parameter.grad is not None),
        sum(tensor.nbytes for entry in state for tensor in _tensors(entry)),
        sum(_bytes(buffer, seen) for buffer in module.buffers(recurse=False)),
    )


def _of_twin(layer: LayerMemory, module: nn.Module, optimizer: torch.optim.Optimizer | None) -> int:
    """Bytes of the dense layer in a layer's place."""
    held = layer.total - layer.row_order - layer.column_order
    if not isinstance(module, SparseLayer) or not layer.values:
        return held
    topology: Topology = module.topology
    more = topology.shape.numel() - topology.nnz
    per_connection = module.values.itemsize * (2 if module.values.grad is not None else 1)
    if optimizer is not None:
        per_connection += sum(
            tensor.itemsize
            for tensor in _tensors(optimizer.state.get(module.values, {}))
            if tensor.shape == module.values.shape
        )
    return held + more * per_connection


def _bytes(tensor: Tensor, seen: set[int]) -> int:
    if id(tensor) in seen:
        return 0
    seen.add(id(tensor))
    return tensor.nbytes


def _tensors(state: object) -> Iterator[Tensor]:
    """All tensors within mappings and sequences."""
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, Mapping):
        for entry in state.values():
            yield from _tensors(entry)
    elif isinstance(state, (list, tuple)):
        for entry in state:
            yield from _tensors(entry)
