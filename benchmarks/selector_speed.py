"""Seconds and memory of the selectors on 200 rows of 20,000 features, and what sparsity saves.

    python benchmarks/selector_speed.py --json results/selector-speed.json

Every selector has its published options and a process of its own. The peak is the largest resident
size of the whole process, interpreter and libraries included. QuickSelection trains a second time,
for fewer epochs, with its sparse products and with dense ones. It takes about 5 minutes, and the
machine should have nothing else to do.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from record import write

from regrow.estimators.rows import Rows
from regrow.layers import sparse_layers
from regrow.reproduce.selectors import selector
from regrow.selection import QuickSelection
from regrow.selection.planted import planted
from regrow.training.machine import PeakMemory

ROWS, FEATURES, EPOCHS = 200, 20_000, 10
SELECTORS = ("quickselection", "wast", "neurofs", "attribution")
COMPUTES = ("csr", "dense")


class Computing(QuickSelection):
    """QuickSelection of which the layers compute as they are told."""

    compute = "auto"

    def _start(self, rows: Rows) -> None:
        super()._start(rows)
        for layer in sparse_layers(self._network_).values():
            layer.compute = self.compute


def measure(name: str, threads: int) -> dict[str, Any]:
    """Fit once in this process."""
    torch.set_num_threads(threads)
    data = planted(ROWS, FEATURES, informative=10, redundant=40, clusters=2, seed=0)
    if name in COMPUTES:
        made = Computing(50, epochs=EPOCHS, random_state=0)
        made.compute = name
    else:
        made = selector(name, "other", 50, 0)
    memory = PeakMemory()
    memory.begin()
    begin = time.perf_counter()
    made.fit(data.table, data.labels)
    seconds = time.perf_counter() - begin
    return {
        "seconds": seconds,
        "peak": memory.read(),
        "resident": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "recall": data.recall(made.ranking_, 50),
    }


def main() -> None:
    """Measure each in a process of its own, print, and write as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--one", choices=[*SELECTORS, *COMPUTES], help="only this, here")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one, options.threads)))
        return
    load = os.getloadavg()[0]
    found: dict[str, dict[str, Any]] = {}
    for name in (*SELECTORS, *COMPUTES):
        command = [sys.executable, __file__, "--one", name, "--threads", str(options.threads)]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        found[name] = json.loads(said.splitlines()[-1])
        row = found[name]
        print(f"  {name:16} {row['seconds']:6.1f} s {row['resident'] / 2**20:6.0f} MiB", flush=True)
    settings = {
        "rows": ROWS,
        "features": FEATURES,
        "threads": options.threads,
        "load": load,
        "epochs": EPOCHS,
        "connections": 2 * round(13 * (FEATURES + 1000)),
        "dense": 2 * FEATURES * 1000,
    }
    write(options.json, settings, {"found": found})


if __name__ == "__main__":
    main()
