"""One selection from beginning to end: ranking, its stability, and what the features are worth."""

from __future__ import annotations

import csv
import io
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from sklearn.utils.multiclass import type_of_target

from regrow.data.errors import DataError
from regrow.files import write_atomically, write_json
from regrow.kernels.machine import describe_machine
from regrow.selection import WAST, NeuroFS, NeuronAttribution, QuickSelection
from regrow.selection.baselines import BASELINES
from regrow.selection.evaluation import accuracy
from regrow.selection.features import Features
from regrow.selection.selector import FeatureSelector, ranks

SELECTORS: dict[str, type[FeatureSelector]] = {
    "quickselection": QuickSelection,
    "wast": WAST,
    "neurofs": NeuroFS,
    "attribution": NeuronAttribution,
}
SUPERVISED = ("neurofs", "attribution")
AGAINST = ("f-test", "trees", "variance", "chance")

_FEW_CLASSES = 50


@dataclass(frozen=True)
class SelectOptions:
    """What to select, how, and what to set beside it.

    Attributes:
        k: Features to keep.
        method: Name of a selector.
        seeds: How often to repeat it with another seed; the ranking is that of the mean.
        seed: The first of them.
        epochs: Instead of the method's own number.
        against: Rankings of `BASELINES` to set beside it.
        test: Share of the rows that the comparison is judged on, in (0, 1).
    """

    k: int = 20
    method: str = "neurofs"
    seeds: int = 3
    seed: int = 0
    epochs: int | None = None
    against: tuple[str, ...] = AGAINST
    test: float = 0.2

    def __post_init__(self) -> None:
        _one_of("method", self.method, SELECTORS)
        for name in self.against:
            _one_of("against", name, BASELINES)
        for name in ("k", "seeds", "epochs"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be a whole number >= 1, got {value}")
        if not 0 < self.test < 1:
            raise ValueError(f"test must be in (0, 1), got {self.test}")


@dataclass(frozen=True, eq=False)
class Study:
    """What a selection came to.

    Attributes:
        features: The table.
        options: How it was made.
        importances: Share of each feature in the importance of a seed, ``[seeds, features]``.
        ranking: Rank of every feature by the mean over seeds, 1 the best.
        seconds: Of the fits on all rows, one each.
        curves: Accuracy on held-out rows: name of the ranking to seeds to ``[counts]``.
        counts: Numbers of features that the curves stand at.
        everything: Accuracy with all features; None without a comparison.
        notes: What a reader should know.
    """

    features: Features
    options: SelectOptions
    importances: NDArray[np.float64]
    ranking: NDArray[np.int64]
    seconds: list[float]
    curves: dict[str, list[list[float]]] = field(default_factory=dict)
    counts: list[int] = field(default_factory=list)
    everything: float | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def chosen(self) -> NDArray[np.int64]:
        """Numbers of the kept features, the best first."""
        return self.ranking.argsort()[: self.options.k]

    @property
    def picked(self) -> NDArray[np.float64]:
        """How often each feature is among the k best of a seed, a share ``[features]``."""
        return np.asarray((ranks(self.importances) <= self.options.k).mean(axis=0))

    @property
    def stability(self) -> float | None:
        """Mean share of features that two seeds have in common (Jaccard); None for one seed."""
        best = [set(np.flatnonzero(r <= self.options.k)) for r in ranks(self.importances)]
        shared = [len(a & b) / len(a | b) for a, b in combinations(best, 2)]
        return float(np.mean(shared)) if shared else None

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold."""
        options = self.options
        return {
            "data": self.features.name,
            "rows": len(self.features.table),
            "features": len(self.features.names),
            "method": options.method,
            "k": options.k,
            "seed": options.seed,
            "seeds": options.seeds,
            "epochs": options.epochs,
            "chosen": [self.features.names[i] for i in self.chosen],
            "stability": self.stability,
            "seconds": self.seconds,
            "counts": self.counts,
            "accuracy": self.curves,
            "accuracy_with_all_features": self.everything,
            "notes": self.notes,
            "machine": describe_machine(),
        }


def study(
    features: Features, options: SelectOptions, tell: Callable[[str], None] = lambda text: None
) -> Study:
    """Rank the features of a table, and compare the ranking with others on held-out rows.

    The ranking uses all rows. For the comparison, every ranking is made again from the training
    part alone, and a support vector machine learns from its first features there.

    Args:
        features: The table.
        options: What to do.
        tell: Called with a line at each step.

    Raises:
        DataError: More features are asked for than there are, or the method needs classes.
    """
    table, labels = features.table, features.labels
    if options.k > table.shape[1]:
        raise DataError(
            f"k must be at most the number of features, {table.shape[1]:,}, got {options.k:,}"
        )
    problem = _no_classes(labels)
    if problem and options.method in SUPERVISED:
        blind = " or ".join(name for name in SELECTORS if name not in SUPERVISED)
        raise DataError(
            f"method {options.method} needs classes to tell apart: {problem}; {blind} needs none"
        )
    importances, seconds = [], []
    for seed in _seeds(options):
        tell(f"{options.method}, seed {seed}: ranking {table.shape[1]:,} features")
        start = time.perf_counter()
        importances.append(_importance(options, seed, table, labels))
        seconds.append(time.perf_counter() - start)
    shares = np.stack(importances)
    done = Study(features, options, shares, ranks(shares.mean(axis=0)), seconds)
    if problem:
        done.notes.append(f"There is no comparison of accuracies: {problem}.")
        return done
    return _compared(done, tell)


def _compared(done: Study, tell: Callable[[str], None]) -> Study:
    options, table, labels = done.options, done.features.table, done.features.labels
    assert labels is not None
    classes, numbers = np.unique(labels, return_counts=True)
    held = round(options.test * len(labels))
    stratified = numbers.min() >= 2 and len(classes) <= held <= len(labels) - len(classes)
    rows = train_test_split(
        np.arange(len(labels)),
        test_size=options.test,
        stratify=labels if stratified else None,
        random_state=options.seed,
    )
    scaler = StandardScaler().fit(table[rows[0]])
    train, test = ((scaler.transform(table[part]), labels[part]) for part in rows)
    raw = table[rows[0]], train[1]
    counts = sorted({max(1, options.k // 4), max(1, options.k // 2), options.k, 2 * options.k})
    done.counts.extend(n for n in counts if n <= table.shape[1])

    def curve(scores: NDArray[Any]) -> list[float]:
        order = np.argsort(-scores, kind="stable")
        return [accuracy(train, test, order[:n]) for n in done.counts]

    tell(f"{options.method}: comparing on {len(rows[1]):,} held-out rows")
    done.curves[options.method] = [
        curve(_importance(options, seed, *raw)) for seed in _seeds(options)
    ]
    for name in options.against:
        tell(f"{name}: ranking and comparing")
        # The variance of standardised features says nothing.
        scored = raw[0] if name == "variance" else train[0]
        repeats = _seeds(options) if name in ("trees", "chance") else [options.seed]
        done.curves[name] = [curve(BASELINES[name](scored, train[1], s)) for s in repeats]
    everything = accuracy(train, test, np.arange(table.shape[1]))
    return replace(done, everything=everything)


def write_study(done: Study, folder: Path) -> None:
    """Write ``ranking.csv``, ``selected.csv`` and ``selection.json`` into a folder.

    Each file is written whole or not at all.
    """
    names, order = done.features.names, done.ranking.argsort()
    places = ranks(done.importances)
    seeds = list(_seeds(done.options))
    mean = done.importances.mean(axis=0)
    heads = ["rank", "feature", "importance", "picked", *(f"rank_seed_{s}" for s in seeds)]
    lines = (
        [done.ranking[i], names[i], f"{mean[i]:.6g}", f"{done.picked[i]:.3g}", *places[:, i]]
        for i in order
    )
    _write_csv(folder / "ranking.csv", heads, lines)
    kept = done.chosen
    heads, columns = [names[i] for i in kept], [done.features.table[:, i] for i in kept]
    if done.features.labels is not None:
        heads.append(done.features.label_name or "label")
        columns.append(done.features.labels)
    _write_csv(folder / "selected.csv", heads, zip(*columns, strict=True))
    write_json(folder / "selection.json", done.to_dict())


def _importance(
    options: SelectOptions, seed: int, table: NDArray[Any], labels: NDArray[Any] | None
) -> NDArray[np.float64]:
    """Share of each feature in the importance of all."""
    more = {} if options.epochs is None else {"epochs": options.epochs}
    selector = SELECTORS[options.method](options.k, random_state=seed, **more)
    found = selector.fit(table, labels).feature_importances_
    return np.asarray(found / max(float(found.sum()), np.finfo(np.float64).tiny))


def _no_classes(labels: NDArray[Any] | None) -> str | None:
    """Why there are no classes to tell apart, or None."""
    if labels is None:
        return "there is no target"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of many classes, which is found out below
        kind = type_of_target(labels)
    if kind.startswith("continuous"):
        return "the target is a quantity"
    different = len(np.unique(labels))
    if different < 2:
        return f"all {len(labels):,} rows have the same target"
    if different > max(_FEW_CLASSES, len(labels) // 5):
        return f"the target has {different:,} different values in {len(labels):,} rows"
    return None


def _seeds(options: SelectOptions) -> range:
    return range(options.seed, options.seed + options.seeds)


def _write_csv(path: Path, heads: Sequence[str], lines: Iterator[Any]) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(heads)
    writer.writerows(lines)
    write_atomically(path, lambda file: file.write(text.getvalue().encode()))


def _one_of(what: str, name: str, known: dict[str, Any]) -> None:
    if name not in known:
        raise ValueError(f"{what} must be one of {', '.join(known)}, got {name!r}")
