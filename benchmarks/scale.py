"""Build, train and rewire ever wider networks: time and memory must grow with the connections.

    python benchmarks/scale.py --json results/scale.json
    python benchmarks/scale.py --hidden 3000 30000
    python benchmarks/scale.py --hidden 33333333 --epsilon 1 --steps 1    # 100 million neurons

The network is that of the lung experiment, 3312-h-h-h-5 at epsilon 20 with batch 2, on random data
of the shape of its training part (135 x 3312). Every size runs in a process of its own; memory is
the resident high-water mark above the level before the network was built (Linux), after a tiny
network has loaded what torch loads on first use. What is held is values, momentum, and indices in
both orders: 20 bytes a connection, and 4 more for the gradient during a backward pass. A layer has
at most 2**31 - 1 connections; memory ends sooner. An update includes the column order of what it
has made, which is built when it is first needed. The least that a step reads and writes front to
back is 40 bytes a connection: values and indices once in either pass (16), the gradient (4), and
values, momentum and gradient by the optimiser (20).

Reference: S. Liu, D. C. Mocanu, A. R. Ramapuram Matavalam, Y. Pei, M. Pechenizkiy, "Sparse
evolutionary deep learning with over one million artificial neurons on commodity hardware", 2021.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from memory import high_water_mark, memory_rate, reset_mark
from record import rewire
from torch import nn
from torch.nn import functional

import regrow
from regrow.topology import allocate, random_topology

ROWS, FEATURES, CLASSES, BATCH, EPSILON = 135, 3312, 5, 2, 20
BYTES_STEP = 40
SIZES = [3_000, 30_000, 300_000, 600_000]


def build(hidden: int, epsilon: float) -> nn.Sequential:
    """The network; a layer with all its connections is a plain linear one."""
    sizes = [FEATURES, hidden, hidden, hidden, CLASSES]
    shapes = {str(i): (sizes[i + 1], sizes[i]) for i in range(4)}
    modules: list[nn.Module] = []
    for path, count in allocate(shapes, epsilon=epsilon).items():
        n_out, n_in = shapes[path]
        if count == n_out * n_in:
            modules += [nn.Linear(n_in, n_out), nn.ReLU()]
            continue
        topology = random_topology((n_out, n_in), count)
        modules += [regrow.SparseLinear(n_in, n_out, topology=topology, compute="csr"), nn.ReLU()]
    return nn.Sequential(*modules[:-1])


def measure(hidden: int, steps: int, epsilon: float) -> dict[str, Any]:
    """Seconds and bytes of one size."""
    train(build(50, 1), 1)
    torch.manual_seed(0)
    base = reset_mark()
    start = time.perf_counter()
    model = build(hidden, epsilon)
    seconds = {"build": time.perf_counter() - start}
    found = train(model, steps)
    seconds |= found["seconds"]
    peaks = {name: mark - base for name, mark in found["marks"].items()}
    layers = regrow.sparse_layers(model).values()
    values = sum(parameter.nbytes for parameter in model.parameters())
    dense = sum(weight.numel() for weight in model.parameters() if weight.dim() == 2)
    connections = dense + sum(layer.topology.nnz for layer in layers)
    return {
        "neurons": FEATURES + 3 * hidden + CLASSES,
        "epsilon": epsilon,
        "connections": connections,
        "seconds": seconds,
        "seconds_step_least": BYTES_STEP * connections / memory_rate(),
        "seconds_epoch": seconds["step"] * math.ceil(ROWS / BATCH) + seconds["update"],
        "bytes_held": 2 * values + sum(layer.topology.nbytes for layer in layers),
        **peaks,
    }


def train(model: nn.Sequential, steps: int) -> dict[str, Any]:
    """Take some steps and rewire once; seconds, and high-water marks of both."""
    x, y = torch.randn(ROWS, FEATURES), torch.randint(CLASSES, (ROWS,))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, fused=True)
    evolution = regrow.Evolution(model, optimizer, method="set", every=steps)
    times = []
    for i in range(steps):
        start = time.perf_counter()
        rows = torch.arange(BATCH * i, BATCH * (i + 1)) % ROWS
        functional.cross_entropy(model(x[rows]), y[rows]).backward()
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.perf_counter() - start)
    marks = {"peak_training": high_water_mark()}
    reset_mark()
    start = time.perf_counter()
    rewire(evolution)
    update = time.perf_counter() - start
    marks["peak_update"] = high_water_mark()
    return {"seconds": {"step": statistics.median(times), "update": update}, "marks": marks}


def main() -> None:
    """Measure every size in a process of its own; print the table, write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hidden", type=int, nargs="+", default=SIZES, help="neurons of a layer")
    parser.add_argument("--steps", type=int, default=20, help="training steps timed")
    parser.add_argument("--epsilon", type=float, default=EPSILON, help="connections of a neuron")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.hidden[0], options.steps, options.epsilon)))
        return
    print(
        f"{'neurons':>10} {'connections':>12} {'build':>8} {'step':>8} {'update':>8} {'epoch':>8} "
        f"{'least step':>10}"
    )
    found = []
    for hidden in options.hidden:
        command = [sys.executable, __file__, "--one", "--hidden", str(hidden)]
        command += ["--steps", str(options.steps), "--epsilon", str(options.epsilon)]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        size = json.loads(output)
        found.append(size)
        times = [*size["seconds"].values(), size["seconds_epoch"], size["seconds_step_least"]]
        peak = max(size["peak_training"], size["peak_update"])
        print(
            f"{size['neurons']:10,} {size['connections']:12,} "
            + " ".join(f"{t:7.3g}s" for t in times)
            + f"  peak {peak / 2**20:,.0f} MiB = {peak / size['connections']:.0f} bytes a "
            f"connection = {peak / size['bytes_held']:.2f} of what is held"
        )
    if options.json:
        record = {
            "batch": BATCH,
            "epsilon": options.epsilon,
            "threads": torch.get_num_threads(),
            "regrow": regrow.__version__,
            "torch": torch.__version__,
            "sizes": found,
        }
        options.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
