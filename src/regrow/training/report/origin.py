"""Where the numbers come from: data, machine, command, options, files."""

from __future__ import annotations

import json
import shlex
from typing import Any

from regrow.training.options import TrainOptions
from regrow.training.report import wording
from regrow.training.report.markup import Html, join, table, tag
from regrow.training.report.run import Run

_MACHINE = {
    "processor": "{}",
    "system": "{}",
    "cores": "{} cores",
    "python": "Python {}",
    "kernels": "{} kernels",
}
_FILES = {
    "config.json": "all options, versions and the machine",
    "dataset.json": "what was learned and how it was split",
    "tuning.json": "learning rates tried and chosen",
    "compute.json": "arithmetic measured and chosen for each layer",
    "metrics.jsonl": "one line per arm, seed and epoch",
    "arms": "per arm and seed: checkpoints, result, topology",
    "figures": "the pictures of this page as PNG files",
}


def data_line(run: Run) -> str:
    """The data set and its sizes, in one line."""
    data = run.dataset
    name = data.get("name") or run.config.get("data") or "unknown data"
    parts = [f"{name}, {data['task']}" if data.get("task") else str(name)]
    sizes = [
        f"{data[f'n_{part}']:,} {part}"
        for part in ("train", "validation", "test")
        if isinstance(data.get(f"n_{part}"), int)
    ]
    if sizes:
        parts.append(" + ".join(sizes) + " samples")
    if run.task == "language":
        window, characters = data.get("n_features"), data.get("n_classes")
        return " · ".join([*parts, f"{window} characters each, {characters} different"])
    for key, noun in (("n_features", "feature"), ("n_classes", "class")):
        number = data.get(key)
        if isinstance(number, int):
            plural = "classes" if noun == "class" and number != 1 else ""
            parts.append(f"{number} {plural}" if plural else wording.plural(number, noun))
    return " · ".join(parts)


def machine_line(run: Run) -> str:
    """When, with which versions and on which machine, in one line."""
    config = run.config
    parts = [run.started.strftime("%Y-%m-%d %H:%M")]
    parts += [f"{name} {config[name]}" for name in ("regrow", "torch") if config.get(name)]
    machine = config.get("machine")
    if isinstance(machine, dict):
        parts += [_MACHINE.get(key, key + " {}").format(v) for key, v in machine.items() if v]
    elif machine:
        parts.append(str(machine))
    if isinstance(config.get("threads"), int):
        parts.append(wording.plural(config["threads"], "thread"))
    return " · ".join(parts)


def reproduce(run: Run) -> Html:
    """The command, the classes, the notes on the data, all options, and the files."""
    options = [
        [key, _plain(value)] for key, value in run.config.items() if not isinstance(value, dict)
    ]
    files = [[name, what] for name, what in _FILES.items() if (run.folder / name).exists()]
    names = run.dataset.get("class_names")
    notes = run.dataset.get("notes")
    return join(
        [
            tag("p", "The command that made this run; the same seed gives the same numbers."),
            tag("pre", tag("code", command(run)), tabindex="0"),
            tag("p", _names(run, names), class_="note")
            if isinstance(names, list) and names
            else None,
            *(tag("p", f"Data: {note}", class_="note") for note in notes or ()),
            tag(
                "details",
                tag("summary", "All options"),
                table("All options", ["option", "value"], options, class_="plain"),
            ),
            tag(
                "details",
                tag("summary", "Files of this run"),
                table("Files of this run", ["file", "what it holds"], files, class_="plain"),
            ),
        ]
    )


def _names(run: Run, names: list[object]) -> str:
    """The classes, or the characters."""
    if run.task == "language":
        return f"Characters: {json.dumps(''.join(map(str, names)), ensure_ascii=False)}"
    return f"Classes: {', '.join(map(str, names))}."


def command(run: Run) -> str:
    """The command as it was given, or one that resolves to the same options."""
    given = run.config.get("command")
    if isinstance(given, str) and given:
        return given
    if isinstance(given, list) and given:
        return shlex.join(map(str, given))
    parts = ["regrow", "train"]
    for name, default in TrainOptions().to_dict().items():
        value = run.config.get(name, default)
        if value == default or name == "out":
            continue
        if name == "data":
            parts.append(str(value))
            continue
        values = value if isinstance(value, list) else [value]
        parts += [f"--{name.replace('_', '-')}", *map(str, values)]
    return shlex.join(parts)


def footer(run: Run) -> Html:
    """The last line."""
    version = run.config.get("regrow", "")
    return tag(
        "p", f"Made by regrow {version} from {run.folder.resolve().name}.".replace("  ", " ")
    )


def _plain(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return " ".join(map(str, value)) or "none"
    return "default" if value is None else str(value)
