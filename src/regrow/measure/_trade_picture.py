"""The picture of many arms, each a mark: what it scores and what it costs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from regrow.measure._canvas import COLOURS, FONT, arm_colours, label_x, new_figure, scale, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LINE_HEIGHT = 0.165  # inches from one name to the next
_FRAME = 1.0  # inches above and below the axes
_TICK_WIDTH = 0.45  # inches that a number below the axis needs


@style()
def trade_off(
    arms: Mapping[str, Sequence[tuple[float, float]]],
    *,
    title: str,
    subtitle: str = "",
    x_label: str,
    colours: Mapping[str, str] | None = None,
    percent: bool = False,
) -> Figure:
    """Draw one mark per arm at its mean cost and score, its name in a column at the right.

    Names stand in the order of the scores, tied to their marks by thin lines, so that thirty arms
    can be told apart; a bar shows the standard deviation of the score over seeds.

    Args:
        arms: Arm name to its seeds, each a pair (cost > 0, score).
        title: What the picture shows.
        subtitle: What the vertical axis is.
        x_label: What the cost is; its axis is logarithmic where costs differ by more than eight
            times.
        colours: Arm name to a key of `COLOURS`; by default `arm_colours`.
        percent: Whether the score is a fraction to be labelled in percent.

    Returns:
        The figure, 4.0 inches wide, as high as the names need.

    Example:
        >>> marks = {"set": [(2.0, 0.9), (2.1, 0.8)], "dense": [(30.0, 0.9)]}
        >>> figure = trade_off(marks, title="Accuracy and time", x_label="seconds")
        >>> [text.get_text() for text in figure.axes[0].texts]
        ['set', 'dense']
    """
    chosen = dict(colours) if colours is not None else arm_colours(list(arms))
    height = max(2.65, _FRAME + _LINE_HEIGHT * len(arms))
    figure, axes = new_figure(
        title, subtitle, height=height, label_width=max(map(len, arms), default=0) + 4
    )
    points = {
        arm: (float(np.mean([x for x, _ in seeds])), np.array([y for _, y in seeds]))
        for arm, seeds in arms.items()
    }
    for arm, (x, scores) in points.items():
        colour = COLOURS[_shown(chosen.get(arm, "faint"))]
        spread = float(scores.std(ddof=1)) if len(scores) > 1 else 0.0
        axes.errorbar(
            x, scores.mean(), spread, color=colour, marker="o", markersize=4, elinewidth=0.8
        )
    scale(axes, percent=percent)
    costs = [x for x, _ in points.values() if np.isfinite(x)]
    if costs and max(costs) > 8 * min(costs):
        _logarithmic(axes, min(costs), max(costs))
    axes.margins(x=0.12)
    label_x(axes, x_label)
    order = sorted(points, key=lambda arm: float(points[arm][1].mean()))
    gap = 1 / max(len(order), 14)
    heights = [_height(axes, float(points[arm][1].mean())) for arm in order]
    for arm, place in zip(order, _apart(heights, gap), strict=True):
        x, scores = points[arm]
        colour = COLOURS[_shown(chosen.get(arm, "faint"))]
        axes.annotate(
            arm,
            xy=(x, float(scores.mean())),
            xycoords="data",
            xytext=(1.1, place),
            textcoords="axes fraction",
            va="center",
            fontsize=FONT - 0.5,
            color=colour,
            arrowprops={
                "arrowstyle": "-",
                "color": colour,
                "linewidth": 0.5,
                "alpha": 0.5,
                "relpos": (0, 0.5),
                "shrinkA": 2,
            },
        )
    return figure


def _shown(colour: str) -> str:
    """Names must be legible, so what is only context elsewhere is drawn darker here."""
    return "muted" if colour == "faint" else colour


def _logarithmic(axes: Axes, low: float, high: float) -> None:
    """As many ticks as have room side by side."""
    from matplotlib.ticker import FixedLocator, NullLocator

    ticks = axes.xaxis.get_major_formatter()
    axes.set_xscale("log")
    width = axes.get_position().width * axes.figure.get_figwidth()  # type: ignore[union-attr]
    room = _TICK_WIDTH * math.log10(high / low) / (0.76 * width)  # decades that a number needs
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ways = [
        [first * 10.0**decade for decade in decades[start::stride] for first in firsts]
        for firsts in ((1, 2, 5), (1, 3), (1,), (2,), (5,))
        for stride in range(1, len(decades) + 1)
        for start in range(stride)
    ]
    shown = [[place for place in way if 0.9 * low <= place <= 1.1 * high] for way in ways]
    apart = [way for way in shown if all(math.log10(b / a) >= room for a, b in pairwise(way))]
    axes.xaxis.set_major_locator(FixedLocator(max(apart, key=len)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(ticks)


def _height(axes: Axes, score: float) -> float:
    """Where a score lies on the axis, from 0 at its foot to 1."""
    low, high = axes.get_ylim()
    return float((score - low) / (high - low))


def _apart(heights: list[float], gap: float) -> list[float]:
    """Places in [0, 1] with gaps between them, each as near as can be to the height it wants.

    Example:
        >>> [round(place, 2) for place in _apart([0.5, 0.5, 0.9], 0.2)]
        [0.4, 0.6, 0.9]
    """
    runs: list[tuple[float, int]] = []  # less their gaps, places that touch are equal
    for index, height in enumerate(heights):
        run = (height - gap * index, 1)
        while runs and runs[-1][0] > run[0]:
            mean, count = runs.pop()
            whole = count + run[1]
            run = ((mean * count + run[0] * run[1]) / whole, whole)
        runs.append(run)
    top = 1 - gap * (len(heights) - 1)
    starts = [min(max(mean, 0.0), top) for mean, count in runs for _ in range(count)]
    return [start + gap * index for index, start in enumerate(starts)]
