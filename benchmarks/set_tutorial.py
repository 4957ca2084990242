"""SET against a static random topology on 2,000 Fashion-MNIST images.

The set-up is that of the authors' IJCAI 2019 tutorial, with regrow's layers.

    python benchmarks/set_tutorial.py --data-dir DIR --json results/set-tutorial.json

784-1000-1000-1000-10, epsilon 13 drawn with replacement, values N(0, 0.1^2), zeta 0.3 after every
epoch but the last, SGD 0.05 with momentum 0.9, decoupled weight decay 0.0002 a step, batch 40,
dropout 0.2, ReLU, sigmoid output, the images that the tutorial draws. Two things of the published
code that change its figures are kept: the derivative of the output is taken at the activated output
(sigmoid applied twice), and dropout does not scale in training (sums are scaled at test time
instead) nor mask the backward pass. `--dropout torch` trains with torch's dropout instead.

Reference: D. C. Mocanu, E. Mocanu, P. Stone, P. H. Nguyen, M. Gibescu, A. Liotta, "Scalable
training of artificial neural networks with adaptive sparse connectivity inspired by network
science", 2018.
"""

from __future__ import annotations

import json
import statistics
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

import regrow
from regrow.data import load
from regrow.topology import allocate, random_topology

EPSILON, LEARNING_RATE, DECAY, BATCH, DROPOUT, LAST = 13, 0.05, 0.0002, 40, 0.2, 10
LOGGED = 2.4


class Drop(torch.autograd.Function):
    """Leaves activations out in the forward pass only, and does not scale the others."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Activations with some at zero."""
        return x * (torch.rand_like(x) >= DROPOUT)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        """The gradient as if none had been left out."""
        return grad


class Perceptron(nn.ModuleList):
    """The layers with ReLU and dropout between them, in either reading of dropout."""

    def __init__(self, layers: list[regrow.SparseLinear], dropout: str) -> None:
        super().__init__(layers)
        self.published = dropout == "published"

    def forward(self, x: Tensor) -> Tensor:
        """Outputs before the sigmoid, ``[batch, 10]``."""
        for i, layer in enumerate(self):
            x = layer(x)
            if self.published and not self.training and i > 0:
                x = x * (1 - DROPOUT)
            if i == len(self) - 1:
                break
            x = x.relu()
            if not self.published:
                x = functional.dropout(x, DROPOUT, self.training)
            elif self.training:
                x = Drop.apply(x)
        return x


def build(seed: int, dropout: str) -> Perceptron:
    """The network at its start; the same for both arms."""
    generator = torch.Generator().manual_seed(seed)
    sizes = [784, 1000, 1000, 1000, 10]
    shapes = {str(i): (sizes[i + 1], sizes[i]) for i in range(4)}
    layers = []
    for path, draws in allocate(shapes, epsilon=EPSILON).items():
        topology = random_topology(shapes[path], draws, sampling="replacement", generator=generator)
        layer = regrow.SparseLinear(*shapes[path][::-1], topology=topology, compute="csr")
        with torch.no_grad():
            layer.values.copy_(0.1 * torch.randn(topology.nnz, generator=generator))
            layer.bias.zero_()
        layers.append(layer)
    return Perceptron(layers, dropout)


def images(data_dir: str | None) -> dict[str, Tensor]:
    """The 2,000 and 1,000 images that the tutorial draws, with pixels in [0, 1]."""
    dataset = load("fashion-mnist", data_dir=data_dir, validation=0.0)
    low, high = dataset.x_train.min(), dataset.x_train.max()
    drawn = np.random.RandomState(0)
    found = {}
    for part, count in (("train", 2000), ("test", 1000)):
        x, y = getattr(dataset, f"x_{part}"), getattr(dataset, f"y_{part}")
        order = np.arange(len(y))
        drawn.shuffle(order)
        rows = torch.from_numpy(order[:count])
        found |= {f"x_{part}": (x[rows] - low) / (high - low), f"y_{part}": y[rows]}
    return found


def train(data: dict[str, Tensor], method: str, seed: int, options: Namespace) -> list[float]:
    """Test accuracy after every epoch, in percent."""
    x, y, epochs = data["x_train"], data["y_train"], options.epochs
    model = build(seed, options.dropout)
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE, momentum=0.9)
    steps = len(x) // BATCH
    parts = {"every": steps, "until": steps * epochs - 1} if method == "set" else {}
    evolution = regrow.Evolution(model, optimizer, method=method, seed=seed, **parts)
    torch.manual_seed(seed)
    accuracies = []
    for _ in tqdm(range(epochs), desc=f"{method} seed {seed}"):
        model.train()
        for rows in torch.randperm(len(x)).split(BATCH):
            output = model(x[rows])
            output.backward(delta(output.detach(), y[rows]) / len(rows))
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.mul_(1 - DECAY)
            optimizer.step()
            optimizer.zero_grad()
        model.eval()
        with torch.inference_mode():
            hits = model(data["x_test"]).argmax(1) == data["y_test"]
        accuracies.append(100 * hits.double().mean().item())
        evolution.step()
    return accuracies


def delta(output: Tensor, labels: Tensor) -> Tensor:
    """Output gradient of the published code: (y - t) * s'(y) with y the sigmoid of the output."""
    y = output.sigmoid()
    twice = y.sigmoid()
    return (y - functional.one_hot(labels, 10)) * twice * (1 - twice)


def main() -> None:
    """Train all arms and seeds, print the table, write it as JSON where asked."""
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", help="folder with fashion-mnist; default: $REGROW_DATA")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dropout", choices=["published", "torch"], default="published")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    data = images(options.data_dir)
    curves = {
        method: [train(data, method, seed, options) for seed in range(options.seeds)]
        for method in ("set", "static")
    }
    final = {
        method: [statistics.mean(curve[-LAST:]) for curve in runs]
        for method, runs in curves.items()
    }
    gains = [a - b for a, b in zip(final["set"], final["static"], strict=True)]
    for method, runs in final.items():
        print(f"{method:7} {statistics.mean(runs):5.2f}%  seeds {[round(r, 2) for r in runs]}")
    print(
        f"SET minus static: {statistics.mean(gains):+.2f} points (each seed: "
        f"{', '.join(f'{gain:+.2f}' for gain in gains)}; the authors' logs: {LOGGED:+.1f})"
    )
    if options.json:
        found = {
            "what": f"test accuracy in percent, mean of the last {LAST} of {options.epochs} epochs",
            "dropout": options.dropout,
            "regrow": regrow.__version__,
            "torch": torch.__version__,
            "accuracy": final,
            "set_minus_static": gains,
            "set_minus_static_mean": statistics.mean(gains),
            "logged_by_the_authors": LOGGED,
            "curves": curves,
        }
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
