"""What this processor can do at most, and how much of it the three products of a layer reach.

    python benchmarks/roofline.py --json results/roofline.json
    python benchmarks/roofline.py --shapes 1024x1024 --densities 0.1 --batches 128

First the roof, by small loops in `roofline.cpp`, which a C++ compiler builds on the fly: FLOP/s of
multiply-adds in registers, and bytes/s read from buffers of many sizes, from front to back and row
by row in random order, as a sparse product reads its tile. Then the products, one thread, on
matrices that are in no cache when they start or in all, as it comes.

The roof of a product: every connection reads one row of the packed operand, 4 bytes a sample, and
does 2 FLOPs a sample (4 where both gradients are formed in one pass). Where the operand's tile fits
in the second-level cache, that cache's bandwidth is what limits it. Packing, output, indices and
values are extra work that the roof does not allow for.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import record
import torch

import regrow
from regrow.kernels import native

SHAPES = ["784x1000", "1024x1024", "2048x2048", "4096x4096"]
DENSITIES = [0.1, 0.05, 0.01]
BATCHES = [32, 128, 512]
KIB = [16, 32, 128, 256, 512, 1024, 2048, 4096, 16384, 65536, 262144]

# Bytes of a vector, and vectors of the widest tile, for each instruction set of the kernels.
TILES = {"avx512": (64, 8), "avx2": (32, 4), "portable": (16, 4)}


def library(folder: Path) -> ctypes.CDLL:
    """The small loops, compiled for this processor."""
    target = folder / "roofline.so"
    source = Path(__file__).with_suffix(".cpp")
    command = [os.environ.get("CXX", "c++"), "-O3", "-march=native", "-std=c++17", "-shared"]
    command += ["-fPIC", f"-DVECTOR_BYTES={TILES[native.isa()][0]}", "-o", str(target), str(source)]
    subprocess.run(command, check=True)
    found = ctypes.CDLL(str(target))
    for name in ("multiply_add_rate", "read_rate", "row_rate"):
        getattr(found, name).restype = ctypes.c_double
    return found


def roof(loops: ctypes.CDLL, seconds: float) -> dict[str, Any]:
    """FLOP/s of the processor, and bytes/s from buffers of each size."""
    duration = ctypes.c_double(seconds)
    width, vectors = TILES[native.isa()]
    row_bytes = width * vectors
    levels = []
    for kib in KIB:
        buffer = torch.ones(256 * kib)
        address, size = ctypes.c_void_p(buffer.data_ptr()), ctypes.c_int64(1024 * kib)
        count = 1024 * kib // row_bytes
        order = torch.randperm(count).int().repeat(max(1, 20_000 // count))
        places, rows = ctypes.c_void_p(order.data_ptr()), ctypes.c_int64(order.numel())
        levels.append(
            {
                "kib": kib,
                "read": loops.read_rate(address, size, duration),
                "rows": loops.row_rate(address, places, rows, vectors, duration),
            }
        )
    flops = loops.multiply_add_rate(duration)
    return {"flops": flops, "row_bytes": row_bytes, "levels": levels}


def level2_bytes() -> int:
    """Size of the second-level cache, as the C library tells it."""
    command = ["getconf", "LEVEL2_CACHE_SIZE"]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def level2(found: dict[str, Any]) -> float:
    """Bytes/s of the second-level cache: the most from a buffer of an eighth to half of it."""
    size = level2_bytes() / 1024
    fits = [level["read"] for level in found["levels"] if size / 8 <= level["kib"] <= size / 2]
    return float(max(fits))


def timed(work: Callable[[], object], seconds: float) -> dict[str, float]:
    """Best and median seconds of some work."""
    work()
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(taken) < 5:
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return {"best": min(taken), "median": statistics.median(taken)}


def products(
    n_in: int, n_out: int, density: float, batch: int, found: dict[str, Any], seconds: float
) -> dict[str, Any]:
    """FLOP/s of each product of a layer, and its share of the roof."""
    layer = regrow.SparseLinear(n_in, n_out, bias=False, density=density, compute="csr")
    values, nnz = layer.values.detach(), layer.topology.nnz
    operands = layer.operands()
    x, grad = torch.randn(batch, n_in), torch.randn(batch, n_out)
    work: dict[str, tuple[int, Callable[[], object]]] = {
        "forward": (1, lambda: native.linear_forward(x, values, operands)),
        "input": (1, lambda: native.linear_backward(grad, x, values, operands, True, False)),
        "values": (1, lambda: native.linear_backward(grad, x, values, operands, False, True)),
        "both": (2, lambda: native.linear_backward(grad, x, values, operands)),
    }
    rates = {}
    for name, (products, do) in work.items():
        taken = timed(do, seconds)
        flops, read = 2 * products * nnz * batch, 4 * nnz * batch
        limit = min(found["flops"], flops / (read / level2(found)))
        rates[name] = {
            "seconds": taken,
            "flops": flops / taken["best"],
            "roof": limit,
            "share": flops / taken["best"] / limit,
        }
    return {"shape": f"{n_in}x{n_out}", "density": density, "batch": batch, "products": rates}


def main() -> None:
    """Measure the roof and the products; print both, write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", nargs="+", default=SHAPES, help="inputs x outputs")
    parser.add_argument("--densities", type=float, nargs="+", default=DENSITIES)
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES)
    parser.add_argument("--seconds", type=float, default=0.15, help="time for each product")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    if not native.available():
        parser.exit(1, f"there is nothing to measure: {native.reason()}\n")
    torch.manual_seed(0)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        found = roof(library(Path(folder)), options.seconds)
    print(f"multiply-adds in registers: {found['flops'] / 1e9:.0f} GFLOP/s")
    for level in found["levels"]:
        read, rows = (level[name] / 1e9 for name in ("read", "rows"))
        print(f"{level['kib']:8} KiB: {read:6.0f} GB/s, random rows {rows:6.0f} GB/s")
    print("\nGFLOP/s of each product, and percent of the roof of the second-level cache")
    print(f"{'in x out':10} {'dens.':>5} {'batch':>5}", end="")
    print("".join(f"{name:>14}" for name in ("forward", "input", "values", "both")))
    rows = []
    for shape in options.shapes:
        n_in, n_out = (int(size) for size in shape.split("x"))
        for density in options.densities:
            for batch in options.batches:
                row = products(n_in, n_out, density, batch, found, options.seconds)
                rows.append(row)
                print(
                    f"{shape:10} {density:5g} {batch:5}"
                    + "".join(
                        f"{p['flops'] / 1e9:8.1f} {100 * p['share']:4.0f}%"
                        for p in row["products"].values()
                    ),
                    flush=True,
                )
    record.write(
        options.json,
        {"level2_bytes": level2_bytes(), "level2_rate": level2(found)},
        {"roof": found, "rows": rows},
    )


if __name__ == "__main__":
    main()
