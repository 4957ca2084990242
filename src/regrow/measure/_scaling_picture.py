"""The picture of how a cost grows with size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from regrow.measure._canvas import (
    COLOURS,
    arm_colours,
    label_ends,
    label_x,
    new_figure,
    scale,
    style,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@style()
def scaling(
    lines: Mapping[str, Sequence[tuple[float, float]]],
    *,
    title: str,
    subtitle: str = "",
    x_label: str,
    colours: Mapping[str, str] | None = None,
) -> Figure:
    """Draw what grows with size, both axes logarithmic, beside a pale line of slope one.

    Args:
        lines: Name to its points, each a pair (size > 0, cost > 0), sizes rising.
        title: What the picture shows.
        subtitle: What the vertical axis is.
        x_label: What the size is.
        colours: Name to a key of `COLOURS`; by default `arm_colours`.

    Returns:
        The figure, 4.0 x 2.65 inches.

    Example:
        >>> figure = scaling({"step": [(1e3, 0.1), (1e6, 90.0)]}, title="Time", x_label="neurons")
        >>> figure.axes[0].get_xscale(), figure.axes[0].get_yscale()
        ('log', 'log')
    """
    chosen = dict(colours) if colours is not None else arm_colours(list(lines))
    figure, axes = new_figure(title, subtitle, label_width=max(map(len, lines), default=0))
    ends = []
    for name, points in lines.items():
        x, y = np.array(points, dtype=np.float64).T
        colour = COLOURS[chosen[name]]
        axes.plot(x, y[-1] * x / x[-1], color=COLOURS["grid"], linewidth=1.2, zorder=1)
        axes.plot(x, y, color=colour, linewidth=1.8, marker="o", markersize=3.2)
        ends.append((name, float(y[-1]), colour))
    _logarithmic(axes)
    label_x(axes, x_label)
    label_ends(axes, ends)
    return figure


def _logarithmic(axes: Axes) -> None:
    """Logarithms both ways, numbers written as on other axes."""
    from matplotlib.ticker import LogLocator, NullLocator

    scale(axes, unsigned=True)
    numbers = [axis.get_major_formatter() for axis in (axes.xaxis, axes.yaxis)]
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis, formatter in zip((axes.xaxis, axes.yaxis), numbers, strict=True):
        axis.set_major_locator(LogLocator(numticks=7))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(formatter)
