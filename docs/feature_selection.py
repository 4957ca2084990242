"""Tables of the page on feature selection; `docs/tables.py` writes them in."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / "results"
_OWN = ("quickselection", "wast", "neurofs", "attribution")
_BLIND = ("quickselection", "wast", "variance", "laplacian", "chance")
_JUDGES = {"svm": "SVM", "trees": "trees", "neighbour": "1-NN", "clusters": "clusters"}


def selection_ranks() -> str:
    """Average rank of every ranking over all sets, by every judge."""
    found = _read("selection")
    if found is None:
        return _missing("selection")
    ranks = found["ranks"]
    lines = [
        "| ranking | labels | " + " | ".join(_JUDGES.values()) + " | s | MiB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in sorted(ranks["svm"]["ranks"], key=lambda name: ranks["svm"]["ranks"][name]):
        cells = [f"`{name}`" if name in _OWN else name, "no" if name in _BLIND else "yes"]
        cells += [
            f"{ranks[judge]['ranks'][name]:.2f}" if name in ranks[judge]["ranks"] else ""
            for judge in _JUDGES
        ]
        seconds = [row[name] for row in found["seconds"].values()]
        peaks = [row[name] / 2**20 for row in found["peak"].values()]
        cells += [_short(statistics.median(seconds)), f"{statistics.median(peaks):.0f}"]
        lines.append("| " + " | ".join(cells) + " |")
    svm, clusters, machine = ranks["svm"], ranks["clusters"], found["machine"]
    note = (
        f"Average rank over {len(found['sets'])} real sets, 1 the best, {found['seeds']} seeds; "
        f"scores are means over three numbers of features. Ranks that differ by less than "
        f"{svm['distance']:.2f} ({clusters['distance']:.2f} for clusters, five rankings) are not "
        f"told apart (Nemenyi, 0.05; Friedman p = {svm['p']:.1g} for the SVM). Seconds of one core "
        f"of {machine['processor']} and peak memory: medians over sets."
    )
    return "\n".join([*lines, "", note, "", _picture("selection-svm.png", "Average ranks, SVM")])


def selection_sets() -> str:
    """Accuracy of an SVM with the middle number of features, set by set."""
    found = _read("selection")
    if found is None:
        return _missing("selection")
    names = list(next(iter(found["middle"].values())))
    heads = ["set", "rows", "features", "classes", "k", *names]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for data, row in found["middle"].items():
        about = found["sets"][data]
        means = {name: 100 * statistics.fmean(row[name]) for name in names}
        best = max(mean for name, mean in means.items() if name != "all features")
        cells = [data, f"{about['train']:,} + {about['test']:,}", f"{about['features']:,}"]
        cells += [str(about["classes"]), str(about["counts"][1])]
        cells += [f"**{m:.1f}**" if m == best else f"{m:.1f}" for m in means.values()]
        lines.append("| " + " | ".join(cells) + " |")
    note = (
        f"Test accuracy of an SVM with k features in percent, mean of {found['seeds']} splits; "
        f"rows of training and test. Published options but for {_given(found)} (genes: "
        "200 epochs)."
    )
    return "\n".join([*lines, "", note])


def planted() -> str:
    """Recall of the relevant features at every size of the planted table."""
    found = _read("planted")
    if found is None:
        return _missing("planted")
    sizes = list(found["tables"])
    relevant, informative = found["informative"] + found["redundant"], found["informative"]
    heads = ["ranking"]
    for size in sizes:
        noise = 100 * (1 - relevant / int(size))
        heads += [f"{int(size):,} ({noise:.1f} % noise), k = {informative}", f"k = {relevant}", "s"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for name in found["tables"][sizes[0]]:
        cells = [f"`{name}`" if name in _OWN else name]
        for size in sizes:
            arm = found["tables"][size][name]
            cells += [
                f"{statistics.fmean(arm['recall'][str(k)]):.2f}" for k in (informative, relevant)
            ]
            cells.append(_short(arm["seconds"]))
        lines.append("| " + " | ".join(cells) + " |")
    seeds = ", ".join(f"{count} at {int(size):,}" for size, count in found["seeds"].items())
    note = (
        f"Share of the relevant features among the k first, of as many as fit: {found['rows']} "
        f"rows, {informative} informative features, {found['redundant']} mixtures of them, noise. "
        f"Seeds: {seeds}. Seconds of one core. Published options but for {_given(found)}."
    )
    drawn = [
        _picture(f"planted-{size}.png", f"Recall among {int(size):,} features") for size in sizes
    ]
    return "\n".join([*lines, "", note, "", *drawn])


def selector_speed() -> str:
    """Seconds and memory of the selectors on many features, and what sparsity saves."""
    run = _read("selector-speed")
    if run is None:
        return _missing("selector_speed")
    found, machine = run["found"], run["machine"]
    lines = ["| selector | s | whole process, MiB | the fit alone, MiB |", "|---|---|---|---|"]
    for name in _OWN:
        row = found[name]
        lines.append(
            f"| `{name}` | {row['seconds']:.0f} | {row['resident'] / 2**20:.0f} "
            f"| {row['peak'] / 2**20:.0f} |"
        )
    sparse, dense = found["csr"], found["dense"]
    busy = ""
    if run["load"] > 1:
        busy = f". Other processes ran beside (load {run['load']:.1f}): rough times"
    note = (
        f"{run['rows']} rows, {run['features']:,} features, published options, a process each, "
        f"{run['threads']} threads of {machine['processor']} ({machine['kernels']}). "
        f"{run['epochs']} epochs of QuickSelection ({run['connections']:,} connections; dense "
        f"{run['dense']:,}) take {sparse['seconds']:.1f} s and {sparse['peak'] / 2**20:.0f} MiB "
        f"with sparse products, {dense['seconds']:.1f} s and {dense['peak'] / 2**20:.0f} MiB with "
        f"dense ones: {dense['seconds'] / sparse['seconds']:.1f}x the time and "
        f"{dense['peak'] / sparse['peak']:.1f}x the memory at the peak. A "
        f"masked dense network would hold {12 * run['dense'] / 2**20:.0f} MiB of weights, "
        f"gradients and momentum{busy}."
    )
    return "\n".join([*lines, "", note])


def _given(found: dict[str, Any]) -> str:
    """The options that are not the published ones."""
    return "; ".join(
        f"`{name}` with " + ", ".join(f"{key} {value}" for key, value in given.items())
        for name, given in found["options"].items()
    )


def _short(seconds: float) -> str:
    return f"{seconds:.1f}" if seconds < 10 else f"{seconds:.0f}"


def _picture(file: str, says: str) -> str:
    return f"![{says}](../results/{file})"


def _missing(script: str) -> str:
    return f"`python benchmarks/{script}.py` has not been run for this page yet."


def _read(name: str) -> dict[str, Any] | None:
    path = RESULTS / f"{name}.json"
    found: dict[str, Any] | None = json.loads(path.read_text()) if path.exists() else None
    return found


TABLES = {
    "selectionranks": selection_ranks,
    "selectionsets": selection_sets,
    "planted": planted,
    "selectorspeed": selector_speed,
}
