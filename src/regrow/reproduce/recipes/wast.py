"""WAST: attention in sparse training finds the features that matter within a few passes.

G. Sokar, Z. Atashgahi, M. Pechenizkiy, D. C. Mocanu, "Where to pay attention in sparse training
for feature selection?", 2022.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.datasets import load_digits, make_classification
from sklearn.preprocessing import StandardScaler

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
)
from regrow.selection import WAST, QuickSelection
from regrow.selection.baselines import variance
from regrow.selection.evaluation import accuracy
from regrow.selection.selector import ranks

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAPER = "G. Sokar et al., 2022"
BOUND = "our bound"
RELEVANT = 20
NOISE = 640
KEPT = 50


@dataclass(frozen=True)
class Settings:
    """Sizes and lengths of the experiment."""

    rows: int = 2600
    features: int = 500
    hidden: int = 200
    moments: tuple[int, ...] = (1, 5, 10)
    real: tuple[str, ...] = ("MNIST", "Isolet", "COIL20")
    rankings: tuple[str, ...] = BLIND


def _ranker(by: str, k: int, epochs: int, scale: Any, hidden: int, seed: int) -> Any:
    """WAST, its network rewired by SET, or QuickSelection as published."""
    if by == "quickselection":
        return QuickSelection(k, epochs=epochs, scale=scale, random_state=seed)
    sensitivity = 0.4 if by == "wast, 0.4" else 0.9
    return WAST(
        k,
        hidden=hidden,
        epochs=epochs,
        rewiring="set" if by == "set" else "attention",
        sensitivity=sensitivity,
        scale=scale,
        random_state=seed,
    )


def madelon(context: Context, by: str, scale: str, epochs: int, seed: int) -> Figures:
    """Find planted features that have larger variance (``global``) or not (``standard``)."""
    settings: Settings = context.settings
    table, labels = make_classification(
        settings.rows,
        settings.features,
        n_informative=5,
        n_redundant=15,
        n_clusters_per_class=16,
        flip_y=0.01,
        class_sep=2,
        shuffle=False,
        random_state=seed,
    )
    if by == "variance":
        whole = StandardScaler().fit_transform(table) if scale == "standard" else table
        ranking = ranks(variance(whole, labels, seed))
    else:
        selector = _ranker(by, RELEVANT, epochs, scale, settings.hidden, seed)
        ranking = selector.fit(table).ranking_
    cut = 4 * settings.rows // 5
    parts = (table[:cut], labels[:cut]), (table[cut:], labels[cut:])
    return {
        "found": int((ranking[:RELEVANT] <= RELEVANT).sum()),
        "svm": accuracy(*parts, ranking <= RELEVANT),
    }


def noise(context: Context, by: str, epochs: int, seed: int) -> Figures:
    """Find the pixels of digits among columns of pure noise."""
    x, _ = load_digits(return_X_y=True)
    x = StandardScaler().fit_transform(x)
    added = np.random.default_rng(seed).normal(size=(len(x), NOISE))
    table = np.hstack([x, added])
    selector = _ranker(by, KEPT, epochs, "global", context.settings.hidden, seed)
    return {"found": int((selector.fit(table).ranking_[: x.shape[1]] <= KEPT).sum())}


def parts(settings: Settings, seeds: range, done: Outcomes) -> Iterator[Part]:
    """Planted features in both scalings, pixels among noise, and real sets at every moment."""
    for seed in seeds:
        for epochs in settings.moments:
            for scale in ("standard", "global"):
                for by in ("wast", "set", "quickselection"):
                    yield part(madelon, by=by, scale=scale, epochs=epochs, seed=seed)
            for by in ("wast", "wast, 0.4", "set"):
                yield part(noise, by=by, epochs=epochs, seed=seed)
        for scale in ("standard", "global"):
            yield part(madelon, by="variance", scale=scale, epochs=0, seed=seed)
    for epochs in settings.moments[:-1]:
        for data in settings.real:
            for rewiring in ("attention", "set"):
                for seed in seeds:
                    arm: dict[str, Any] = {"epochs": epochs, "rewiring": rewiring}
                    yield part(compare, data=data, by="wast", seed=seed, **arm)
    yield from compared(settings.real, settings.rankings, seeds, "wast")


def claims(settings: Settings, done: Outcomes) -> list[Claim]:
    """Recall and accuracy on the planted table, pixels among noise, and real sets."""
    early, late = settings.moments[0], settings.moments[-1]

    def planted(by: str, scale: str, epochs: int) -> Outcomes:
        return done.of(madelon, by=by, scale=scale, epochs=epochs)

    wast, slow = planted("wast", "standard", early), planted("set", "standard", late)
    gain = wast.ahead(slow, "svm")
    least = min(planted("wast", "global", early).values("found"))
    most = max(planted("set", "global", early).values("found"))
    pixels = {by: done.of(noise, by=by, epochs=late).mean("found") for by in _noisy(done)}
    known = "; variance finds all {:.0f} of these as well".format(
        planted("variance", "global", 0).mean("found")
    )
    claims = [
        Claim(
            f"Features of one spread: after {early} epoch it finds 3 times what SET in the same "
            f"network finds in {late}",
            f"{wast.mean('found'):.1f} against {slow.mean('found'):.1f} of {RELEVANT}",
            wast.mean("found") >= 3 * slow.mean("found"),
            BOUND,
        ),
        Claim(
            "and an SVM is at least 10 points better with its choice",
            f"{gain:+.1f} points",
            gain >= 10,
            BOUND,
        ),
        Claim(
            f"Features as drawn: after {early} epoch it has found all {RELEVANT}, SET fewer",
            f"at worst {least}, SET at best {most}{known}",
            least == RELEVANT and most < RELEVANT,
            BOUND,
        ),
        Claim(
            f"Among {NOISE} columns of noise it finds more pixels of the digits than SET",
            ", ".join(f"{by} {found:.1f}" for by, found in pixels.items()) + f" of {KEPT}",
            pixels["wast"] > pixels["set"],
            PAPER,
        ),
    ]
    for data in settings.real:
        for epochs in settings.moments[:-1]:
            own, other = (
                100
                * float(np.mean(score(done.of(compare, data=data, epochs=epochs, rewiring=how))))
                for how in ("attention", "set")
            )
            claims.append(
                Claim(
                    f"On {data} after {epochs} epoch{'s' if epochs > 1 else ''} its features are "
                    f"at least as good as those of SET",
                    f"{own:.2f} % against {other:.2f} %, SVM, mean over numbers of features",
                    own >= other,
                    BOUND,
                )
            )
    return claims


def _noisy(done: Outcomes) -> list[str]:
    return list(done.of(noise).by("by"))


def tables(settings: Settings, done: Outcomes) -> list[Table]:
    """Found features over epochs, and one table a real set."""
    rows = []
    for scale in ("standard", "global"):
        for by in done.of(madelon).by("by"):
            cells = []
            for epochs in settings.moments:
                own = done.of(madelon, by=by, scale=scale, epochs=0 if by == "variance" else epochs)
                cells += [own.text("found", digits=1), own.text("svm", percent=True, digits=1)]
            rows.append([scale, by, *cells])
    heads = ["scaling", "ranking"]
    for epochs in settings.moments:
        heads += [f"found, {epochs}", f"SVM, {epochs}"]
    note = (
        f"{settings.rows:,} rows, {settings.features} features of which {RELEVANT} matter; after "
        "so many epochs. As drawn (global) these have the larger variance. set: the network of "
        "WAST, rewired by SET; quickselection: with its own network."
    )
    planted = Table("Planted features found", heads, rows, note)
    rows = [
        [by, *(arm.of(epochs=epochs).text("found", digits=1) for epochs in settings.moments)]
        for by, arm in done.of(noise).by("by").items()
    ]
    heads = ["ranking", *(f"epoch {epochs}" for epochs in settings.moments)]
    note = f"64 pixels and {NOISE} columns of noise; 0.4 is the sensitivity, elsewhere 0.9."
    pixels = Table(f"Pixels of the digits among the first {KEPT}", heads, rows, note)
    return [planted, pixels, *comparison_tables(_whole(done))]


def _whole(done: Outcomes) -> Outcomes:
    """Without the shortened trainings on real sets."""
    return Outcomes([o for o in done if "rewiring" not in o.arguments])


def draw(settings: Settings, done: Outcomes) -> dict[str, Figure]:
    """Found features over epochs, and accuracy on the real sets."""
    drawn = {}
    for scale, says in (("standard", "all features of one spread"), ("global", "as drawn")):
        shows = f"Planted features found, {says}"
        lines = {}
        for by in ("wast", "set", "quickselection"):
            own = [done.of(madelon, by=by, scale=scale, epochs=e) for e in settings.moments]
            lines[by] = [
                (settings.moments, [moment.values("found")[seed] for moment in own])
                for seed in range(len(own[0]))
            ]
        drawn[shows] = pictures.curves(lines, title=shows, subtitle=f"of {RELEVANT}")
    return {**drawn, **comparison_pictures(_whole(done))}


_QUICK = Settings(
    rows=600,
    features=100,
    moments=(1, 3, 6),
    real=("digits",),
    rankings=("wast", "variance", "chance"),
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
