"""SET: train sparse from a random start, drop the weights nearest zero, grow as many at random.

D. C. Mocanu, E. Mocanu, P. Stone, P. H. Nguyen, M. Gibescu, A. Liotta, "Scalable training of
artificial neural networks with adaptive sparse connectivity inspired by network science", 2018.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from regrow import Evolution, sparse_layers, sparsify
from regrow.data import Dataset
from regrow.data.sources import read
from regrow.data.table import Pixels
from regrow.estimators import SparseRBM
from regrow.layers.activations import SReLU
from regrow.measure import pictures
from regrow.optim import decayed
from regrow.reproduce.networks import mlp
from regrow.reproduce.recipe import (
    TRIAL,
    Claim,
    Context,
    Figures,
    Outcomes,
    Part,
    Recipe,
    Scale,
    Table,
    part,
    short_name,
    tuned,
)
from regrow.training.augment import augmented
from regrow.training.fit import fit
from regrow.training.models.images import Planes, image_shape

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ARMS, ACTIVATIONS = ("set", "static", "dense"), ("relu", "srelu")
DECAY, ZETA = 0.0002, 0.3
LAST = 10  # epochs of the tutorial that an accuracy is the mean of
HEAD = 8_413_194
LOGS, BOUND, PAPER = "the authors' logs", "our bound", "D. C. Mocanu et al., 2018"


@dataclass(frozen=True)
class Tutorial:
    """The perceptron of the authors' tutorial: few images, ReLU, sigmoid output, random start."""

    data: str
    rows: tuple[int, int, int]
    hidden: tuple[int, ...]
    epochs: int
    epsilon: float = 13
    batch: int = 40
    dropout: float = 0.2
    rate: float = 0.05
    rates: tuple[float, ...] = (0.2, 0.1, 0.05)
    dense_rates: tuple[float, ...] = (0.2, 0.05, 0.0125)


@dataclass(frozen=True)
class Perceptron:
    """The perceptron of the Keras code: SReLU, softmax, new weights from 0."""

    data: str
    limits: tuple[int | None, int | None]
    hidden: tuple[int, ...]
    epochs: int
    rates: tuple[float, ...]
    epsilon: float = 20
    batch: int = 100
    dropout: float = 0.3
    augment: bool = False


@dataclass(frozen=True)
class Machine:
    """The restricted Boltzmann machine of the released code."""

    data: str
    hidden: int
    epochs: int
    epsilon: float = 10
    rate: float = 0.1
    dense_rates: tuple[float, ...] = (0.1, 0.03)
    look: int = 5


@dataclass(frozen=True)
class Head:
    """A convolutional network that is dense up to two wide layers."""

    data: str
    limits: tuple[int | None, int | None]
    channels: tuple[int, ...]
    width: int
    epochs: int
    rate: float
    batch: int = 50
    epsilon: float = 20
    augment: bool = False


@dataclass(frozen=True)
class Settings:
    """The experiments."""

    tutorial: Tutorial
    machine: Machine
    perceptron: Perceptron
    head: Head


def tutorial(context: Context, method: str, dropout: str, rate: float, seed: int) -> Figures:
    """Train the tutorial's perceptron."""
    settings: Tutorial = context.settings.tutorial
    data = _images(context, settings)
    sparse: Any = (
        {} if method == "dense" else {"epsilon": settings.epsilon, "pattern": "replacement"}
    )
    layers = mlp([data.n_features, *settings.hidden, 10], seed=seed, **sparse)
    if sparse:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for layer in sparse_layers(layers).values():
                layer.values.copy_(0.1 * torch.randn(layer.topology.nnz, generator=generator))
                if layer.bias is not None:
                    layer.bias.zero_()
    model = Published(layers, settings.dropout, torchs=dropout == "torch")
    optimizer = decayed(torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9), DECAY)
    return _trained(model, data, optimizer, method, settings, seed, loss=_published_loss)


def _images(context: Context, settings: Tutorial) -> Dataset:
    """The images that the tutorial draws, pixels in [0, 1], and the next ones to choose by."""
    whole = context.load(settings.data, validation=0.0)
    low, high = whole.x_train.min(), whole.x_train.max()
    drawn, found = np.random.RandomState(0), {}
    n_train, n_validation, n_test = settings.rows
    for name, count in (("train", n_train + n_validation), ("test", n_test)):
        x, y = getattr(whole, f"x_{name}"), getattr(whole, f"y_{name}")
        order = np.arange(len(y))
        drawn.shuffle(order)
        rows = torch.from_numpy(order[:count])
        found[name] = ((x[rows] - low) / (high - low), y[rows])
    (x, y), (x_test, y_test) = found["train"], found["test"]
    return replace(
        whole,
        x_train=x[:n_train],
        y_train=y[:n_train],
        x_validation=x[n_train:],
        y_validation=y[n_train:],
        x_test=x_test,
        y_test=y_test,
    )


class Published(nn.ModuleList):
    """Linear layers with ReLU and dropout between them, as the published code has dropout.

    It neither scales in training, but sums at test time instead, nor masks the backward pass.
    """

    def __init__(self, layers: nn.Sequential, share: float, torchs: bool) -> None:
        super().__init__(layer for layer in layers if not isinstance(layer, nn.ReLU))
        self.share, self.torchs = share, torchs

    def forward(self, x: Tensor) -> Tensor:
        """Outputs before the sigmoid."""
        for number, layer in enumerate(self):
            if number:
                x = (
                    functional.dropout(x, self.share, self.training)
                    if self.torchs
                    else self._thinned(x)
                )
            x = layer(x)
            if number and not self.torchs and not self.training:
                x = x * (1 - self.share)
            x = x.relu() if number < len(self) - 1 else x
        return x

    def _thinned(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        return x - (x * (torch.rand_like(x) < self.share)).detach()


def _published_loss(output: Tensor, labels: Tensor) -> Tensor:
    """A number with the gradient of the published code, (y - t) * s'(y), y the sigmoid already."""
    y = output.detach().sigmoid()
    twice = y.sigmoid()
    delta = (y - functional.one_hot(labels, output.shape[1])) * twice * (1 - twice)
    return (output * delta).sum() / len(labels)


def perceptron(context: Context, method: str, activation: str, rate: float, seed: int) -> Figures:
    """Train the perceptron of the Keras code, SReLU or ReLU."""
    settings: Perceptron = context.settings.perceptron
    data = _load(context, settings)
    widths = iter(settings.hidden)
    model = mlp(
        [data.n_features, *settings.hidden, data.n_classes or 1],
        seed=seed,
        epsilon=None if method == "dense" else settings.epsilon,
        activation=(lambda: SReLU(next(widths))) if activation == "srelu" else nn.ReLU,
        dropout=settings.dropout,
    )
    optimizer = decayed(torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9), DECAY)
    return _trained(model, data, optimizer, method, settings, seed, start="zero")


def machine(context: Context, method: str, rate: float, seed: int) -> Figures:
    """Train a restricted Boltzmann machine; errors of reconstructions from probabilities."""
    settings: Machine = context.settings.machine
    x = _unit(settings.data, context.data_dir)
    order = np.random.default_rng(seed).permutation(len(x))
    train, test = np.split(x[order], [2 * len(x) // 3])
    train, held_out = np.split(train, [3 * len(train) // 4 if seed == TRIAL else len(train)])
    rbm = SparseRBM(
        settings.hidden,
        method=method,
        epsilon=None if method == "dense" else settings.epsilon,
        learning_rate=rate,
        n_iter=settings.epochs,
        random_state=seed,
    )

    def error(rows: NDArray[np.float32]) -> float:
        return float(np.square(rbm.inverse_transform(rbm.transform(rows)) - rows).mean())

    curve = []
    for epoch in range(1, settings.epochs + 1):
        rbm.partial_fit(train)
        if epoch % settings.look == 0:
            curve.append((epoch, error(test)))
    found = {"test": error(test), "connections": rbm.topology_.nnz, "curve": curve}
    if len(held_out):
        found["validation"] = -error(held_out)
    rbm.prune()
    return found | {"removed": error(test), "left": rbm.topology_.nnz}


def _unit(source: str, folder: str | None) -> NDArray[np.float32]:
    """A table with values in [0, 1] as it is in its file."""
    features = read(source, data_dir=folder).features
    if isinstance(features, Pixels):
        return np.asarray(features.values / features.peak, dtype=np.float32)
    return np.stack([column.values for column in features.columns], axis=1).astype(np.float32)


def head(context: Context, method: str, seed: int) -> Figures:
    """Train a convolutional network whose two wide layers are sparse."""
    settings: Head = context.settings.head
    data = _load(context, settings)
    planes, height, width = image_shape(data)
    side = (height // 2 ** len(settings.channels)) * (width // 2 ** len(settings.channels))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        front: list[nn.Module] = [Planes((planes, height, width))]
        for inputs, outputs in pairwise((planes, *settings.channels)):
            front += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(), nn.Dropout(0.3)]
            front += [nn.Conv2d(outputs, outputs, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        wide = _head(side * settings.channels[-1], settings.width)
        for parameter in nn.Sequential(*front, wide).parameters():  # as Keras starts layers
            nn.init.xavier_uniform_(parameter) if parameter.dim() > 1 else nn.init.zeros_(parameter)
    if method != "dense":
        generator = torch.Generator().manual_seed(seed)
        wide = sparsify(wide, epsilon=settings.epsilon, generator=generator)
    model = nn.Sequential(*front, nn.Flatten(), wide)
    optimizer = torch.optim.SGD(model.parameters(), lr=settings.rate, momentum=0.9)
    decayed(optimizer, DECAY)
    figures = _trained(model, data, optimizer, method, settings, seed)
    return figures | {"head": sum(p.numel() for p in wide.parameters())}


def _head(inputs: int, width: int, classes: int = 10) -> nn.Sequential:
    modules: list[nn.Module] = []
    for fan_in in (inputs, width):
        modules += [nn.Linear(fan_in, width), nn.ReLU(), nn.Dropout(0.3)]
    return nn.Sequential(*modules, nn.Linear(width, classes))


def _load(context: Context, settings: Perceptron | Head) -> Dataset:
    train, test = settings.limits
    return context.load(settings.data, limit_train=train, limit_test=test)


def _trained(
    model: nn.Module,
    data: Dataset,
    optimizer: torch.optim.Optimizer,
    method: str,
    settings: Tutorial | Perceptron | Head,
    seed: int,
    *,
    loss: Any = None,
    **parts: Any,
) -> Figures:
    """Train, rewiring after every epoch but the last."""
    evolution, steps = None, math.ceil(len(data.x_train) / settings.batch)
    if method == "set":
        last = steps * settings.epochs - 1
        evolution = Evolution(
            model, optimizer, "set", seed=seed, every=steps, until=last, fraction=ZETA, **parts
        )
    change = None
    if getattr(settings, "augment", False):
        draws = torch.Generator().manual_seed(seed)
        change = partial(augmented, shape=image_shape(data), generator=draws)
    rows = fit(
        model,
        data,
        optimizer,
        epochs=settings.epochs,
        batch_size=settings.batch,
        seed=seed,
        evolution=evolution,
        loss=loss,
        augment=change,
    )
    found = {name: [row[name] for row in rows] for name in ("test", "validation")}
    last = LAST if isinstance(settings, Tutorial) else 1
    return {
        "test": statistics.fmean(found["test"][-last:]),
        "validation": statistics.fmean(found["validation"][-last:]),
        "connections": rows[-1]["connections"],
        "curve": found["test"],
    }


def parts(settings: Settings, seeds: range, done: Outcomes) -> Iterator[Part]:
    """Each network as published, and at its best rate where they are compared beyond that."""
    published = settings.tutorial.rate
    for dropout in ("published", "torch"):
        for method in ("set", "static"):
            arm: Any = {"method": method, "dropout": dropout, "rate": published}
            yield from (part(tutorial, **arm, seed=seed) for seed in seeds)
    for method in ARMS:
        rates = settings.tutorial.dense_rates if method == "dense" else settings.tutorial.rates
        yield from tuned(tutorial, rates, seeds, done, method=method, dropout="published")
    for method in ("set", "static"):
        arm = {"method": method, "rate": settings.machine.rate}
        yield from (part(machine, **arm, seed=seed) for seed in seeds)
    yield from tuned(machine, settings.machine.dense_rates, seeds, done, method="dense")
    for activation in ACTIVATIONS:
        for method in ARMS:
            arm = {"method": method, "activation": activation}
            yield from tuned(perceptron, settings.perceptron.rates, seeds, done, **arm)
    for method in ARMS:
        yield from (part(head, method=method, seed=seed) for seed in seeds)


def claims(settings: Settings, done: Outcomes) -> list[Claim]:
    """SET over static twice, the dense twin, and what is only reported."""
    tried, as_is = done.of(tutorial, dropout="published"), settings.tutorial.rate
    done = done.final
    plain = {m: done.of(tutorial, method=m, dropout="published", rate=as_is) for m in ARMS[:2]}
    usual = {m: done.of(tutorial, method=m, dropout="torch", rate=as_is) for m in ARMS[:2]}
    best = {m: tried.of(method=m).chosen for m in ARMS}
    rbm = {m: done.of(machine, method=m).mean("test") for m in ARMS}
    units = {a: done.of(perceptron, method="set", activation=a) for a in ACTIVATIONS}
    heads = {m: done.of(head, method=m) for m in ARMS}
    ratio, gain = rbm["set"] / rbm["static"], plain["set"].ahead(plain["static"])
    ahead = best["dense"].ahead(best["set"])
    with torch.device("meta"):
        weights = sum(p.numel() for p in _head(2048, 2048).parameters())
    return [
        Claim(
            f"On few images, as the tutorial has it, SET is 1 point over static after "
            f"{settings.tutorial.epochs} epochs",
            f"{gain:+.2f} points (the authors' logs: +2.4 after 100)",
            gain >= 1,
            BOUND,
        ),
        Claim(
            f"The dense twin is still ahead of SET after {settings.tutorial.epochs} epochs, each "
            "at its best rate",
            f"{ahead:+.2f} points",
            ahead > 0,
            LOGS,
        ),
        Claim(
            f"SET-RBM: the error of reconstructions after {settings.machine.epochs} epochs is at "
            "most 0.85 of that of a static one",
            f"{ratio:.2f} (the authors' logs: 0.72 after 100)",
            ratio <= 0.85,
            BOUND,
        ),
        Claim(
            "The dense head 2048-2048-2048-10 has 8,413,194 weights and biases",
            f"{weights:,}",
            weights == HEAD,
            PAPER,
        ),
        Claim(
            "SET over static with torch's dropout in the tutorial",
            f"{usual['set'].ahead(usual['static']):+.2f} points at the published rate",
            None,
        ),
        Claim(
            "SET over static in the tutorial, each at its best rate",
            f"{best['set'].ahead(best['static']):+.2f} points",
            None,
        ),
        Claim(
            "SReLU over ReLU in a SET perceptron, new weights from 0",
            f"{units['srelu'].ahead(units['relu']):+.2f} points",
            None,
            PAPER,
        ),
        Claim(
            "SET in the head of a convolutional network, over static and over dense",
            f"{heads['set'].ahead(heads['static']):+.2f} and "
            f"{heads['set'].ahead(heads['dense']):+.2f} points",
            None,
            PAPER,
        ),
    ]


def tables(settings: Settings, done: Outcomes) -> list[Table]:
    """One for each experiment."""
    done, own = done.final, settings.tutorial
    accuracy = {"test accuracy, %": lambda arm: arm.text("test", percent=True)}
    weights = {"connections": lambda arm: f"{round(arm.mean('connections')):,}"}
    errors = {
        "test error": lambda arm: arm.text("test", digits=4),
        "after the final removal": lambda arm: arm.text("removed", digits=4),
    }
    of_head = {"weights and biases of the head": lambda arm: f"{arm.found[0].figures['head']:,}"}
    return [
        _table(
            f"Perceptron of the tutorial, {own.rows[0]:,} rows of {own.data}",
            done.of(tutorial),
            ("method", "dropout", "rate"),
            weights | accuracy,
            f"Mean of the last {LAST} of {own.epochs} epochs, {own.rows[2]:,} test rows.",
        ),
        _table(
            f"Restricted Boltzmann machine, {short_name(settings.machine.data)}",
            done.of(machine),
            ("method", "rate"),
            weights | errors,
            f"Mean squared error on reconstructed test rows, {settings.machine.epochs} epochs.",
        ),
        _table(
            f"Perceptron with softmax, new weights from 0, {settings.perceptron.data}",
            done.of(perceptron),
            ("method", "activation", "rate"),
            weights | accuracy,
            f"Last of {settings.perceptron.epochs} epochs.",
        ),
        _table(
            f"Convolutional network, {settings.head.data}",
            done.of(head),
            ("method",),
            of_head | accuracy,
            f"Last of {settings.head.epochs} epochs, learning rate {settings.head.rate:g} for all.",
        ),
    ]


def _table(
    title: str,
    done: Outcomes,
    names: tuple[str, ...],
    figures: Mapping[str, Callable[[Outcomes], str]],
    note: str,
) -> Table:
    """One row for every combination of the named arguments."""
    arms = done.by(*names).items()
    keys = ((key if len(names) > 1 else (key,), arm) for key, arm in arms)
    rows = [[*key, *(figure(arm) for figure in figures.values())] for key, arm in keys]
    return Table(title, [*names, *figures], rows, note)


def draw(settings: Settings, done: Outcomes) -> dict[str, Figure]:
    """Both learning curves over epochs."""
    done = done.final
    own = done.of(tutorial, dropout="published")
    accuracies = {
        m: own.of(method=m) if m == "dense" else own.of(method=m, rate=settings.tutorial.rate)
        for m in ARMS
    }
    shows = f"The tutorial's perceptron, {settings.tutorial.data}"
    drawn = {
        shows: pictures.curves(
            {m: arm.curves("curve") for m, arm in accuracies.items()},
            title=shows,
            subtitle="test accuracy; set and static at the published rate",
            percent=True,
        )
    }
    shows = f"SET-RBM, {short_name(settings.machine.data)}"
    errors = {m: done.of(machine, method=m).values("curve") for m in ARMS}
    drawn[shows] = pictures.curves(
        {m: [(x, y) for x, y in (zip(*c, strict=True) for c in arm)] for m, arm in errors.items()},
        title=shows,
        subtitle="mean squared error of reconstructions of test rows",
    )
    return drawn


_SMALL = Settings(
    tutorial=Tutorial("fashion-mnist", (2000, 1000, 1000), (1000, 1000, 1000), epochs=100),
    machine=Machine("feature-selection/COIL20.mat", hidden=200, epochs=100),
    perceptron=Perceptron(
        "fashion-mnist", (2000, 1000), (1000, 1000, 1000), epochs=15, rates=(0.1, 0.03)
    ),
    head=Head("cifar10", (1500, 1000), (16, 32, 64), width=1024, epochs=6, rate=0.01, batch=25),
)
_QUICK = Settings(
    tutorial=Tutorial(
        "digits", (600, 200, 300), (100, 100, 100), epochs=30, rate=0.2, rates=(0.5, 0.2)
    ),
    machine=Machine("digits", hidden=60, epochs=20, epsilon=5),
    perceptron=Perceptron("digits", (600, 300), (100, 100), epochs=8, rates=(0.1,)),
    head=Head("digits", (600, 300), (4, 8), width=64, epochs=8, rate=0.02, batch=20, epsilon=5),
)
_PAPER = Settings(
    tutorial=replace(_SMALL.tutorial, epochs=400),
    machine=replace(_SMALL.machine, epochs=1000, look=10),
    perceptron=Perceptron(
        "cifar10", (None, None), (4000, 1000, 4000), epochs=1000, rates=(0.01,), augment=True
    ),
    head=Head("cifar10", (None, None), (32, 64, 128), 2048, 1000, 0.01, batch=100, augment=True),
)
_DATA = ("fashion-mnist", "cifar10", "feature-selection/COIL20.mat")

RECIPE = Recipe(
    scales={
        "quick": Scale(_QUICK, seeds=1),
        "small": Scale(_SMALL, seeds=3, data=_DATA),
        "paper": Scale(_PAPER, seeds=3, data=_DATA, memory=4),
    },
    parts=parts,
    claims=claims,
    tables=tables,
    pictures=draw,
)
