"""The sections that set the arms side by side: tiles, table, learning rates."""

from __future__ import annotations

import math
from collections.abc import Callable

from regrow.training.report import wording
from regrow.training.report.gallery import colours
from regrow.training.report.headline import density, score_digits, score_name, show_spread
from regrow.training.report.markup import Html, join, table, tag
from regrow.training.report.run import Run, as_number

Show = Callable[[float | None], str]

_ROOMY = 6  # arms up to which there is room for every detail of each
_LESS = ("peak memory", "FLOPs a sample")  # left out where there are more


def tiles(run: Run) -> Html | None:
    """The main arm in five numbers, each with a bar against its dense twin."""
    if not run.of(run.main):
        return None
    cells = [_score_tile(run)]
    for title, key, show, words in (
        ("connections", "connections", wording.count, ("fewer", "more")),
        ("bytes held", "bytes_total", wording.size, ("fewer", "more")),
        ("FLOPs a sample, forward", "flops_forward_per_sample", wording.count, ("fewer", "more")),
        ("an epoch", "seconds_per_epoch", wording.duration, ("faster", "slower")),
    ):
        cell = _tile(run, title, key, show, words)
        if cell is not None:
            cells.append(cell)
    return tag("ul", *cells, class_="tiles")


def arm_table(run: Run) -> Html:
    """All arms with all their numbers and the ratios to the dense twin."""
    score = score_name(run)
    heads = [
        "arm",
        f"test {score}, last epoch",
        f"test {score}, best epoch",
        "connections",
        "bytes held",
        "peak memory",
        "FLOPs a sample",
        "FLOPs of training",
        "an epoch takes",
        "learning rate",
    ]
    many = len(run.arms) > _ROOMY
    rows = [_arm_row(run, arm) for arm in (_by_score(run) if many else run.arms) if run.of(arm)]
    keep = [
        index
        for index, head in enumerate(heads)
        if index == 0
        or (
            any(str(row[index]) != wording.MISSING for row in rows) and not (many and head in _LESS)
        )
    ]
    return join(
        [
            table(
                "The arms side by side",
                [heads[index] for index in keep],
                [[row[index] for index in keep] for row in rows],
                class_="arms many" if many else "arms",
            ),
            tag("p", _table_note(run), class_="note"),
        ]
    )


def tuning(run: Run) -> Html:
    """How each arm came to its learning rate."""
    grid = run.tuning.get("grid")
    scores, chosen = run.tuning.get("scores"), run.tuning.get("chosen")
    if not isinstance(grid, list) or not isinstance(scores, dict) or not isinstance(chosen, dict):
        given = run.config.get("learning_rate")
        said = f" {given:g}" if isinstance(given, (int, float)) else ""
        shared = ", the same for every arm" if len(run.arms) > 1 else ""
        text = f"The learning rate{said} was given{shared}; none was searched for."
        return tag("p", text, class_="note")
    rows, warnings, grid = [], [], sorted(grid)
    for arm, found in scores.items():
        by_rate = {_rate(rate): as_number(value) for rate, value in found.items()}
        best = as_number(chosen.get(arm))
        rows.append([_name(run, arm), *(_tried(run, by_rate, rate, best) for rate in grid)])
        if best is not None and len(grid) > 1 and best in (min(grid), max(grid)):
            side = "smallest" if best == min(grid) else "largest"
            warnings.append(f"{arm} took the {side} rate of the grid: its best may lie beyond.")
    epochs = run.tuning.get("epochs")
    trial = wording.plural(epochs, "epoch") if isinstance(epochs, int) else "a short training"
    text = (
        f"Each arm tried the same {len(grid)} learning rates for {trial} and kept the one with the "
        f"best validation {score_name(run)}; the test part played no role."
    )
    title = f"Validation {score_name(run)} of each learning rate"
    heads = ["arm", *(f"{rate:g}" for rate in grid)]
    tried = table(title, heads, rows, class_="tuning")
    return join(
        [
            tag("h3", "How the learning rates were chosen"),
            tag("p", " ".join([text, *warnings])),
            tried if len(rows) <= _ROOMY else tag("details", tag("summary", title), tried),
        ]
    )


def _score_tile(run: Run) -> Html:
    result = run.spread(run.main, "test_score")
    note, bars = "", None
    if run.twin and result:
        reference = run.spread(run.twin, "test_score")
        note = f"dense twin {show_spread(run, reference)}"
        if run.classifies and reference:
            bars = _bars(run, result.mean, reference.mean, 1.0)
    text = wording.score(
        result.mean if result else None, classifies=run.classifies, digits=score_digits(run)
    )
    return _card(text, f"test {score_name(run)}", note, bars)


def _tile(run: Run, title: str, key: str, show: Show, words: tuple[str, str]) -> Html | None:
    mine = run.mean(run.main, key)
    if mine is None:
        return None
    reference, beside = (run.mean(run.twin, key) if run.twin else None), "dense twin"
    if reference is None and key == "connections":
        reference, beside = run.mean(run.main, "dense_connections"), "dense"
    if not reference:
        return _card(show(mine), title, "", None)
    ratio = wording.times(mine, reference, *words)
    note = join([tag("b", ratio), tag("br"), f"{beside} {show(reference)}"])
    return _card(show(mine), title, note, _bars(run, mine, reference, max(mine, reference)))


def _card(value: str, title: str, note: object, bars: Html | None) -> Html:
    return tag(
        "li",
        tag("strong", value),
        tag("span", title, class_="what"),
        bars,
        tag("span", note, class_="sub") if note else None,
    )


def _bars(run: Run, mine: float, reference: float, whole: float) -> Html:
    """Two bars on one scale, for the eye only: the numbers stand beside them."""

    def bar(value: float, colour: str) -> Html:
        width = max(0.0, min(100.0, 100 * value / whole))
        return tag("i", style=f"width:max(2px,{width:.1f}%);background:var(--{colour})")

    colour = colours(run)[run.main]
    return tag("span", bar(mine, colour), bar(reference, "grey"), class_="bars", aria_hidden="true")


def _arm_row(run: Run, arm: str) -> list[Html]:
    roomy = len(run.arms) <= _ROOMY
    kept = density(run, arm)
    share = f"{wording.percent(kept)} of all" if kept is not None and roomy else ""
    parts = [
        f"{wording.size(run.mean(arm, key))} {name}"
        for key, name in (
            ("bytes_values", "values"),
            ("bytes_indices", "indices"),
            ("bytes_optimizer", "optimizer"),
        )
        if roomy and run.mean(arm, key)
    ]
    rates = sorted({rate for t in run.of(arm) if (rate := t.get("learning_rate")) is not None})
    complete = all(training.finished for training in run.of(arm))
    seeds = _seeds(run, arm) if roomy or not complete else ""
    tuned = _tuned(run, arm) if roomy else ""
    less, time = ("fewer", "more"), ("faster", "slower")
    return [
        _name(run, arm),
        _cell(show_spread(run, run.spread(arm, "test_score")), seeds),
        _cell(show_spread(run, run.spread(arm, "test_score_at_best")), ""),
        _quantity(run, arm, "connections", wording.count, less, share),
        _quantity(run, arm, "bytes_total", wording.size, less, *parts),
        _quantity(run, arm, "peak_bytes", wording.size, ("less", "more")),
        _quantity(run, arm, "flops_forward_per_sample", wording.count, less),
        _quantity(run, arm, "flops_training_total", wording.count, less),
        _quantity(run, arm, "seconds_per_epoch", wording.duration, time),
        _cell(", ".join(f"{rate:g}" for rate in rates) or wording.MISSING, tuned),
    ]


def _by_score(run: Run) -> list[str]:
    """The arms, best first."""

    def worse(arm: str) -> float:
        score = run.mean(arm, "test_score")
        return math.inf if score is None else -score if run.rising else score

    return sorted(run.arms, key=worse)


def _quantity(
    run: Run, arm: str, key: str, show: Show, words: tuple[str, str], *notes: str
) -> Html:
    mine = run.mean(arm, key)
    ratio = ""
    if mine is not None and run.twin and arm != run.twin:
        ratio = wording.times(mine, run.mean(run.twin, key), *words)
    return _cell(show(mine), ratio, *notes)


def _cell(value: str, *notes: str) -> Html:
    said = [tag("small", note) for note in notes if note]
    return Html(wording.MISSING) if value == wording.MISSING else join([value, *said])


def _name(run: Run, arm: str) -> Html:
    colour = colours(run).get(arm, "faint")
    return join([tag("i", class_="dot", style=f"background:var(--{colour})"), arm])


def _seeds(run: Run, arm: str) -> str:
    trainings = run.of(arm)
    finished = sum(training.finished for training in trainings)
    diverged = sum(bool(training.diverged) for training in trainings)
    if diverged:
        return f"{diverged} of {wording.plural(len(trainings), 'seed')} diverged"
    if finished == len(trainings):
        return wording.plural(finished, "seed")
    if finished:
        return f"{finished} of {wording.plural(len(trainings), 'seed')} finished"
    epochs = max((len(training.rows) for training in trainings), default=0)
    return f"unfinished, {wording.plural(epochs, 'epoch')}"


def _tuned(run: Run, arm: str) -> str:
    chosen = run.tuning.get("chosen")
    return "tuned" if isinstance(chosen, dict) and arm in chosen else ""


def _rate(rate: object) -> str:
    """A learning rate as the run writes it, so that equal ones are equal text."""
    return f"{float(str(rate)):g}"


def _tried(run: Run, tried: dict[str, float | None], rate: object, best: float | None) -> Html:
    value = tried.get(_rate(rate))
    shown = wording.score(value, classifies=run.classifies, digits=score_digits(run))
    if value is None and _rate(rate) in tried:
        shown = "diverged"
    return join([tag("b", shown), tag("small", "chosen")] if rate == best else [shown])


def _table_note(run: Run) -> str:
    text = "Best first. " if len(run.arms) > _ROOMY else ""
    text += (
        "Test scores are those of the last epoch and of the epoch with the best validation score; "
        "nothing was selected on the test part. Bytes held are those of weights and biases with "
        "their indices and optimizer state. An epoch is the median, training only."
    )
    if any((found := run.spread(arm, "test_score")) and found.count > 1 for arm in run.arms):
        text = f"± is the standard deviation over seeds. {text}"
    return text + (" Ratios are to the dense twin." if run.twin else "")
