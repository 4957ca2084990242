"""Tables of README and docs, from `results/` and the registries; run it to write them in."""

from __future__ import annotations

import argparse
import json
import re
import runpy
import statistics
import sys
from functools import partial
from pathlib import Path
from typing import Any

from regrow.reproduce import show
from regrow.reproduce.systems import systems

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results"
PAGES = (
    ROOT / "README.md",
    *(
        ROOT / "docs" / f"{page}.md"
        for page in (
            "concepts",
            "results",
            "catalogue",
            "measure",
            "speed",
            "structured",
            "selection",
        )
    ),
    *sorted((ROOT / "docs" / "systems").glob("*.md")),
)
_BLOCK = re.compile(r"(<!-- table (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)

_NAMES = {"set": "SET", "rigl": "RigL", "static": "static, random", "dense": "dense twin"}


def run_table(name: str, timing: str) -> str:
    """One row for each arm of a run of `regrow train`, from `results/NAME.json`.

    Times come from `results/TIMING.json`: the same run, or a short one on a quiet machine.
    """
    arms: dict[str, dict[str, Any]] = _read(name)["arms"]
    timed = _read(timing)["arms"]
    times = {arm: statistics.median(timed[arm]["seconds_per_epoch"]) for arm in arms}
    dense = arms["dense"]
    rows = [
        "| network | test accuracy, last epoch | epoch chosen by validation | connections "
        "| bytes held | FLOPs of training | an epoch |",
        "|---|---|---|---|---|---|---|",
    ]
    for arm, figures in arms.items():
        cells = [
            _NAMES.get(arm, arm),
            _percent(figures["test_score"]),
            _percent(figures["test_score_at_best"]),
            f"{figures['connections']:,}",
            _fewer(dense["bytes_total"], figures["bytes_total"], "smaller"),
            _fewer(_flops(dense), _flops(figures), "fewer"),
            _fewer(times["dense"], times[arm], "faster"),
        ]
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def run_note(name: str, timing: str) -> str:
    """How the run of `run_table` was made, in a sentence or two."""
    found = _read(name)
    options, timed = found["options"], _read(timing)
    machine = timed["machine"]
    seeds = len(found["arms"]["dense"]["test_score"])
    hidden = "-".join(str(n) for n in options.get("hidden", [256, 256]))
    rates = ", ".join(f"{arm} {a['learning_rate']:g}" for arm, a in found["arms"].items())
    schedule = options.get("rate_schedule", "constant")
    falls = "" if schedule == "constant" else f", from where it falls ({schedule})"
    return (
        f"{options.get('data', 'digits')}, hidden layers {hidden}, {found['epochs']} epochs for "
        f"each network, mean ± standard deviation of {seeds} seeds. "
        f"Each has the best learning rate of one grid, judged on validation data ({rates}){falls}. "
        f"Times are medians on {timed['threads']} thread(s) of {machine['processor']} "
        f"({machine['kernels']}), all in one run of {timed['epochs']} epochs."
    )


def experiment_table(name: str, *, sort: bool = False) -> str:
    """One row for each arm of each run of an experiment, from `results/NAME.json`."""
    runs = _read(name)
    task = next(iter(runs.values()))["task"]
    score = {"classification": "test accuracy", "language": "test bits per character"}[task]
    labelled = len(runs) > 1
    dense = next(found["arms"]["dense"] for found in runs.values() if "dense" in found["arms"])
    head = ["run"] if labelled else []
    head += ["network", f"{score}, last epoch", "epoch chosen by validation", "connections"]
    head += ["FLOPs of training", "an epoch", "learning rate"]
    rows = []
    for label, found in runs.items():
        for arm, figures in found["arms"].items():
            cells = [label] if labelled else []
            cells.append(_NAMES.get(arm, arm))
            rows.append((figures["test_score"], cells + _figures(figures, dense, task)))
    if sort:
        rows.sort(key=lambda row: -statistics.mean(row[0] or [0.0]))
    lines = [head, ["---"] * len(head), *(cells for _, cells in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _figures(figures: dict[str, Any], dense: dict[str, Any], task: str) -> list[str]:
    scores = figures["test_score"]
    if not scores:
        return ["diverged", *[""] * 5]
    lost = f" ({figures['diverged']} diverged)" if "diverged" in figures else ""
    whole, own = (found.get("processor_seconds_per_epoch") for found in (dense, figures))
    return [
        _score(scores, task) + lost,
        _score(figures["test_score_at_best"], task),
        f"{figures['connections']:,}",
        _fewer(_flops(dense), _flops(figures), "fewer"),
        _fewer(whole, own, "faster") if whole and own else "not measured",
        f"{figures['learning_rate']:g}",
    ]


def experiment_note(name: str) -> str:
    """How an experiment was made: its commands, machine and what they leave unsaid."""
    runs = _read(name)
    first = next(iter(runs.values()))
    rows, machine = first["rows"], first["machine"]
    counts = sorted({found["seeds"] for found in runs.values()})
    seeds = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else str(counts[0])
    what = "windows of text" if first["task"] == "language" else "images"
    return (
        f"{rows['train']:,} {what} to train on, {rows['validation']:,} to validate and "
        f"{rows['test']:,} to test, {first['epochs']} epochs, mean ± standard deviation of {seeds} "
        f"seed(s). An epoch is told in processor time of {first['threads']} thread(s) of "
        f"{machine['processor']} ({machine['kernels']}), from short trainings of their own."
    )


def _flops(figures: dict[str, Any]) -> float:
    total = figures["flops_training_total"]
    return statistics.mean(total) if isinstance(total, list) else total


def memory_note() -> str:
    """Bytes per connection of a very wide layer, from `results/memory.json`."""
    found = _read("memory")
    return (
        f"A layer of {found['features']:,} x {found['features']:,} with "
        f"{found['connections']:,} connections peaks at {found['peak_step']:.0f} bytes per "
        f"connection in a training step with Adam (batch {found['batch']}), activations included, "
        f"and at {found['peak_update']:.0f} in an update of its topology. Weights, gradients and "
        f"optimiser state of its dense twin alone would be "
        f"{16 * found['features'] ** 2 / found['connections']:,.0f} bytes per connection."
    )


def resume_note() -> str:
    """What killing a run did to it, from `results/kill-and-resume.json`."""
    found = _read("kill-and-resume")
    same = "identical, bit for bit" if found["identical"] else "NOT identical"
    return f"Killed with SIGKILL {len(found['kills'])} times and resumed each time: {same}."


def exactness_note() -> str:
    """How many random updates were checked, and how many differed."""
    found = _read("exactness")
    differ = "none differed" if not found["differences"] else f"{found['differences']} differed"
    return (
        f"{found['updates']:,} updates of {found['compositions']:,} random compositions, in which "
        f"{found['moved']:,} connections were dropped or grown: {differ}. "
        f"{found['refused']:,} further compositions were refused with a reason."
    )


def systems_table() -> str:
    """The fifty systems: what each is, its state, and how many of its claims held."""
    rows = [
        "| system | what it is | state | claims held | a core's time |",
        "|---|---|---|---|---|",
    ]
    for name, system in sorted(systems().items(), key=lambda entry: not entry[1].works):
        shown = f"[`{name}`]({name}.md)" if system.works else f"`{name}`"
        rows.append("| " + " | ".join([shown, system.line, system.state, *_came_out(name)]) + " |")
    return "\n".join(rows)


def reproduced_table() -> str:
    """The systems that have been reproduced, for the front page."""
    rows = ["| system | what it is | claims held | a core's time |", "|---|---|---|---|"]
    for name, system in systems().items():
        if (RESULTS / f"{name}.json").exists():
            shown = f"[`{name}`](docs/systems/{name}.md)"
            rows.append("| " + " | ".join([shown, system.line, *_came_out(name)]) + " |")
    return "\n".join(rows)


def _came_out(name: str) -> list[str]:
    if not (RESULTS / f"{name}.json").exists():
        return ["", ""]
    found = _read(name)
    return [show.held(found), show.duration(found)]


def system_block(name: str) -> str:
    """What came out of `regrow reproduce NAME`."""
    if not (RESULTS / f"{name}.json").exists():
        return f"`regrow reproduce {name}` has not been run for this page yet."
    return show.markdown(_read(name), "../../results")


TABLES = {
    "systems": systems_table,
    "reproduced": reproduced_table,
    **{f"system_{n.replace('-', '_')}": partial(system_block, n) for n in systems()},
    "exactness": exactness_note,
    "fashion": lambda: _run("fashion-mnist", "fashion-mnist-timing"),
    "digits": lambda: _run("digits", "digits"),
    "memory": memory_note,
    "resume": resume_note,
    "methods": lambda: _experiment("methods", sort=True),
    "resnet": lambda: _experiment("resnet"),
    "transformer": lambda: _experiment("transformer"),
    "lstm": lambda: _experiment("lstm"),
    **runpy.run_path(str(ROOT / "docs" / "catalogue.py"))["TABLES"],
    **runpy.run_path(str(ROOT / "docs" / "structured.py"))["TABLES"],
    **runpy.run_path(str(ROOT / "docs" / "feature_selection.py"))["TABLES"],
    **runpy.run_path(str(ROOT / "docs" / "measures.py"))["TABLES"],
    **runpy.run_path(str(ROOT / "docs" / "speed.py"))["TABLES"],
}


def _experiment(name: str, *, sort: bool = False) -> str:
    return experiment_table(name, sort=sort) + "\n\n" + experiment_note(name)


def _run(name: str, timing: str) -> str:
    return run_table(name, timing) + "\n\n" + run_note(name, timing)


def filled(text: str) -> str:
    """A text with every marked block made anew."""
    return _BLOCK.sub(lambda m: f"{m[1]}{TABLES[m[2]]()}\n{m[3]}", text)


def _read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return found


def _score(scores: list[float], task: str) -> str:
    if task == "classification":
        return _percent(scores)
    mean = f"{statistics.mean(scores):.3f}"
    return f"{mean} ± {statistics.stdev(scores):.3f}" if len(scores) > 1 else mean


def _percent(scores: list[float]) -> str:
    mean = f"{100 * statistics.mean(scores):.2f}"
    return f"{mean} ± {100 * statistics.stdev(scores):.2f} %" if len(scores) > 1 else f"{mean} %"


def _fewer(dense: float, own: float, word: str) -> str:
    if own == dense:
        return "1x"
    if own < dense:
        return f"{dense / own:.1f}x {word}"
    opposite = {"smaller": "larger", "fewer": "more", "faster": "slower"}[word]
    return f"{own / dense:.1f}x {opposite}"


def main() -> int:
    """Rewrite the marked blocks, or with --check count the pages where they are outdated."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if outdated")
    options = parser.parse_args()
    outdated = [page for page in PAGES if filled(page.read_text()) != page.read_text()]
    if options.check:
        return len(outdated)
    for page in outdated:
        page.write_text(filled(page.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
