"""Fantastic weights: which connections to drop in dynamic sparse training, a controlled study.

A. I. Nowak, B. Grooten, D. C. Mocanu, J. Tabor, "Fantastic weights and how to find them: where to
prune in dynamic sparse training", 2023.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch.nn.functional import cross_entropy

from regrow import Evolution
from regrow.data import Dataset
from regrow.measure import drop_similarity, pictures
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
from regrow.training.passes import data_order

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# The names of the study, and those of the catalogue.
RULES = {
    "magnitude": "magnitude",
    "SET": "sign-half",
    "MEST": "mest",
    "SNIP": "snip",
    "RSensitivity": "reciprocal-sensitivity",
    "random": "random",
}
INFORMED = [name for name in RULES if name != "random"]
GROWTH = ("random", "gradient")
FRACTIONS = (0.5, 0.25, 0.125, 0.0625)  # dropped in the first update, for the similarities
MOMENTS = 5  # of a training at which similarities are taken
PAPER = "A. I. Nowak et al., 2023"
BOUND = "our bound"


@dataclass(frozen=True)
class Bed:
    """A data set, and how long to train on it."""

    data: str
    epochs: int
    limit_train: int | None = None
    limit_test: int | None = None


@dataclass(frozen=True)
class Settings:
    """Sizes and lengths of the experiment."""

    beds: tuple[Bed, ...]
    hidden: tuple[int, ...]
    densities: tuple[float, ...]
    interval: float  # in epochs
    intervals: tuple[float, ...]
    density_of_intervals: float
    densities_of_likeness: tuple[float, ...] = (0.2, 1.0)
    batch: int = 128
    rates: tuple[float, ...] = (0.1, 0.03, 0.01)

    def bed(self, data: str) -> Bed:
        """The bed of a data set."""
        return next(bed for bed in self.beds if bed.data == data)


@dataclass
class Trial:
    """One network with all that trains it."""

    data: Dataset
    bed: Bed
    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    steps: int


def _trial(context: Context, data: str, density: float | None, rate: float, seed: int) -> Trial:
    settings: Settings = context.settings
    bed = settings.bed(data)
    loaded = context.load(data, limit_train=bed.limit_train, limit_test=bed.limit_test)
    sizes = [loaded.n_features, *settings.hidden, loaded.n_classes or 1]
    model = mlp(sizes, seed=seed, density=density, full="sparse" if density == 1 else "dense")
    optimizer = torch.optim.SGD(
        model.parameters(), lr=rate, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    steps = math.ceil(len(loaded.x_train) / settings.batch)
    return Trial(loaded, bed, model, optimizer, steps)


def accuracy(
    context: Context,
    data: str,
    density: float,
    drop: str,
    grow: str,
    interval: float,
    rate: float,
    seed: int,
) -> Figures:
    """Train one network; its accuracy is that of the epoch with the best validation score."""
    trial = _trial(context, data, None if drop == "dense" else density, rate, seed)
    evolution = None
    if drop in RULES:
        evolution = Evolution(
            trial.model,
            trial.optimizer,
            "set-itop",
            drop=RULES[drop],
            grow=grow,
            every=max(1, round(interval * trial.steps)),
            until=trial.bed.epochs * trial.steps,
            seed=seed,
        )
    rows = fit(
        trial.model,
        trial.data,
        trial.optimizer,
        epochs=trial.bed.epochs,
        batch_size=context.settings.batch,
        seed=seed,
        evolution=evolution,
        rate_schedule="step",
    )
    finite = [row for row in rows if math.isfinite(row["validation_loss"])] or rows
    best = max(finite, key=lambda row: (row["validation"], -row["validation_loss"]))
    return {"test": best["test"], "validation": best["validation"], "last": rows[-1]["test"]}


def likeness(context: Context, data: str, density: float, rate: float, seed: int) -> Figures:
    """What the rules would drop of one network that magnitude trains: Jaccard indices of pairs."""
    trial = _trial(context, data, density, rate, seed)
    total = trial.bed.epochs * trial.steps
    every = max(1, round(context.settings.interval * trial.steps))
    evolution = Evolution(
        trial.model, trial.optimizer, "set-itop", every=every, until=total, seed=seed
    )
    rows = data_order(len(trial.data.x_train), seed, 0)[: context.settings.batch]

    def backward() -> None:
        cross_entropy(trial.model(trial.data.x_train[rows]), trial.data.y_train[rows]).backward()

    def alike(fraction: float | None = None) -> list[list[float]]:
        found = drop_similarity(evolution, backward, rules=RULES.values(), fraction=fraction)
        matrix: list[list[float]] = found.mean.tolist()
        return matrix

    first: dict[str, list[list[float]]] = {}
    moments: dict[str, list[list[float]]] = {}

    def look(step: int) -> None:
        if step == every:
            first.update({f"{fraction:g}": alike(fraction) for fraction in FRACTIONS})
        if step in {round(total * k / MOMENTS) for k in range(1, MOMENTS)} | {total - 1}:
            moments[str(step)] = alike()

    fit(
        trial.model,
        trial.data,
        trial.optimizer,
        epochs=trial.bed.epochs,
        batch_size=context.settings.batch,
        seed=seed,
        evolution=evolution,
        rate_schedule="step",
        after_step=look,
    )
    return {"first": first, "moments": moments}


def parts(settings: Settings, seeds: range, done: Outcomes) -> Iterator[Part]:
    """Dense and static twins; then all rules at the rate of the static twin; then what is alike."""
    for bed in settings.beds:
        dense = _arm(bed.data, 1.0, "dense")
        yield from tuned(accuracy, settings.rates, seeds, done, **dense)
        for density in settings.densities:
            static = _arm(bed.data, density, "static")
            yield from tuned(accuracy, settings.rates, seeds, done, **static)
            if (rate := _rate(done, static)) is None:
                continue
            arms = [
                _arm(bed.data, density, drop, grow, settings.interval)
                for drop, grow in product(RULES, GROWTH)
            ]
            if density == settings.density_of_intervals:
                others = (i for i in settings.intervals if i != settings.interval)
                arms += [
                    _arm(bed.data, density, "magnitude", grow, interval)
                    for interval, grow in product(others, GROWTH)
                ]
            for arm in arms:
                yield from (part(accuracy, **arm, rate=rate, seed=seed) for seed in seeds)
        for density in settings.densities_of_likeness:
            twin = dense if density == 1 else _arm(bed.data, density, "static")
            if (rate := _rate(done, twin)) is not None:
                for seed in seeds:
                    yield part(likeness, data=bed.data, density=density, rate=rate, seed=seed)


def _arm(
    data: str, density: float, drop: str, grow: str = "none", interval: float = 0.0
) -> dict[str, Any]:
    return {"data": data, "density": density, "drop": drop, "grow": grow, "interval": interval}


def _rate(done: Outcomes, arm: dict[str, Any]) -> float | None:
    """The rate that validation data have chosen, once they have."""
    own = done.final.of(accuracy, **arm)
    return float(own.found[0].arguments["rate"]) if len(own) else None


def _score(
    settings: Settings, done: Outcomes, data: str, density: float, drop: str, grow: str
) -> float:
    """Mean accuracy of a cell of the grid, in points."""
    cell = _arm(data, density, drop, grow, settings.interval)
    return 100 * done.of(accuracy, **cell).mean("test")


def _cells(settings: Settings) -> list[tuple[str, str]]:
    return list(product((bed.data for bed in settings.beds), GROWTH))


def _ranks(settings: Settings, done: Outcomes, density: float) -> dict[str, float]:
    """Mean rank of every rule over data sets and growth; 1 is the best."""
    ranks = [
        rankdata([-_score(settings, done, data, density, drop, grow) for drop in RULES])
        for data, grow in _cells(settings)
    ]
    return dict(zip(RULES, np.mean(ranks, axis=0).tolist(), strict=True))


def _means(settings: Settings, done: Outcomes, density: float) -> dict[str, float]:
    """Mean accuracy of every rule over data sets and growth, in points."""
    return {
        drop: float(
            np.mean([_score(settings, done, d, density, drop, g) for d, g in _cells(settings)])
        )
        for drop in RULES
    }


def claims(settings: Settings, done: Outcomes) -> list[Claim]:
    """Alike where there is room, magnitude best where there is none, and what is dropped."""
    done = done.final
    low = min(settings.densities)
    spreads = {
        (data, grow, density): np.ptp(
            [_score(settings, done, data, density, drop, grow) for drop in INFORMED]
        )
        for data, grow in _cells(settings)
        for density in settings.densities
        if density >= 0.2
    }
    widest = max(spreads, key=lambda cell: spreads[cell])
    ranks, means = _ranks(settings, done, low), _means(settings, done, low)
    best = max(means.values())
    statics = {
        bed.data: 100 * done.of(accuracy, **_arm(bed.data, low, "static")).mean("test")
        for bed in settings.beds
    }
    over = {drop: means[drop] - float(np.mean(list(statics.values()))) for drop in INFORMED}
    ahead = sum(
        _score(settings, done, data, low, drop, grow) > statics[data]
        for drop in INFORMED
        for data, grow in _cells(settings)
    )
    alike = {bed.data: _over_training(settings, done, bed.data) for bed in settings.beds}
    pairs = {
        data: {name: matrix[0, list(RULES).index(name)] for name in ("SET", "MEST", "random")}
        for data, matrix in alike.items()
    }
    return [
        Claim(
            "At densities from 0.2 on, the five informed rules are within 1.5 points of each other",
            f"widest {spreads[widest]:.2f} points ({widest[0]}, {widest[1]} growth, density "
            f"{widest[2]:g}), mean {np.mean(list(spreads.values())):.2f}; wider than 1.5 in "
            f"{sum(spread > 1.5 for spread in spreads.values())} of {len(spreads)} cells",
            bool(max(spreads.values()) <= 1.5),
            BOUND,
        ),
        Claim(
            f"At density {low:g} magnitude has the best mean rank, or is within 0.5 points of the "
            f"most accurate rule",
            "mean ranks "
            + ", ".join(f"{name} {rank:.2f}" for name, rank in ranks.items())
            + f"; magnitude {best - means['magnitude']:.2f} points below the best",
            ranks["magnitude"] == min(ranks.values()) or best - means["magnitude"] <= 0.5,
            BOUND,
        ),
        Claim(
            f"At density {low:g} every informed rule is above the static network",
            ", ".join(f"{name} {gain:+.2f}" for name, gain in over.items())
            + f" points on average; above it in {ahead} of {len(INFORMED) * len(_cells(settings))} "
            f"cells",
            all(gain > 0 for gain in over.values()),
            PAPER,
        ),
        Claim(
            "What SET and MEST drop is like what magnitude drops: Jaccard index at least 0.1 above "
            "that of magnitude and random",
            "; ".join(
                f"{data}: " + ", ".join(f"{name} {value:.2f}" for name, value in own.items())
                for data, own in pairs.items()
            ),
            all(min(own["SET"], own["MEST"]) >= own["random"] + 0.1 for own in pairs.values()),
            BOUND,
        ),
    ]


def _over_training(settings: Settings, done: Outcomes, data: str) -> NDArray[np.float64]:
    """Jaccard indices at the lowest density that was looked at, mean over moments and seeds."""
    own = done.of(likeness, data=data, density=min(settings.densities_of_likeness))
    moments = [matrix for o in own for matrix in o.figures["moments"].values()]
    mean: NDArray[np.float64] = np.mean(moments, axis=0)
    return mean


def tables(settings: Settings, done: Outcomes) -> list[Table]:
    """The grid, mean ranks, intervals, and the first update."""
    done = done.final
    densities = [f"{density:g}" for density in settings.densities]
    found = []
    for bed in settings.beds:
        rows: list[list[Any]] = []
        arms = [("static", "none", 0.0)]
        arms += [(drop, grow, settings.interval) for drop, grow in product(RULES, GROWTH)]
        for drop, grow, interval in arms:
            cells = [
                done.of(accuracy, **_arm(bed.data, d, drop, grow, interval))
                for d in settings.densities
            ]
            rows.append([drop, grow, *(cell.text("test", percent=True) for cell in cells)])
        dense = done.of(accuracy, **_arm(bed.data, 1.0, "dense"))
        note = f"Test accuracy in percent; dense {dense.text('test', percent=True)}."
        found.append(Table(f"{bed.data}, by density", ["drop", "grow", *densities], rows, note))
    ranks = [_ranks(settings, done, density) for density in settings.densities]
    found.append(
        Table(
            "Mean rank over data sets and growth, by density",
            ["drop", *densities],
            [[drop, *(f"{own[drop]:.2f}" for own in ranks)] for drop in RULES],
            f"1 is the best of {len(RULES)}.",
        )
    )
    rows = []
    for interval in settings.intervals:
        own = [
            done.of(
                accuracy, **_arm(data, settings.density_of_intervals, "magnitude", grow, interval)
            )
            for data, grow in _cells(settings)
        ]
        rows.append([f"{interval:g}", *(cell.text("test", percent=True) for cell in own)])
    heads = ["epochs between updates", *(f"{data}, {grow}" for data, grow in _cells(settings))]
    title = f"How often to update (magnitude, density {settings.density_of_intervals:g})"
    found.append(Table(title, heads, rows, "Test accuracy in percent."))
    rows = []
    for bed, density in product(settings.beds, settings.densities_of_likeness):
        for fraction in FRACTIONS:
            first = [
                o.figures["first"][f"{fraction:g}"]
                for o in done.of(likeness, data=bed.data, density=density)
            ]
            shared = np.mean(first, axis=0)[0, 1:]
            own_row = [bed.data, f"{density:g}", f"{fraction:g}"]
            rows.append([*own_row, *(f"{value:.2f}" for value in shared)])
    found.append(
        Table(
            "The first update: what each rule shares with magnitude (Jaccard index)",
            ["data", "density", "dropped", *list(RULES)[1:]],
            rows,
        )
    )
    return found


def draw(settings: Settings, done: Outcomes) -> dict[str, Figure]:
    """What rules share, and their mean ranks."""
    done, drawn = done.final, {}
    low = min(settings.densities_of_likeness)
    for bed in settings.beds:
        shows = f"What drop rules share ({bed.data}, density {low:g})"
        drawn[shows] = pictures.heat_map(
            _over_training(settings, done, bed.data),
            list(RULES),
            title="What drop rules share",
            subtitle=f"Jaccard index, {bed.data}, density {low:g}",
            top=1,
        )
    ranks = {density: _ranks(settings, done, density) for density in settings.densities}
    shows = "Mean rank of drop rules"
    drawn[shows] = pictures.curves(
        {drop: [(list(ranks), [own[drop] for own in ranks.values()])] for drop in RULES},
        title=shows,
        subtitle="over data sets and growth, 1 is the best",
        x_label="density",
    )
    return drawn


_SMALL = Settings(
    beds=(Bed("digits", 30), Bed("fashion-mnist", 20, 10_000, 5_000)),
    hidden=(256, 128),
    densities=(0.05, 0.1, 0.2, 0.5),
    interval=1.0,
    intervals=(0.125, 0.25, 0.5, 1.0),
    density_of_intervals=0.1,
)
_QUICK = Settings(
    beds=(Bed("digits", 15),),
    hidden=(256, 128),
    densities=(0.05, 0.2),
    interval=1.0,
    intervals=(0.5, 1.0),
    density_of_intervals=0.05,
    rates=(0.1,),
)
_PAPER = Settings(
    beds=(Bed("cifar10", 100),),
    hidden=(1024, 512),
    densities=(0.05, 0.06, 0.07, 0.08, 0.09, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5),
    interval=800 / 352,
    intervals=tuple(steps / 352 for steps in (25, 50, 100, 200, 400, 800, 1600, 3200, 6400)),
    density_of_intervals=0.1,
    rates=(0.01,),
)

RECIPE = Recipe(
    scales={
        "quick": Scale(_QUICK, seeds=1),
        "small": Scale(_SMALL, seeds=3, data=("fashion-mnist",)),
        "paper": Scale(_PAPER, seeds=5, data=("cifar10",)),
    },
    parts=parts,
    claims=claims,
    tables=tables,
    pictures=draw,
)
