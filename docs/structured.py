"""Tables of the page on structured connections; `docs/tables.py` writes them in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / "results"
_SHOWN = ("dense", "random", "fan-in", "4x4 blocks", "8x8 blocks", "16x16 blocks", "32x32 blocks")


def structured() -> str:
    """Times of a step against random connections and the dense product, one thread."""
    found = _read("structured")
    lines = []
    for row in found["threads"]["1"]:
        layers = row["layers"]
        names = [n for n in layers if n in _SHOWN or ":" in n]
        best = {name: layers[name]["best_step"] for name in names}
        for name in names:
            if name == "dense":
                continue
            lines.append(
                f"| {_times(row['shape'])} | {row['batch']} | {row['density']:g} | {name} "
                f"| {best[name]:.2f} | {row['flops'] / best[name] / 1e6:.0f} "
                f"| {best['random'] / best[name]:.2f}x | {best['dense'] / best[name]:.2f}x "
                f"| {layers[name]['index_bytes'] / row['connections']:.2f} |"
            )
    head = (
        "| layer | batch | density | connections | ms | GFLOP/s | against random on `csr` "
        "| against dense | index bytes a connection |\n|---|---|---|---|---|---|---|---|---|"
    )
    machine = found["machine"]
    note = (
        "Forward pass and both gradients through autograd, shortest of "
        f"{min(row['layers']['dense']['rounds'] for row in found['threads']['1'])} rounds or more, "
        f"one thread of {machine['processor']} ({machine['kernels']}){_busy(found)}."
    )
    return "\n".join([head, *lines, "", note])


def transformer_block() -> str:
    """A training step of a transformer block: time and bytes against the dense twin."""
    found = _read("transformer-block")
    dense = found["layers"]["dense"]
    lines = ["| projections | ms | against dense | MiB held | smaller |", "|---|---|---|---|---|"]
    lines += [
        f"| {name} | {row['best']:.1f} | {dense['best'] / row['best']:.2f}x "
        f"| {row['bytes'] / 2**20:.1f} | {dense['bytes'] / row['bytes']:.1f}x |"
        for name, row in found["layers"].items()
    ]
    machine = found["machine"]
    note = (
        f"Width {found['width']}, {found['heads']} heads, batch {found['batch']} of length "
        f"{found['length']}, Adam, {found['threads']} thread(s) of {machine['processor']} "
        f"({machine['kernels']}){_busy(found)}; shortest of {dense['rounds']} steps. Held are "
        "weights, gradients, optimiser state and indices."
    )
    return "\n".join([*lines, "", note])


def _busy(found: dict[str, Any]) -> str:
    """What to say where other processes ran, so that the figures are only rough."""
    if found["load"] <= found["machine"]["cores"]:
        return ""
    return f", while other processes held the cores (load {found['load']:.0f}): rough figures"


def _times(shape: str) -> str:
    return shape.replace("x", " x ")


def _read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return found


TABLES = {"structured": structured, "transformerblock": transformer_block}
