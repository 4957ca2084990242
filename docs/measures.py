"""The table of `docs/measure.md`, made from `results/`; `python docs/tables.py` writes it in."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / "results"
NAMES = {"digits": "digits", "fashion-mnist": "Fashion-MNIST"}


def distances_table() -> str:
    """Distances of networks that start almost alike, from `results/topology-distance-*.json`."""
    runs = [json.loads((RESULTS / f"topology-distance-{name}.json").read_text()) for name in NAMES]
    epochs = list(runs[0]["studies"][0]["distances"])
    head = ["data, hidden layers, density", *(f"epoch {epoch}" for epoch in epochs)]
    head += ["test accuracy", "permuted copy"]
    rows = [head, ["---"] * len(head), *(_row(run, epochs) for run in runs)]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n\n" + _note(runs)


def _row(run: dict[str, Any], epochs: list[str]) -> list[str]:
    studies = run["studies"]
    scores = [100 * score for study in studies for score in study["accuracies"]]
    hidden = "-".join(str(n) for n in run["hidden"])
    return [
        f"{NAMES[run['data']]}, {hidden}, {run['density']:g}",
        *(f"{_mean(studies, epoch, 1):.2f} / {_mean(studies, epoch, 4):.2f}" for epoch in epochs),
        f"{min(scores):.1f} to {max(scores):.1f} %",
        f"{statistics.mean(study['permuted_copy'] for study in studies):.2f}",
    ]


def _mean(studies: list[dict[str, Any]], epoch: str, apart: int) -> float:
    """Mean distance of networks that stand so far apart in the row of five."""
    found = [study["distances"][epoch] for study in studies]
    return statistics.mean(m[i][i + apart] for m in found for i in range(len(m) - apart))


def _note(runs: list[dict[str, Any]]) -> str:
    sets = ", ".join(
        f"{run['training_samples']:,} samples and {len(run['studies'])} "
        f"{'row' if len(run['studies']) == 1 else 'rows'} of five networks for {NAMES[run['data']]}"
        for run in runs
    )
    similar, chance = (
        [
            study["rules"]["30"][0][run["rules"].index(name)]
            for run in runs
            for study in run["studies"]
        ]
        for name in ("sign-split", "random")
    )
    return (
        f"Mean distance of neighbours / of the first and the last of five networks; {sets}. "
        f"After 30 epochs magnitude shares {statistics.mean(similar):.2f} of what it and SET's own "
        f"rule drop (Jaccard index), and {statistics.mean(chance):.2f} of what it and chance drop."
    )


TABLES = {"distances": distances_table}
