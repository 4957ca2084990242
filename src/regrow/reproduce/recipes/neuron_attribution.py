"""Neuron attribution: inputs ranked by how a sparse classifier depended on them while it learned.

Z. Atashgahi, T. Liu, M. Pechenizkiy, R. Veldhuis, D. C. Mocanu, M. van der Schaar, "Unveiling the
power of sparse neural networks for feature selection", 2024.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.datasets import make_classification

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
    compare,
    compared,
    comparison_pictures,
    comparison_tables,
    operations,
    score,
)
from regrow.selection import NeuronAttribution

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAPER = "Z. Atashgahi et al., 2024"
BOUND = "our bound"
FEATURES = 200
INFORMATIVE = 100

NETWORKS: dict[str, dict[str, Any]] = {
    "dense": {"method": "dense"},
    "set 0.5": {"method": "set", "density": 0.5},
    "set 0.1": {"method": "set", "density": 0.1},
    "rigl 0.1": {"method": "rigl", "density": 0.1},
}
METRICS: dict[str, dict[str, Any]] = {
    "attribution": {"metric": "attribution"},
    "strength": {"metric": "strength"},
    "strength at the end": {"metric": "strength", "over": "last step"},
}


@dataclass(frozen=True)
class Settings:
    """Sizes and lengths of the experiment."""

    lengths: tuple[tuple[int, int], ...] = ((500, 40), (2000, 40), (6000, 15))
    real: tuple[str, ...] = ("digits", "MNIST", "Isolet")
    real_epochs: int = 100
    rankings: tuple[str, ...] = (
        *("all features", "f-test", "mutual information"),
        *("lasso", "elimination", "trees", "chance"),
    )


def coverage(
    context: Context, network: str, metric: str, rows: int, epochs: int, seed: int
) -> Figures:
    """Share of the informative features among as many of the first."""
    selector = NeuronAttribution(
        INFORMATIVE,
        hidden=(300, 50),
        epochs=epochs,
        random_state=seed,
        **NETWORKS[network],
        **METRICS[metric],
    )
    # A fifth of the rows only validates.
    table, labels = make_classification(
        rows * 5 // 4,
        FEATURES,
        n_informative=INFORMATIVE,
        n_redundant=0,
        n_clusters_per_class=2,
        class_sep=1,
        flip_y=0.01,
        shuffle=False,
        random_state=seed,
    )
    ranking = selector.fit(table, labels).ranking_
    return {"coverage": float((ranking[:INFORMATIVE] <= INFORMATIVE).mean())}


def parts(settings: Settings, seeds: range, done: Outcomes) -> Iterator[Part]:
    """Coverage of every network and metric, and real sets."""
    for rows, epochs in settings.lengths:
        for network in NETWORKS:
            for metric in METRICS:
                arm: dict[str, Any] = {
                    "network": network,
                    "metric": metric,
                    "rows": rows,
                    "epochs": epochs,
                }
                yield from (part(coverage, **arm, seed=seed) for seed in seeds)
    for data in settings.real:
        for own in _own(settings):
            yield from (
                part(compare, data=data, by="attribution", seed=seed, **own) for seed in seeds
            )
            if own["over"] == "all":
                once = {**own, "epochs": 1}
                yield part(operations, data=data, by="attribution", **once)
    yield from compared(settings.real, settings.rankings, seeds)


def _own(settings: Settings) -> list[dict[str, Any]]:
    """The selector in a sparse and in a dense network, and looking at the last step only."""
    epochs = settings.real_epochs
    return [
        {"method": method, "over": over, "epochs": epochs}
        for method, over in (("set", "all"), ("dense", "all"), ("set", "last step"))
    ]


def claims(settings: Settings, done: Outcomes) -> list[Claim]:
    """Coverage on generated data, and sparse against dense on real sets."""
    rows = [length[0] for length in settings.lengths]

    def covered(network: str, metric: str, n: int) -> float:
        return done.of(coverage, network=network, metric=metric, rows=n).mean("coverage")

    arms = [(network, metric) for network in NETWORKS for metric in ("attribution", "strength")]
    curves = {arm: [covered(*arm, n) for n in rows] for arm in arms}
    falls = [arm for arm, c in curves.items() if any(np.diff(c) <= 0)]
    worst = min(curves, key=lambda arm: curves[arm][-1])
    gaps = {
        network: curves[network, "strength"][1] - curves[network, "attribution"][1]
        for network in NETWORKS
    }
    behind = {
        (network, metric): max(np.subtract(curves["dense", metric], curves[network, metric]))
        for network, metric in arms
        if network != "dense"
    }
    most = max(behind, key=lambda arm: behind[arm])
    found = [
        Claim(
            "The share of informative features found rises with the rows, for every network and "
            "metric",
            f"not for {falls}" if falls else f"for all {len(arms)}",
            not falls,
            BOUND,
        ),
        Claim(
            f"It is at least 0.88 at {rows[-1]:,} rows",
            f"lowest {curves[worst][-1]:.3f} ({', '.join(worst)})",
            curves[worst][-1] >= 0.88,
            BOUND,
        ),
        Claim(
            f"At {rows[1]:,} rows strength is at most 0.03 behind attribution",
            ", ".join(f"{network} {gap:+.3f}" for network, gap in gaps.items()),
            min(gaps.values()) >= -0.03,
            BOUND,
        ),
        Claim(
            "Sparse networks are at most 0.05 behind the dense one",
            f"largest distance {behind[most]:+.3f} ({', '.join(most)})",
            bool(behind[most] <= 0.05),
            BOUND,
        ),
    ]
    whole, last = [], []
    for data in settings.real:
        sparse, dense, end = (
            100 * float(np.mean(score(done.of(compare, data=data, by="attribution", **own))))
            for own in _own(settings)
        )
        whole.append(sparse)
        last.append(end)
        found.append(
            Claim(
                f"On {data} attribution in the sparse network is at most 0.5 points behind that "
                "in the dense one",
                f"{sparse:.2f} % against {dense:.2f} %, SVM, mean over numbers of features",
                sparse >= dense - 0.5,
                BOUND,
            )
        )
    found.append(
        Claim(
            "The sum over all steps is at least as good as the last step, on average over the sets",
            f"{np.mean(whole):.2f} % against {np.mean(last):.2f} %",
            float(np.mean(whole)) >= float(np.mean(last)),
            PAPER,
        )
    )
    return found


def tables(settings: Settings, done: Outcomes) -> list[Table]:
    """Coverage, FLOPs, and one table a real set."""
    rows = [
        [
            network,
            metric,
            *(
                done.of(coverage, network=network, metric=metric, rows=n).text("coverage")
                for n, _ in settings.lengths
            ),
        ]
        for network in NETWORKS
        for metric in METRICS
    ]
    heads = ["network", "metric", *(f"{n:,} rows" for n, _ in settings.lengths)]
    note = f"Network 200-300-50-2; chance finds {INFORMATIVE / FEATURES:g}."
    title = f"Share of {INFORMATIVE} informative features of {FEATURES} found"
    flops = [
        [data, *(f"{some.of(method=m).mean('flops') / 1e9:.1f}" for m in ("dense", "set"))]
        for data, some in done.of(operations).by("data").items()
    ]
    return [
        Table(title, heads, rows, note),
        Table("GFLOPs of an epoch", ["data", "dense", "sparse"], flops, "Matrix products only."),
        *comparison_tables(_named(done, "attribution, ")),
    ]


def _named(done: Outcomes, prefix: str = "") -> Outcomes:
    """Arms of the selector apart by name."""
    named = []
    for outcome in done.of(compare):
        arguments = dict(outcome.arguments)
        if "method" in arguments:
            end = "" if arguments["over"] == "all" else ", last step"
            arguments["by"] = f"{prefix}{arguments['method']}{end}"
        named.append(replace(outcome, arguments=arguments))
    return Outcomes(named)


def draw(settings: Settings, done: Outcomes) -> dict[str, Figure]:
    """Coverage against rows for each metric, and accuracy on the real sets."""
    drawn = {}
    for metric in ("attribution", "strength"):
        shows = f"Informative features found by {metric}"
        lines = {}
        for network in NETWORKS:
            own = done.of(coverage, network=network, metric=metric)
            seeds = list(own.by("seed").values())
            counts = [n for n, _ in settings.lengths]
            lines[network] = [
                (counts, [some.of(rows=n).mean("coverage") for n in counts]) for some in seeds
            ]
        drawn[shows] = pictures.curves(
            lines,
            title=shows,
            subtitle=f"share of the {INFORMATIVE}",
            x_label="rows",
            percent=True,
        )
    colours = {"set": "blue", "dense": "grey", "set, last step": "purple"}
    return {**drawn, **comparison_pictures(_named(done), colours=colours)}


_QUICK = Settings(
    lengths=((200, 15), (800, 15), (2400, 8)),
    real=("digits",),
    real_epochs=8,
    rankings=("f-test", "lasso", "chance"),
)

RECIPE = Recipe(
    scales={
        "quick": Scale(_QUICK, seeds=1),
        "small": Scale(Settings(), data=tuple(SETS[name].source for name in ("MNIST", "Isolet"))),
        "paper": Scale(
            Settings(), missing="needs HAR, Gisette, ORL, Yale, Prostate-GE, SMK, CLL and Carcinom"
        ),
    },
    parts=parts,
    claims=claims,
    tables=tables,
    pictures=draw,
)
