"""QuickSelection: an autoencoder trained with SET tells by the strength of its inputs what matters.

Z. Atashgahi, G. Sokar, T. van der Lee, E. Mocanu, D. C. Mocanu, R. Veldhuis, M. Pechenizkiy,
"Quick and robust feature selection: the strength of energy-efficient sparse training for
autoencoders", 2022.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from regrow.measure import pictures
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
from regrow.reproduce.selectors import (
    BLIND,
    SETS,
    compare,
    compared,
    comparison_pictures,
    comparison_tables,
    score,
    split_set,
)
from regrow.selection import QuickSelection
from regrow.selection.baselines import BASELINES
from regrow.selection.evaluation import accuracy
from regrow.selection.planted import planted
from regrow.selection.selector import ranks
from regrow.training.machine import PeakMemory

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BOUND = "our bound"
RELEVANT = 20
PIXELS = 16


@dataclass(frozen=True)
class Settings:
    """Sizes and lengths of the experiment."""

    rows: int = 2600
    features: int = 500
    hidden: int = 1000
    epsilon: float = 13
    moments: tuple[int, ...] = (5, 20, 40, 60)
    wide: tuple[int, int] = (150, 20_000)
    wide_epochs: int = 5
    digits_epochs: int = 100
    real: tuple[str, ...] = ("MNIST", "Isolet", "COIL20")
    real_epochs: int = 100
    rankings: tuple[str, ...] = ("all features", *BLIND)


def madelon(context: Context, epochs: int, seed: int) -> Figures:
    """Find the features planted in a table, all of one spread, after some epochs."""
    settings: Settings = context.settings
    data = planted(settings.rows, settings.features, seed=seed)
    cut = 4 * settings.rows // 5
    train = data.table[:cut], data.labels[:cut]
    test = data.table[cut:], data.labels[cut:]
    selector = QuickSelection(
        RELEVANT,
        hidden=settings.hidden,
        epsilon=settings.epsilon,
        epochs=epochs,
        random_state=seed,
    ).fit(train[0])
    # Not the draw with which the features were shuffled.
    random = np.random.default_rng([seed, 1]).permutation(settings.features)[:RELEVANT]
    return {
        "strength": data.recall(selector.ranking_, RELEVANT),
        "degree": data.recall(ranks(selector.degrees_.astype(np.float64)), RELEVANT),
        **{
            name: data.recall(ranks(BASELINES[name](*train, seed)), RELEVANT)
            for name in ("variance", "laplacian")
        },
        "svm": accuracy(train, test, selector.get_support()),
        "svm_all": accuracy(train, test, np.arange(settings.features)),
        "svm_random": accuracy(train, test, random),
    }


def digits(context: Context, scale: Any, seed: int) -> Figures:
    """Sixteen pixels of handwritten digits against sixteen random ones."""
    settings: Settings = context.settings
    train, test = split_set(context, "digits", seed)
    selector = QuickSelection(
        PIXELS,
        hidden=200,
        epsilon=5,
        epochs=settings.digits_epochs,
        scale=scale,
        random_state=seed,
    ).fit(train[0])
    random = np.random.default_rng(seed).permutation(train[0].shape[1])[:PIXELS]
    return {
        "svm": accuracy(train, test, selector.get_support()),
        "svm_random": accuracy(train, test, random),
    }


def wide(context: Context) -> Figures:
    """Many features and few rows: what the network holds, and how long an epoch takes."""
    settings: Settings = context.settings
    rows, features = settings.wide
    table = np.random.default_rng(0).normal(size=(rows, features)).astype(np.float32)
    memory = PeakMemory()
    memory.begin()
    begin = time.process_time()
    selector = QuickSelection(
        50, hidden=settings.hidden, epsilon=settings.epsilon, epochs=settings.wide_epochs
    ).fit(table)
    seconds = time.process_time() - begin
    weights = sum(p.numel() for n, p in selector._network_.named_parameters() if "values" in n)
    return {
        "connections": weights,
        "dense": 2 * features * settings.hidden,
        "seconds": seconds / settings.wide_epochs,
        "peak": memory.read(),
    }


def parts(settings: Settings, seeds: range, done: Outcomes) -> Iterator[Part]:
    """The planted table, the digits, the wide table, and the real sets."""
    for epochs in settings.moments:
        yield from (part(madelon, epochs=epochs, seed=seed) for seed in seeds)
    for scale in ("standard", "minmax"):
        yield from (part(digits, scale=scale, seed=seed) for seed in seeds)
    yield part(wide, alone=True)
    own = {"epochs": settings.real_epochs}
    yield from compared(settings.real, settings.rankings, seeds, "quickselection", **own)


def claims(settings: Settings, done: Outcomes) -> list[Claim]:
    """What must come out of the planted table, the digits, the wide table and the real sets."""
    moments = done.of(madelon).by("epochs")
    last = moments[settings.moments[-1]]
    found = [moment.mean("strength") * RELEVANT for moment in moments.values()]
    least = min(last.values("strength")) * RELEVANT
    drop = last.mean("svm_all") - last.mean("svm")
    degree = last.mean("degree") * RELEVANT
    pixels = {scale: 100 * own.mean("svm") for scale, own in done.of(digits).by("scale").items()}
    random = 100 * done.of(digits).mean("svm_random")
    size = done.of(wide).found[0].figures
    placed = 2 * round(settings.epsilon * (settings.wide[1] + settings.hidden))
    claims = [
        Claim(
            f"At least 15 of the {RELEVANT} planted features are among the first {RELEVANT} after "
            f"{settings.moments[-1]} epochs, whatever the seed",
            f"{found[-1]:.1f} on average, {least:.0f} at worst",
            least >= 15,
            BOUND,
        ),
        Claim(
            f"With these {RELEVANT} features an SVM is at most 1 point worse than with all",
            f"{100 * last.mean('svm'):.2f} %, with all {100 * last.mean('svm_all'):.2f} %, with "
            f"random ones {100 * last.mean('svm_random'):.2f} %",
            drop <= 0.01,
            BOUND,
        ),
        Claim(
            "More are found the longer it trains",
            ", ".join(f"{n:.1f} after {e}" for e, n in zip(moments, found, strict=True)),
            all(a <= b for a, b in pairwise(found)) and found[-1] > found[0],
            BOUND,
        ),
        Claim(
            "Ranking by strength finds at least as many as ranking by degree",
            f"{found[-1]:.1f} against {degree:.1f}",
            found[-1] >= degree,
            BOUND,
        ),
        Claim(
            f"With {PIXELS} pixels of the digits an SVM reaches 92 %",
            f"{pixels['standard']:.2f} % (pixels standardised, as published; in [0, 1] "
            f"{pixels['minmax']:.2f} %), with random pixels {random:.2f} %",
            pixels["standard"] >= 92,
            BOUND,
        ),
        Claim(
            "Memory is that of the connections, and an epoch takes seconds",
            f"{settings.wide[1]:,} features: {size['connections']:,} connections, dense "
            f"{size['dense']:,}; {size['seconds']:.2f} s of the processor an epoch of "
            f"{settings.wide[0]} rows",
            size["connections"] == placed and size["seconds"] < 10,
            BOUND,
        ),
    ]
    for name in settings.real:
        own, chance = (
            100 * float(np.mean(score(done.of(compare, data=name, by=by), "trees")))
            for by in ("quickselection", "chance")
        )
        claims.append(
            Claim(
                f"On {name} its features serve trees better than random ones",
                f"{own:.2f} % against {chance:.2f} %, mean over numbers of features",
                own > chance,
                "Z. Atashgahi et al., 2022",
            )
        )
    return claims


def tables(settings: Settings, done: Outcomes) -> list[Table]:
    """Recall over epochs, and one table a real set."""
    names = ("strength", "degree", "variance", "laplacian")
    rows = [
        [
            epochs,
            *(f"{RELEVANT * moment.mean(name):.1f}" for name in names),
            *(moment.text(svm, percent=True) for svm in ("svm", "svm_all", "svm_random")),
        ]
        for epochs, moment in done.of(madelon).by("epochs").items()
    ]
    heads = ["epochs", *names, f"SVM with the {RELEVANT}, %", "with all", "with random ones"]
    title = f"Planted features among the first {RELEVANT} of {settings.features}"
    note = f"{settings.rows:,} rows, every feature standardised. Variance can tell nothing here."
    return [Table(title, heads, rows, note), *comparison_tables(done)]


def draw(settings: Settings, done: Outcomes) -> dict[str, Figure]:
    """Recall over epochs, and accuracy against the number of features on the real sets."""
    moments = done.of(madelon).by("epochs")
    seeds = len(next(iter(moments.values())))
    lines = {
        label: [
            (list(moments), [moment.values(name)[seed] for moment in moments.values()])
            for seed in range(seeds)
        ]
        for label, name in (("strength", "strength"), ("degree", "degree"))
    }
    shows = f"Planted features among the first {RELEVANT}"
    drawn = {shows: pictures.curves(lines, title=shows, subtitle="share found", percent=True)}
    return {**drawn, **comparison_pictures(done, "trees")}


_QUICK = Settings(
    rows=600,
    features=100,
    hidden=200,
    epsilon=8,
    moments=(2, 10, 30),
    wide=(50, 5000),
    wide_epochs=1,
    digits_epochs=20,
    real=("digits",),
    real_epochs=10,
    rankings=("quickselection", "variance", "chance"),
)

RECIPE = Recipe(
    scales={
        "quick": Scale(_QUICK, seeds=1),
        "small": Scale(
            Settings(), data=tuple(SETS[name].source for name in ("MNIST", "Isolet", "COIL20"))
        ),
        "paper": Scale(Settings(), missing="needs HAR, SMK-CAN-187 and GLA-BRA-180"),
    },
    parts=parts,
    claims=claims,
    tables=tables,
    pictures=draw,
)
