"""Peak memory of building and training one very wide sparse layer, in bytes per connection.

    python benchmarks/memory.py --json results/memory.json

The peak is the process's resident high-water mark (Linux), counted from just before the layer is
built, so it holds everything: values, gradient, optimiser state, indices, activations, workspace.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch

import regrow


def high_water_mark() -> int:
    """Largest resident size since the last reset, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    raise RuntimeError("this system does not report a resident high-water mark")


def reset_mark() -> int:
    """Let the high-water mark fall to the present resident size, and return it."""
    Path("/proc/self/clear_refs").write_text("5")
    return high_water_mark()


def memory_rate() -> float:
    """Bytes a second between the processor and a memory that no cache can stand in for.

    Of all threads together: two arrays are read and one is written, the best of several times.
    """
    total, more = torch.ones(2**26), torch.ones(2**26)
    taken = []
    for _ in range(7):
        start = time.perf_counter()
        total.add_(more)
        taken.append(time.perf_counter() - start)
    return 3 * total.nbytes / min(taken)


def measure(features: int, connections: int, batch: int, compute: str) -> dict[str, float]:
    """Build a square layer, take one Adam step, rewire it once; bytes per connection of each."""
    warm = torch.nn.Sequential(regrow.SparseLinear(64, 64, density=0.1, compute=compute))
    step(warm, torch.optim.Adam(warm.parameters()), torch.ones(batch, 64))
    x = torch.randn(batch, features)
    base = reset_mark()
    layer = regrow.SparseLinear(
        features, features, density=connections / features**2, compute=compute
    )
    model = torch.nn.Sequential(layer)
    peaks = {"build": high_water_mark() - base}
    optimizer = torch.optim.Adam(model.parameters())
    evolution = regrow.Evolution(model, optimizer, method="set", every=2)
    reset_mark()
    step(model, optimizer, x)
    evolution.step()
    peaks["step"] = high_water_mark() - base
    step(model, optimizer, x)
    reset_mark()
    evolution.step()
    peaks["update"] = high_water_mark() - base
    nnz = layer.topology.nnz
    held = {
        "values": layer.values.nbytes,
        "gradient": layer.values.nbytes,
        "optimizer": 2 * layer.values.nbytes,
        "indices": layer.topology.nbytes,
    }
    return {
        "connections": nnz,
        **{f"held_{name}": size / nnz for name, size in held.items()},
        "held": sum(held.values()) / nnz,
        **{f"peak_{name}": size / nnz for name, size in peaks.items()},
    }


def step(model: torch.nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor) -> None:
    """One training step on a loss that needs every output."""
    model(x).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


def main() -> None:
    """Print a table and write it as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--features", type=int, default=100_000, help="inputs and outputs")
    parser.add_argument("--connections", type=int, default=5_000_000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--compute", default="csr", choices=["auto", "csr"])
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    torch.manual_seed(0)
    found = measure(options.features, options.connections, options.batch, options.compute)
    print(
        f"{options.features:,} x {options.features:,}, {found['connections']:,} connections, "
        f"batch {options.batch}, Adam; bytes per connection"
    )
    for name, size in found.items():
        if name != "connections":
            print(f"  {name.replace('_', ' '):16} {size:6.1f}")
    dense = 4 * options.features**2 * 4
    print(f"  a dense layer would hold {dense / 2**30:,.0f} GiB for the same step")
    if options.json:
        settings = {"features": options.features, "batch": options.batch, "optimizer": "adam"}
        versions = {"regrow": regrow.__version__, "torch": torch.__version__}
        text = json.dumps({**settings, **versions, **found}, indent=2) + "\n"
        options.json.write_text(text)


if __name__ == "__main__":
    main()
