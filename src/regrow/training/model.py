"""Building the network of an arm; its sparse layers are never dense, not even at the start."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping

import torch
from torch import nn

from regrow.kernels import dispatch
from regrow.layers import SparseLinear, sparse_layers
from regrow.topology import allocate, random_topology
from regrow.training.options import TrainOptions

DEFAULT_DENSITY = 0.1


def layer_shapes(n_features: int, hidden: tuple[int, ...], n_outputs: int) -> dict[str, list[int]]:
    """Weight shapes ``[out, in]`` of a perceptron by layer name.

    Example:
        >>> layer_shapes(64, (32, 16), 10)
        {'hidden1': [32, 64], 'hidden2': [16, 32], 'output': [10, 16]}
    """
    sizes = [n_features, *hidden, n_outputs]
    names = [f"hidden{i + 1}" for i in range(len(hidden))] + ["output"]
    return {name: [sizes[i + 1], sizes[i]] for i, name in enumerate(names)}


def connections_of(
    options: TrainOptions, arm: str, n_features: int, n_outputs: int
) -> dict[str, int]:
    """Number of connections of each layer of an arm."""
    shapes = layer_shapes(n_features, options.hidden, n_outputs)
    if arm == "dense":
        return {name: math.prod(shape) for name, shape in shapes.items()}
    if options.epsilon is not None:
        return allocate(shapes, epsilon=options.epsilon)
    density = DEFAULT_DENSITY if options.density is None else options.density
    return allocate(shapes, density=density, allocation=options.allocation)


def build_model(
    options: TrainOptions, arm: str, n_features: int, n_outputs: int, seed: int
) -> nn.Sequential:
    """Build the network of an arm: linear layers, ReLU and dropout between them.

    A layer with all its connections is an ordinary ``nn.Linear``; any other is drawn directly as a
    `SparseLinear`.

    Args:
        options: The options of the run.
        arm: Name of a method, or ``dense``.
        n_features: Size of an input sample.
        n_outputs: Size of an output sample.
        seed: Of places and values.
    """
    shapes = layer_shapes(n_features, options.hidden, n_outputs)
    counts = connections_of(options, arm, n_features, n_outputs)
    generator = torch.Generator().manual_seed(seed)
    modules: OrderedDict[str, nn.Module] = OrderedDict()
    for name, (rows, columns) in shapes.items():
        modules[name] = _layer(rows, columns, counts[name], generator)
        if name == "output":
            break
        number = name.removeprefix("hidden")
        modules[f"relu{number}"] = nn.ReLU()
        if options.dropout > 0:
            modules[f"dropout{number}"] = nn.Dropout(options.dropout)
    return nn.Sequential(modules)


def _layer(rows: int, columns: int, count: int, generator: torch.Generator) -> nn.Module:
    if count < rows * columns:
        topology = random_topology((rows, columns), count, generator=generator)
        return SparseLinear(columns, rows, topology=topology, generator=generator)
    layer = nn.Linear(columns, rows)
    bound = 1 / math.sqrt(columns)
    with torch.no_grad():  # torch's own start, but from our generator
        layer.weight.uniform_(-bound, bound, generator=generator)
        layer.bias.uniform_(-bound, bound, generator=generator)
    return layer


Decisions = dict[str, dict[str, object]]


def decide_compute(model: nn.Module, batch: torch.Tensor, compute: str) -> Decisions:
    """What each sparse layer is to compute with, decided once for a whole run.

    The two computes differ in the last bits, so a run that can be continued bit for bit must not
    measure anew.

    Args:
        model: The network, as it starts.
        batch: A training batch ``[batch, features]``.
        compute: ``auto`` to measure, or what to use everywhere.

    Returns:
        By layer path: the compute, the reason, and the milliseconds of each candidate.
    """
    layers = sparse_layers(model)
    model.train()(batch).sum().backward()  # measures, and warms up what torch sets up once
    if compute != "auto":
        reason = "asked for"
        return {p: {"compute": compute, "reason": reason, "milliseconds": {}} for p in layers}
    decided: Decisions = {}
    for path, layer in layers.items():
        entering = batch.new_empty(batch.shape[0], layer.topology.matrix_shape[1])
        decision = dispatch.lookup(layer.situation(entering))
        assert decision is not None
        decided[path] = {
            "compute": decision.compute,
            "reason": decision.reason,
            "milliseconds": dict(decision.milliseconds),
        }
    return decided


def fix_compute(model: nn.Module, decisions: Mapping[str, Mapping[str, object]]) -> None:
    """Make the sparse layers of a model compute as decided."""
    for path, layer in sparse_layers(model).items():
        layer.compute = str(decisions[path]["compute"])
