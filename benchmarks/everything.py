"""Run all benchmarks one after the other, write `results/`, and the tables of the docs.

    python benchmarks/everything.py
    python benchmarks/everything.py --reference DIR     # with the published code of epochs.py
    python benchmarks/everything.py --only roofline training

It takes 20 to 40 minutes, and the machine should have nothing else to do. What fails is said, and
the others go on.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]

# Name of the figures, script, and what it is given.
RUNS: dict[str, list[str]] = {
    "roofline": ["roofline.py"],
    "training": ["training.py", "--seconds", "0.5"],
    "products": [
        *("products.py", "--seconds", "0.4", "--densities", "0.1", "0.05", "0.01", "0.001"),
        *("--shapes", "784x1000", "1024x1024", "3072x4000", "4096x4096"),
    ],
    "low-precision": ["low_precision.py", "--seconds", "1"],
    "updates": ["updates.py", "--rounds", "5"],
    "memory": ["memory.py"],
    "epochs": ["epochs.py", "--networks", "fashion-mnist", "cifar-10", "lung", "lung-93k"],
    "convolution": ["convolution.py", "--rounds", "5"],
    "scale": ["scale.py"],
    "structured": ["structured.py", "--shapes", "1024x1024", "4096x4096", "--seconds", "2"],
    "transformer-block": ["transformer_block.py", "--structures", "block", "nm"],
    "products-8192": [
        *("products.py", "--seconds", "1", "--shapes", "8192x8192", "--batches", "128"),
        *("--densities", "0.05", "0.01", "0.001", "--threads", "1"),
    ],
    "products-65536": [
        *("products.py", "--seconds", "1", "--shapes", "65536x65536", "--densities", "0.00005"),
        *("--batches", "32", "128", "512"),
    ],
    # The published code takes a quarter of an hour to draw its connections.
    "epochs-largest": ["epochs.py", "--networks", "lung-900k"],
    "scale-largest": ["scale.py", "--hidden", "33333333", "--epsilon", "1", "--steps", "1"],
}


def main() -> int:
    """Run what is asked for; the number of runs that failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", default=list(RUNS), choices=RUNS)
    parser.add_argument("--reference", type=Path, help="folder with the published code")
    options = parser.parse_args()
    failed = []
    # Decisions of earlier builds and machines count for nothing here.
    environment = {**os.environ, "REGROW_CACHE": "off"}
    for name in options.only:
        script, *given = RUNS[name]
        if script == "epochs.py" and options.reference:
            given += ["--reference", str(options.reference)]
        command = [sys.executable, str(ROOT / "benchmarks" / script), *given]
        command += ["--json", str(ROOT / "results" / f"{name}.json")]
        print(f"\n==> {name}", flush=True)
        start = time.perf_counter()
        if subprocess.run(command, env=environment).returncode:
            failed.append(name)
        print(f"    {time.perf_counter() - start:.0f} s", flush=True)
    subprocess.run([sys.executable, str(ROOT / "docs" / "tables.py")])
    if failed:
        print(f"failed: {', '.join(failed)}")
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())
