"""Sparse against dense 3x3 convolutions in the shapes of ResNet-18: forward and both gradients.

    python benchmarks/convolution.py --json results/convolution.json
    python benchmarks/convolution.py --densities 0.1 0.02 --threads 1 --rounds 3

All layers run through autograd in one process, in turn, so that what else the machine does meets
all; times are medians of a step. The dense layer runs in torch's two memory formats, and the faster
one counts. Before it is timed, a sparse layer is checked against its dense twin.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from pathlib import Path
from typing import Any

import record
import torch
from torch import Tensor, nn

import regrow
from regrow.kernels import native

# Input channels, output channels, height and width of the input, stride.
SHAPES = [
    (64, 64, 56, 1),
    (64, 128, 56, 2),
    (128, 128, 28, 1),
    (128, 256, 28, 2),
    (256, 256, 14, 1),
    (256, 512, 14, 2),
    (512, 512, 7, 1),
]
DENSITIES = [0.2, 0.1, 0.05, 0.02, 0.01]


def step(layer: nn.Module, x: Tensor, grad: Tensor) -> dict[str, float]:
    """Milliseconds of a forward pass and of the backward pass after it."""
    x.grad = None
    layer.zero_grad()
    start = time.perf_counter()
    y = layer(x)
    middle = time.perf_counter()
    y.backward(grad)
    return {
        "forward": 1e3 * (middle - start),
        "backward": 1e3 * (time.perf_counter() - middle),
    }


def check(sparse: regrow.SparseConv2d, x: Tensor) -> None:
    """Refuse to time what is not right."""
    dense = regrow.densify(nn.Sequential(copy.deepcopy(sparse)))
    torch.testing.assert_close(sparse(x), dense(x), rtol=1e-3, atol=1e-4)


def measure(
    shape: tuple[int, int, int, int], densities: list[float], batch: int, rounds: int
) -> list[dict[str, Any]]:
    """One row for each density, against the same dense layer."""
    inputs, outputs, size, stride = shape
    options: dict[str, Any] = {"stride": stride, "padding": 1, "bias": False}
    x = torch.randn(batch, inputs, size, size, requires_grad=True)
    dense = nn.Conv2d(inputs, outputs, 3, **options)
    grad = torch.randn_like(dense(x))
    work: dict[Any, tuple[nn.Module, Tensor, Tensor]] = {"contiguous": (dense, x, grad)}
    turned = [t.detach().to(memory_format=torch.channels_last) for t in (x, grad)]
    last = copy.deepcopy(dense).to(memory_format=torch.channels_last)
    work["channels_last"] = (last, turned[0].requires_grad_(), turned[1])
    for density in densities:
        layer = regrow.SparseConv2d(inputs, outputs, 3, density=density, compute="csr", **options)
        check(layer, x.detach()[:4])
        work[density] = (layer, x, grad)
    times: dict[Any, list[dict[str, float]]] = {name: [] for name in work}
    for number in range(rounds + 1):
        for name, operands in work.items():
            taken = step(*operands)
            if number > 0:  # the first round warms up
                times[name].append(taken)

    def median(name: Any) -> dict[str, float]:
        parts = {
            part: statistics.median(t[part] for t in times[name])
            for part in ("forward", "backward")
        }
        return {**parts, "step": statistics.median(sum(t.values()) for t in times[name])}

    formats = {name: median(name) for name in ("contiguous", "channels_last")}
    best = min(formats, key=lambda name: formats[name]["step"])
    products = 6 * outputs * inputs * 9 * grad[:, 0].numel()  # FLOPs of the dense step
    rows = []
    for density in densities:
        sparse = median(density)
        rows.append(
            {
                "shape": list(shape),
                "density": density,
                "dense_format": best,
                "dense_ms": formats[best],
                "sparse_ms": sparse,
                "ratio": formats[best]["step"] / sparse["step"],
                "dense_gflops": products / formats[best]["step"] / 1e6,
                "sparse_gflops": density * products / sparse["step"] / 1e6,
            }
        )
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Ratios of a step, one line for each shape, one column for each density."""
    densities = list(dict.fromkeys(row["density"] for row in rows))
    lines = [f"{'convolution':24} {'dense ms':>9}" + "".join(f"{d:>9g}" for d in densities)]
    for shape in dict.fromkeys(tuple(row["shape"]) for row in rows):
        own = [row for row in rows if tuple(row["shape"]) == shape]
        inputs, outputs, size, stride = shape
        name = f"{inputs} -> {outputs}, {size}x{size} / {stride}"
        ratios = "".join(f"{row['ratio']:8.2f}x" for row in own)
        lines.append(f"{name:24} {own[0]['dense_ms']['step']:9.1f}{ratios}")
    means = (
        statistics.geometric_mean(row["ratio"] for row in rows if row["density"] == density)
        for density in densities
    )
    lines.append(f"{'geometric mean':34}" + "".join(f"{mean:8.2f}x" for mean in means))
    return "\n".join(lines)


def main() -> None:
    """Measure all shapes at all densities and numbers of threads."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--densities", type=float, nargs="+", default=DENSITIES)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=7, help="timed steps of each layer")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    if not native.available():
        parser.exit(1, f"there is nothing to measure: {native.reason()}\n")
    torch.manual_seed(0)
    found = {}
    for threads in options.threads:
        torch.set_num_threads(threads)
        rows = []
        for shape in SHAPES:
            rows += measure(shape, options.densities, options.batch, options.rounds)
        print(f"\n3x3, batch {options.batch}, {threads} thread(s), {native.isa()}: dense / sparse")
        print(table(rows), flush=True)
        found[threads] = rows
    record.write(
        options.json, {"batch": options.batch, "rounds": options.rounds}, {"threads": found}
    )


if __name__ == "__main__":
    main()
