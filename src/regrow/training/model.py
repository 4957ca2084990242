"""Building the network of an arm."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from regrow.data import Dataset
from regrow.layers import sparse_layers, sparsify
from regrow.topology import Topology, allocate
from regrow.topology.initial import Pattern, pattern_of
from regrow.training.errors import OptionError
from regrow.training.models import NETWORKS, mlp
from regrow.training.options import TrainOptions

DEFAULT_DENSITY = 0.1


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
    """Build the network of an arm; a layer with all its connections is an ordinary one of torch's.

    Args:
        options: The options of the run.
        arm: Name of a method, or ``dense``.
        dataset: What to learn.
        seed: Of places and values.
        beginning: How the arm begins.
    """
    generator = torch.Generator().manual_seed(seed)
    if options.model == "mlp":
        return mlp.build(options, dataset, _topologies(options, arm, dataset, beginning), generator)
    network = NETWORKS[options.model]
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
        return dict(mlp.layer_shapes(dataset.n_features, options.hidden, dataset.n_classes or 1))
    network = NETWORKS[options.model]
    with torch.random.fork_rng(devices=[]):
        model = sparsify(network.build(options, dataset), 0.5, exclude=network.dense, full="sparse")
    return {path: tuple(x.topology.shape) for path, x in sparse_layers(model).items()}


def _topologies(
    options: TrainOptions, arm: str, dataset: Dataset, beginning: Beginning
) -> Callable[[str, torch.Generator], Topology | None]:
    """What draws the topology of a layer of a perceptron, by its name; None for a dense one."""
    shapes = sparse_shapes(options, dataset)
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    counts = sizes if arm == "dense" else allocate(shapes, **_kept(options, beginning))
    pattern = pattern_of(beginning.pattern)

    def draw(name: str, generator: torch.Generator) -> Topology | None:
        if counts[name] == sizes[name] and beginning.density is None:
            return None
        return pattern(shapes[name], counts[name], generator=generator)

    return draw


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
