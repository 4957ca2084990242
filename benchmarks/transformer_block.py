"""A training step of a transformer block at several densities against its dense twin: time, bytes.

    python benchmarks/transformer_block.py --json results/transformer-block.json
    python benchmarks/transformer_block.py --device cuda --width 2048 --batch 32 --length 512 --amp

The block is attention and a feed-forward part, both behind a layer norm, with Adam. Its four
projections are made sparse: random connections with ``compute="dense"``, which is what a GPU does
with any topology, and where --structures says so blocks and N of M on their own kernels. Bytes are
those of weights, gradients, optimiser state and indices; on a GPU the peak of a step too. Steps run
in turns, so that what else the machine does meets all of them; figures are medians.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import record
import torch
from torch import Tensor, nn
from torch.nn import functional

import regrow
from regrow.layers.base import sparse_layers
from regrow.topology import Block, NofM


class TransformerBlock(nn.Module):
    """Attention and a feed-forward part, each behind a layer norm and around a shortcut."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm, self.forward_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[batch, length, width]`` to the same."""
        batch, length, width = x.shape
        qkv = self.qkv(self.attention_norm(x)).view(batch, length, 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(seen.transpose(1, 2).reshape(batch, length, width))
        return x + self.down(functional.gelu(self.up(self.forward_norm(x))))


def variants(options: argparse.Namespace) -> dict[str, dict[str, Any] | None]:
    """What is given to ``sparsify``, by name; None for the dense twin."""
    found: dict[str, dict[str, Any] | None] = {"dense": None}
    for density in options.densities:
        plain = {"density": density, "allocation": "uniform"}
        found[f"random {density:g}"] = {**plain, "compute": "dense"}
        if "block" in options.structures:
            pattern = Block(options.block, options.block)
            found[f"blocks {density:g}"] = {**plain, "pattern": pattern, "compute": "block"}
    if "nm" in options.structures:
        found["2:4"] = {"pattern": NofM(2, 4), "compute": "nm"}
    return found


def training(
    given: dict[str, Any] | None, options: argparse.Namespace
) -> tuple[Callable[[], float], nn.Module, torch.optim.Optimizer]:
    """A step that returns its seconds, with the block and the optimiser it trains."""
    torch.manual_seed(0)
    block: nn.Module = TransformerBlock(options.width, options.heads)
    if given is not None:
        block = regrow.sparsify(block, **given)
    block = block.to(options.device)
    optimizer = torch.optim.Adam(block.parameters(), lr=1e-4, fused=True)
    x = torch.randn(options.batch, options.length, options.width, device=options.device)
    amp = torch.autocast(torch.device(options.device).type, torch.bfloat16, enabled=options.amp)

    def step() -> float:
        start = time.perf_counter()
        with amp:
            loss = block(x).float().square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if options.device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    return step, block, optimizer


def held_bytes(block: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Bytes of weights, gradients, optimiser state and indices."""
    weights = sum(parameter.nbytes for parameter in block.parameters())
    state = sum(
        entry.nbytes
        for entries in optimizer.state.values()
        for entry in entries.values()
        if isinstance(entry, Tensor)
    )
    indices = sum(layer.topology.nbytes for layer in sparse_layers(block).values())
    return 2 * weights + state + indices


def peak_bytes(step: Callable[[], float], device: str) -> int | None:
    """Most bytes that a step has on a GPU beyond what is there before it."""
    if device == "cpu":
        return None
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    step()
    return torch.cuda.max_memory_allocated() - before


def parse() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--densities", type=float, nargs="+", default=[0.5, 0.25, 0.1, 0.05])
    parser.add_argument("--structures", nargs="*", default=[], choices=["block", "nm"])
    parser.add_argument("--block", type=int, default=32, help="rows and columns of a block")
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--amp", action="store_true", help="compute in bfloat16")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    return parser.parse_args()


def main() -> None:
    """Time all variants in turns and print one row for each."""
    options = parse()
    torch.set_num_threads(options.threads)
    made = {name: training(given, options) for name, given in variants(options).items()}
    peaks = {name: peak_bytes(step, options.device) for name, (step, _, _) in made.items()}
    times: dict[str, list[float]] = {name: [] for name in made}
    for step, _, _ in made.values():
        step()
    end = time.perf_counter() + options.seconds
    while time.perf_counter() < end or len(times["dense"]) < 3:
        for name, (step, _, _) in made.items():
            times[name].append(1e3 * step())
    rows = {
        name: {
            "milliseconds": statistics.median(times[name]),
            "best": min(times[name]),
            "rounds": len(times[name]),
            "bytes": held_bytes(block, optimizer),
            "peak_bytes": peaks[name],
        }
        for name, (_, block, optimizer) in made.items()
    }
    twin = rows["dense"]
    for name, row in rows.items():
        print(
            f"{name:14} {row['milliseconds']:9.2f} ms {twin['best'] / row['best']:6.2f}x "
            f"{row['bytes'] / 2**20:8.1f} MiB {twin['bytes'] / row['bytes']:6.2f}x smaller"
        )
    record.write(
        options.json,
        {
            **{key: value for key, value in vars(options).items() if key != "json"},
            "load": os.getloadavg()[0],
        },
        {"layers": rows},
    )


if __name__ == "__main__":
    main()
