"""Pictures of `docs/measure.md`, from a short training on digits; `python docs/images/measure.py`.

Small sparse networks learn the digits that come with regrow: about half a minute on one thread.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

import regrow
from regrow.data import load
from regrow.measure import (
    Exploration,
    degree_law,
    distance_matrix,
    drop_similarity,
    expected_exploration,
    neuron_degrees,
    pictures,
    spectrum,
)
from regrow.topology import redrawn

WIDTHS = (64, 300, 300, 10)
DENSITY = 0.05
FRACTION = 0.3
RULES = (
    "magnitude",
    "sign-split",
    "soft-magnitude",
    "mest",
    "gradient-step",
    "snip",
    "taylor",
    "sensitivity",
    "reciprocal-sensitivity",
    "random",
)


def network(seed: int) -> nn.Sequential:
    """A multilayer perceptron whose hidden layers are sparse."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    first, second = (
        regrow.SparseLinear(a, b, density=DENSITY, compute="csr", generator=generator)
        for a, b in pairwise(WIDTHS[:3])
    )
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.Linear(*WIDTHS[2:]))


def neighbours(count: int) -> list[nn.Sequential]:
    """Networks of which each differs from the one before in a hundredth of its connections."""
    models = [network(0)]
    generator = torch.Generator().manual_seed(1)
    for _ in range(count - 1):
        model = copy.deepcopy(models[-1])
        for layer in regrow.sparse_layers(model).values():
            moved = redrawn(layer.topology, 0.01, generator)
            layer.set_topology(moved, layer.start_values(moved.nnz, generator))
        models.append(model)
    return models


class Training:
    """SET on digits, an update after each epoch."""

    def __init__(self, model: nn.Sequential, seed: int) -> None:
        data = load("digits")
        self.x, self.y = data.x_train, data.y_train
        self.model = model
        self.optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        self.steps = -(-len(self.x) // 64)
        self.evolution = regrow.Evolution(
            model, self.optimizer, "set", seed=seed, steps_per_epoch=self.steps, fraction=FRACTION
        )
        self._order = torch.Generator().manual_seed(seed)

    def epoch(self) -> None:
        """One pass over the training data."""
        for rows in torch.randperm(len(self.x), generator=self._order).split(64):
            self.optimizer.zero_grad()
            self.loss(rows).backward()
            self.optimizer.step()
            self.evolution.step()

    def loss(self, rows: Tensor) -> Tensor:
        """Cross-entropy of some samples."""
        return functional.cross_entropy(self.model(self.x[rows]), self.y[rows])

    def backward(self) -> None:
        """A pass of 256 samples, for rules that look at gradients."""
        self.loss(torch.arange(256)).backward()


def figures(epochs: int) -> Iterator[tuple[str, pictures.Figure]]:
    """Every picture with its name."""
    trainings = [Training(model, seed) for seed, model in enumerate(neighbours(5))]
    names = [f"w{number}" for number in range(len(trainings))]
    first = trainings[0]
    yield "distance-start", _distances(trainings, names, "before training")
    exploration, rates = Exploration(first.model), []
    for _ in range(epochs):
        for training in trainings:
            training.epoch()
        exploration.update()
        rates.append(exploration.total())
    yield "distance-end", _distances(trainings, names, f"after {epochs} epochs of SET")

    x = list(range(1, epochs + 1))
    foreseen = [expected_exploration(DENSITY, [FRACTION] * n) for n in x]
    yield (
        "exploration",
        pictures.curves(
            {"set": [(x, rates)], "if at random": [(x, foreseen)]},
            title="Positions ever tried",
            subtitle="share of all positions (R_s)",
            percent=True,
        ),
    )
    layers = list(regrow.sparse_layers(first.model).values())
    yield (
        "topology",
        pictures.adjacency(
            layers[0].topology,
            title="Connections of the first layer",
            subtitle="columns are pixels",
        ),
    )
    degrees = neuron_degrees(first.model)[1]
    yield (
        "degrees",
        pictures.degree_law_curve(
            degrees,
            degree_law(degrees),
            title="Connections of hidden neurons",
            subtitle="share of neurons with at least as many",
        ),
    )
    found = drop_similarity(first.evolution, first.backward, rules=RULES, fraction=FRACTION)
    yield (
        "rules",
        pictures.heat_map(
            found.mean, found.names, title="What drop rules share", subtitle="Jaccard index", top=1
        ),
    )
    spectra = {f"layer {i}": spectrum(layer.topology) for i, layer in enumerate(layers)}
    yield (
        "spectrum",
        pictures.singular_values(
            {name: found.values[:60] for name, found in spectra.items()},
            title="Spectrum of the topologies",
            bound=spectra["layer 1"].ramanujan_bound,
        ),
    )


def _distances(trainings: list[Training], names: list[str], when: str) -> pictures.Figure:
    found = distance_matrix([training.model for training in trainings])
    return pictures.heat_map(found, names, title="Distance of topologies", subtitle=when, top=1)


def main() -> None:
    """Write the pictures beside this file, or where it is said."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name, figure in figures(options.epochs):
        print(pictures.save_png(figure, options.folder / f"measure-{name}.png", dpi=110))


if __name__ == "__main__":
    main()
