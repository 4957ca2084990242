"""Training steps of one layer with Adam: dense, masked dense, `csr` and `auto`, in one process.

    python benchmarks/training.py --json results/training.json
    python benchmarks/training.py --shapes 1024x1024 --densities 0.05 --threads 1

A step is the forward pass, both gradients and a step of torch's fused Adam, the fastest that it
has, on weights without a bias. Layers take turns (see `record.in_turns`); figures are medians, and
the best is kept beside them. The masked layer multiplies its weight by a mask and so is what most
published code does. What the optimiser alone takes, of the dense and of the sparse values, is
measured too.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import record
import torch
from torch import Tensor, nn

import regrow
from regrow.kernels import dispatch, native

SHAPES = ["512x512", "1024x1024", "2048x2048", "4096x4096"]
DENSITIES = [1.0, 0.9, 0.75, 0.5, 0.25, 0.1, 0.05, 0.01]


def step(
    layer: Callable[[Tensor], Tensor], x: Tensor, grad: Tensor, weight: nn.Parameter
) -> tuple[Callable[[], None], Callable[[], None]]:
    """A whole step, and that of the optimiser alone."""
    optimizer = torch.optim.Adam([weight], fused=True)
    x = x.clone().requires_grad_()

    def whole() -> None:
        x.grad = weight.grad = None
        layer(x).backward(grad)
        optimizer.step()

    return whole, optimizer.step


def measure(
    n_in: int, n_out: int, density: float, batch: int, seconds: float
) -> dict[str, dict[str, Any]]:
    """Milliseconds of each layer."""
    x, grad = torch.randn(batch, n_in), torch.randn(batch, n_out)
    csr = regrow.SparseLinear(n_in, n_out, bias=False, density=density, compute="csr")
    auto = regrow.SparseLinear(n_in, n_out, bias=False, topology=csr.topology)
    weight = csr.weight.detach()
    dense, masked = (nn.Parameter(weight.clone()) for _ in range(2))
    mask = csr.topology.mask()
    work = {
        "dense": step(lambda x: nn.functional.linear(x, dense), x, grad, dense),
        "masked": step(lambda x: nn.functional.linear(x, mask * masked), x, grad, masked),
        "csr": step(csr, x, grad, csr.values),
        "auto": step(auto, x, grad, auto.values),
    }
    turns = {name: record.timed(whole) for name, (whole, _) in work.items()}
    times = record.in_turns(turns, seconds, least=5)
    alone = {name: record.timed(work[name][1]) for name in ("dense", "csr")}
    optimizer = record.in_turns(alone, 0.0, least=7)
    decision = dispatch.lookup(auto.situation(x))
    return {
        "milliseconds": {name: statistics.median(taken) for name, taken in times.items()},
        "best": {name: min(taken) for name, taken in times.items()},
        "optimizer": {name: statistics.median(taken) for name, taken in optimizer.items()},
        "chosen": {"auto": decision.compute if decision else ""},
    }


def main() -> None:
    """Measure all situations with each number of threads."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", nargs="+", default=SHAPES, help="inputs x outputs")
    parser.add_argument("--densities", type=float, nargs="+", default=DENSITIES)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=2.0, help="time for each situation")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    if not native.available():
        parser.exit(1, f"there is nothing to measure: {native.reason()}\n")
    torch.manual_seed(0)
    found: dict[int, list[dict[str, Any]]] = {}
    for threads in options.threads:
        torch.set_num_threads(threads)
        print(f"\n{threads} thread(s), batch {options.batch}: milliseconds, and dense / layer")
        print(
            f"{'in x out':10} {'dens.':>5} {'dense':>8} {'masked':>8} {'csr':>8} {'auto':>8} "
            f"{'takes':>6} {'csr':>7} {'auto':>7} {'Adam':>14}"
        )
        found[threads] = []
        for shape in options.shapes:
            n_in, n_out = (int(size) for size in shape.split("x"))
            for density in options.densities:
                row = measure(n_in, n_out, density, options.batch, options.seconds)
                found[threads].append({"shape": shape, "density": density, **row})
                ms, adam = row["milliseconds"], row["optimizer"]
                print(
                    f"{shape:10} {density:5g} "
                    + " ".join(f"{ms[name]:8.3f}" for name in ("dense", "masked", "csr", "auto"))
                    + f" {row['chosen']['auto']:>6} {ms['dense'] / ms['csr']:6.2f}x "
                    f"{ms['dense'] / ms['auto']:6.2f}x {adam['dense']:6.2f}/{adam['csr']:5.2f}",
                    flush=True,
                )
    record.write(
        options.json, {"batch": options.batch, "seconds": options.seconds}, {"threads": found}
    )


if __name__ == "__main__":
    main()
