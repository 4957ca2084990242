"""Building the network of an arm, and deciding how its sparse layers compute."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from regrow.data import Dataset
from regrow.kernels import dispatch
from regrow.layers import SparseLayer, SparseLinear, sparse_layers, sparsify
from regrow.topology import NofM, Topology, allocate
from regrow.topology.initial import Pattern, pattern_of
from regrow.training.errors import OptionError
from regrow.training.models import NETWORKS
from regrow.training.options import TrainOptions

DEFAULT_DENSITY = 0.1
_WIDEST = 64  # columns over which n of m are counted, at most


def layer_shapes(n_features: int, hidden: tuple[int, ...], n_outputs: int) -> dict[str, list[int]]:
    """Weight shapes ``[out, in]`` of a perceptron by layer name.

    Example:
        >>> layer_shapes(64, (32, 16), 10)
        {'hidden1': [32, 64], 'hidden2': [16, 32], 'output': [10, 16]}
    """
    sizes = [n_features, *hidden, n_outputs]
    names = [f"hidden{i + 1}" for i in range(len(hidden))] + ["output"]
    return {name: [sizes[i + 1], sizes[i]] for i, name in enumerate(names)}


def check_model(options: TrainOptions, dataset: Dataset) -> None:
    """Refuse a network that cannot learn from the data.

    Raises:
        OptionError: Text for a network for images, or the like.
    """
    text = dataset.task == "language"
    task = NETWORKS[options.model].task if options.model in NETWORKS else "table"
    if text and task != "text":
        raise OptionError("model", "be transformer or lstm where text is learned", options.model)
    if not text and task == "text":
        raise OptionError("model", f"be another for {dataset.name}, no text", options.model)
    if dataset.image_shape is None and task == "images":
        raise OptionError("model", f"be mlp for {dataset.name}, no images", options.model)
    if dataset.image_shape is None and options.augment:
        raise OptionError("augment", f"be left out for {dataset.name}, no images", "true")


@dataclass(frozen=True)
class Beginning:
    """How a sparse arm begins.

    Attributes:
        density: That it starts with, where it is not the one that it is to end with; then layers
            with all their connections are sparse layers too, since they are to lose some.
        pattern: Where the connections are; one with a ``density`` of its own says the number too.
    """

    density: float | None = None
    pattern: str | Pattern = "random"


def build_model(
    options: TrainOptions,
    arm: str,
    dataset: Dataset,
    seed: int,
    beginning: Beginning = Beginning(),
) -> nn.Module:
    """Build the network of an arm.

    A layer with all its connections is an ordinary one of torch's. The sparse layers of a
    perceptron are drawn directly, so they are never dense, not even at the start.

    Args:
        options: The options of the run.
        arm: Name of a method, or ``dense``.
        dataset: What to learn.
        seed: Of places and values.
        beginning: How the arm begins.
    """
    if options.model == "mlp":
        return _perceptron(options, arm, dataset, seed, beginning)
    network = NETWORKS[options.model]
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = network.build(options, dataset)
    if arm == "dense":
        return model
    return sparsify(
        model,
        exclude=network.dense,
        pattern=beginning.pattern,
        full="dense" if beginning.density is None else "sparse",
        generator=generator,
        **_kept(options, beginning),
    )


def sparse_shapes(options: TrainOptions, dataset: Dataset) -> dict[str, Sequence[int]]:
    """Dense shape of every weight that a sparse arm may hold sparse, by path."""
    if options.model == "mlp":
        return dict(layer_shapes(dataset.n_features, options.hidden, dataset.n_classes or 1))
    network = NETWORKS[options.model]
    with torch.random.fork_rng(devices=[]):
        model = sparsify(network.build(options, dataset), 0.5, exclude=network.dense, full="sparse")
    return {path: tuple(x.topology.shape) for path, x in sparse_layers(model).items()}


def n_of_m(density: float, shapes: Iterable[Sequence[int]]) -> NofM:
    """The n of m whose density is nearest to one asked for, m dividing the columns of all layers.

    Example:
        >>> n_of_m(0.05, [(512, 784), (10, 512)])
        NofM(n=1, m=16)
        >>> n_of_m(0.5, [(512, 784), (10, 512)])
        NofM(n=1, m=2)
    """
    common = math.gcd(*(math.prod(shape[1:]) for shape in shapes))
    fitting = [m for m in range(1, min(common, _WIDEST) + 1) if common % m == 0]
    tried = ((n, m) for m in fitting for n in {max(1, math.floor(density * m)),
                                               max(1, math.ceil(density * m))})  # fmt: skip
    n, m = min(tried, key=lambda pair: (abs(pair[0] / pair[1] - density), pair[1]))
    return NofM(n, m)


def _kept(options: TrainOptions, beginning: Beginning) -> dict[str, Any]:
    """How many connections, in the words of ``allocate`` and ``sparsify``."""
    density = beginning.density
    if hasattr(beginning.pattern, "density"):
        return {"density": beginning.pattern.density, "allocation": "uniform"}
    if density is None and options.epsilon is not None:
        return {"epsilon": options.epsilon}
    if density is None:
        density = DEFAULT_DENSITY if options.density is None else options.density
    return {"density": density, "allocation": options.allocation}


def _perceptron(
    options: TrainOptions, arm: str, dataset: Dataset, seed: int, beginning: Beginning
) -> nn.Sequential:
    """Linear layers, ReLU and dropout between them."""
    shapes = layer_shapes(dataset.n_features, options.hidden, dataset.n_classes or 1)
    if arm == "dense":
        counts = {name: math.prod(shape) for name, shape in shapes.items()}
    else:
        counts = allocate(shapes, **_kept(options, beginning))
    pattern = pattern_of(beginning.pattern)
    generator = torch.Generator().manual_seed(seed)
    modules: OrderedDict[str, nn.Module] = OrderedDict()
    for name, (rows, columns) in shapes.items():
        topology = None
        if counts[name] < rows * columns or beginning.density is not None:
            topology = pattern((rows, columns), counts[name], generator=generator)
        modules[name] = _layer(rows, columns, topology, generator)
        if name == "output":
            break
        number = name.removeprefix("hidden")
        modules[f"relu{number}"] = nn.ReLU()
        if options.dropout > 0:
            modules[f"dropout{number}"] = nn.Dropout(options.dropout)
    return nn.Sequential(modules)


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


Decision = dict[str, Any]
# By layer path, one for each number of connections that was measured.
Decisions = dict[str, list[Decision]]


def decide_compute(model: nn.Module, batch: Tensor, compute: str) -> Decisions:
    """What each sparse layer is to compute with, decided once for a whole run.

    The computes differ in the last bits, so a run that can be continued bit for bit must not
    measure anew.

    Args:
        model: The network, as it starts; it is not to be used afterwards.
        batch: A training batch ``[batch, ...]``.
        compute: ``auto`` to measure, or what to use everywhere.

    Returns:
        By layer path: connections, compute, reason, and the milliseconds of each candidate.
    """
    layers = sparse_layers(model)
    situations: dict[str, dispatch.Situation] = {}

    def note(path: str, layer: SparseLayer) -> Any:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            situations[path] = layer.situation(inputs[0])

        return layer.register_forward_pre_hook(hook)

    handles = [note(path, layer) for path, layer in layers.items()]
    model.train()(batch).sum().backward()  # measures, and warms up what torch sets up once
    for handle in handles:
        handle.remove()
    decided: Decisions = {}
    for path, layer in layers.items():
        entry: Decision = {"connections": layer.topology.nnz}
        if compute != "auto":
            entry |= {"compute": compute, "reason": "asked for", "milliseconds": {}}
        else:
            decision = dispatch.lookup(situations[path])
            assert decision is not None
            entry |= {
                "compute": decision.compute,
                "reason": decision.reason,
                "milliseconds": dict(decision.milliseconds),
            }
        decided[path] = [entry]
    return decided


def decision_for(decisions: Sequence[Decision], connections: int) -> Decision:
    """The decision that was made for about so many connections."""
    return min(decisions, key=lambda entry: abs(math.log(entry["connections"] / connections)))


def fix_compute(model: nn.Module, decisions: Mapping[str, Sequence[Decision]]) -> None:
    """Make the sparse layers of a model compute as decided for the connections they have."""
    for path, layer in sparse_layers(model).items():
        layer.compute = str(decision_for(decisions[path], layer.topology.nnz)["compute"])
