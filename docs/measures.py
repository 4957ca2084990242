"""The sentences of `docs/measure.md` from `results/`; `python docs/tables.py` writes them in."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

RESULTS = Path(__file__).parents[1] / "results"


def distances_note() -> str:
    """How far networks that start almost alike are apart after training, from `nnstd.json`."""
    record = json.loads((RESULTS / "nnstd.json").read_text())
    epochs = record["settings"]["snapshots"][-1]
    families = [part["figures"] for part in record["parts"] if part["experiment"] == "family"]
    start, end = (
        statistics.mean(
            found["distances"][epoch][i][i + 1]
            for found in families
            for i in range(record["settings"]["networks"] - 1)
        )
        for epoch in ("0", str(epochs))
    )
    tests = [100 * test for found in families for test in found["tests"]]
    return (
        f"Networks that start {start:.2f} apart are {end:.2f} apart after {epochs} epochs with SET "
        f"({record['settings']['data']}, {len(families)} rows of {record['settings']['networks']} "
        f"networks), and score between {min(tests):.1f} and {max(tests):.1f} %."
    )


TABLES = {"distances": distances_note}
