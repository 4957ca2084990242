"""The pictures of a run: which ones, from which numbers, and what they say in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from regrow.measure import pictures
from regrow.training.report import wording
from regrow.training.report.headline import score_digits, score_name
from regrow.training.report.run import Run, Training

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN_LAYERS = 6
SHOWN_MAPS = 6
_LOWEST_R2 = -0.5
_FEW = 3  # arms that curves alone set side by side
_CLOSE = 0.05  # final scores further apart are no race

Seeds = dict[str, list[tuple[list[float], list[float]]]]


@dataclass(frozen=True)
class Picture:
    """A figure, the name of its file, and the same in words.

    Args:
        name: Name of the file without its ending.
        figure: The figure.
        description: For who does not see it.
    """

    name: str
    figure: Figure
    description: str


def colours(run: Run) -> dict[str, str]:
    """The colour of each arm; beyond what can be told apart, the best arms get one."""

    def rank(arm: str) -> tuple[bool, float]:
        score = run.mean(arm, "test_score")
        worse = math.inf if score is None else -score if run.rising else score
        return arm not in (run.main, "dense"), worse

    given = pictures.arm_colours(sorted(run.arms, key=rank))
    return {arm: given[arm] for arm in run.arms}


def learning_curves(run: Run) -> list[Picture]:
    """Score and loss, by epoch and by seconds of training; none for a single epoch."""
    if max((len(training.rows) for training in run.trainings), default=0) < 2:
        return []
    name = score_name(run)
    name = name[0].upper() + name[1:]
    panels = [
        ("score", "test_score", "validation_score", name, "solid: test · dashed: validation"),
        ("loss", "validation_loss", "train_loss", "Loss", "solid: validation · dashed: training"),
    ]
    found = []
    for kind, solid, dashed, title, subtitle in panels:
        for axis, x_label in (("epoch", "epoch"), ("seconds", "seconds of training")):
            lines = _series(run, solid, axis)
            if not _any_finite(lines):
                continue
            figure = pictures.curves(
                lines,
                dashed=_series(run, dashed, axis),
                title=f"{title} by {'epoch' if axis == 'epoch' else 'training time'}",
                subtitle=subtitle,
                x_label=x_label,
                colours=colours(run),
                percent=kind == "score" and run.classifies,
                floor=_LOWEST_R2 if kind == "score" and run.task == "regression" else None,
            )
            found.append(Picture(f"{kind}-by-{axis}", figure, _ends(run, lines, title, x_label)))
    return found


def trade_offs(run: Run) -> list[Picture]:
    """Score against seconds and against FLOPs of training, a mark for each of many arms."""
    if len(run.arms) <= _FEW:
        return []
    name = score_name(run)
    name = name[0].upper() + name[1:]
    found = []
    for key, x_label, title in (
        ("seconds", "seconds of training", "time"),
        ("flops", "FLOPs of training", "arithmetic"),
    ):
        marks = {
            arm: [
                (_total(training, key), score)
                for training in run.of(arm)
                if training.finished and (score := training.get("test_score")) is not None
            ]
            for arm in run.arms
        }
        marks = {arm: seeds for arm, seeds in marks.items() if seeds}
        if not marks:
            continue
        figure = pictures.trade_off(
            marks,
            title=f"{name} and {title}",
            subtitle="test, last epoch · mean and deviation over seeds",
            x_label=x_label,
            colours=colours(run),
            percent=run.classifies,
        )
        means = {arm: np.mean(seeds, axis=0) for arm, seeds in marks.items()}
        said = ", ".join(
            f"{arm} {wording.score(score, classifies=run.classifies)} after {wording.count(cost)}"
            for arm, (cost, score) in means.items()
        )
        said = f"{name} after {x_label}: {said}."
        found.append(Picture(f"score-and-{key}", figure, said))
    return found


def _total(training: Training, key: str) -> float:
    """Seconds of a whole training, or its FLOPs."""
    if key == "seconds":
        return float(np.nansum(training.column("seconds")))
    return training.get("flops_training_total") or math.nan


def exploration(run: Run) -> list[Picture]:
    """Positions ever tried, connections where their number changes, and those replaced."""
    rates = {arm: seeds for arm, seeds in _series(run, "exploration", "epoch").items() if seeds}
    found = []
    longest = max((len(y) for seeds in rates.values() for _, y in seeds), default=0)
    if longest > 1 and _any_finite(rates):
        figure = pictures.curves(
            rates,
            title="Exploration",
            subtitle="share of all positions that ever held a connection",
            colours=colours(run),
            percent=True,
        )
        words = _ends(run, rates, "Exploration", "epoch", percent=True)
        found.append(Picture("exploration", figure, words))
    if any(len(set(training.column("connections"))) > 1 for training in run.trainings):
        counts = _series(run, "connections", "epoch")
        figure = pictures.curves(
            counts, title="Connections", subtitle="of the whole network", colours=colours(run)
        )
        words = _ends(run, counts, "Connections", "epoch")
        found.append(Picture("connections", figure, words))
    for training in run.trainings:
        if training.evolves:
            dropped, grown = training.column("dropped"), training.column("grown")
            figure = pictures.updates(
                training.column("epoch"),
                dropped,
                grown,
                title=f"Connections replaced by {training.arm}",
                subtitle=f"per epoch, all layers, seed {training.seed}",
                colour=colours(run).get(training.arm, "blue"),
            )
            total = wording.count(float(np.nansum(grown)))
            words = f"Connections dropped and grown in each epoch; {total} grown in all."
            found.append(Picture("replaced", figure, words))
            break
    return found


def layer_pictures(training: Training, path: str, colour: str) -> list[Picture]:
    """In-degrees, out-degrees and final values of one sparse layer."""
    arrays = training.arrays
    found = []
    for kind, title, whose in (
        ("out", "Out-degree", "inputs · outline: start, filled: end"),
        ("in", "In-degree", "neurons · outline: start, filled: end"),
    ):
        start, end = arrays.get(f"{path}/start_{kind}"), arrays.get(f"{path}/end_{kind}")
        if start is None or end is None or not end.size:
            continue
        figure = pictures.degrees(start, end, title=title, subtitle=whose, colour=colour)
        words = f"{title}: at the start {_range(start)}; at the end {_range(end)}."
        found.append(Picture(f"{kind}-degree-{_slug(path)}", figure, words))
    values = arrays.get(f"{path}/values")
    if values is not None and values.size:
        figure = pictures.histogram(
            values, title="Values at the end", subtitle="connections, by value", colour=colour
        )
        finite = values[np.isfinite(values)]
        reach = float(np.abs(finite).max()) if finite.size else math.nan
        words = f"Histogram of {values.size} values, the largest of size {reach:.3g}."
        found.append(Picture(f"values-{_slug(path)}", figure, words))
    return found


@dataclass(frozen=True)
class InputMaps:
    """Connections per input at several moments of a training.

    Args:
        training: Whose.
        epochs: Epochs of the moments, 0 is the start.
        counts: Shape [moments, features].
        shape: Height and width if the inputs are pixels.
    """

    training: Training
    epochs: list[int]
    counts: NDArray[Any]
    shape: tuple[int, int] | None

    @property
    def labels(self) -> list[str]:
        """What each moment is called."""
        return ["start" if epoch == 0 else f"epoch {epoch}" for epoch in self.epochs]

    @property
    def top(self) -> float:
        """The count shown brightest: the highest but for one input in a hundred."""
        return max(float(np.quantile(self.counts, 0.99)), 1.0)

    @property
    def images(self) -> NDArray[Any]:
        """The counts as pictures, [moments, height, width]."""
        assert self.shape is not None
        return self.counts.reshape(len(self.counts), *self.shape)


def input_maps(run: Run) -> InputMaps | None:
    """The maps of the first training that has some, at most six moments from start to end."""
    for training in run.trainings:
        counts, epochs = _entry(training, "input_map"), _entry(training, "input_map_epochs")
        if counts is None or epochs is None or counts.ndim != 2 or len(counts) != len(epochs):
            continue
        if not counts.size:
            continue
        picked = np.unique(np.linspace(0, len(counts) - 1, SHOWN_MAPS).round().astype(int))
        shape = run.dataset.get("image_shape")
        fits = isinstance(shape, list) and len(shape) == 2 and math.prod(shape) == counts.shape[1]
        return InputMaps(
            training=training,
            epochs=[int(epoch) for epoch in epochs[picked]],
            counts=counts[picked],
            shape=(int(shape[0]), int(shape[1])) if fits and shape else None,
        )
    return None


def map_picture(maps: InputMaps) -> Picture:
    """All maps in one figure."""
    figure = pictures.input_maps(
        maps.images,
        maps.labels,
        top=maps.top,
        title=f"Connections per input pixel, {maps.training.arm}",
        subtitle="first sparse layer, one colour scale",
    )
    return Picture("input-map", figure, f"Maps of connections per pixel: {', '.join(maps.labels)}.")


def _entry(training: Training, name: str) -> NDArray[Any] | None:
    for key, array in training.arrays.items():
        if key == name or key.endswith(f"/{name}"):
            return array
    return None


def _series(run: Run, key: str, axis: str) -> Seeds:
    found: Seeds = {}
    for training in run.trainings:
        y = training.column(key)
        if not y or not np.isfinite(y).any():
            continue
        x = training.column("epoch")
        if axis == "seconds":
            x = [float(total) for total in np.cumsum(np.nan_to_num(training.column("seconds")))]
        found.setdefault(training.arm, []).append((x, y))
    return found


def _any_finite(lines: Seeds) -> bool:
    return any(np.isfinite(y).any() for seeds in lines.values() for _, y in seeds)


def _ends(run: Run, lines: Seeds, title: str, x_label: str, *, percent: bool = False) -> str:
    """Where each line ends, in words."""
    parts = []
    accuracy = title not in ("Loss", "Connections") and (run.classifies or percent)
    for arm, seeds in lines.items():
        last = [y[-1] for _, y in seeds if math.isfinite(y[-1])]
        if last:
            mean = sum(last) / len(last)
            said = wording.percent(mean, score_digits(run)) if accuracy else f"{mean:.3f}"
            said = wording.count(mean) if title == "Connections" else said
            parts.append(f"{arm} ends at {said}")
    return f"{title} by {x_label}: {', '.join(parts) or 'no finite value'}."


def _range(degrees: NDArray[Any]) -> str:
    low, middle, high = (wording.count(float(x)) for x in np.quantile(degrees, [0, 0.5, 1]))
    return f"{low} to {high}, median {middle}"


def _slug(path: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in path)


def shown_paths(paths: Sequence[str]) -> list[str]:
    """The layers that get pictures: the first ones and the last."""
    if len(paths) <= SHOWN_LAYERS:
        return list(paths)
    return [*paths[: SHOWN_LAYERS - 1], paths[-1]]


def race(run: Run) -> str:
    """When the main arm and its twin first reach what both can, in words; empty if unknown."""
    if run.twin is None:
        return ""
    means = {arm: _mean_curve(run, arm) for arm in (run.main, run.twin)}
    if any(curve is None for curve in means.values()):
        return ""
    known = {arm: curve for arm, curve in means.items() if curve is not None}
    ends = [float(score[-1]) for _, score in known.values()]
    sign = 1 if run.rising else -1
    goal = min(float(np.nanmax(sign * score)) for _, score in known.values())
    if not abs(ends[0] - ends[1]) <= _CLOSE:
        return ""
    times = {
        arm: float(seconds[int(np.flatnonzero(sign * score >= goal)[0])])
        for arm, (seconds, score) in known.items()
    }
    mine, reference = times[run.main], times[run.twin]
    shown = wording.score(sign * goal, classifies=run.classifies, digits=score_digits(run))
    scored = f"A test {score_name(run)} of {shown} is"
    if run.task == "language":
        scored = f"In the test, {shown} bits per character are"
    return (
        f"{scored} first reached by {run.main} after "
        f"{wording.duration(mine)} of training and by {run.twin} after "
        f"{wording.duration(reference)}."
    )


def _mean_curve(run: Run, arm: str) -> tuple[NDArray[Any], NDArray[Any]] | None:
    seeds = run.of(arm)
    shared = min(len(training.rows) for training in seeds)
    score = [training.column("test_score")[:shared] for training in seeds]
    seconds = [training.column("seconds")[:shared] for training in seeds]
    if not shared or not np.isfinite(score).any() or not np.isfinite(seconds).all():
        return None
    mean = np.mean(score, axis=0)
    return (np.cumsum(np.mean(seconds, axis=0)), mean) if np.isfinite(mean).any() else None
