"""Which features that matter the selectors and simple rankings find among how much noise.

    python benchmarks/planted.py --json results/planted.json

Generated tables: 10 informative features, 40 mixtures of them, and noise up to 99.9 % of 50,000
features, all standardised. Recall at k is the share of the relevant features among the k first, of
as many as fit. Every ranking sees all rows. What stops in between goes on where it was.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from record import write

from regrow.measure import pictures
from regrow.reproduce.recipe import Context, Figures, Outcomes, Part, part
from regrow.reproduce.run import Job, Workshop
from regrow.reproduce.selectors import COLOURS, RANKINGS, RealSet, ranked
from regrow.selection.evaluation import order
from regrow.selection.planted import planted
from regrow.selection.selector import ranks

ROWS, INFORMATIVE, REDUNDANT = 500, 10, 40
SIZES = {500: 3, 5_000: 3, 50_000: 2}
"""Number of features: how many seeds."""
COUNTS = (5, 10, 20, 50, 100, 200)

# Published but for these, the same at every size.
OPTIONS: dict[str, dict[str, Any]] = {
    "quickselection": {"epochs": 60},
    "wast": {"scale": "standard"},
    "neurofs": {"hidden": 200, "epochs": 40, "scale": "standard"},
    "attribution": {"hidden": (200, 100), "epochs": 40},
}
_OWN = ("quickselection", "wast", "neurofs", "attribution", "trees", "chance")
_NAMED = {**{by: COLOURS[by] for by in _OWN}, "laplacian": "ochre"}
_BED = RealSet("", "other", (INFORMATIVE, INFORMATIVE + REDUNDANT, 100))


@dataclass(frozen=True)
class Settings:
    """None: arguments alone tell the parts apart, so that seeds can be added later."""


def recall(context: Context, by: str, features: int, seed: int, **options: Any) -> Figures:
    """Rank a table, and count what was found at every k."""
    data = planted(
        ROWS,
        features,
        informative=INFORMATIVE,
        redundant=REDUNDANT,
        clusters=2,
        separation=2.0,
        seed=seed,
    )
    scores, seconds, peak = ranked(by, _BED, (data.table, data.labels), seed, **options)
    places = ranks(-order(scores, seed).argsort().astype(float))
    found = {str(k): data.recall(places, k) for k in COUNTS}
    return {"recall": found, "seconds": seconds, "peak": peak}


def parts(sizes: list[int], rankings: list[str]) -> Iterator[Part]:
    """Every ranking on every table."""
    for features in sizes:
        for by in rankings:
            for seed in range(SIZES[features]):
                yield part(recall, by=by, features=features, seed=seed, **OPTIONS.get(by, {}))


def figures(done: Outcomes, sizes: list[int]) -> dict[str, Any]:
    """Recall at every k, one a seed, and the median seconds and bytes."""
    found: dict[str, Any] = {}
    for features in sizes:
        arms = done.of(recall, features=features).by("by")
        found[str(features)] = {
            by: {
                "recall": {str(k): [o.figures["recall"][str(k)] for o in arm] for k in COUNTS},
                "seconds": statistics.median(arm.values("seconds")),
                "peak": statistics.median([p for p in arm.values("peak") if p is not None]),
            }
            for by, arm in arms.items()
        }
    return found


def main() -> None:
    """Rank, print, and write figures and pictures where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--features", nargs="+", type=int, default=list(SIZES), choices=SIZES)
    parser.add_argument("--rankings", nargs="+", default=list(RANKINGS), choices=RANKINGS)
    parser.add_argument("--jobs", type=int, default=1, help="rankings at a time")
    parser.add_argument("--runs", default="runs/benchmarks", help="keeps what is finished")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    job = Job("planted", runs=options.runs, jobs=options.jobs)
    named = list(parts(options.features, options.rankings))
    workshop = Workshop(job, Context(Settings()), lambda done: named)
    found = figures(workshop.run(), options.features)
    relevant = INFORMATIVE + REDUNDANT
    for features, arms in found.items():
        print(f"{features} features, recall at {relevant}")
        for by, arm in arms.items():
            mean = statistics.fmean(arm["recall"][str(relevant)])
            print(f"  {by:20} {mean:.2f}  {arm['seconds']:6.1f} s {arm['peak'] / 2**20:6.0f} MiB")
    if options.json is None:
        return
    settings = {
        "rows": ROWS,
        "informative": INFORMATIVE,
        "redundant": REDUNDANT,
        "seeds": SIZES,
        "options": OPTIONS,
    }
    write(options.json, settings, {"tables": found})
    for features, arms in found.items():
        picture = pictures.curves(
            {
                by: [
                    (COUNTS, [arm["recall"][str(k)][seed] for k in COUNTS])
                    for seed in range(len(arm["recall"]["5"]))
                ]
                for by, arm in arms.items()
            },
            title=f"Relevant features found among {int(features):,}",
            subtitle=f"recall of {relevant} at k; thin: seeds",
            x_label="k",
            colours={by: _NAMED.get(by, "faint") for by in arms},
            percent=True,
        )
        pictures.save_png(picture, options.json.with_name(f"planted-{features}.png"))
    workshop.clear()


if __name__ == "__main__":
    main()
