"""GraNet: prune gradually while training, and let as many grow again where gradients are large.

S. Liu, T. Chen, X. Chen, Z. Atashgahi, L. Yin, H. Kou, L. Shen, M. Pechenizkiy, Z. Wang,
D. C. Mocanu, "Sparse training via boosting pruning plasticity with neuroregeneration", 2021.
"""

from __future__ import annotations

import copy
import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional

from regrow import Evolution
from regrow.data import Dataset
from regrow.evolution.schedules import Cubic
from regrow.measure import pictures
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
    tuned,
)
from regrow.training.fit import fit

if TYPE_CHECKING:
    from matplotlib.figure import Figure

METHODS = {
    "static": ("static", None),
    "SET": ("set-itop", None),
    "RigL": ("rigl-itop", None),
    "GMP": ("gmp", 1.0),
    "GraNet(0)": ("granet", 1.0),
    "GraNet(0.5)": ("granet", 0.5),
}
"""Method of regrow, and the density that it starts at where that is not the one it ends at."""

COLOURS = ("orange", "blue", "purple", "ochre", "teal", "green", "grey")
SCOPES = {"each layer": None, "all layers": "ranking"}
"""Whose magnitudes are compared in one shot, and what the evolution is told for it."""

REGROWN = (0.0, 0.1, 0.5)
"""Share of what one shot has left that is dropped and grows elsewhere at once."""

PAPER = "S. Liu et al., 2021"
BOUND = "our bound"


@dataclass(frozen=True)
class Settings:
    """Sizes and lengths; the second density is where learning rates are chosen.

    ``moments`` are the epochs after which the dense network is pruned in one shot: two before the
    learning rate falls, one after its last fall.
    """

    data: str
    limit_train: int | None
    hidden: tuple[int, ...]
    densities: tuple[float, ...]
    epochs: int
    updates: int
    moments: tuple[int, int, int]
    recovery: int = 3
    pruned: float = 0.9
    batch: int = 128
    rates: tuple[float, ...] = (0.3, 0.1, 0.03, 0.01)

    @property
    def length(self) -> dict[str, Any]:
        """Of a whole training, as `fit` takes it."""
        return {"epochs": self.epochs, "batch_size": self.batch, "rate_schedule": "step"}


def accuracy(context: Context, method: str, density: float, rate: float, seed: int) -> Figures:
    """Train one perceptron to the end, at a density that may fall on the way."""
    settings: Settings = context.settings
    data = context.load(settings.data, limit_train=settings.limit_train)
    total = settings.epochs * math.ceil(len(data.x_train) / settings.batch)
    name, start = METHODS.get(method, (None, None))
    model, optimizer = _network(settings, data, start or density, rate, seed, dense=name is None)
    parts: dict[str, Any] = {"every": max(1, total // settings.updates), "until": total - 1}
    parts |= {"density": Cubic(start, density, by=0.5)} if start else {}
    parts = {"every": None} if name == "static" else parts
    evolution = Evolution(model, optimizer, name, seed=seed, **parts) if name else None
    rows = fit(
        model, data, optimizer, **settings.length, seed=seed, evolution=evolution, count_flops=True
    )
    last = {key: rows[-1][key] for key in ("test", "validation", "connections", "flops")}
    return last | {"held": [row["connections"] for row in rows]}


def plasticity(context: Context, rate: float, seed: int) -> Figures:
    """Prune a dense network in one shot at several moments, and let it recover.

    Figures are test accuracies: of each moment that of the network that was not pruned and trained
    on just as long, and those of the pruned ones. Growth is where the gradient of a batch is
    largest.
    """
    settings: Settings = context.settings
    data = context.load(settings.data, limit_train=settings.limit_train)
    x, y = data.x_train[: settings.batch], data.y_train[: settings.batch]
    model, optimizer = _network(settings, data, 1.0, rate, seed)
    kept: dict[int, tuple[nn.Module, torch.optim.Optimizer]] = {}

    def keep(epoch: int) -> None:
        if epoch in settings.moments:
            kept[epoch] = copy.deepcopy((model, optimizer))

    def recovered(network: nn.Module, own: torch.optim.Optimizer) -> float:
        epochs, batch = settings.recovery, settings.batch
        rows = fit(network, data, own, epochs=epochs, batch_size=batch, seed=seed + 1)
        return float(rows[-1]["test"])

    def look(network: nn.Module) -> None:
        functional.cross_entropy(network(x), y).backward()

    fit(model, data, optimizer, **settings.length, seed=seed, at_epoch=keep)
    figures: Figures = {}
    for epoch, scope, regrown in product(kept, SCOPES, REGROWN):
        network, own = copy.deepcopy(kept[epoch])
        evolution = Evolution(
            network, own, "rigl", every=None, fraction=regrown, redistribute=SCOPES[scope]
        )
        evolution.prune(settings.pruned)
        evolution.update(partial(look, network))
        figures[_shot(epoch, scope, regrown)] = recovered(network, own)
    return figures | {f"{epoch} whole": recovered(*kept[epoch]) for epoch in kept}


def _network(
    settings: Settings,
    data: Dataset,
    density: float,
    rate: float,
    seed: int,
    *,
    dense: bool = False,
) -> tuple[nn.Module, torch.optim.Optimizer]:
    sizes = [data.n_features, *settings.hidden, data.n_classes or 1]
    model = (
        mlp(sizes, seed=seed) if dense else mlp(sizes, seed=seed, density=density, full="sparse")
    )
    return model, torch.optim.SGD(
        model.parameters(), lr=rate, momentum=0.9, nesterov=True, weight_decay=5e-4
    )


def _shot(epoch: int, scope: str, regrown: float) -> str:
    return f"{epoch} {scope} {regrown:g}"


def parts(settings: Settings, seeds: range, done: Outcomes) -> Iterator[Part]:
    """All methods at all densities, each with a learning rate of its own; and the plasticity."""
    middle = settings.densities[1]
    for method in ("dense", *METHODS):
        density = 1.0 if method == "dense" else middle
        yield from tuned(accuracy, settings.rates, seeds, done, method=method, density=density)
        tried = done.of(accuracy, method=method, seed=TRIAL)
        if len(tried) < len(settings.rates):
            continue
        rate = tried.best("validation", "rate")
        if method == "dense":
            yield from (part(plasticity, rate=rate, seed=seed) for seed in seeds)
            continue
        for density in settings.densities:
            for seed in seeds:
                yield part(accuracy, method=method, density=density, rate=rate, seed=seed)


def claims(settings: Settings, done: Outcomes) -> list[Claim]:
    """What holds at high sparsity, at moderate sparsity, and for pruning in one shot."""
    arms = done.final.of(accuracy)
    dense = 100 * arms.of(method="dense").mean("test")

    def points(method: str, density: float) -> float:
        return 100 * arms.of(method=method, density=density).mean("test")

    found = []
    for density in settings.densities[1:]:
        grown, rigl, static = (points(m, density) for m in ("GraNet(0.5)", "RigL", "static"))
        late, gmp = points("GraNet(0)", density), points("GMP", density)
        found += [
            Claim(
                f"At density {density:g} GraNet(0.5) is at most 0.2 points below RigL, and above "
                f"static",
                f"{grown - rigl:+.2f} and {grown - static:+.2f} points",
                grown >= rigl - 0.2 and grown > static,
                BOUND,
            ),
            Claim(
                f"At density {density:g} GraNet(0) is at most 0.3 points below GMP",
                f"{late - gmp:+.2f} points",
                late >= gmp - 0.3,
                BOUND,
            ),
        ]
    high = settings.densities[0]
    gaps = [dense - points(method, high) for method in ("GraNet(0)", "GraNet(0.5)")]
    pruned = done.final.of(plasticity)
    lost = {regrown: _lost(settings, pruned, regrown) for regrown in REGROWN}
    mild, strong = (
        100 * (statistics.fmean(lost[0.0]) - statistics.fmean(lost[r])) for r in REGROWN[1:]
    )
    return [
        *found,
        Claim(
            f"At density {high:g} GraNet is within 1 point of dense",
            f"{gaps[0]:.2f} points below from density 1, {gaps[1]:.2f} from 0.5",
            max(gaps) <= 1,
            BOUND,
        ),
        Claim(
            f"After pruning {settings.pruned:.0%} in one shot, networks of which half grows anew "
            f"recover at least as well, on average over the moments",
            f"{strong:+.2f} points ({mild:+.2f} where a tenth grows anew)",
            strong >= 0,
            PAPER,
        ),
        Claim(
            "Networks recover better from pruning before the learning rate falls than after its "
            "last fall",
            "points lost to the network that was not pruned: "
            + ", ".join(
                f"{100 * points:.2f} at epoch {moment}"
                for moment, points in zip(settings.moments, lost[0.0], strict=True)
            ),
            max(lost[0.0][:2]) < lost[0.0][2],
            PAPER,
        ),
    ]


def _lost(settings: Settings, pruned: Outcomes, regrown: float) -> list[float]:
    """Accuracy lost to the network that was not pruned at each moment, mean of ways to prune."""
    return [
        pruned.mean(f"{m} whole")
        - statistics.fmean(pruned.mean(_shot(m, scope, regrown)) for scope in SCOPES)
        for m in settings.moments
    ]


def tables(settings: Settings, done: Outcomes) -> list[Table]:
    """Every method at every density, and every network that was pruned in one shot."""
    arms, pruned = done.final.of(accuracy), done.final.of(plasticity)
    dense = arms.of(method="dense")
    rows: list[list[Any]] = []
    for method in ("dense", *METHODS):
        own = arms.of(method=method)
        (rate,) = own.by("rate")
        by = [own if method == "dense" else own.of(density=d) for d in settings.densities]
        rows.append([method, f"{rate:g}", *(_cell(arm, dense) for arm in by)])
    heads = ["network", "rate", *(f"density {density:g}" for density in settings.densities)]
    note = (
        "In brackets the FLOPs of the training as a share of the dense one's, with the density of "
        "each step and the gradients that growth looks at."
    )
    ways = list(product(SCOPES, REGROWN))
    shots = [
        [
            moment,
            pruned.text(f"{moment} whole", percent=True),
            *(pruned.text(_shot(moment, *way), percent=True) for way in ways),
        ]
        for moment in settings.moments
    ]
    return [
        Table(f"Test accuracy, %, last epoch, {settings.data}", heads, rows, note),
        Table(
            f"{settings.pruned:.0%} pruned in one shot, test accuracy, %, after "
            f"{settings.recovery} more epochs",
            [
                "after epoch",
                "not pruned",
                *(
                    f"{scope}{f', {regrown:.0%} anew' if regrown else ''}"
                    for scope, regrown in ways
                ),
            ],
            shots,
            "Magnitudes are compared in each layer or over all layers; then a share of what is "
            "left is dropped and grows where the gradient is largest.",
        ),
    ]


def _cell(arm: Outcomes, dense: Outcomes) -> str:
    return f"{arm.text('test', percent=True)} ({arm.mean('flops') / dense.mean('flops'):.2f})"


def draw(settings: Settings, done: Outcomes) -> dict[str, Figure]:
    """Accuracy and cost, density over the training, and what one shot costs when."""
    arms, pruned = done.final.of(accuracy), done.final.of(plasticity)
    dense = arms.of(method="dense")
    colours = dict(zip([*METHODS, "dense"], COLOURS, strict=True))
    drawn = {}
    for density in settings.densities:
        marks = {
            method: [
                (o.figures["flops"] / dense.mean("flops"), o.figures["test"])
                for o in arms.of(method=method)
                if method == "dense" or o.arguments["density"] == density
            ]
            for method in ("dense", *METHODS)
        }
        shows = f"Accuracy and cost at density {density:g}"
        drawn[shows] = pictures.trade_off(
            marks,
            title=shows,
            subtitle=f"test accuracy, {settings.data}",
            x_label="FLOPs, dense is 1",
            colours=colours,
            percent=True,
        )
    middle = settings.densities[1]
    whole = dense.mean("connections")
    held = {
        method: [
            (list(range(1, settings.epochs + 1)), [n / whole for n in o.figures["held"]])
            for o in arms.of(method=method, density=middle)
        ]
        for method in ("static", "GMP", "GraNet(0)", "GraNet(0.5)")
    }
    drawn["Density in training"] = pictures.curves(
        held, title="Density in training", subtitle="share of all connections",
        colours=colours, percent=True,
    )  # fmt: skip
    shows = f"What pruning {settings.pruned:.0%} in one shot costs"
    drawn[shows] = pictures.curves(
        {
            f"{regrown:.0%} anew" if regrown else "pruned": [
                (settings.moments, _lost(settings, pruned, regrown))
            ]
            for regrown in REGROWN
        },
        title=shows,
        subtitle=f"accuracy lost after {settings.recovery} more epochs",
        x_label="epoch",
        percent=True,
    )
    return drawn


_SMALL = Settings(
    data="fashion-mnist",
    limit_train=11_000,
    hidden=(512, 512),
    densities=(0.1, 0.05, 0.02),
    epochs=15,
    updates=60,
    moments=(3, 7, 13),
)
_QUICK = Settings(
    data="digits",
    limit_train=None,
    hidden=(64, 64),
    densities=(0.2, 0.1),
    epochs=8,
    updates=20,
    moments=(2, 4, 7),
    recovery=1,
    batch=32,
    rates=(0.1, 0.03),
)

RECIPE = Recipe(
    scales={
        "quick": Scale(_QUICK, seeds=1),
        "small": Scale(_SMALL, seeds=3, data=("fashion-mnist",)),
        "paper": Scale(_SMALL, missing="needs ResNet-50 and VGG-19 for CIFAR, and 160 epochs"),
    },
    parts=parts,
    claims=claims,
    tables=tables,
    pictures=draw,
)
