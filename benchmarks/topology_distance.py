"""How far networks that start almost alike drift apart while SET trains them.

    python benchmarks/topology_distance.py --json results/topology-distance.json

The set-up follows "Topological insights into sparse neural networks" on a small scale: five sparse
perceptrons, each with a hundredth of its connections elsewhere than the one before, trained with
SET, an update after every epoch, and compared with NNSTD. Beside it, one network is asked what ten
rules would drop, as in "Fantastic weights and how to find them". About a minute on one thread.

References: S. Liu, T. van der Lee, A. Yaman, Z. Atashgahi, D. Ferraro, G. Sokar, M. Pechenizkiy,
D. C. Mocanu, 2020; A. I. Nowak, B. Grooten, D. C. Mocanu, J. Tabor, 2023.
"""

from __future__ import annotations

import copy
import json
from argparse import ArgumentParser, Namespace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

import regrow
from regrow.data import Dataset, load
from regrow.measure import distance_matrix, drop_similarity, topology_distance
from regrow.topology import Topology, redrawn

NETWORKS, SHARE, FRACTION, BATCH = 5, 0.01, 0.3, 40
SNAPSHOTS = (0, 1, 5, 15, 30)
RULES = ("magnitude", "sign-split", "mest", "snip", "random")


class Member:
    """One of the networks in training."""

    def __init__(self, model: nn.Sequential, data: Dataset, seed: int) -> None:
        self.model, self.data = model, data
        self.optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        steps = -(-len(data.x_train) // BATCH)
        self.evolution = regrow.Evolution(
            model, self.optimizer, "set", seed=seed, steps_per_epoch=steps, fraction=FRACTION
        )
        self.order = torch.Generator().manual_seed(seed)

    def epoch(self) -> None:
        """One pass over the training data, and the update after it."""
        for rows in torch.randperm(len(self.data.x_train), generator=self.order).split(BATCH):
            self.optimizer.zero_grad()
            self.loss(rows).backward()
            self.optimizer.step()
            self.evolution.step()

    def loss(self, rows: Tensor) -> Tensor:
        """Cross-entropy of some samples."""
        return functional.cross_entropy(
            self.model(self.data.x_train[rows]), self.data.y_train[rows]
        )

    def backward(self) -> None:
        """A pass of 256 samples."""
        self.loss(torch.arange(256)).backward()

    @torch.no_grad()
    def accuracy(self) -> float:
        """On the test part."""
        found = self.model(self.data.x_test).argmax(1)
        return float((found == self.data.y_test).double().mean())


def first(widths: list[int], density: float, seed: int) -> nn.Sequential:
    """A perceptron whose hidden layers are sparse and whose last layer is dense."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    modules: list[nn.Module] = []
    for a, b in pairwise(widths):
        layer = regrow.SparseLinear(a, b, density=density, compute="csr", generator=generator)
        modules += [layer, nn.ReLU()]
    return nn.Sequential(*modules, nn.Linear(widths[-1], 10))


def neighbour(model: nn.Sequential, generator: torch.Generator) -> nn.Sequential:
    """The same network with a hundredth of its connections elsewhere."""
    moved = copy.deepcopy(model)
    for layer in regrow.sparse_layers(moved).values():
        topology = redrawn(layer.topology, SHARE, generator)
        weight = layer.weight.detach().flatten()[topology.positions]
        fresh = layer.start_values(topology.nnz, generator)
        layer.set_topology(topology, torch.where(weight == 0, fresh, weight))
    return moved


def permuted(model: nn.Sequential, generator: torch.Generator) -> list[Topology]:
    """Its topologies with the neurons of every hidden layer in another order."""
    before, found = None, []
    for layer in regrow.sparse_layers(model).values():
        mask = layer.topology.mask()
        mask = mask if before is None else mask[:, before]
        before = torch.randperm(len(mask), generator=generator)
        found.append(Topology(mask.shape, mask[before].flatten().nonzero().flatten()))
    return found


def study(options: Namespace, data: Dataset, seed: int) -> dict[str, Any]:
    """Train five neighbours, and measure at each snapshot."""
    generator = torch.Generator().manual_seed(seed)
    models = [first([data.x_train.shape[1], *options.hidden], options.density, seed)]
    while len(models) < NETWORKS:
        models.append(neighbour(models[-1], generator))
    members = [Member(model, data, 100 * seed + i) for i, model in enumerate(models)]
    distances, rules = {}, {}
    for epoch in tqdm(range(SNAPSHOTS[-1] + 1), desc=f"seed {seed}", unit="epoch"):
        if epoch:
            for member in members:
                member.epoch()
        if epoch in SNAPSHOTS:
            distances[str(epoch)] = distance_matrix(models).round(4).tolist()
            one = members[0]
            found = drop_similarity(one.evolution, one.backward, rules=RULES, fraction=FRACTION)
            rules[str(epoch)] = found.mean.round(4).tolist()
    copied = topology_distance(models[0], permuted(models[0], generator))
    return {
        "distances": distances,
        "rules": rules,
        "accuracies": [member.accuracy() for member in members],
        "permuted_copy": copied.mean,
    }


def main() -> None:
    """Run the study for every seed and write what came out."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--limit", type=int, help="training samples")
    parser.add_argument("--hidden", type=int, nargs="+", default=[100, 100, 100])
    parser.add_argument("--density", type=float, default=0.05)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = load(options.data, data_dir=options.data_dir, limit_train=options.limit)
    studies = [study(options, data, seed) for seed in range(options.seeds)]
    result = {
        "data": options.data,
        "training_samples": len(data.x_train),
        "hidden": options.hidden,
        "density": options.density,
        "rules": RULES,
        "studies": studies,
    }
    for epoch in map(str, SNAPSHOTS):
        means = [np.array(s["distances"][epoch])[np.triu_indices(NETWORKS, 1)] for s in studies]
        print(f"epoch {epoch:>2}: distance {np.mean(means):.3f} (max {np.max(means):.3f})")
    print("accuracy", [[round(a, 4) for a in s["accuracies"]] for s in studies])
    print("permuted copy", [s["permuted_copy"] for s in studies])
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
