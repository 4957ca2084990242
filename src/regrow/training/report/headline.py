"""What came out, in sentences made from the numbers, whichever way they point."""

from __future__ import annotations

from regrow.training.report import wording
from regrow.training.report.run import Run, Spread

# Quantity of a result: (name, said if smaller than the dense twin's, said if larger).
QUANTITIES = {
    "connections": ("connections", "fewer", "more"),
    "bytes_total": ("bytes", "fewer", "more"),
    "flops_training_total": ("FLOPs of training", "fewer", "more"),
    "seconds_per_epoch": ("epoch", "faster", "slower"),
}


def score_name(run: Run) -> str:
    """What the score is called."""
    if run.task == "language":
        return "bits per character"
    return "accuracy" if run.classifies else "R²"


def score_digits(run: Run) -> int:
    """Decimals of an accuracy in percent: two only if the test set can tell them apart."""
    size = run.dataset.get("n_test")
    return 2 if isinstance(size, int) and size >= 5000 else 1


def show_spread(run: Run, value: Spread | None) -> str:
    """A score of this run with its deviation."""
    return wording.spread(value, classifies=run.classifies, digits=score_digits(run))


def density(run: Run, arm: str) -> float | None:
    """Kept fraction of the connections of an arm; None if the dense count is unknown."""
    kept = run.mean(arm, "connections")
    whole = run.mean(arm, "dense_connections")
    if whole is None and run.twin:
        whole = run.mean(run.twin, "connections")
    return kept / whole if kept is not None and whole else None


def headline(run: Run) -> str:
    """The one sentence that says how it went.

    Args:
        run: The run.

    Returns:
        A sentence without its full stop.
    """
    main = run.main
    if not any(training.rows or training.finished for training in run.trainings):
        return "Nothing has been trained in this run yet"
    opening = _opening(run)
    result = run.spread(main, "test_score")
    if result is None:
        return f"{opening}: no finite test score, the training diverged"
    text = f"{opening}: {show_spread(run, result)} test {score_name(run)}"
    if run.task == "language":
        text = f"{opening}: {show_spread(run, result)} bits per character in the test"
    elif not run.classifies:
        text = f"{opening}: test R² {show_spread(run, result)}"
    if run.twin:
        text += f" (dense twin: {show_spread(run, run.spread(run.twin, 'test_score'))})"
    return text


def _opening(run: Run) -> str:
    kept = density(run, run.main)
    if not run.of(run.main):
        return f"Nothing of {run.main} yet"
    started = "Trained from scratch" if run.finished else "So far, from scratch"
    if kept is None:
        return started
    if kept >= 1:
        return f"{started} with all connections"
    return f"{started} with {wording.percent(kept)} of the connections"


def comparison(run: Run) -> str:
    """Sentences that set the main arm beside its dense twin, gains and losses alike.

    Args:
        run: The run.

    Returns:
        The sentences; says that there is no twin if there is none.
    """
    if not run.of(run.main):
        return ""
    if run.twin is None:
        hint = "To see what sparsity costs, train one with --compare dense."
        return "" if run.main == "dense" else f"No dense twin was trained beside it. {hint}"
    parts = [_score_difference(run, run.twin)]
    ratios = []
    for key, (name, less, more) in QUANTITIES.items():
        mine, reference = run.mean(run.main, key), run.mean(run.twin, key)
        if mine is None or not reference:
            continue
        said = wording.times(mine, reference, less, more)
        if key == "seconds_per_epoch":
            ratios.append(f"an epoch takes {said}" if "same" in said else f"an epoch is {said}")
        else:
            ratios.append(f"as many {name}" if "same" in said else f"{said} {name}")
    if ratios:
        listed = " and ".join([", ".join(ratios[:-1]), ratios[-1]] if ratios[1:] else ratios)
        parts.append(f"Next to the twin: {listed}.")
    return " ".join(part for part in parts if part)


def _score_difference(run: Run, twin: str) -> str:
    mine, reference = run.spread(run.main, "test_score"), run.spread(twin, "test_score")
    if mine is None or reference is None:
        return ""
    gap = mine.mean - reference.mean
    digits = score_digits(run)
    size = f"{100 * abs(gap):.{digits}f} points" if run.classifies else f"{abs(gap):.3f}"
    if float(size.split()[0]) == 0:
        return "The sparse network and its dense twin score the same."
    if run.task == "language":
        told = f"The sparse network needs {size} bits {'more' if gap > 0 else 'fewer'} a character"
        told += " than its dense twin"
    else:
        side = "higher" if gap > 0 else "lower"
        told = f"The sparse network scores {size} {side} than its dense twin"
    if mine.deviation is None or reference.deviation is None:
        return f"{told}{'; with so few seeds that can be chance' if abs(gap) < 0.02 else ''}."
    noise = max(mine.deviation, reference.deviation)
    judged = "within the spread" if abs(gap) <= noise else "larger than the spread"
    return f"{told}, a gap {judged} over seeds."


def progress(run: Run) -> str:
    """What is missing from an unfinished run; empty for a finished one."""
    if run.finished:
        return ""
    text = f"This run is unfinished: {run.n_done} of {run.expected} trainings have come to an end."
    for training in run.trainings:
        if not training.done and training.rows:
            last, asked = training.rows[-1].get("epoch"), run.config.get("epochs", "?")
            text += f" {training.arm}, seed {training.seed}, stands at epoch {last} of {asked}."
    return text + f" To continue it: regrow train --resume {run.folder}"
