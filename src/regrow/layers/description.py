"""A table of the weights of a model: which are sparse, and how."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn
from torch.nn.parameter import is_lazy

from regrow.layers.base import SparseLayer
from regrow.layers.choose import join


@dataclass(frozen=True)
class Weight:
    """One weight of a model.

    Attributes:
        path: Of the sparse layer, or of the dense parameter.
        kind: Class of the module that holds it.
        shape: Dense shape.
        connections: Stored ones.
        note: Parts with budgets of their own; what it is tied to.
    """

    path: str
    kind: str
    shape: tuple[int, ...]
    connections: int
    note: str

    @property
    def density(self) -> float:
        """Kept fraction of the positions."""
        positions = 1
        for size in self.shape:
            positions *= size
        return self.connections / positions if positions else 1.0


@dataclass(frozen=True)
class Description:
    """The weights of a model; ``str()`` gives the table."""

    weights: list[Weight]

    def __str__(self) -> str:
        """A table, one row a weight."""
        head = ("weight", "kind", "shape", "connections", "density", "")
        rows = [
            (
                weight.path or "given",
                weight.kind,
                "x".join(str(n) for n in weight.shape),
                f"{weight.connections:,}",
                f"{weight.density:.4g}",
                weight.note,
            )
            for weight in self.weights
        ]
        connections = sum(weight.connections for weight in self.weights)
        positions = sum(weight.connections / weight.density for weight in self.weights)
        density = connections / positions if positions else 1.0
        rows.append(("total", "", "", f"{connections:,}", f"{density:.4g}", ""))
        widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in [head, *rows]
        )


def describe(model: nn.Module) -> Description:
    """Say which weights of a model are sparse, and how; ``sparsify(verbose=True)`` prints it.

    Parameters with fewer than two axes (biases, norms) are no weights. A weight that several
    modules share is there once.

    Args:
        model: Any torch module.

    Example:
        >>> import regrow
        >>> model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
        >>> print(describe(regrow.sparsify(model, density=0.1, exclude="2")))
        weight    kind          shape  connections  density
        0         SparseLinear  32x64  205          0.1001
        2.weight  Linear        10x32  320          1
        total                          525          0.2217
    """
    return Description(list(_weights(model)))


def _weights(model: nn.Module) -> Iterator[Weight]:
    first: dict[int, str] = {}
    notes: dict[str, list[str]] = {}
    found: dict[str, tuple[str, tuple[int, ...], int]] = {}
    for path, module in model.named_modules():
        kind = type(module).__name__
        for name, parameter in module.named_parameters(recurse=False):
            sparse = isinstance(module, SparseLayer) and name == "values"
            if not sparse and (is_lazy(parameter) or parameter.dim() < 2):
                continue
            place = path if sparse else join(path, name)
            if id(parameter) in first:
                notes[first[id(parameter)]].append(f"tied to {place}")
                continue
            first[id(parameter)] = place
            notes[place] = [_parts(module)] if sparse and module.row_groups else []
            shape = tuple(module.topology.shape if sparse else parameter.shape)
            found[place] = kind, shape, parameter.numel()
    for place, (kind, shape, connections) in found.items():
        yield Weight(place, kind, shape, connections, "; ".join(notes[place]))


def _parts(layer: SparseLayer) -> str:
    indptr = layer.topology.csr()[0]
    counts = {
        name: int(indptr[rows.stop] - indptr[rows.start]) for name, rows in layer.row_groups.items()
    }
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())
