"""ITOP: accuracy follows the share of weights ever active, where each was active long enough.

S. Liu, L. Yin, D. C. Mocanu, M. Pechenizkiy, "Do we actually need dense over-parameterization?
In-time over-parameterization in sparse training", 2021.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from scipy.stats import spearmanr

from regrow import Evolution, sparse_layers
from regrow.evolution.schedules import Cosine
from regrow.measure import pictures
from regrow.measure.exploration import Exploration, expected_exploration
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
    tuned,
)
from regrow.training.fit import fit

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DROP = Cosine(0.5, 0.005)
PAPER = "S. Liu et al., 2021"
BOUND = "our bound"


@dataclass(frozen=True)
class Settings:
    """Sizes and lengths of the experiment."""

    data: str
    limit_train: int | None
    hidden: tuple[int, ...]
    densities: tuple[float, ...]
    intervals: tuple[int, ...]
    epochs: int
    longer: int = 3
    batch: int = 128
    rate: float = 0.1
    dense_rates: tuple[float, ...] = (0.1, 0.03, 0.01)


def accuracy(
    context: Context, method: str, density: float, every: int, times: int, rate: float, seed: int
) -> Figures:
    """Train one perceptron, watching which positions were ever active."""
    settings: Settings = context.settings
    data = context.load(settings.data, limit_train=settings.limit_train)
    epochs = settings.epochs * times
    total = epochs * math.ceil(len(data.x_train) / settings.batch)
    sizes = [data.n_features, *settings.hidden, data.n_classes or 1]
    model = mlp(sizes, seed=seed, density=None if method == "dense" else density)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=rate, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    evolution, tried, expected = None, None, 1.0
    if every:
        evolution = Evolution(
            model, optimizer, method=method, seed=seed, every=every, until=total - 1
        )
        tried = Exploration(model)
        expected = _expected(model, [DROP(step, total - 1) for step in range(every, total, every)])
    rows = fit(
        model,
        data,
        optimizer,
        epochs=epochs,
        batch_size=settings.batch,
        seed=seed,
        evolution=evolution,
        rate_schedule="step",
        after_step=lambda _: tried.update() if tried else None,
    )
    if tried:
        tried.update()
    return {
        "test": rows[-1]["test"],
        "validation": rows[-1]["validation"],
        "explored": tried.total() if tried else density,
        "expected": expected if tried else density,
        "curve": [row["test"] for row in rows],
    }


def _expected(model: torch.nn.Module, fractions: list[float]) -> float:
    """R_s by the formula, all layers together."""
    topologies = [layer.topology for layer in sparse_layers(model).values()]
    sizes = [topology.shape.numel() for topology in topologies]
    rates = [expected_exploration(topology.density, fractions) for topology in topologies]
    return sum(size * rate for size, rate in zip(sizes, rates, strict=True)) / sum(sizes)


def parts(settings: Settings, seeds: range, done: Outcomes) -> Iterator[Part]:
    """Dense and static twins, both methods at every interval, and the best one trained longer."""
    yield from tuned(accuracy, settings.dense_rates, seeds, done, **_arm("dense", 1.0))
    for density in settings.densities:
        arms = [_arm("static", density)]
        for method in ("set-itop", "rigl-itop"):
            arms += [_arm(method, density, every) for every in settings.intervals]
        yield from _all(arms, settings, seeds)
        evolved = done.of(accuracy, method="set-itop", density=density, times=1)
        if len(evolved) == len(settings.intervals) * len(seeds):
            best = _best(done, "set-itop", density)
            yield from _all([_arm("set-itop", density, best, settings.longer)], settings, seeds)


def _arm(method: str, density: float, every: int = 0, times: int = 1) -> dict[str, Any]:
    return {"method": method, "density": density, "every": every, "times": times}


def _all(arms: list[dict[str, Any]], settings: Settings, seeds: range) -> Iterator[Part]:
    for arm in arms:
        yield from (part(accuracy, **arm, rate=settings.rate, seed=seed) for seed in seeds)


def _best(done: Outcomes, method: str, density: float) -> int:
    """The interval that validation data prefer."""
    own = done.of(accuracy, method=method, density=density, times=1)
    return int(own.best("validation", "every"))


def claims(settings: Settings, done: Outcomes) -> list[Claim]:
    """The four of the paper, and the distance from the dense twin."""
    done = done.final
    low, high = min(settings.densities), max(settings.densities)
    evolved = done.of(accuracy, method="set-itop")
    off = max(abs(o.figures["explored"] - o.figures["expected"]) for o in evolved)
    static, dense = done.of(method="static", density=low), done.of(method="dense")
    best = _best(done, "set-itop", low)
    set_, rigl = (
        done.of(method=method, density=low, every=_best(done, method, low), times=1)
        for method in ("set-itop", "rigl-itop")
    )
    longer = done.of(method="set-itop", density=low, times=settings.longer)
    gain, gain_rigl, gain_longer = (
        100 * (a.mean("test") - b.mean("test"))
        for a, b in ((set_, static), (rigl, static), (longer, set_))
    )
    slow = [every for every in settings.intervals if every >= best]
    marks = [done.of(method="set-itop", density=low, every=every, times=1) for every in slow]
    correlation = (
        float(spearmanr([m.mean("explored") for m in marks], [m.mean("test") for m in marks])[0])
        if len(marks) > 1
        else float("nan")
    )
    close = done.of(method="set-itop", density=high, every=_best(done, "set-itop", high), times=1)
    gap = 100 * (dense.mean("test") - close.mean("test"))
    return [
        Claim(
            "The share of positions ever active, R_s, is that of the formula, within 0.02",
            f"largest difference {off:.4f} over {len(evolved)} trainings",
            off <= 0.02,
            BOUND,
        ),
        Claim(
            f"At density {low:g} SET-ITOP at its best interval is at least 0.5 points over static",
            f"{gain:+.2f} points (every {best} steps, chosen by validation)",
            gain >= 0.5,
            BOUND,
        ),
        Claim(
            f"At density {low:g} RigL-ITOP is not below static",
            f"{gain_rigl:+.2f} points",
            gain_rigl >= 0,
            BOUND,
        ),
        Claim(
            f"Training {settings.longer} times as long explores more and is more accurate",
            f"R_s {set_.mean('explored'):.3f} to {longer.mean('explored'):.3f}, accuracy "
            f"{gain_longer:+.2f} points (density {low:g})",
            longer.mean("explored") > set_.mean("explored") and gain_longer > 0,
            PAPER,
        ),
        Claim(
            "Accuracy rises with R_s over intervals from the best one on",
            f"rank correlation {correlation:+.2f} over {len(marks)} intervals"
            if len(marks) > 1
            else "the best interval is the longest: nothing to correlate",
            correlation > 0 if len(marks) > 1 else None,
            PAPER,
        ),
        Claim(
            f"At density {high:g} SET-ITOP is within 1 point of dense",
            f"{gap:.2f} points below",
            gap <= 1,
            BOUND,
        ),
    ]


def tables(settings: Settings, done: Outcomes) -> list[Table]:
    """Every arm in a row."""
    rows = []
    for (method, density, every, times), arm in _arms(done.final).items():
        own = [method, f"{density:g}", every or "never", f"{times}x"]
        explored = [f"{arm.mean('explored'):.3f}", f"{arm.mean('expected'):.3f}"]
        rows.append([*own, arm.text("test", percent=True), *explored])
    heads = ["network", "density", "update every", "length", "test accuracy, %", "R_s", "formula"]
    note = "The formula is that of random growth; growth by gradient explores less."
    return [Table(f"{settings.data}, last epoch", heads, rows, note)]


def _arms(done: Outcomes) -> dict[tuple[Any, ...], Outcomes]:
    names = ("method", "density", "every", "times")
    keys = dict.fromkeys(tuple(o.arguments[name] for name in names) for o in done)
    return {key: done.of(**dict(zip(names, key, strict=True))) for key in keys}


def draw(settings: Settings, done: Outcomes) -> dict[str, Figure]:
    """Accuracy against the share of positions ever active, one picture a density."""
    drawn = {}
    for density in settings.densities:
        marks = {
            f"{method}{f', every {every}' if every else ''}{f', {times}x' if times > 1 else ''}": [
                (o.figures["explored"], o.figures["test"]) for o in arm
            ]
            for (method, own, every, times), arm in _arms(done.final).items()
            if own == density
        }
        shows = f"Accuracy and positions ever active, density {density:g}"
        drawn[shows] = pictures.trade_off(
            marks,
            title=shows,
            subtitle=f"test accuracy, {settings.data}",
            x_label="share of positions ever active, R_s",
            percent=True,
        )
    return drawn


_SMALL = Settings(
    data="fashion-mnist",
    limit_train=12_000,
    hidden=(512, 512),
    densities=(0.05, 0.02),
    intervals=(10, 50, 150, 400),
    epochs=20,
)
_QUICK = Settings(
    data="digits",
    limit_train=None,
    hidden=(128, 128),
    densities=(0.1, 0.05),
    intervals=(2, 10, 40),
    epochs=10,
)

RECIPE = Recipe(
    scales={
        "quick": Scale(_QUICK, seeds=1),
        "small": Scale(_SMALL, seeds=3, data=("fashion-mnist",)),
        "paper": Scale(_SMALL, missing="needs VGG and ResNet trained for 250 epochs on CIFAR-10"),
    },
    parts=parts,
    claims=claims,
    tables=tables,
    pictures=draw,
)
