"""SET against a static random topology on 2,000 Fashion-MNIST images.

The set-up is that of the authors' IJCAI 2019 tutorial, with regrow's layers.

    python benchmarks/set_tutorial.py --data-dir DIR --json results/set-tutorial.json

784-1000-1000-1000-10, epsilon 13 drawn with replacement, values N(0, 0.1^2), zeta 0.3 after every
epoch but the last, SGD 0.05 with momentum 0.9, decoupled weight decay 0.0002 a step, batch 40,
dropout 0.2, ReLU, sigmoid output. The published code evaluates the derivative of the output at the
activated output (sigmoid applied twice); its logged figures have this, so it is kept here. What
differs: dropout is torch's, which scales in training instead of at test time and masks the
backward pass too; the first 2,000 and 1,000 images of the official split are taken.

Reference: D. C. Mocanu, E. Mocanu, P. Stone, P. H. Nguyen, M. Gibescu, A. Liotta, "Scalable
training of artificial neural networks with adaptive sparse connectivity inspired by network
science", 2018.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

import regrow
from regrow.data import Dataset, load
from regrow.topology import allocate, random_topology

EPSILON, LEARNING_RATE, DECAY, BATCH, DROPOUT, LAST = 13, 0.05, 0.0002, 40, 0.2, 10
LOGGED = 2.4


def build(seed: int) -> nn.Sequential:
    """The network at its start; the same for both arms."""
    generator = torch.Generator().manual_seed(seed)
    sizes = [784, 1000, 1000, 1000, 10]
    shapes = {str(i): (sizes[i + 1], sizes[i]) for i in range(4)}
    modules: list[nn.Module] = []
    for path, draws in allocate(shapes, epsilon=EPSILON).items():
        topology = random_topology(shapes[path], draws, sampling="replacement", generator=generator)
        layer = regrow.SparseLinear(*shapes[path][::-1], topology=topology, compute="csr")
        with torch.no_grad():
            layer.values.copy_(0.1 * torch.randn(topology.nnz, generator=generator))
            layer.bias.zero_()
        modules += [layer, nn.ReLU(), nn.Dropout(DROPOUT)]
    return nn.Sequential(*modules[:-2])


def train(dataset: Dataset, method: str, seed: int, epochs: int) -> list[float]:
    """Test accuracy after every epoch, in percent."""
    low, high = dataset.x_train.min(), dataset.x_train.max()
    x, x_test = ((part - low) / (high - low) for part in (dataset.x_train, dataset.x_test))
    model = build(seed)
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
            output.backward(delta(output.detach(), dataset.y_train[rows]) / len(rows))
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.mul_(1 - DECAY)
            optimizer.step()
            optimizer.zero_grad()
            evolution.step()
        model.eval()
        with torch.inference_mode():
            hits = model(x_test).argmax(1) == dataset.y_test
        accuracies.append(100 * hits.double().mean().item())
    return accuracies


def delta(output: Tensor, labels: Tensor) -> Tensor:
    """Output gradient of the published code: (y - t) * s'(y) with y the sigmoid of the output."""
    y = output.sigmoid()
    twice = y.sigmoid()
    return (y - functional.one_hot(labels, 10)) * twice * (1 - twice)


def main() -> None:
    """Train all arms and seeds, print the table, write it as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", help="folder with fashion-mnist; default: $REGROW_DATA")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    dataset = load(
        "fashion-mnist",
        data_dir=options.data_dir,
        validation=0.0,
        limit_train=2000,
        limit_test=1000,
    )
    curves = {
        method: [train(dataset, method, seed, options.epochs) for seed in range(options.seeds)]
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
