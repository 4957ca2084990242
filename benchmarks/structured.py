"""Structured connections against unstructured ones and the dense product, in one process.

    python benchmarks/structured.py --json results/structured.json
    python benchmarks/structured.py --shapes 1024x1024 --batches 128 --threads 1 --seconds 1

One row is one layer: forward pass and both gradients through autograd, and the bytes of its
indices. For each shape, batch and density: blocks on their own kernels, N of M on theirs, a
constant fan-in and random connections on ``csr``, and `torch.nn.Linear`. Layers take turns (see
`record.in_turns`); figures are medians, the best is kept beside them. With one thread it is the
time of the processor that counts, which other processes disturb less. Before it is timed, each
layer is checked against its dense twin.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import record
import torch
from torch import Tensor, nn

import regrow
from regrow import Topology
from regrow.kernels import native
from regrow.topology import (
    Block,
    block_topology,
    fan_in_topology,
    nm_topology,
    random_topology,
)

SHAPES = ["1024x1024", "2048x2048", "4096x4096"]
BATCHES = [128, 512]
# Densities that N of M can have, with two forms of each.
GROUPS = {0.5: [(2, 4), (4, 8)], 0.25: [(1, 4), (4, 16)], 0.125: [(1, 8)], 0.0625: [(1, 16)]}
BLOCKS = [(4, 4), (8, 8), (16, 16), (32, 32), (16, 64)]

# Runs a forward and a backward pass, and returns the seconds of each.
Step = Callable[[], tuple[float, float]]


def topologies(n_in: int, n_out: int, density: float) -> dict[str, tuple[Topology, str]]:
    """The connections of each structure, and the compute that serves it."""
    shape = n_out, n_in
    found: dict[str, tuple[Topology, str]] = {}
    for form in BLOCKS:
        block = Block(*form)
        count = round(density * n_in * n_out / block.size) * block.size
        found[f"{block}"] = block_topology(shape, count, block), "block"
    for n, m in GROUPS[density]:
        found[f"{n}:{m}"] = nm_topology(shape, n, m), "nm"
    found["fan-in"] = fan_in_topology(shape, round(density * n_in)), "csr"
    found["random"] = random_topology(shape, round(density * n_in * n_out)), "csr"
    return found


def step_of(layer: nn.Module, x: Tensor, parameter: Tensor) -> Step:
    """A step of a layer; gradients are thrown away before the next one."""
    grad = torch.ones_like(layer(x).detach())
    x = x.clone().requires_grad_()
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter

    def step() -> tuple[float, float]:
        x.grad = parameter.grad = None
        start = clock()
        y = layer(x)
        middle = clock()
        y.backward(grad)
        return middle - start, clock() - middle

    return step


def layers(n_in: int, n_out: int, density: float, batch: int) -> dict[str, tuple[Step, int]]:
    """A step of every layer, and the bytes of its indices."""
    x = torch.randn(batch, n_in)
    dense = nn.Linear(n_in, n_out, bias=False)
    made = {"dense": (step_of(dense, x, dense.weight), 0)}
    for name, (topology, compute) in topologies(n_in, n_out, density).items():
        layer = regrow.SparseLinear(n_in, n_out, bias=False, topology=topology, compute=compute)
        expected = x[:8] @ layer.weight.detach().t()
        torch.testing.assert_close(layer(x[:8]), expected, rtol=1e-3, atol=1e-4)
        if compute != "csr":
            topology.forget_rows()
        step = step_of(layer, x, layer.values)
        step()
        made[name] = step, layer.topology.nbytes
    return made


def measure(work: dict[str, tuple[Step, int]], seconds: float) -> dict[str, dict[str, float]]:
    """Milliseconds of each layer over rounds that last so long, but 3 rounds at least."""
    times = record.in_turns({name: step for name, (step, _) in work.items()}, seconds)
    return {
        name: {**record.figures(taken), "index_bytes": work[name][1]}
        for name, taken in times.items()
    }


def table(row: dict[str, Any]) -> str:
    """One situation: milliseconds, GFLOP/s, and how many times faster than dense and csr."""
    layers = row["layers"]
    dense, random = layers["dense"]["best_step"], layers["random"]["best_step"]
    lines = [f"{row['shape']} batch {row['batch']} density {row['density']}"]
    for name, found in layers.items():
        ms, flops = found["best_step"], row["flops"] / (1 if name != "dense" else row["density"])
        lines.append(
            f"  {name:14} {ms:9.3f} ms {flops / ms / 1e6:7.1f} GFLOP/s {dense / ms:7.2f}x dense "
            f"{random / ms:7.2f}x csr {found['index_bytes'] / row['connections']:7.2f} B/connection"
        )
    return "\n".join(lines)


def parse() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", nargs="+", default=SHAPES, help="inputs x outputs")
    parser.add_argument("--densities", type=float, nargs="+", default=[*GROUPS], choices=[*GROUPS])
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES)
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--seconds", type=float, default=3.0, help="time for each situation")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    if not native.available():
        parser.exit(1, f"there is nothing to measure: {native.reason()}\n")
    return options


def main() -> None:
    """Measure all situations with each number of threads."""
    options = parse()
    torch.manual_seed(0)
    found = {}
    for threads in options.threads:
        torch.set_num_threads(threads)
        rows = []
        for shape in options.shapes:
            n_in, n_out = (int(size) for size in shape.split("x"))
            for batch in options.batches:
                for density in options.densities:
                    row: dict[str, Any] = {"shape": shape, "density": density, "batch": batch}
                    row["connections"] = round(density * n_in * n_out)
                    row["flops"] = 6 * row["connections"] * batch
                    row["layers"] = measure(layers(n_in, n_out, density, batch), options.seconds)
                    rows.append(row)
                    print(f"{threads} thread(s), {table(row)}", flush=True)
        found[threads] = rows
    record.write(
        options.json, {"seconds": options.seconds, "load": os.getloadavg()[0]}, {"threads": found}
    )


if __name__ == "__main__":
    main()
