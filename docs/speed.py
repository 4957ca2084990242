"""Tables and picture of `docs/speed.md`, from `results/`; `docs/tables.py` writes the tables in.

python docs/speed.py            # draws docs/images/roofline.svg and break-even.svg
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results"
PEERS = {
    "dense": "dense",
    "torch csr": "torch CSR",
    "scipy": "SciPy",
    "sparselab": "SparseLab",
}


def _read(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text())


def _those(*names: str) -> list[Any]:
    """What there is of these; a run that takes long need not have been made."""
    return [_read(name) for name in names if (RESULTS / f"{name}.json").exists()]


def _lines(rows: list[list[str]]) -> str:
    head, *rest = rows
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rest])


def _machine(found: dict[str, Any]) -> str:
    machine = found["machine"]
    return f"{machine['processor']}, {machine['cores']} cores, kernels {machine['kernels']}"


def roof() -> str:
    """Bandwidth of each level of memory."""
    found = _read("roofline")
    in_random_order = f"rows of {found['roof']['row_bytes']} bytes in random order"
    rows = [["buffer", "front to back", in_random_order]]
    for level in found["roof"]["levels"]:
        kib = level["kib"]
        size = f"{kib} KiB" if kib < 1024 else f"{kib // 1024} MiB"
        rows.append([size, *(f"{level[name] / 1e9:.0f} GB/s" for name in ("read", "rows"))])
    note = (
        f"{_machine(found)}. Multiply-adds in registers: {found['roof']['flops'] / 1e9:.0f} "
        f"GFLOP/s in float32. The second-level cache holds {found['level2_bytes'] / 2**20:g} MiB "
        f"and gives {found['level2_rate'] / 1e9:.0f} GB/s, so that one product can reach "
        f"{found['level2_rate'] / 2e9:.0f} GFLOP/s and both gradients together "
        f"{found['level2_rate'] / 1e9:.0f}."
    )
    return f"{_lines(rows)}\n\n{note}"


def reached() -> str:
    """GFLOP/s of each product and its share of the roof, batch 128."""
    found = _read("roofline")
    names = {"forward": "forward", "input": "input gradient", "values": "values gradient"}
    names["both"] = "both gradients"
    rows = [["inputs x outputs", "density", *names.values()]]
    for row in found["rows"]:
        if row["batch"] == 128:
            cells = (row["products"][name] for name in names)
            texts = (f"{c['flops'] / 1e9:.0f} ({100 * c['share']:.0f} %)" for c in cells)
            rows.append([row["shape"].replace("x", " x "), f"{row['density']:g}", *texts])
    shares: dict[str, list[float]] = {
        name: [row["products"][name]["share"] for row in found["rows"]]
        for name in ("forward", "both")
    }
    note = (
        f"GFLOP/s, best of a short while, one thread, batch 128, packing and turning included; in "
        f"brackets the share of the roof. Over all {len(found['rows'])} situations measured the "
        f"forward pass reaches {100 * min(shares['forward']):.0f} to "
        f"{100 * max(shares['forward']):.0f} %, both gradients {100 * min(shares['both']):.0f} to "
        f"{100 * max(shares['both']):.0f} %."
    )
    return f"{_lines(rows)}\n\n{note}"


def peers() -> str:
    """How many times slower each peer is: geometric means, worst cases, counts."""
    found = _read("products")
    rows = [["threads", *(f"{peer}" for peer in PEERS.values()), "better of torch CSR and SciPy"]]
    notes = []
    for threads, table in found["threads"].items():
        ratios: dict[str, list[float]] = {peer: [] for peer in (*PEERS, "better")}
        slower = []
        for row in table:
            ms = {name: times["best_step"] for name, times in row["milliseconds"].items()}
            given = {peer: ms[peer] / ms["regrow"] for peer in PEERS if peer in ms}
            given["better"] = min(given["torch csr"], given["scipy"])
            for peer, ratio in given.items():
                ratios[peer].append(ratio)
            if min(given["better"], given["sparselab"]) < 1:
                slower.append(f"{row['shape']} at {row['density']:g}, batch {row['batch']}")
        cells = [
            f"{statistics.geometric_mean(r):.2f}x ({min(r):.2f} to {max(r):.1f})"
            for r in ratios.values()
        ]
        rows.append([threads, *cells])
        said = f"slower than one of them in {len(slower)} of {len(table)} situations"
        notes.append(f"{threads} thread(s): {said}" + (f" ({'; '.join(slower)})" if slower else ""))
    return f"{_lines(rows)}\n\n{'. '.join(notes)}. {_machine(found)}."


def products() -> str:
    """Every situation of one thread at batch 128."""
    rows = [["inputs x outputs", "density", "regrow, ms", *PEERS.values()]]
    for found in _those("products", "products-8192", "products-65536"):
        rows += [_product(row) for row in found["threads"]["1"] if row["batch"] == 128]
    return _lines(rows)


def _product(row: dict[str, Any]) -> list[str]:
    ms = {name: times["best_step"] for name, times in row["milliseconds"].items()}
    cells = (f"{ms[peer] / ms['regrow']:.2f}x" if peer in ms else "no memory" for peer in PEERS)
    return [row["shape"].replace("x", " x "), f"{row['density']:g}", f"{ms['regrow']:.2f}", *cells]


def steps() -> str:
    """Training steps with Adam against dense and masked dense."""
    found = _read("training")
    rows = [["threads", "inputs x outputs", "density", "dense, ms", "masked dense", "`csr`"]]
    rows[0] += ["`auto`", "it takes", "Adam alone, dense / sparse, ms"]
    worst = math.inf
    for threads, table in found["threads"].items():
        for row in table:
            ms, adam = row["best"], row["optimizer"]
            worst = min(worst, ms["dense"] / ms["auto"])
            ratios = (f"{ms['dense'] / ms[name]:.2f}x" for name in ("masked", "csr", "auto"))
            cells = [threads, row["shape"].replace("x", " x "), f"{row['density']:g}"]
            cells += [f"{ms['dense']:.2f}", *ratios, row["chosen"]["auto"]]
            rows.append([*cells, f"{adam['dense']:.2f} / {adam['csr']:.2f}"])
    return (
        f"{_lines(rows)}\n\nTimes of the dense layer by those of the others, the shortest of all "
        f"rounds, batch {found['batch']}. `auto` at its worst: {worst:.2f}x. {_machine(found)}."
    )


def bfloat16() -> str:
    """Training steps in bfloat16 and in float32, sparse and dense."""
    found = _read("low-precision")
    rows = [["threads", "inputs x outputs", "density", "batch", "`csr` float32, ms"]]
    rows[0] += ["bfloat16, ms", "float32 / bfloat16", "dense / `csr`, float32"]
    rows[0].append("dense / `csr`, bfloat16")
    notes = []
    for threads, table in found["threads"].items():
        gains = []
        for row in table:
            ms = row["best"]
            single, low = ms["csr float32"], ms["csr bfloat16"]
            gains.append(single / low)
            dense = ms["dense float32"] / single, ms["dense bfloat16"] / low
            cells = [threads, row["shape"].replace("x", " x "), f"{row['density']:g}"]
            cells += [f"{row['batch']}", f"{single:.2f}", f"{low:.2f}"]
            rows.append([*cells, *(f"{ratio:.2f}x" for ratio in (gains[-1], *dense))])
        mean, least, most = statistics.geometric_mean(gains), min(gains), max(gains)
        notes.append(f"{mean:.2f}x ({least:.2f} to {most:.2f}) with {threads} thread(s)")
    return (
        f"{_lines(rows)}\n\nForward and backward pass with a bias, no optimiser, the shortest of "
        f"all rounds. Times of `csr` in float32 by bfloat16, geometric mean (least to most): "
        f"{', '.join(notes)}. {_machine(found)}."
    )


def epochs() -> str:
    """Epochs of SET networks against the published code."""
    runs = _those("epochs", "epochs-largest")
    rows = [["network", "code", "a step, ms", "an update, ms", "an epoch, s", "against regrow"]]
    for network in (network for found in runs for network in found["networks"]):
        base = next(iter(network["times"].values()))["epoch"]
        for code, taken in network["times"].items():
            times = [f"{1e3 * taken['step']:.2f}", f"{1e3 * taken['update']:.1f}"]
            sizes = "-".join(map(str, network["sizes"]))
            against = f"{taken['epoch'] / base:.1f}x"
            rows.append([sizes, code, *times, f"{taken['epoch']:.2f}", against])
    return f"{_lines(rows)}\n\nEpsilon {runs[0]['epsilon']}. {_machine(runs[0])}."


def updates() -> str:
    """What updates of the topology cost."""
    found = _read("updates")
    head = ["inputs x outputs", "density", "method", "step, ms", "update, ms", "share"]
    rows = [[*head, "dense gradient alone", "peak"]]
    every = found["every"]
    for case in found["cases"]:
        times = (f"{1e3 * case[f'seconds_{name}']:.2f}" for name in ("step", "update"))
        cells = [case["size"].replace("x", " x "), f"{case['density']:g}", case["method"], *times]
        gradient = case["seconds_gradient"]
        alone = f"{100 * gradient / (every * case['seconds_step'] + gradient):.2f} %"
        peak = f"{case['bytes_peak'] / 2**20:.1f} MiB"
        rows.append([*cells, f"{100 * case['share']:.2f} %", alone, peak])
    return f"{_lines(rows)}\n\nOne update every {every} steps, batch {found['batch']}."


def scale() -> str:
    """Building, training and rewiring very wide networks."""
    head = ["neurons", "epsilon", "connections", "build, s", "step, s", "streams alone"]
    rows = [[*head, "update, s", "epoch, s", "peak, bytes a connection", "peak / held"]]
    for found in _those("scale", "scale-largest"):
        for size in found["sizes"]:
            peak = max(size["peak_training"], size["peak_update"])
            build, step, update = (
                f"{size['seconds'][part]:.3g}" for part in ("build", "step", "update")
            )
            rows.append(
                [
                    f"{size['neurons']:,}",
                    f"{size['epsilon']:g}",
                    f"{size['connections']:,}",
                    build,
                    step,
                    f"{100 * size['seconds_step_least'] / size['seconds']['step']:.0f} %",
                    update,
                    f"{size['seconds_epoch']:.3g}",
                    f"{peak / size['connections']:.0f}",
                    f"{peak / size['bytes_held']:.2f}",
                ]
            )
    return _lines(rows)


def convolutions() -> str:
    """3x3 convolutions of ResNet-18's shapes."""
    found = _read("convolution")
    densities = list(dict.fromkeys(row["density"] for row in found["threads"]["1"]))
    rows = [["threads", "convolution", *(f"density {d:g}" for d in densities)]]
    for threads, table in found["threads"].items():
        for shape in dict.fromkeys(tuple(row["shape"]) for row in table):
            own = [row for row in table if tuple(row["shape"]) == shape]
            inputs, outputs, size, stride = shape
            name = f"{inputs} -> {outputs}, {size} x {size}, stride {stride}"
            rows.append([threads, name, *(f"{row['ratio']:.2f}x" for row in own)])
        means = (
            statistics.geometric_mean(row["ratio"] for row in table if row["density"] == d)
            for d in densities
        )
        rows.append([threads, "geometric mean", *(f"{mean:.2f}x" for mean in means)])
    note = f"Forward and backward pass, batch {found['batch']}, times of dense by times of sparse."
    return f"{_lines(rows)}\n\n{note} {_machine(found)}."


def _measured(table: Callable[[], str]) -> Callable[[], str]:
    """A table, or where to get its figures."""

    def made() -> str:
        try:
            return table()
        except FileNotFoundError as error:
            return f"Not measured yet: there is no `results/{Path(error.filename).name}`."

    return made


TABLES = {
    "roof": _measured(roof),
    "reached": _measured(reached),
    "peers": _measured(peers),
    "products": _measured(products),
    "steps": _measured(steps),
    "bfloat16": _measured(bfloat16),
    "epochs": _measured(epochs),
    "updates": _measured(updates),
    "scale": _measured(scale),
    "convolutions": _measured(convolutions),
}


def draw_roofline() -> None:
    """Every product measured under the roofs of its processor."""
    from regrow.measure._canvas import COLOURS, new_figure, style

    found = _read("roofline")
    colours = {"forward": "blue", "input": "green", "values": "orange", "both": "purple"}
    with style():
        figure, axes = new_figure(
            "The three products under the roof of this processor",
            "GFLOP/s over FLOPs for each byte read of the packed operand; one thread",
            width=4.8,
            height=3.2,
        )
        x = [0.05, 8.0]
        levels = found["roof"]["levels"]
        for kib, name in ((16, "L1"), (512, "L2"), (16384, "L3"), (262144, "memory")):
            rate = next(level["read"] for level in levels if level["kib"] == kib)
            roof_ = [min(found["roof"]["flops"], at * rate) / 1e9 for at in x]
            knee = found["roof"]["flops"] / rate
            points = [x[0], min(max(knee, x[0]), x[1]), x[1]]
            heights = [min(found["roof"]["flops"], at * rate) / 1e9 for at in points]
            axes.plot(points, heights, color=COLOURS["faint"], linewidth=0.9)
            axes.annotate(name, (x[0], roof_[0]), fontsize=7, va="bottom")
        for shift, (name, colour) in enumerate(colours.items()):
            at = (1.0 if name == "both" else 0.5) * 1.06 ** (shift - 1)
            rates = [row["products"][name]["flops"] / 1e9 for row in found["rows"]]
            label = {"input": "input gradient", "values": "values gradient"}.get(name, name)
            axes.scatter([at] * len(rates), rates, s=7, color=COLOURS[colour], label=label)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xticks([0.1, 0.5, 1, 5], labels=["0.1", "0.5", "1", "5"])
        axes.set_yticks([1, 10, 100], labels=["1", "10", "100"])
        axes.minorticks_off()
        axes.legend(fontsize=7, frameon=False, loc="lower right")
        figure.savefig(ROOT / "docs" / "images" / "roofline.svg")


def draw_break_even() -> None:
    """How many times faster than dense a training step is, over density."""
    from regrow.measure._bench_picture import break_even_curves
    from regrow.measure.bench import Bench, Curve, Point

    found = _read("training")
    curves = []
    for shape in dict.fromkeys(row["shape"] for row in found["threads"]["1"]):
        rows = [row for row in found["threads"]["1"] if row["shape"] == shape]
        points = [
            Point(row["density"], row["best"], row["best"], row["chosen"]["auto"]) for row in rows
        ]
        n_in, n_out = (int(n) for n in shape.split("x"))
        curves.append(Curve(n_out, n_in, points))
    figure = break_even_curves(Bench(curves, found["batch"], 1))
    figure.savefig(ROOT / "docs" / "images" / "break-even.svg")


if __name__ == "__main__":
    draw_roofline()
    draw_break_even()
