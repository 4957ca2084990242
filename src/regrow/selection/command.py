"""`regrow select`: from a file to a ranking, a smaller table and a report."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from regrow.selection.features import read_features
from regrow.selection.report import write_report
from regrow.selection.study import AGAINST, SelectOptions, Study, study, write_study
from regrow.training.machine import session


def select(chosen: Any, command: str, tell: Callable[[str], None]) -> str:
    """Do what the command line says.

    Args:
        chosen: Its options by name.
        command: What was typed.
        tell: Called with a line at each step.

    Returns:
        A table, and the paths of what was written.
    """
    options = SelectOptions(
        k=chosen.k,
        method=chosen.method,
        seeds=chosen.seeds,
        seed=chosen.seed,
        epochs=chosen.epochs,
        against=AGAINST if chosen.against is None else tuple(chosen.against),
        test=chosen.test,
    )
    features = read_features(chosen.data, chosen.target, chosen.data_dir)
    with nullcontext() if chosen.threads is None else session(chosen.threads):
        done = study(features, options, tell)
    folder = Path(chosen.out) if chosen.out else _folder(features.name, options.method)
    folder.mkdir(parents=True, exist_ok=True)
    write_study(done, folder)
    report = write_report(done, folder, command)
    written = "\n".join(
        f"{name + ':':9}{folder / name}" for name in ("ranking.csv", "selected.csv")
    )
    return f"{summary(done)}\n\n{written}\nreport:  {report}"


def summary(done: Study) -> str:
    """The choice in a few lines: best features, agreement of seeds, accuracies."""
    features, options = done.features, done.options
    lines = [
        f"{options.k:,} of {len(features.names):,} features of {features.name}, by {options.method}"
    ]
    best = [features.names[i] for i in done.chosen[:10]]
    lines.append(f"best: {', '.join(best)}{', ...' if options.k > 10 else ''}")
    if done.stability is not None:
        lines.append(f"two seeds agree on {done.stability:.0%} of the features (Jaccard)")
    if done.curves:
        place = done.counts.index(options.k)
        width = max(map(len, done.curves))
        lines.append(f"\naccuracy of a support vector machine with {options.k:,} features")
        for name, seeds in done.curves.items():
            lines.append(f"  {name:{width}}  {np.mean([seed[place] for seed in seeds]):.1%}")
        lines.append(f"  {'all':{width}}  {done.everything:.1%}")
    return "\n".join([*lines, *done.notes])


def _folder(name: str, method: str) -> Path:
    return Path("runs") / f"{name}-{method}-{time.strftime('%Y%m%d-%H%M%S')}"
