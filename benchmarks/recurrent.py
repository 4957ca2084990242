"""A training step of SparseLSTM against torch's LSTM: one process, interleaved, medians.

    python benchmarks/recurrent.py --json results/recurrent.json

A step is the forward pass over a whole sequence and all gradients, that of the input included. The
ratio is the time of torch's dense LSTM over that of the sparse one: above 1, sparse is faster.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

import regrow
from regrow.kernels import native


def step(layer: nn.Module, x: torch.Tensor) -> Callable[[], None]:
    """One forward and backward pass on a loss that needs every output."""

    def work() -> None:
        y, _ = layer(x)
        y.backward(torch.ones_like(y))
        layer.zero_grad()
        x.grad = None

    return work


def interleaved(
    work: dict[str, Callable[[], None]], rounds: int, clock: Callable[[], float]
) -> dict[str, float]:
    """Median milliseconds of each, taken in turns after one round that is not counted."""
    times: dict[str, list[float]] = {name: [] for name in work}
    for round_ in range(rounds + 1):
        for name, once in work.items():
            start = clock()
            once()
            if round_:
                times[name].append(1e3 * (clock() - start))
    return {name: statistics.median(taken) for name, taken in times.items()}


def measure(
    hidden: int,
    batch: int,
    steps: int,
    densities: list[float],
    compute: str,
    rounds: int,
    clock: Callable[[], float],
) -> list[dict[str, object]]:
    """Rows of the table for one size: the dense LSTM is timed once, among the sparse ones."""
    torch.manual_seed(0)
    x = torch.randn(steps, batch, hidden, requires_grad=True)
    layers: dict[str, nn.Module] = {"dense": nn.LSTM(hidden, hidden)}
    for density in densities:
        layers[str(density)] = regrow.SparseLSTM(hidden, hidden, density=density, compute=compute)
    found = interleaved({name: step(layer, x) for name, layer in layers.items()}, rounds, clock)
    return [
        {
            "hidden": hidden,
            "batch": batch,
            "steps": steps,
            "density": density,
            "compute": compute,
            "dense_ms": found["dense"],
            "sparse_ms": found[str(density)],
            "ratio": found["dense"] / found[str(density)],
        }
        for density in densities
    ]


def main() -> None:
    """Print a table and write it as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hidden", type=int, nargs="+", default=[256, 512, 1024])
    parser.add_argument("--batch", type=int, nargs="+", default=[20, 64])
    parser.add_argument("--steps", type=int, default=35)
    parser.add_argument("--density", type=float, nargs="+", default=[0.33, 0.1, 0.05])
    parser.add_argument("--compute", default=["csr"], nargs="+", choices=["auto", "csr", "dense"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--cpu-time",
        action="store_true",
        help="time of the process instead of the wall's: steadier on a shared machine, one thread",
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    clock = time.process_time if options.cpu_time else time.perf_counter
    kernels = native.isa() if native.available() else "reference"
    machine = {"cpu": platform.processor() or platform.machine(), "kernels": kernels}
    print(
        f"{options.threads} thread(s), {kernels}, torch {torch.__version__}, {options.steps} steps"
    )
    print(
        f"{'hidden':>7}{'batch':>7}{'density':>9}{'compute':>9}"
        f"{'dense ms':>10}{'ms':>9}{'ratio':>7}"
    )
    rows = []
    for compute in options.compute:
        for hidden in options.hidden:
            for batch in options.batch:
                size = (hidden, batch, options.steps)
                for row in measure(*size, options.density, compute, options.rounds, clock):
                    rows.append(row)
                    print(
                        f"{row['hidden']:7}{row['batch']:7}{row['density']:9}{row['compute']:>9}"
                        f"{row['dense_ms']:10.1f}{row['sparse_ms']:9.1f}{row['ratio']:7.2f}",
                        flush=True,
                    )
    if options.json:
        versions = {"regrow": regrow.__version__, "torch": torch.__version__}
        settings = {
            "threads": options.threads,
            "rounds": options.rounds,
            "cpu_time": options.cpu_time,
            **machine,
            **versions,
        }
        options.json.write_text(json.dumps({**settings, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
