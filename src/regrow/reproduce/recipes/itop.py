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

DROP = Cosine(0.5, 0.005)
METHODS = ("set-itop", "rigl-itop")
UNFIRED = "set-itop-unfired"
COLOURS = {"static": "orange", "set-itop": "blue", "rigl-itop": "purple", UNFIRED: "green"}
PAPER = "S. Liu et al., 2021"
BOUND = "our bound"


@dataclass(frozen=True)
class Settings:
    """Sizes and lengths of the experiment; rates are tuned at the second interval."""

    data: str
    limit_train: int | None
    hidden: tuple[int, ...]
    densities: tuple[float, ...]
    intervals: tuple[int, ...]
    epochs: int
    longer: int = 3
    batch: int = 128
    rates: tuple[float, ...] = (0.3, 0.1, 0.03, 0.01)


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
    evolution, expected = None, density
    tried = Exploration(model)
    if every:
        evolution = Evolution(
            model, optimizer, method=method, seed=seed, every=every, until=total - 1
        )
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
        after_step=lambda _: tried.update() if every else None,
    )
    tried.update()
    return {
        "test": rows[-1]["test"],
        "validation": rows[-1]["validation"],
        "explored": 1.0 if method == "dense" else tried.total(),
        "expected": expected,
        "curve": [row["test"] for row in rows],
    }


def _expected(model: torch.nn.Module, fractions: list[float]) -> float:
    """R_s by the formula, all layers together."""
    topologies = [layer.topology for layer in sparse_layers(model).values()]
    sizes = [topology.shape.numel() for topology in topologies]
    rates = [expected_exploration(topology.density, fractions) for topology in topologies]
    return sum(size * rate for size, rate in zip(sizes, rates, strict=True)) / sum(sizes)


def parts(settings: Settings, seeds: range, done: Outcomes) -> Iterator[Part]:
    """Dense and static twins, both methods at every interval, and the best one trained longer.

    A method's learning rate is chosen at one interval and holds for all of its arms.
    """
    yield from tuned(accuracy, settings.rates, seeds, done, **_arm("dense", 1.0))
    longer = settings.longer
    for density in settings.densities:
        tuned_arms = [_arm("static", density)]
        tuned_arms += [_arm(method, density, settings.intervals[1]) for method in METHODS]
        for arm in tuned_arms:
            yield from tuned(accuracy, settings.rates, seeds, done, **arm)
        if len(done.of(density=density, seed=TRIAL)) < len(tuned_arms) * len(settings.rates):
            continue
        rates = {m: _rate(done, m, density) for m in ("static", *METHODS)}
        arms = [_arm(method, density, every) for method in METHODS for every in settings.intervals]
        yield from _all([_arm("static", density, times=longer)], rates["static"], seeds)
        for arm in arms:
            yield from _all([arm], rates[arm["method"]], seeds)
        evolved = done.final.of(accuracy, method="set-itop", density=density, times=1)
        if len(evolved) == len(settings.intervals) * len(seeds):
            best = _best(done, "set-itop", density)
            more = [_arm("set-itop", density, best, longer), _arm(UNFIRED, density, best)]
            yield from _all(more, rates["set-itop"], seeds)


def _arm(method: str, density: float, every: int = 0, times: int = 1) -> dict[str, Any]:
    return {"method": method, "density": density, "every": every, "times": times}


def _all(arms: list[dict[str, Any]], rate: float, seeds: range) -> Iterator[Part]:
    for arm in arms:
        yield from (part(accuracy, **arm, rate=rate, seed=seed) for seed in seeds)


def _rate(done: Outcomes, method: str, density: float) -> float:
    """The learning rate that validation data prefer."""
    return float(done.of(method=method, density=density, seed=TRIAL).best("validation", "rate"))


def _best(done: Outcomes, method: str, density: float) -> int:
    """The interval that validation data prefer."""
    own = done.final.of(accuracy, method=method, density=density, times=1)
    return int(own.best("validation", "every"))


def claims(settings: Settings, done: Outcomes) -> list[Claim]:
    """The four of the paper, and the distance from the dense twin."""
    done = done.final
    low, high = min(settings.densities), max(settings.densities)
    evolved = done.of(accuracy, method="set-itop")
    off = max(abs(o.figures["explored"] - o.figures["expected"]) for o in evolved)
    static, patient = (
        done.of(method="static", density=low, times=times) for times in (1, settings.longer)
    )
    dense = done.of(method="dense")
    best = _best(done, "set-itop", low)
    set_, rigl = (
        done.of(method=method, density=low, every=_best(done, method, low), times=1)
        for method in ("set-itop", "rigl-itop")
    )
    longer = done.of(method="set-itop", density=low, times=settings.longer)
    gain, gain_rigl, gain_longer, gain_patient = (
        a.ahead(b) for a, b in ((set_, static), (rigl, static), (longer, set_), (patient, static))
    )
    slow = [every for every in settings.intervals if every >= best]
    marks = [done.of(method="set-itop", density=low, every=every, times=1) for every in slow]
    correlation = (
        float(spearmanr([m.mean("explored") for m in marks], [m.mean("test") for m in marks])[0])
        if len(marks) > 1
        else float("nan")
    )
    close = done.of(method="set-itop", density=high, every=_best(done, "set-itop", high), times=1)
    gap = dense.ahead(close)
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
            f"{gain_longer:+.2f} points (density {low:g}; static gains {gain_patient:+.2f})",
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
        (rate,) = arm.by("rate")
        foreseen = f"{arm.mean('expected'):.3f}" if every else ""
        explored = [f"{arm.mean('explored'):.3f}", foreseen]
        rows.append([*own, arm.text("test", percent=True), f"{rate:g}", *explored])
    heads = ["network", "density", "update every", "length", "test accuracy, %", "rate"]
    heads += ["R_s", "formula"]
    note = (
        "R_s is over the sparse layers. The formula is that of random growth; growth by gradient "
        "explores less, growth where nothing ever was explores more."
    )
    return [Table(f"{settings.data}, last epoch", heads, rows, note)]


def _arms(done: Outcomes) -> dict[tuple[Any, ...], Outcomes]:
    names = ("method", "density", "every", "times")
    order = ["dense", "static", *METHODS, UNFIRED]
    keys = sorted(
        {tuple(o.arguments[name] for name in names) for o in done},
        key=lambda key: (-key[1], order.index(key[0]), key[3], key[2]),
    )
    return {key: done.of(**dict(zip(names, key, strict=True))) for key in keys}


def draw(settings: Settings, done: Outcomes) -> dict[str, Figure]:
    """Accuracy against the share of positions ever active, one picture a density."""
    drawn = {}
    for density in settings.densities:
        marks, colours = {}, {}
        for (method, own, every, times), arm in _arms(done.final).items():
            if own == density:
                often = f", every {every}" if every else ""
                name = f"{method}{often}{f', {times}x' if times > 1 else ''}"
                marks[name] = [(o.figures["explored"], o.figures["test"]) for o in arm]
                colours[name] = COLOURS[method]
        shows = f"Accuracy and positions ever active, density {density:g}"
        drawn[shows] = pictures.trade_off(
            marks,
            title=shows,
            subtitle=f"test accuracy, {settings.data}",
            x_label="share ever active, R_s",
            colours=colours,
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
    rates=(0.1, 0.03),
)
_PAPER = Settings(
    data="cifar10",
    limit_train=None,
    hidden=(1024, 512),
    densities=(0.05, 0.02),
    intervals=(100, 500, 1500, 4000),
    epochs=250,
    longer=5,
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
