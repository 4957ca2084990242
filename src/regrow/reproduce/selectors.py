"""What reproductions of feature selectors share: real sets, and all rankings judged alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from torch.utils.flop_counter import FlopCounterMode

from regrow.measure import pictures
from regrow.reproduce.recipe import Context, Figures, Outcomes, Part, Table, part, spread
from regrow.selection import WAST, NeuroFS, NeuronAttribution, QuickSelection
from regrow.selection.baselines import BASELINES
from regrow.selection.evaluation import CLASSIFIERS, accuracy, clustering_accuracy, order
from regrow.selection.features import read_features
from regrow.selection.selector import FeatureSelector
from regrow.training.machine import PeakMemory

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RANKINGS = ("quickselection", "wast", "neurofs", "attribution", *BASELINES)
"""Names of all rankings: the four selectors, and the simple ones."""

BLIND = ("quickselection", "wast", "variance", "laplacian", "chance")
"""Those that see no labels; their features are judged by clustering too."""

COLOURS = {
    "quickselection": "blue",
    "wast": "teal",
    "neurofs": "purple",
    "attribution": "orange",
    "variance": "ochre",
    "lasso": "ochre",
    "trees": "green",
    "chance": "red",
}
"""Of the rankings that pictures name; others are context."""

Pair = tuple[NDArray[Any], NDArray[Any]]


@dataclass(frozen=True)
class RealSet:
    """A real set, and how it is judged.

    Attributes:
        source: As `regrow.data.load` takes it.
        kind: ``image``, ``text``, ``genes`` or ``other``; published options go by it.
        counts: Numbers of features that rankings are judged at, the middle one being aimed at.
        rows: Most rows to train on; a third as many are tested on.
    """

    source: str
    kind: str = "genes"
    counts: tuple[int, ...] = (25, 50, 100)
    rows: int = 2000


_MAT = "feature-selection/{}.mat"
_GENES = ("colon", "leukemia", "ALLAML", "lymphoma", "lung_small", "GLIOMA", "nci9")
SETS: dict[str, RealSet] = {
    "MNIST": RealSet("mnist", "image"),
    "USPS": RealSet(_MAT.format("USPS-11000"), "image"),
    "COIL20": RealSet(_MAT.format("COIL20"), "image"),
    "Isolet": RealSet(_MAT.format("Isolet"), "other"),
    "madelon": RealSet(_MAT.format("madelon"), "other", (10, 20, 40)),
    "WISDM": RealSet("har-wisdm/wisdm_v1.1_transformed.npz", "other", (5, 10, 20)),
    **{name: RealSet(_MAT.format(name), "text") for name in ("BASEHOCK", "RELATHE", "PCMAC")},
    "arcene": RealSet(_MAT.format("arcene"), "other"),
    **{name: RealSet(_MAT.format(name)) for name in _GENES},
    "digits": RealSet("digits", "image", (6, 12, 24)),
}
"""Sets by name; the last one is in the package, the others are read from a folder."""


def split_set(context: Context, name: str, seed: int) -> tuple[Pair, Pair]:
    """Rows to rank and train on, and rows to test on, each class in both where it can be.

    They are four fifths and one, and at most as many as the set says.

    Args:
        context: Has the folder.
        name: Of `SETS`.
        seed: Of the split.

    Returns:
        Table ``[rows, features]`` and labels ``[rows]``, twice.
    """
    data = SETS[name]
    table, labels = _read(data.source, context.data_dir)
    train = min(data.rows, round(0.8 * len(table)))
    test = min(data.rows // 3, len(table) - train)
    _, numbers = np.unique(labels, return_counts=True)
    fits = numbers.min() >= 2 and len(numbers) <= test
    x, x_test, y, y_test = train_test_split(
        table,
        labels,
        train_size=train,
        test_size=test,
        stratify=labels if fits else None,
        random_state=seed,
    )
    return (x, y), (x_test, y_test)


def selector(name: str, kind: str, k: int, seed: int, **options: Any) -> FeatureSelector:
    """A selector with the published options for a kind of data.

    Args:
        name: ``quickselection``, ``wast``, ``neurofs`` or ``attribution``.
        kind: As of `RealSet`.
        k: How many features are wanted.
        seed: Of the selector.
        options: In place of these.
    """
    few = kind == "genes"
    published: dict[str, tuple[type[FeatureSelector], dict[str, Any]]] = {
        "quickselection": (QuickSelection, {"scale": "minmax" if kind == "text" else "standard"}),
        "wast": (WAST, {"sensitivity": {"image": 0.4, "genes": 0.01}.get(kind, 0.9)}),
        "neurofs": (
            NeuroFS,
            {"scale": "standard" if kind == "text" else "minmax", "batch_size": 20 if few else 100},
        ),
        "attribution": (
            NeuronAttribution,
            {
                "scale": "minmax" if kind == "image" else "standard",
                "density": 0.5 if kind in ("image", "genes") else 0.05,
            },
        ),
    }
    made, own = published[name]
    return made(k, random_state=seed, **{**own, **options})


def ranked(
    name: str, data: RealSet, train: Pair, seed: int, **options: Any
) -> tuple[NDArray[np.float64], float, int | None]:
    """Importance of every feature by a ranking, and what that took.

    Args:
        name: Of `RANKINGS`.
        data: What the table is.
        train: Table and labels.
        seed: Of the ranking.
        options: Of a selector, in place of the published ones.

    Returns:
        Importance ``[features]``, seconds of the processor, and the peak of the memory in
        bytes where the system tells it.
    """
    memory = PeakMemory()
    memory.begin()
    begin = time.process_time()
    if name in BASELINES:
        # The variance of standardised features says nothing.
        table = train[0] if name == "variance" else StandardScaler().fit_transform(train[0])
        scores = BASELINES[name](table, train[1], seed)
    else:
        chosen = selector(name, data.kind, data.counts[1], seed, **options)
        scores = chosen.fit(*train).feature_importances_
    return scores, time.process_time() - begin, memory.read()


def compare(context: Context, data: str, by: str, seed: int, **options: Any) -> Figures:
    """Rank the features of a real set, and judge the best of them.

    ``by`` is one of `RANKINGS`, or ``all features``, which ranks nothing.
    """
    train, test = split_set(context, data, seed)
    known, own = SETS[data], {k: v for k, v in options.items() if v is not None}
    if by == "all features":
        scores, seconds, peak = np.zeros(train[0].shape[1]), 0.0, None
    else:
        scores, seconds, peak = ranked(by, known, train, seed, **own)
    scaler = StandardScaler().fit(train[0])
    sides = (scaler.transform(train[0]), train[1]), (scaler.transform(test[0]), test[1])
    best = order(scores, seed)
    counts = [len(best)] if by == "all features" else list(known.counts)
    found: Figures = {
        name: [accuracy(*sides, best[:k], name) for k in counts] for name in CLASSIFIERS
    }
    if by in BLIND:
        found["clusters"] = [
            clustering_accuracy(sides[0][0][:, best[:k]], train[1], seed=seed) for k in counts
        ]
    return {**found, "seconds": seconds, "peak": peak}


def operations(context: Context, data: str, by: str, **options: Any) -> Figures:
    """FLOPs of the matrix products of one fit of a selector, all epochs."""
    train, _ = split_set(context, data, 0)
    known, own = SETS[data], {k: v for k, v in options.items() if v is not None}
    chosen = selector(by, known.kind, known.counts[1], 0, **own)
    return {"flops": counted(lambda: chosen.fit(*train))}


def counted(work: Callable[[], object]) -> int:
    """FLOPs of the matrix products of some work, forward and backward."""
    counter = FlopCounterMode(display=False)
    # Telling them apart by module forbids derivatives with respect to inputs.
    counter.mod_tracker = cast(Any, _OneModule())
    with counter:
        work()
    return int(counter.get_total_flops())


class _OneModule:
    parents = ("Global",)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


def compared(
    sets: Sequence[str], rankings: Sequence[str], seeds: range, own: str = "", **options: Any
) -> Iterator[Part]:
    """The parts of a comparison.

    Args:
        sets: Names of `SETS`.
        rankings: Names of `RANKINGS`, or ``all features``.
        seeds: Of splits and rankings.
        own: The ranking that the options are for; its FLOPs are counted once a set.
        options: Of that selector.
    """
    for data in sets:
        for by in rankings:
            more = options if by == own else {}
            yield from (part(compare, data=data, by=by, seed=seed, **more) for seed in seeds)
        if own:
            yield part(operations, data=data, by=own, **options)


def score(outcomes: Outcomes, classifier: str = "svm") -> list[float]:
    """Mean over the numbers of features, one a seed."""
    return [float(np.mean(values)) for values in outcomes.values(classifier)]


def at(outcomes: Outcomes, place: int, classifier: str = "svm") -> list[float]:
    """The score at one of the numbers of features, one a seed; the only one of all features."""
    return [values[min(place, len(values) - 1)] for values in outcomes.values(classifier)]


def comparison_tables(done: Outcomes) -> list[Table]:
    """One table a set: accuracy at each number of features, clustering, seconds, memory."""
    tables = []
    for name, some in done.of(compare).by("data").items():
        counts = SETS[name].counts
        rows = []
        for by, arm in some.by("by").items():
            blind = by in BLIND
            peaks = [peak for peak in arm.values("peak") if peak is not None]
            rows.append(
                [
                    by,
                    *(
                        spread(at(arm, i), percent=True, digits=1)
                        if by != "all features" or i == 1
                        else ""
                        for i in range(len(counts))
                    ),
                    spread(at(arm, 1, "trees"), percent=True, digits=1),
                    spread(at(arm, 1, "neighbour"), percent=True, digits=1),
                    spread(at(arm, 1, "clusters"), percent=True, digits=1) if blind else "",
                    f"{arm.mean('seconds'):.2g}" if by != "all features" else "",
                    f"{np.median(peaks) / 2**20:.0f}" if peaks else "",
                ]
            )
        heads = ["ranking", *(f"SVM, {k}" for k in counts)]
        heads += [f"{what}, {counts[1]}" for what in ("trees", "1-NN", "clusters")]
        heads += ["s", "MiB"]
        counted_ = done.of(operations, data=name)
        flops = ", ".join(
            f"{o.arguments['by']} computes {o.figures['flops'] / 1e9:,.1f} GFLOP in a fit"
            for o in counted_
        )
        note = f"Test accuracy in percent with so many features{'; ' + flops if flops else ''}."
        tables.append(Table(name, heads, rows, note))
    return tables


def comparison_pictures(
    done: Outcomes, classifier: str = "svm", colours: Mapping[str, str] | None = None
) -> dict[str, Figure]:
    """Accuracy against the number of features, one picture a set.

    Args:
        done: Has the parts of a comparison.
        classifier: Which judges.
        colours: Of rankings, beside those of `COLOURS`; others are context.
    """
    chosen = {**COLOURS, **(colours or {})}
    drawn = {}
    model = {
        "svm": "an SVM",
        "trees": "extremely randomised trees",
        "neighbour": "the nearest neighbour",
    }[classifier]
    for name, some in done.of(compare).by("data").items():
        arms = [arm for arm in some.by("by") if arm != "all features"]
        drawn[f"Accuracy against the number of features, {name}"] = pictures.curves(
            {
                by: [(SETS[name].counts, values) for values in some.of(by=by).values(classifier)]
                for by in arms
            },
            title=f"{name}: accuracy with few features",
            subtitle=f"test accuracy of {model}",
            x_label="features kept",
            colours={by: chosen.get(by, "faint") for by in arms},
            percent=True,
        )
    return drawn


_held: dict[tuple[str, str | None], Pair] = {}


def _read(source: str, folder: str | None) -> Pair:
    """Table and labels; the last one is kept."""
    if (source, folder) not in _held:
        _held.clear()
        found = read_features(source, data_dir=folder, fill=True)
        assert found.labels is not None
        _held[source, folder] = found.table, found.labels
    return _held[source, folder]
