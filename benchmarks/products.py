"""Sparse linear layers against their peers: forward pass and both gradients, all in one process.

    python benchmarks/products.py --json results/products.json
    python benchmarks/products.py --shapes 784x1000 --densities 0.05 --batches 128 --threads 1

Layers take turns for a while (see `record.in_turns`): figures are medians, and the best is kept
beside them. The layers:

- ``regrow``: `regrow.SparseLinear` with ``compute="csr"``, through autograd.
- ``dense``: `torch.nn.Linear`, through autograd.
- ``torch csr``: a weight in torch's CSR layout, through autograd, which makes its gradient dense.
- ``scipy``: SciPy's CSR for the two sparse products, without autograd; it has no sampled product,
  so the gradient of the values is picked from torch's dense one.
- ``sparselab``: `sparselab.SparseLinear`, through autograd.

Before it is timed, the layer of regrow is checked against its dense twin. Peers that make a dense
matrix are left out of shapes where that would take more than 2 GiB: all of them do.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import record
import torch
from torch import Tensor, nn

import regrow
from regrow.kernels import native

SHAPES = ["784x1000", "1024x1024", "4096x4096"]
DENSITIES = [0.1, 0.05, 0.01]
BATCHES = [32, 128, 512]
PEERS = ["dense", "torch csr", "scipy", "sparselab"]

# SparseLab 0.2.2 knows a layer by its address, and takes a new one there for one that is gone.
_ALIVE: list[nn.Module] = []

# Bytes of a dense weight up to which peers are measured.
_MOST_DENSE = 2**31

# Runs a forward and a backward pass, and returns the seconds of each.
Step = Callable[[], tuple[float, float]]


def through_autograd(layer: Callable[[Tensor], Tensor], x: Tensor, parameter: Tensor) -> Step:
    """A step of anything differentiable; gradients are thrown away before the next one."""
    grad = torch.ones_like(layer(x).detach())
    x = x.clone().requires_grad_()

    def step() -> tuple[float, float]:
        x.grad = parameter.grad = None
        start = time.perf_counter()
        y = layer(x)
        middle = time.perf_counter()
        y.backward(grad)
        return middle - start, time.perf_counter() - middle

    return step


def with_torch_csr(weight: Tensor, x: Tensor) -> Step:
    """The CSR layout of torch."""
    compressed = weight.to_sparse_csr().requires_grad_()
    return through_autograd(lambda x: torch.sparse.mm(compressed, x.t()).t(), x, compressed)


def with_scipy(weight: Tensor, x: Tensor) -> Step:
    """The CSR layout of SciPy."""
    from scipy.sparse import csr_matrix

    matrix = csr_matrix(weight.numpy())
    transposed = matrix.T.tocsr()
    rows, columns = (torch.from_numpy(part.astype("int64")) for part in matrix.nonzero())
    inputs, grad = x.numpy(), torch.ones(len(x), len(weight))

    def step() -> tuple[float, float]:
        start = time.perf_counter()
        _ = matrix @ inputs.T
        middle = time.perf_counter()
        _ = transposed @ grad.numpy().T
        _ = (grad.t() @ x)[rows, columns]
        return middle - start, time.perf_counter() - middle

    return step


def with_sparselab(density: float, n_out: int, x: Tensor) -> Step:
    """SparseLab's layer, with connections of its own."""
    import sparselab

    layer = sparselab.SparseLinear(x.shape[1], n_out, bias=False, sparsity=1 - density)
    _ALIVE.append(layer)
    return through_autograd(layer, x, next(layer.parameters()))


def steps(n_in: int, n_out: int, density: float, batch: int, peers: list[str]) -> dict[str, Step]:
    """A step of every layer, on the same activations and, where it can be, the same weight."""
    x = torch.randn(batch, n_in)
    own = regrow.SparseLinear(n_in, n_out, bias=False, density=density, compute="csr")
    if 4 * n_in * n_out > _MOST_DENSE:
        return {"regrow": through_autograd(own, x, own.values)}
    weight = own.weight.detach()
    dense = nn.Linear(n_in, n_out, bias=False)
    dense.weight.data.copy_(weight)
    torch.testing.assert_close(own(x[:8]), dense(x[:8]), rtol=1e-3, atol=1e-4)
    makers: dict[str, Callable[[], Step]] = {
        "dense": lambda: through_autograd(dense, x, dense.weight),
        "torch csr": lambda: with_torch_csr(weight, x),
        "scipy": lambda: with_scipy(weight, x),
        "sparselab": lambda: with_sparselab(density, n_out, x),
    }
    return {
        "regrow": through_autograd(own, x, own.values),
        **{peer: makers[peer]() for peer in peers},
    }


def line(row: dict[str, Any], peers: list[str], figure: str) -> str:
    """One situation: milliseconds of regrow, GFLOP/s, and how many times slower each peer is."""
    times = row["milliseconds"]
    own = times["regrow"][figure]
    situation = f"{row['shape']:10} {row['density']:5g} {row['batch']:5}"
    ratios = "".join(
        f"{times[peer][figure] / own:11.2f}x" if peer in times else f"{'-':>12}" for peer in peers
    )
    return f"{situation} {own:10.3f} {row['flops'] / own / 1e6:8.1f}{ratios}"


def table(rows: list[dict[str, Any]], peers: list[str]) -> str:
    """All situations, with geometric means."""
    head = f"{'in x out':10} {'dens.':>5} {'batch':>5} {'regrow ms':>10} {'GFLOP/s':>8}"
    lines = [head + "".join(f"{peer:>12}" for peer in peers)]
    lines += [line(row, peers, "step") for row in rows]
    compared = all(any(peer in row["milliseconds"] for row in rows) for peer in peers)
    for figure in ("forward", "backward", "step", "best_step") if compared else ():
        means = (
            statistics.geometric_mean(
                row["milliseconds"][peer][figure] / row["milliseconds"]["regrow"][figure]
                for row in rows
                if peer in row["milliseconds"]
            )
            for peer in peers
        )
        name = f"geometric mean, {figure.replace('_', ' ')}"
        lines.append(f"{name:42}" + "".join(f"{mean:11.2f}x" for mean in means))
    return "\n".join(lines)


def installed(peer: str) -> bool:
    """Whether the package of a peer is there; said if not."""
    there = peer not in ("scipy", "sparselab") or importlib.util.find_spec(peer) is not None
    if not there:
        print(f"{peer} is not installed and is left out")
    return there


def parse() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", nargs="+", default=SHAPES, help="inputs x outputs")
    parser.add_argument("--densities", type=float, nargs="+", default=DENSITIES)
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES)
    parser.add_argument("--peers", nargs="+", default=PEERS, choices=PEERS)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=3.0, help="time for each situation")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    if not native.available():
        parser.exit(1, f"there is nothing to measure: {native.reason()}\n")
    return options


def main() -> None:
    """Measure all situations with each number of threads."""
    options = parse()
    warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
    peers = [peer for peer in options.peers if installed(peer)]
    torch.manual_seed(0)
    found = {}
    for threads in options.threads:
        torch.set_num_threads(threads)
        rows = []
        for shape in options.shapes:
            n_in, n_out = (int(size) for size in shape.split("x"))
            for density in options.densities:
                for batch in options.batches:
                    work = steps(n_in, n_out, density, batch, peers)
                    row = {"shape": shape, "density": density, "batch": batch}
                    row["flops"] = 6 * density * n_in * n_out * batch
                    taken = record.in_turns(work, options.seconds)
                    row["milliseconds"] = {name: record.figures(of) for name, of in taken.items()}
                    rows.append(row)
        print(f"\n{threads} thread(s), {native.isa()}: times of the peers / times of regrow")
        print(table(rows, peers), flush=True)
        found[threads] = rows
    record.write(options.json, {"seconds": options.seconds}, {"threads": found})


if __name__ == "__main__":
    main()
