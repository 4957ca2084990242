"""The picture of average ranks: which methods are told apart, and which are not."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from regrow.measure._canvas import COLOURS, FONT, arm_colours, head, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WIDTH = 5.6
_LINE = 0.19  # inches from one name to the next
_BAR = 0.11  # inches from one bar to the next


@style()
def critical_difference(
    ranks: Mapping[str, float],
    distance: float,
    *,
    title: str,
    subtitle: str = "",
    colours: Mapping[str, str] | None = None,
) -> Figure:
    """Draw average ranks on one axis, the best at the left, and bars over what is not told apart.

    Args:
        ranks: Method to its average rank, 1 the best that there can be.
        distance: Average ranks that differ by at most this are joined by a bar.
        title: What the picture shows.
        subtitle: Over what ranks are averaged.
        colours: Method to a key of `COLOURS`; by default `arm_colours`.

    Returns:
        The figure, 5.6 inches wide, as high as the names need.

    Example:
        >>> figure = critical_difference({"a": 1.2, "b": 1.9, "c": 2.9}, 1.0, title="Ranks")
        >>> [text.get_text() for text in figure.axes[0].texts]
        ['1', '2', '3', 'a 1.20', 'b 1.90', 'c 2.90', 'critical difference 1.00']

    References:
        J. Demšar, "Statistical comparisons of classifiers over multiple data sets", 2006.
    """
    from matplotlib.figure import Figure

    order = sorted(ranks, key=lambda name: ranks[name])
    chosen = dict(colours) if colours is not None else arm_colours(list(ranks))
    bars = joined([ranks[name] for name in order], distance)
    left = math.ceil(len(order) / 2)
    above, below = 0.62, 0.42 + _BAR * (len(bars) + 1) + _LINE * (left + 0.3)
    height = above + below + 0.28
    figure = Figure(figsize=(_WIDTH, height))
    head(figure, title, subtitle)
    label = 0.068 * (max(map(len, order)) + 6)  # inches that the longest name needs
    axes = figure.add_axes((label / _WIDTH, 0, 1 - 2 * label / _WIDTH, 1 - above / height))
    axes.set_axis_off()
    low, high = 1.0, float(max(2, len(order)))
    axes.set_xlim(low, high)
    axes.set_ylim(-below, 0.28)
    for tick in range(int(low), int(high) + 1):
        axes.plot([tick, tick], [0, 0.05], color=COLOURS["faint"], linewidth=0.8, clip_on=False)
        axes.annotate(
            str(tick), (tick, 0.07), ha="center", fontsize=FONT - 1, color=COLOURS["muted"]
        )
    axes.plot([low, high], [0, 0], color=COLOURS["faint"], linewidth=0.8, clip_on=False)
    for number, (first, last) in enumerate(bars, start=1):
        ends = [ranks[order[first]], ranks[order[last]]]
        axes.plot(ends, [-_BAR * number] * 2, color=COLOURS["ink"], linewidth=2.2, clip_on=False)
    start = -_BAR * (len(bars) + 1)
    for place, name in enumerate(order):
        at_left = place < left
        row = place if at_left else len(order) - 1 - place
        depth, side = start - _LINE * (row + 0.6), low if at_left else high
        colour = COLOURS[_dark(chosen.get(name, "faint"))]
        rank = ranks[name]
        axes.plot([rank, rank, side], [0, depth, depth], color=colour, linewidth=0.9, clip_on=False)
        axes.plot(rank, 0, color=colour, marker="o", markersize=3.6, clip_on=False)
        axes.text(
            side - 0.1 if at_left else side + 0.1,
            depth,
            f"{name} {rank:.2f}",
            ha="right" if at_left else "left",
            va="center",
            fontsize=FONT,
            color=colour,
        )
    depth = -below + 0.12
    length = min(distance, high - low)
    axes.plot([low, low + length], [depth] * 2, color=COLOURS["muted"], linewidth=2.2)
    axes.text(
        low + length + 0.15,
        depth,
        f"critical difference {distance:.2f}",
        va="center",
        fontsize=FONT - 0.5,
        color=COLOURS["muted"],
    )
    return figure


def joined(ranks: list[float], distance: float) -> list[tuple[int, int]]:
    """Longest runs of ascending ranks that no two of differ by more than a distance.

    Example:
        >>> joined([1.0, 1.5, 2.0, 5.0], 1.0), joined([1.0, 1.5, 2.4, 5.0], 1.0)
        ([(0, 2)], [(0, 1), (1, 2)])
    """
    runs: list[tuple[int, int]] = []
    for first, rank in enumerate(ranks):
        last = max(i for i, other in enumerate(ranks) if other - rank <= distance)
        if last > first and (not runs or last > runs[-1][1]):
            runs.append((first, last))
    return runs


def _dark(colour: str) -> str:
    return "muted" if colour == "faint" else colour
