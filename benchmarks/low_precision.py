"""Training steps of one layer in float32 and in bfloat16, `csr` and dense, all in one process.

    python benchmarks/low_precision.py --json results/low-precision.json
    python benchmarks/low_precision.py --shapes 1024x1024 --densities 0.05 --batches 128 --threads 1

A step is the forward pass and the gradients of input, weight and bias, without an optimiser, which
has work of its own that no kernel here takes part in. A layer of bfloat16 is all of that, values
and bias too (``layer.to(torch.bfloat16)``), on both sides: raising its values for the product, and
rounding their gradients, are part of its step. Layers take turns (see `record.in_turns`); figures
are medians, and the best is kept beside them. Before it is timed, each layer of bfloat16 is checked
against that of float32 with the same numbers.
"""

from __future__ import annotations

import argparse
import copy
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import record
import torch
from torch import Tensor, nn

import regrow
from regrow.kernels import native

SHAPES = ["1024x1024", "2048x2048", "4096x4096"]
DENSITIES = [0.1, 0.05, 0.01]
BATCHES = [128, 512]
LAYERS = ["csr float32", "csr bfloat16", "dense float32", "dense bfloat16"]

_LEAST_ROUNDS = 5
# How far numbers may be from those of float32, of the largest: each is rounded to 8 bits, and the
# gradient of a value is a sum over the batch.
_NEAR = 0.02


def step(layer: nn.Module, x: Tensor, grad: Tensor) -> Callable[[], list[Tensor]]:
    """A forward and a backward pass: the output and all gradients, which the next one forgets."""
    dtype = next(layer.parameters()).dtype
    x, grad = x.to(dtype).clone().requires_grad_(), grad.to(dtype)
    leaves = [x, *layer.parameters()]

    def whole() -> list[Tensor]:
        for leaf in leaves:
            leaf.grad = None
        y = layer(x)
        y.backward(grad)
        return [y.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)]

    return whole


def check(low: list[Tensor], single: list[Tensor]) -> None:
    """Refuse to time what computes something else."""
    for mine, theirs in zip(low, single, strict=True):
        apart = float((mine.float() - theirs).abs().max() / theirs.abs().max())
        if mine.dtype != torch.bfloat16 or not apart < _NEAR:
            raise SystemExit(f"bfloat16 and float32 differ by {apart:.3g} of the largest number")


def measure(
    n_in: int, n_out: int, density: float, batch: int, seconds: float
) -> dict[str, dict[str, float]]:
    """Milliseconds of each layer."""
    x, grad = (torch.randn(batch, n).bfloat16().float() for n in (n_in, n_out))
    work = {}
    for compute, layer in (
        ("csr", regrow.SparseLinear(n_in, n_out, density=density, compute="csr")),
        ("dense", nn.Linear(n_in, n_out)),
    ):
        low = layer.to(torch.bfloat16)
        work[f"{compute} float32"] = step(copy.deepcopy(low).float(), x, grad)  # the same numbers
        work[f"{compute} bfloat16"] = step(low, x, grad)
    for compute in ("csr", "dense"):
        check(work[f"{compute} bfloat16"](), work[f"{compute} float32"]())
    turns = {name: record.timed(work[name]) for name in LAYERS}
    times = record.in_turns(turns, seconds, _LEAST_ROUNDS)
    return {
        "milliseconds": {name: statistics.median(taken) for name, taken in times.items()},
        "best": {name: min(taken) for name, taken in times.items()},
    }


def main() -> None:
    """Measure all situations with each number of threads."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", nargs="+", default=SHAPES, help="inputs x outputs")
    parser.add_argument("--densities", type=float, nargs="+", default=DENSITIES)
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=1.0, help="time for each situation")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    if not native.available():
        parser.exit(1, f"there is nothing to measure: {native.reason()}\n")
    torch.manual_seed(0)
    found: dict[int, list[dict[str, Any]]] = {}
    for threads in options.threads:
        torch.set_num_threads(threads)
        print(f"\n{threads} thread(s): milliseconds, and csr float32 / csr bfloat16")
        print(f"{'in x out':10} {'dens.':>5} {'batch':>5} " + " ".join(f"{n:>14}" for n in LAYERS))
        found[threads] = []
        for shape in options.shapes:
            n_in, n_out = (int(size) for size in shape.split("x"))
            for density in options.densities:
                for batch in options.batches:
                    row = measure(n_in, n_out, density, batch, options.seconds)
                    situation = {"shape": shape, "density": density, "batch": batch}
                    found[threads].append({**situation, **row})
                    ms = row["milliseconds"]
                    print(
                        f"{shape:10} {density:5g} {batch:5} "
                        + " ".join(f"{ms[name]:14.3f}" for name in LAYERS)
                        + f" {ms['csr float32'] / ms['csr bfloat16']:6.2f}x",
                        flush=True,
                    )
    record.write(options.json, {"seconds": options.seconds}, {"threads": found})


if __name__ == "__main__":
    main()
