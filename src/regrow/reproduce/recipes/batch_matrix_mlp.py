"""Batch matrix form: gradients without autograd, exact, and cheap where weights are sparse.

W. Wesselink, B. Grooten, H. van de Wetering, Q. Xiao, D. C. Mocanu, "Batch matrix-form equations
and implementation of multilayer perceptrons", 2025.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from regrow import densify, sparse_layers
from regrow import matrixform as mf
from regrow.data import Dataset
from regrow.measure import pictures
from regrow.measure.bench import Curve, Point
from regrow.reproduce.networks import mlp
from regrow.reproduce.recipe import (
    Claim,
    Context,
    Figures,
    Outcomes,
    Part,
    Recipe,
    Scale,
    Table,
    part,
)
from regrow.training.augment import augmented
from regrow.training.fit import fit
from regrow.training.passes import data_order

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BATCH = 100
NETWORKS = ("dense", "masked", "csr")
PAPER = "W. Wesselink et al., 2025"
BOUND = "our bound"


@dataclass(frozen=True)
class Settings:
    """Sizes and lengths of the experiments."""

    data: str
    limit_train: int | None
    hidden: tuple[int, ...]
    densities: tuple[float, ...]
    shapes: int
    rounds: int
    twin_density: float = 0.05
    twin_steps: int = 200
    epochs: int = 0


def equations(context: Context, seed: int) -> Figures:
    """Every equation at random shapes, and at a batch, an input and an output of size 1."""
    rng = np.random.default_rng(seed)
    shapes = [(1, 4, 3), (5, 1, 3), (5, 4, 1), (1, 1, 1)]
    drawn = rng.integers(1, 9, (context.settings.shapes, 3)).tolist()
    found = mf.check_equations(shapes + [(n, d, k) for n, d, k in drawn], rng)
    return {name: asdict(errors) for name, errors in found.items()}


def twins(context: Context, dtype: str, seed: int) -> Figures:
    """One network three times, trained side by side: in matrix form, as CSR layers, masked."""
    settings: Settings = context.settings
    data = context.load(settings.data, limit_train=settings.limit_train)
    density = settings.twin_density
    model = _network("csr", data, settings, density, seed).to(getattr(torch, dtype))
    nets: dict[str, nn.Module] = {"csr": model, "masked": _masked(model)}
    ours, momentum = _matrix_form(model), mf.Nesterov(0.9)
    rate = _rate(density)
    optimizers = {name: _sgd(net, rate) for name, net in nets.items()}
    losses: dict[str, list[float]] = {name: [] for name in ("matrix form", *nets)}
    for chosen in islice(_batches(data, seed), settings.twin_steps):
        x, y = data.x_train[chosen].to(getattr(torch, dtype)), data.y_train[chosen]
        for name, net in nets.items():
            losses[name].append(_step(net, optimizers[name], x, y))
        t = mf.one_hot(y.numpy(), data.n_classes or 1).astype(dtype)
        found = mf.train_batch(ours, mf.SoftmaxCrossEntropy(), momentum, x.numpy(), t, rate)
        losses["matrix form"].append(found)
    reference = np.array(losses["matrix form"])
    apart = {name: np.abs(np.array(losses[name]) / reference - 1).tolist() for name in nets}
    return {
        "steps": len(reference),
        "first": float(reference[0]),
        "last": float(reference[-1]),
        "apart": apart,
    }


def _matrix_form(model: nn.Module) -> mf.MultilayerPerceptron:
    layers = list(sparse_layers(model).values())
    made = []
    for number, layer in enumerate(layers, start=1):
        assert isinstance(layer.bias, Tensor)
        shape = layer.topology.shape
        weight = mf.SparseWeight(
            (shape[0], shape[1]),
            layer.topology.positions.numpy(),
            layer.values.detach().numpy().copy(),
        )
        activation = mf.ReLU() if number < len(layers) else mf.Identity()
        made.append(mf.Linear(weight, layer.bias.detach().numpy().copy(), activation))
    return mf.MultilayerPerceptron(made)


class _Mask(nn.Module):
    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.mask


def _masked(model: nn.Sequential) -> nn.Sequential:
    """The same function with dense weights under masks, as most code of sparse training has it."""
    masks = {path: layer.topology.mask() for path, layer in sparse_layers(model).items()}
    twin = densify(copy.deepcopy(model))
    for path, mask in masks.items():
        layer = twin.get_submodule(path)
        assert isinstance(layer, nn.Linear)
        parametrize.register_parametrization(layer, "weight", _Mask(mask.to(layer.weight.dtype)))
    return twin


def _network(
    kind: str, data: Dataset, settings: Settings, density: float, seed: int
) -> nn.Sequential:
    sizes = [data.n_features, *settings.hidden, data.n_classes or 1]
    if kind == "dense":
        return mlp(sizes, seed=seed)
    model = mlp(sizes, seed=seed, density=density, allocation="er", full="sparse", compute="csr")
    return model if kind == "csr" else _masked(model)


def _rate(density: float) -> float:
    """The learning rates of the authors' runs."""
    return 0.1 if density <= 0.01 else 0.03 if density <= 0.1 else 0.01


def _sgd(model: nn.Module, rate: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9, nesterov=True)


def _batches(data: Dataset, seed: int) -> Iterator[Tensor]:
    epoch = 0
    while True:
        yield from data_order(len(data.x_train), seed, epoch).split(BATCH)
        epoch += 1


def _step(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> float:
    loss = functional.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


def speed(context: Context, seed: int) -> Figures:
    """Seconds of an epoch of every network at every density, in turns, rounds there and back.

    They are those of the processor, which other work on the machine disturbs least.
    """
    settings: Settings = context.settings
    data = context.load(settings.data, limit_train=settings.limit_train)
    nets = {}
    for density in settings.densities:
        for kind in NETWORKS:
            model = _network(kind, data, settings, density, seed)
            nets[kind, density] = model, _sgd(model, 0.01)
    seconds: dict[tuple[str, float], list[float]] = {key: [] for key in nets}
    torch.set_flush_denormal(True)
    for turn in range(settings.rounds + 1):
        for key in list(nets) if turn % 2 else reversed(nets):
            model, optimizer = nets[key]
            begin = time.process_time()
            batches = data_order(len(data.x_train), seed, turn).split(BATCH)
            for chosen in batches if turn else batches[:5]:  # the first round warms up
                _step(model, optimizer, data.x_train[chosen], data.y_train[chosen])
            if turn:
                seconds[key].append(time.process_time() - begin)
    torch.set_flush_denormal(False)
    return {
        kind: [seconds[kind, density] for density in settings.densities] for kind in NETWORKS
    } | {"samples": len(data.x_train), "threads": torch.get_num_threads()}


def accuracy(context: Context, network: str, density: float, seed: int) -> Figures:
    """A whole training, as the authors' runs have it, with their learning rates."""
    settings: Settings = context.settings
    data = context.load(settings.data, limit_train=settings.limit_train)
    model = _network(network, data, settings, density, seed)
    coins, shape = torch.Generator().manual_seed(seed), (data.image_shape or (1, 1))
    planes = (1, *shape) if len(shape) == 2 else shape
    rows = fit(
        model,
        data,
        _sgd(model, _rate(density)),
        epochs=settings.epochs,
        batch_size=BATCH,
        seed=seed,
        rate_schedule="step",
        augment=lambda x: augmented(x, (planes[0], planes[1], planes[2]), coins),
    )
    return {"test": rows[-1]["test"], "seconds": statistics.median(r["seconds"] for r in rows)}


def parts(settings: Settings, seeds: range, done: Outcomes) -> Iterator[Part]:
    """The equations, the same losses, the times, and at full scale the accuracies."""
    for seed in seeds:
        yield part(equations, seed=seed)
        yield from (part(twins, dtype=dtype, seed=seed) for dtype in ("float32", "float64"))
    yield part(speed, alone=True, seed=0)
    if settings.epochs:
        for density in settings.densities:
            for network in ("masked", "csr"):
                yield from (
                    part(accuracy, network=network, density=density, seed=seed) for seed in seeds
                )


def _curve(settings: Settings, found: Figures, against: str) -> Curve:
    """Times of one kind of network and of CSR, as the benchmark of a layer holds them."""
    points = []
    for index, density in enumerate(settings.densities):
        times = {
            "dense": 1e3 * statistics.median(found[against][index]),
            "csr": 1e3 * statistics.median(found["csr"][index]),
        }
        points.append(Point(density, times, times, ""))
    return Curve(settings.hidden[-1], settings.hidden[0], points)


def claims(settings: Settings, done: Outcomes) -> list[Claim]:
    """What the spec of the equations promises; the crossover is reported."""
    each = [(n, e) for o in done.of(equations) for n, e in o.figures.items()]
    autograd, differences = (max(e[name] for _, e in each) for name in ("autograd", "differences"))
    kinks, entries = (sum(e[name] for _, e in each) for name in ("kinks", "entries"))
    gathered = max(e["autograd"] for name, e in each if name == "sparse gradient")
    apart, apart64 = (
        {
            name: max(max(f[name]) for f in done.of(twins, dtype=dtype).values("apart"))
            for name in ("csr", "masked")
        }
        for dtype in ("float32", "float64")
    )
    steps = min(done.of(twins).values("steps"))
    times = done.of(speed).values("csr")[0]
    medians = [statistics.median(t) for t in times]
    pairs = sorted(zip(settings.densities, medians, strict=True))
    found = done.of(speed).found[0].figures
    crossings = {name: _curve(settings, found, name) for name in ("dense", "masked")}
    lowest = min(settings.densities)
    at = settings.densities.index(lowest)
    gains = {name: crossings[name].points[at].against_dense("csr") for name in crossings}
    return [
        Claim(
            "Every equation agrees with autograd in float64, relative error below 1e-7",
            f"largest {autograd:.1e} over {entries} entries of gradients",
            autograd < 1e-7,
            BOUND,
        ),
        Claim(
            "Every equation agrees with finite differences in float64, relative error below 1e-7",
            f"largest {differences:.1e}; {kinks} of {entries} entries next to a kink are left out",
            differences < 1e-7,
            BOUND,
        ),
        Claim(
            "The gradient of a sparse weight is the dense gradient at its positions",
            f"largest relative difference {gathered:.1e}",
            gathered < 1e-7,
            BOUND,
        ),
        Claim(
            f"Over {steps} steps in float32 the matrix form has its twins' losses, within 1e-4",
            f"largest relative difference {apart['csr']:.1e} (CSR layers), "
            f"{apart['masked']:.1e} (masked)",
            max(apart.values()) < 1e-4 and steps == settings.twin_steps,
            BOUND,
        ),
        Claim(
            f"Over {steps} steps in float64 it has them within 1e-10",
            f"largest relative difference {apart64['csr']:.1e} (CSR layers), "
            f"{apart64['masked']:.1e} (masked)",
            max(apart64.values()) < 1e-10,
            BOUND,
        ),
        Claim(
            "An epoch of the CSR network takes the less time the fewer its connections",
            ", ".join(f"{d:g}: {s:.2f} s" for d, s in reversed(pairs)),
            all(a[1] < b[1] for a, b in pairwise(pairs)),
            PAPER,
        ),
        Claim(
            "CSR pays below a density of about 0.1 (authors' logs, on their machine)",
            "; ".join(
                f"as fast as {name} at density {curve.break_even:g}"
                if curve.break_even is not None
                else f"never as fast as {name}"
                for name, curve in crossings.items()
            ),
            None,
            PAPER,
        ),
        Claim(
            "At density 0.01 CSR is 4 times as fast as masked (authors' logs, on their machine)",
            f"at {lowest:g}: {gains['masked']:.1f} times masked, {gains['dense']:.1f} times dense",
            None,
            PAPER,
        ),
    ]


def tables(settings: Settings, done: Outcomes) -> list[Table]:
    """Errors of the equations, and the times."""
    by_name: dict[str, list[Any]] = {}
    for outcome in done.of(equations):
        for name, error in outcome.figures.items():
            by_name.setdefault(name, []).append(error)
    by_name.pop("sparse gradient")
    rows = [
        [
            name,
            *(f"{max(e[column] for e in errors):.1e}" for column in ("autograd", "differences")),
            sum(e["entries"] for e in errors),
        ]
        for name, errors in by_name.items()
    ]
    heads = ["equation", "against autograd", "against differences", "entries"]
    note = (
        "Largest relative errors. Layers have a dense and a sparse weight; the dropout of weights "
        "goes with every activation."
    )
    made = [Table("Equations, float64", heads, rows, note)]
    found = done.of(speed).found[0].figures
    timed = []
    for index, density in enumerate(settings.densities):
        medians = {name: statistics.median(found[name][index]) for name in NETWORKS}
        gains = [f"{medians[name] / medians['csr']:.2f}x" for name in ("dense", "masked")]
        timed.append([f"{density:g}", *(f"{s:.3f}" for s in medians.values()), *gains])
    heads = ["density", *NETWORKS, "csr against dense", "csr against masked"]
    title = f"Seconds of an epoch of {found['samples']} samples, {settings.data}"
    note = (
        f"Processor time, {found['threads']} thread; medians of {settings.rounds} rounds in turns."
    )
    made.append(Table(title, heads, timed, note))
    if settings.epochs:
        reached = [
            [
                f"{density:g}",
                *(
                    done.of(accuracy, network=network, density=density).text("test", percent=True)
                    for network in ("masked", "csr")
                ),
            ]
            for density in settings.densities
        ]
        made.append(Table("Test accuracy, %", ["density", "masked", "csr"], reached))
    return made


def draw(settings: Settings, done: Outcomes) -> dict[str, Figure]:
    """Time against density, and how far the losses of twins are apart."""
    found = done.of(speed).found[0].figures
    densities: Sequence[float] = settings.densities
    arms = {
        name: [
            (densities, [sorted(s)[rank] for s in found[name]])
            for rank in range(len(found[name][0]))
        ]
        for name in NETWORKS
    }
    colours = {"csr": "blue", "masked": "orange", "dense": "grey"}
    crossing = "Where sparse products begin to pay"
    apart = "How far the losses of the twins are apart"
    twin = {
        f"{name}, {dtype}": [
            (np.arange(1, len(f[name]) + 1), np.maximum.accumulate(np.maximum(f[name], 1e-17)))
            for f in done.of(twins, dtype=dtype).values("apart")
        ]
        for dtype in ("float32", "float64")
        for name in ("csr", "masked")
    }
    return {
        crossing: pictures.curves(
            arms,
            title=crossing,
            subtitle=f"processor seconds of an epoch, {settings.data}",
            x_label="density",
            colours=colours,
            logarithmic=True,
        ),
        apart: pictures.curves(
            twin,
            title=apart,
            subtitle="largest relative difference so far from the matrix form",
            x_label="step",
        ),
    }


_SMALL = Settings(
    data="fashion-mnist",
    limit_train=10_000,
    hidden=(1024, 512),
    densities=(1.0, 0.5, 0.2, 0.1, 0.05, 0.01),
    shapes=16,
    rounds=5,
)
_QUICK = Settings(
    data="digits",
    limit_train=None,
    hidden=(256, 128),
    densities=(1.0, 0.2, 0.05),
    shapes=2,
    rounds=2,
    twin_steps=50,
    epochs=2,
)
_PAPER = Settings(
    data="cifar10",
    limit_train=None,
    hidden=(1024, 512),
    densities=(1.0, 0.5, 0.2, 0.1, 0.05, 0.01, 0.005, 0.001),
    shapes=16,
    rounds=5,
    epochs=100,
)

RECIPE = Recipe(
    scales={
        "quick": Scale(_QUICK, seeds=1),
        "small": Scale(_SMALL, seeds=3, data=("fashion-mnist",)),
        "paper": Scale(_PAPER, seeds=3, data=("cifar10",)),
    },
    parts=parts,
    claims=claims,
    tables=tables,
    pictures=draw,
)
