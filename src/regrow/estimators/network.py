"""The perceptron of the estimators, whose sparse layers are never dense, not even at the start."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from regrow.evolution import Method
from regrow.evolution.fitted import beginning
from regrow.layers import AllReLU, SparseLayer, SparseLinear, SReLU
from regrow.topology import Topology, allocate
from regrow.topology.initial import pattern_of

# By name, what makes the activation of a hidden layer from its size and its number, from 1.
ACTIVATIONS: Mapping[str, Callable[[int, int], nn.Module]] = {
    "identity": lambda size, number: nn.Identity(),
    "logistic": lambda size, number: nn.Sigmoid(),
    "tanh": lambda size, number: nn.Tanh(),
    "relu": lambda size, number: nn.ReLU(),
    "srelu": lambda size, number: SReLU(size),
    "all-relu": lambda size, number: AllReLU(layer=number),
}


def shapes_of(sizes: Sequence[int]) -> dict[str, tuple[int, int]]:
    """Shape ``(outputs, inputs)`` of every weight of a perceptron, by its path in ``perceptron``.

    Example:
        >>> shapes_of((64, 32, 10))
        {'0': (32, 64), '2': (10, 32)}
    """
    return {str(2 * i): (rows, columns) for i, (columns, rows) in enumerate(pairwise(sizes))}


def perceptron(
    sizes: Sequence[int],
    activation: str,
    topologies: Mapping[str, Topology],
    compute: str,
    generator: torch.Generator,
) -> nn.Sequential:
    """Linear layers with activations between them.

    Values are drawn uniformly from ``±sqrt(6 / (inputs + outputs))`` as scikit-learn draws those of
    its perceptrons, with ``logistic`` 2 in place of 6, and in sparse layers they are larger by
    ``1 / sqrt(density)``, so that signals keep their size.

    Args:
        sizes: Neurons of every layer, inputs first.
        activation: Name of the activation.
        topologies: Of the sparse layers, by path; the others are dense.
        compute: Of the sparse layers.
        generator: Of the values.

    Example:
        >>> topologies = {"0": Topology((3, 4), torch.arange(6))}
        >>> perceptron((4, 3, 2), "relu", topologies, "auto", torch.Generator())
        Sequential(
          (0): SparseLinear(4 -> 3, density=0.5, connections=6, bias=True, compute=auto)
          (1): ReLU()
          (2): Linear(in_features=3, out_features=2, bias=True)
        )
    """
    modules: list[nn.Module] = []
    shapes = shapes_of(sizes)
    for number, (path, (rows, columns)) in enumerate(shapes.items(), start=1):
        bound = math.sqrt((2.0 if activation == "logistic" else 6.0) / (rows + columns))
        layer = _layer(rows, columns, topologies.get(path), compute)
        with torch.no_grad():
            for parameter in (weight_of(layer), layer.bias):
                assert isinstance(parameter, nn.Parameter)
                parameter.uniform_(-bound, bound, generator=generator)
            if isinstance(layer, SparseLinear):
                layer.values.div_(math.sqrt(layer.density))
        modules.append(layer)
        if number < len(shapes):
            modules.append(ACTIVATIONS[activation](rows, number))
    return nn.Sequential(*modules)


def weight_of(layer: nn.Module) -> nn.Parameter:
    """Values of a sparse layer, or the weight of a dense one."""
    found = layer.values if isinstance(layer, SparseLayer) else layer.weight
    assert isinstance(found, nn.Parameter)
    return found


def topologies_for(
    shapes: Mapping[str, tuple[int, ...]],
    method: str | Method,
    generator: torch.Generator,
    *,
    density: float | None,
    epsilon: float | None,
    allocation: Any,
) -> dict[str, Topology]:
    """Where the connections of a network are that a method is to train; without its dense layers.

    Args:
        shapes: Of the weights, by path.
        method: That ``fitted`` has made, or ``dense``.
        generator: Of the places.
        density: That the network is to end with, or None.
        epsilon: SET's sparsity control, or None.
        allocation: As of ``regrow.topology.allocate``.
    """
    if isinstance(method, str):
        return {}
    first, pattern = beginning(method)
    given: dict[str, Any] = {"density": density, "epsilon": epsilon, "allocation": allocation}
    if hasattr(pattern, "density"):
        given = {"density": pattern.density, "allocation": "uniform"}
    elif first is not None:
        given = {"density": first, "allocation": allocation}
    counts = allocate(shapes, **given)
    made = pattern_of(pattern)
    # A layer with every connection stays dense, unless it is to lose some.
    return {
        path: made(shape, counts[path], generator=generator)
        for path, shape in shapes.items()
        if first is not None or counts[path] < math.prod(shape)
    }


def _layer(rows: int, columns: int, topology: Topology | None, compute: str) -> Any:
    if topology is not None:
        empty = torch.Generator()  # what it draws is drawn anew
        return SparseLinear(columns, rows, topology=topology, compute=compute, generator=empty)
    return nn.utils.skip_init(nn.Linear, columns, rows)
