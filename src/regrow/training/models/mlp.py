"""The multilayer perceptron, whose sparse layers are never dense, not even at the start."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import nn

from regrow.data import Dataset
from regrow.layers import SparseLinear, share_layouts
from regrow.topology import Topology
from regrow.training.options import TrainOptions


def layer_shapes(n_features: int, hidden: tuple[int, ...], n_outputs: int) -> dict[str, list[int]]:
    """Weight shapes ``[out, in]`` of a perceptron by layer name.

    Example:
        >>> layer_shapes(64, (32, 16), 10)
        {'hidden1': [32, 64], 'hidden2': [16, 32], 'output': [10, 16]}
    """
    sizes = [n_features, *hidden, n_outputs]
    names = [f"hidden{i + 1}" for i in range(len(hidden))] + ["output"]
    return {name: [sizes[i + 1], sizes[i]] for i, name in enumerate(names)}


def build(
    options: TrainOptions,
    dataset: Dataset,
    topologies: Callable[[str, torch.Generator], Topology | None],
    generator: torch.Generator,
) -> nn.Sequential:
    """Linear layers, ReLU and dropout between them.

    Args:
        options: ``hidden``: neurons of each hidden layer; ``dropout``.
        dataset: A table, or images as rows of pixels.
        topologies: Draws the topology of a layer, by its name; None for a dense one.
        generator: Draws places and values.
    """
    modules: OrderedDict[str, nn.Module] = OrderedDict()
    shapes = layer_shapes(dataset.n_features, options.hidden, dataset.n_classes or 1)
    for name, (rows, columns) in shapes.items():
        modules[name] = _layer(rows, columns, topologies(name, generator), generator)
        if name == "output":
            break
        number = name.removeprefix("hidden")
        modules[f"relu{number}"] = nn.ReLU()
        if options.dropout > 0:
            modules[f"dropout{number}"] = nn.Dropout(options.dropout)
    model = nn.Sequential(modules)
    share_layouts(model)
    return model


def _layer(
    rows: int, columns: int, topology: Topology | None, generator: torch.Generator
) -> nn.Module:
    if topology is not None:
        return SparseLinear(columns, rows, topology=topology, generator=generator)
    layer = nn.Linear(columns, rows)
    bound = 1 / math.sqrt(columns)
    with torch.no_grad():  # torch's own start, but from our generator
        layer.weight.uniform_(-bound, bound, generator=generator)
        layer.bias.uniform_(-bound, bound, generator=generator)
    return layer
