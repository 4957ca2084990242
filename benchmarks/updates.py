"""What an update of the topology costs, next to the training steps between two of them.

    python benchmarks/updates.py --json results/updates.json
    python benchmarks/updates.py --sizes 1024x1024 --methods set

A layer is trained with torch's fused Adam in csr compute; updates come after every round of steps.
An update includes the column order of what it has made, which is built when it is first needed. The
share is that of one update in `--every` steps and itself, of medians. Gradient growth asks for the
gradient of every position: what torch's dense product for that takes is measured beside it. Seconds
are those of the process, so that a shared machine tells about as much as a quiet one. Peak bytes
are the resident high-water mark during an update above the level before it (Linux), also in float32
matrices of the dense shape. Scores of free positions are made in tiles of 4 MiB, so a matrix that
is larger is never made; memory that training has given back to the process and not to the system is
not counted.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from memory import high_water_mark, reset_mark
from record import rewire
from torch import nn

import regrow

SIZES = ["784x1000", "1024x1024", "4096x4096"]
DENSITIES = [0.1, 0.05, 0.01]
METHODS = ["set", "rigl"]


def measure(
    size: str, density: float, method: str, *, batch: int, every: int, rounds: int
) -> dict[str, Any]:
    """Median seconds of a training step and of an update, and the bytes that the latter takes."""
    n_in, n_out = (int(n) for n in size.split("x"))
    torch.manual_seed(0)
    model = nn.Sequential(regrow.SparseLinear(n_in, n_out, density=density, compute="csr"))
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    evolution = regrow.Evolution(model, optimizer, method=method, every=4, until=10**9)
    x, target = torch.randn(batch, n_in), torch.randn(batch, n_out)

    def train() -> None:
        nn.functional.mse_loss(model(x), target).backward()
        optimizer.step()
        optimizer.zero_grad()

    steps, updates, gradients, peaks = [], [], [], []
    for turn in range(rounds + 1):
        for _ in range(4):
            evolution.step()
            passed = seconds(train)
            if turn:  # the first round also loads what is loaded once
                steps.append(passed)
        base = reset_mark()
        passed, mark = seconds(lambda: rewire(evolution)), high_water_mark()
        if turn:
            updates.append(passed)
            gradients.append(seconds(lambda: target.t() @ x))
            peaks.append(mark - base)
    step, taken = statistics.median(steps), statistics.median(updates)
    return {
        "size": size,
        "density": density,
        "method": method,
        "connections": regrow.sparse_layers(model)["0"].topology.nnz,
        "seconds_step": step,
        "seconds_update": taken,
        "seconds_gradient": statistics.median(gradients),
        "share": taken / (every * step + taken),
        "bytes_peak": max(peaks),
        "dense_matrices": max(peaks) / (4 * n_in * n_out),
    }


def seconds(work: Callable[[], object]) -> float:
    """Seconds of the process that some work takes."""
    start = time.process_time()
    work()
    return time.process_time() - start


def main() -> None:
    """Measure every case; print the table, write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", default=SIZES, help="inputs x outputs")
    parser.add_argument("--densities", type=float, nargs="+", default=DENSITIES)
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--every", type=int, default=100, help="training steps between updates")
    parser.add_argument("--rounds", type=int, default=7, help="updates measured of each case")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    # Threads that wait count as seconds of the process.
    torch.set_num_threads(1)
    print(
        f"{'size':>10} {'density':>8} {'method':>7} {'step':>9} {'update':>9} "
        f"{'share':>7} {'peak':>9}"
    )
    found = []
    for size in options.sizes:
        for density in options.densities:
            for method in options.methods:
                case = measure(
                    size,
                    density,
                    method,
                    batch=options.batch,
                    every=options.every,
                    rounds=options.rounds,
                )
                found.append(case)
                print(
                    f"{size:>10} {density:8} {method:>7} {1e3 * case['seconds_step']:6.2f} ms "
                    f"{1e3 * case['seconds_update']:6.2f} ms {100 * case['share']:6.2f}% "
                    f"{case['bytes_peak'] / 2**20:5.1f} MiB = {case['dense_matrices']:.2f} "
                    f"dense matrices",
                    flush=True,
                )
    if options.json:
        record = {
            "batch": options.batch,
            "every": options.every,
            "threads": 1,
            "regrow": regrow.__version__,
            "torch": torch.__version__,
            "cases": found,
        }
        options.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
