"""NeuroFS: a sparse classifier lets its input neurons go, one by one, until the best are left.

Z. Atashgahi, X. Zhang, N. Kichler, S. Liu, L. Yin, M. Pechenizkiy, R. Veldhuis, D. C. Mocanu,
"Supervised feature selection with neuron evolution in sparse neural networks", 2023.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
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
    SETS,
    at,
    compare,
    compared,
    comparison_pictures,
    comparison_tables,
    split_set,
)
from regrow.selection import NeuroFS, QuickSelection
from regrow.selection.baselines import BASELINES
from regrow.selection.evaluation import accuracy, order
from regrow.selection.planted import planted
from regrow.selection.selector import ranks

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAPER = "Z. Atashgahi et al., 2023"
BOUND = "our bound"
RELEVANT = 20
PIXELS = 12
PUBLISHED = {"MNIST": 95.30, "Isolet": 92.62, "COIL20": 98.78}
"""Accuracy of an SVM with 50 features in percent, by the authors' table."""


@dataclass(frozen=True)
class Settings:
    """Sizes and lengths of the experiment."""

    rows: int = 2600
    features: int = 500
    hidden: int = 200
    epochs: int = 40
    digits_epochs: int = 60
    real: tuple[str, ...] = ("MNIST", "Isolet", "COIL20")
    real_hidden: int = 1000
    real_epochs: int = 100
    rankings: tuple[str, ...] = (
        *("all features", "neurofs", "quickselection"),
        *("f-test", "mutual information", "lasso", "elimination", "trees", "chance"),
    )


def _unevolved(features: int, seed: int, **options: Any) -> NeuroFS:
    """The same network and training, and nothing let go or rewired."""
    return NeuroFS(features, fraction_in=0, fraction_hidden=0, random_state=seed, **options)


def digits(context: Context, by: str, seed: int) -> Figures:
    """Twelve pixels of handwritten digits."""
    train, test = split_set(context, "digits", seed)
    settings: Settings = context.settings
    features = train[0].shape[1]
    options: dict[str, Any] = {"hidden": settings.hidden, "epochs": settings.digits_epochs}
    if by in BASELINES:
        scores = BASELINES[by](*train, seed)
    elif by == "quickselection":
        selector = QuickSelection(
            PIXELS, hidden=200, epsilon=5, epochs=100, scale="minmax", random_state=seed
        )
        scores = selector.fit(train[0]).feature_importances_
    elif by == "static":
        scores = _unevolved(features, seed, **options).fit(*train).feature_importances_
    else:
        neurofs = NeuroFS(PIXELS, growth=by, random_state=seed, **options).fit(*train)
        scores = neurofs.feature_importances_
        return {**_judged(train, test, scores, seed), "active": int(neurofs.active_.sum())}
    return _judged(train, test, scores, seed)


def _judged(train: Any, test: Any, scores: Any, seed: int) -> Figures:
    return {"svm": accuracy(train, test, order(scores, seed)[:PIXELS])}


def madelon(context: Context, by: str, seed: int) -> Figures:
    """Find the features planted in a table."""
    settings: Settings = context.settings
    data = planted(settings.rows, settings.features, seed=seed)
    cut = 4 * settings.rows // 5
    train = data.table[:cut], data.labels[:cut]
    test = data.table[cut:], data.labels[cut:]
    options: dict[str, Any] = {
        "hidden": settings.hidden,
        "epsilon": 5,
        "epochs": settings.epochs,
        "scale": "standard",
    }
    found: Figures = {}
    if by in BASELINES:
        ranking = ranks(BASELINES[by](*train, seed))
    else:
        selector = (
            _unevolved(settings.features, seed, **options)
            if by == "static"
            else NeuroFS(RELEVANT, growth=by, random_state=seed, **options)
        ).fit(*train)
        ranking = selector.ranking_
        found["active"] = int(selector.active_.sum())
    return {
        **found,
        "found": RELEVANT * data.recall(ranking, RELEVANT),
        "svm": accuracy(train, test, ranking <= RELEVANT),
    }


def parts(settings: Settings, seeds: range, done: Outcomes) -> Iterator[Part]:
    """Digits, planted features, and the real sets."""
    for seed in seeds:
        for by in ("gradient", "random", "static", "quickselection", "f-test", "chance"):
            yield part(digits, by=by, seed=seed)
        for by in ("gradient", "random", "static", "f-test", "trees", "chance"):
            yield part(madelon, by=by, seed=seed)
    own = {"hidden": settings.real_hidden, "epochs": settings.real_epochs}
    for name in settings.real:
        published = {"activation": "relu"} if name == "Isolet" else {}
        yield from compared([name], settings.rankings, seeds, "neurofs", **own, **published)


def claims(settings: Settings, done: Outcomes) -> list[Claim]:
    """The bounds on digits and planted features, and the authors' table on real sets."""
    own = done.of(digits, by="gradient")
    quick = 100 * done.of(digits, by="quickselection").mean("svm")
    score = 100 * own.mean("svm")
    wanted = {
        "digits": PIXELS + 0.2 * 64,
        "planted": RELEVANT + 0.2 * settings.features,
    }
    left = {"digits": own, "planted": done.of(madelon, by="gradient")}
    close = all(
        abs(active - wanted[name]) <= 3
        for name, arm in left.items()
        for active in arm.values("active")
    )
    evolved, static = (done.of(madelon, by=by) for by in ("gradient", "static"))
    more = [a > b for a, b in zip(evolved.values("found"), static.values("found"), strict=True)]
    found = [
        Claim(
            f"With {PIXELS} pixels of the digits an SVM reaches 93 %",
            f"{score:.2f} %, with all connections growing at random "
            f"{100 * done.of(digits, by='random').mean('svm'):.2f} %",
            score >= 93,
            BOUND,
        ),
        Claim(
            "and is at least 4 points better than with those of QuickSelection",
            f"{score - quick:+.2f} points (QuickSelection {quick:.2f} %)",
            score - quick >= 4,
            BOUND,
        ),
        Claim(
            "The inputs left at the end are the wanted ones and a fifth of all, within 3",
            "; ".join(
                f"{name}: {arm.mean('active'):.1f} for {wanted[name]:.1f}"
                for name, arm in left.items()
            ),
            close,
            BOUND,
        ),
        Claim(
            "It finds more planted features than the same network when nothing evolves, in every "
            "seed",
            f"{evolved.mean('found'):.1f} against {static.mean('found'):.1f} of {RELEVANT}, more "
            f"in {sum(more)} of {len(more)} seeds",
            all(more),
            BOUND,
        ),
    ]
    for name in settings.real:
        scores = at(done.of(compare, data=name, by="neurofs"), 1)
        reached = 100 * float(np.mean(scores))
        if name in PUBLISHED:
            found.append(
                Claim(
                    f"On {name} an SVM with {SETS[name].counts[1]} features is within 1.5 points "
                    f"of the published {PUBLISHED[name]} %",
                    f"{reached:.2f} % ({settings.real_epochs} epochs, at most "
                    f"{SETS[name].rows:,} rows)",
                    reached >= PUBLISHED[name] - 1.5,
                    PAPER,
                )
            )
    return found


def tables(settings: Settings, done: Outcomes) -> list[Table]:
    """Digits and planted features, and one table a real set."""
    labels = {
        "gradient": "neurofs",
        "random": "neurofs, random growth",
        "static": "nothing evolves",
    }
    pixels = [
        [labels.get(by, by), arm.text("svm", percent=True), _active(arm)]
        for by, arm in done.of(digits).by("by").items()
    ]
    some = [
        [
            labels.get(by, by),
            arm.text("found", digits=1),
            arm.text("svm", percent=True),
            _active(arm),
        ]
        for by, arm in done.of(madelon).by("by").items()
    ]
    title = f"Planted features among the first {RELEVANT} of {settings.features}"
    note = f"{settings.rows:,} rows, every feature standardised, {settings.epochs} epochs."
    return [
        Table(f"{PIXELS} pixels of the digits", ["ranking", "SVM, %", "inputs left"], pixels),
        Table(
            title, ["ranking", "found", f"SVM with the {RELEVANT}, %", "inputs left"], some, note
        ),
        *comparison_tables(done),
    ]


def _active(arm: Outcomes) -> str:
    return arm.text("active", digits=1) if "active" in arm.found[0].figures else ""


def draw(settings: Settings, done: Outcomes) -> dict[str, Figure]:
    """Accuracy against inputs found, and accuracy on the real sets."""
    shows = "Planted features found"
    marks = {
        {"gradient": "neurofs", "random": "random growth"}.get(by, by): [
            (o.figures["found"], o.figures["svm"]) for o in arm
        ]
        for by, arm in done.of(madelon).by("by").items()
    }
    picture = pictures.trade_off(
        {name: [(max(x, 0.1), y) for x, y in points] for name, points in marks.items()},
        title=shows,
        subtitle=f"test accuracy of an SVM with the first {RELEVANT}",
        x_label=f"planted features among the first {RELEVANT}",
        percent=True,
    )
    return {shows: picture, **comparison_pictures(done)}


_QUICK = Settings(
    rows=1000,
    features=100,
    hidden=100,
    epochs=15,
    digits_epochs=30,
    real=("digits",),
    real_hidden=100,
    real_epochs=20,
    rankings=("neurofs", "f-test", "lasso", "chance"),
)

RECIPE = Recipe(
    scales={
        "quick": Scale(_QUICK, seeds=1),
        "small": Scale(
            Settings(), data=tuple(SETS[name].source for name in ("MNIST", "Isolet", "COIL20"))
        ),
        "paper": Scale(Settings(), missing="needs HAR, Prostate-GE, SMK-CAN-187 and GLA-BRA-180"),
    },
    parts=parts,
    claims=claims,
    tables=tables,
    pictures=draw,
)
