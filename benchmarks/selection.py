"""Average ranks of the selectors and of simple rankings over real sets.

    python benchmarks/selection.py --data-dir DIR --json results/selection.json

Every ranking sees the training rows of a set, and is judged by what an SVM, extremely randomised
trees and the nearest neighbour reach on the test rows with the best features, at three numbers of
features; splits are drawn anew with each seed. What stops in between goes on where it was. Seconds
are those of one processor core.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from record import write

from regrow.measure import pictures
from regrow.reproduce.recipe import Context, Outcomes, Part, part
from regrow.reproduce.run import Job, Workshop
from regrow.reproduce.selectors import (
    BLIND,
    COLOURS,
    RANKINGS,
    SETS,
    at,
    compare,
    score,
    split_set,
)
from regrow.selection.average_ranks import average_ranks
from regrow.selection.evaluation import CLASSIFIERS

# Published but for these: hidden units of NeuroFS (1,000), and the epochs of attribution (200), but
# not for genes, where an epoch has few steps.
OPTIONS: dict[str, dict[str, Any]] = {"neurofs": {"hidden": 200}, "attribution": {"epochs": 100}}
JUDGES = (*CLASSIFIERS, "clusters")


@dataclass(frozen=True)
class Settings:
    """None: arguments alone tell the parts apart, so that seeds can be added later."""


def parts(sets: list[str], seeds: int) -> Iterator[Part]:
    """Seed by seed, so that all sets have some figures early."""
    for seed in range(seeds):
        for data in sets:
            for by in (*RANKINGS, "all features"):
                few = by == "attribution" and SETS[data].kind == "genes"
                more = {} if few else OPTIONS.get(by, {})
                yield part(compare, data=data, by=by, seed=seed, **more)


def figures(done: Outcomes, sets: list[str]) -> dict[str, Any]:
    """Scores of every set and ranking by every judge, one a seed; ranks; seconds; memory."""
    found: dict[str, Any] = {"scores": {}, "ranks": {}}
    arms = {(data, by): done.of(compare, data=data, by=by) for data in sets for by in RANKINGS}
    for judge in JUDGES:
        names = BLIND if judge == "clusters" else RANKINGS
        scores = {data: {by: score(arms[data, by], judge) for by in names} for data in sets}
        table = [[statistics.fmean(scores[data][by]) for by in names] for data in sets]
        ranks = average_ranks(table)
        found["scores"][judge] = scores
        found["ranks"][judge] = {
            "ranks": dict(zip(names, ranks.ranks.tolist(), strict=True)),
            "distance": ranks.distance,
            "p": ranks.p,
        }
    found["middle"] = {
        data: {by: at(done.of(compare, data=data, by=by), 1) for by in (*RANKINGS, "all features")}
        for data in sets
    }
    for what in ("seconds", "peak"):
        found[what] = {
            data: {
                by: statistics.median([v for v in arms[data, by].values(what) if v is not None])
                for by in RANKINGS
            }
            for data in sets
        }
    return found


def about(context: Context, name: str) -> dict[str, Any]:
    """Rows, features and classes of a set."""
    train, test = split_set(context, name, 0)
    return {
        "kind": SETS[name].kind,
        "train": len(train[0]),
        "test": len(test[0]),
        "features": train[0].shape[1],
        "classes": len(np.unique(train[1])),
        "counts": list(SETS[name].counts),
    }


def main() -> None:
    """Rank, judge, print, and write figures and picture where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", required=True, help="folder of the sets")
    names = [name for name in SETS if name != "digits"]
    parser.add_argument("--sets", nargs="+", default=names, choices=list(SETS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1, help="rankings at a time")
    parser.add_argument("--runs", default="runs/benchmarks", help="keeps what is finished")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    context = Context(Settings(), options.data_dir)
    job = Job("selection", runs=options.runs, jobs=options.jobs)
    workshop = Workshop(job, context, lambda done: list(parts(options.sets, options.seeds)))
    done = workshop.run()
    found = figures(done, options.sets)
    for name, rank in sorted(found["ranks"]["svm"]["ranks"].items(), key=lambda item: item[1]):
        print(f"  {name:20} {rank:5.2f}")
    if options.json is None:
        return
    settings = {
        "seeds": options.seeds,
        "options": OPTIONS,
        "sets": {name: about(context, name) for name in options.sets},
        "seconds_of_all": round(sum(outcome.seconds for outcome in done), 1),
    }
    write(options.json, settings, found)
    for judge, says in (("svm", "an SVM"), ("trees", "extremely randomised trees")):
        ranks = found["ranks"][judge]
        picture = pictures.critical_difference(
            ranks["ranks"],
            ranks["distance"],
            title=f"Average rank over {len(options.sets)} real sets",
            subtitle=f"test accuracy of {says}; what a bar joins is not told apart (Nemenyi, 0.05)",
            colours={**dict.fromkeys(RANKINGS, "faint"), **_OWN},
        )
        pictures.save_png(picture, options.json.with_name(f"{options.json.stem}-{judge}.png"))
    workshop.clear()


_OWN = {name: COLOURS[name] for name in ("quickselection", "wast", "neurofs", "attribution")}


if __name__ == "__main__":
    main()
