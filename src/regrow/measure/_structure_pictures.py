"""Pictures of topologies: where connections are, degrees, singular values, and what is alike."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from regrow.measure._canvas import (
    COLOURS,
    FONT,
    arm_colours,
    head,
    integer_ticks,
    label_ends,
    label_x,
    new_figure,
    scale,
    style,
)
from regrow.topology import Topology

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from regrow.measure.degrees import DegreeLaw

Floats = NDArray[np.float64]

_MAP_COLOURS = "magma"
_MOST_CELLS = 160
_MOST_NUMBERS = 14


@style()
def adjacency(topology: Topology, *, title: str, subtitle: str = "") -> Figure:
    """Draw where the connections are: rows downwards, columns to the right.

    A weight of more than 160 rows or columns is drawn in fields of several, each as bright as it is
    dense.

    Args:
        topology: Of any shape; all axes but the first are columns.
        title: What the picture shows.
        subtitle: What rows and columns are.

    Returns:
        The figure, 3.4 inches wide, with a colour bar.

    Example:
        >>> import torch
        >>> figure = adjacency(Topology((2, 3), torch.tensor([0, 5])), title="Connections")
        >>> figure.axes[0].images[0].get_array().tolist()
        [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    """
    from matplotlib.figure import Figure

    rows, columns = topology.matrix_shape
    fields = _fields(topology)
    across = 2.45
    down = float(np.clip(across * rows / columns, 0.6, 3.2))
    width, height = across + 0.95, down + 0.85
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0.2 / width, 0.27 / height, across / width, down / height))
    head(figure, title, subtitle)
    top = max(float(fields.max(initial=0)), 1e-9)
    shown = axes.imshow(
        fields,
        cmap=_MAP_COLOURS,
        vmin=0,
        vmax=top,
        interpolation="nearest",
        aspect="auto",
    )
    axes.set_xticks([])
    axes.set_yticks([])
    _frame(axes)
    label_x(axes, f"{columns:,} columns, {rows:,} rows, {topology.nnz:,} connections")
    bar = figure.add_axes(((across + 0.3) / width, 0.27 / height, 0.1 / width, down / height))
    _colour_bar(figure, bar, shown, percent=True)
    return figure


@style()
def degree_law_curve(
    degrees: ArrayLike, law: DegreeLaw | None = None, *, title: str, subtitle: str = ""
) -> Figure:
    """Draw the share of neurons with at least k connections over k, both logarithmic, and a law.

    A power law is a straight line there; a Poisson distribution falls off a cliff.

    Args:
        degrees: Connections of each neuron; those with none are left out.
        law: A fitted law, drawn from its minimum on; none if None.
        title: What the picture shows.
        subtitle: What is counted.

    Returns:
        The figure, 4.0 x 2.65 inches.

    Example:
        >>> degree_law_curve([1, 1, 2, 4], title="Degrees").axes[0].get_xscale()
        'log'
    """
    counted = np.asarray(degrees, dtype=np.float64).reshape(-1)
    numbers = np.sort(counted[counted > 0])
    label = f"k^\N{MINUS SIGN}{law.exponent:.2f}" if law is not None else ""
    figure, axes = new_figure(title, subtitle, label_width=max(len(label), 8))
    values, first = np.unique(numbers, return_index=True)
    share = 1 - first / max(1, numbers.size)
    axes.plot(values, share, color=COLOURS["blue"], marker="o", markersize=2.6, linestyle="none")
    ends = [("degrees", float(share[-1]), COLOURS["blue"])] if values.size else []
    if law is not None and values.size:
        reach = np.geomspace(law.minimum, values[-1], 60)
        line = law.survival(reach) * law.tail / law.neurons
        axes.plot(reach, line, color=COLOURS["orange"], linewidth=1.6)
        ends.append((label, float(line[-1]), COLOURS["orange"]))
    if values.size:
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.minorticks_off()
        axes.set_ylim(0.6 / numbers.size, 1.4)
        _decades(axes)
    label_x(axes, "connections")
    label_ends(axes, ends)
    return figure


@style()
def heat_map(
    matrix: ArrayLike,
    labels: Sequence[str],
    *,
    title: str,
    subtitle: str = "",
    top: float | None = None,
) -> Figure:
    """Draw a square matrix of numbers >= 0, such as distances of networks or what rules share.

    Up to 14 rows carry their numbers.

    Args:
        matrix: ``[n, n]``; cells that are not a number stay blank.
        labels: A name for each row and column.
        title: What the picture shows.
        subtitle: What a number is.
        top: The number shown in the brightest colour, > 0; by default the highest.

    Returns:
        The figure, as large as it needs to be.

    Example:
        >>> figure = heat_map([[0.0, 0.5], [0.5, 0.0]], ["a", "b"], title="Distance")
        >>> [text.get_text() for text in figure.axes[0].texts]
        ['0', '.50', '.50', '0']
    """
    from matplotlib.figure import Figure

    cells = np.asarray(matrix, dtype=np.float64)
    count = len(labels)
    cell = float(np.clip(3.6 / max(1, count), 0.12, 0.42))
    side = max(cell * count, 0.8)
    names = 0.1 + 0.62 * FONT / 72 * max(map(len, labels), default=0)
    width, height = names + side + 0.75, side + names + 0.6
    figure = Figure(figsize=(max(width, 2.6), height))
    width = max(width, 2.6)
    axes = figure.add_axes((names / width, names / height, side / width, side / height))
    head(figure, title, subtitle)
    highest = float(np.nanmax(cells)) if np.isfinite(cells).any() else 0.0
    brightest = top if top is not None else max(highest, 1e-9)
    shown = axes.imshow(cells, cmap=_MAP_COLOURS, vmin=0, vmax=brightest, interpolation="nearest")
    axes.set_xticks(range(count), labels, rotation=90)
    axes.set_yticks(range(count), labels)
    axes.tick_params(length=0, labelsize=FONT, labelcolor=COLOURS["ink"], pad=3)
    _frame(axes)
    if count <= _MOST_NUMBERS:
        for (row, column), number in np.ndenumerate(cells):
            if np.isfinite(number):
                bright = number > 0.6 * brightest
                axes.text(
                    column,
                    row,
                    _short_number(number),
                    ha="center",
                    va="center",
                    fontsize=FONT - 2,
                    color=COLOURS["ink"] if bright else "white",
                )
    bar = figure.add_axes(
        ((names + side + 0.1) / width, names / height, 0.1 / width, side / height)
    )
    _colour_bar(figure, bar, shown)
    return figure


@style()
def singular_values(
    spectra: Mapping[str, ArrayLike],
    *,
    title: str,
    subtitle: str = "singular value",
    bound: float | None = None,
    colours: Mapping[str, str] | None = None,
) -> Figure:
    """Draw singular values from the greatest to the least, one line for each layer or moment.

    Args:
        spectra: Name to singular values, falling.
        title: What the picture shows.
        subtitle: What the vertical axis is.
        bound: A rule to draw, such as a Ramanujan bound, which all but the first should be below.
        colours: Name to a key of ``COLOURS``; by default ``arm_colours``.

    Returns:
        The figure, 4.0 x 2.65 inches.

    Example:
        >>> figure = singular_values({"layer 0": [3.0, 1.0, 0.5]}, title="Spectrum", bound=2.0)
        >>> sorted(text.get_text() for text in figure.axes[0].texts)
        ['bound', 'layer 0']
    """
    chosen = dict(colours) if colours is not None else arm_colours(list(spectra))
    names = [name for name in spectra if chosen.get(name, "faint") != "faint"]
    widest = max(map(len, [*names, "bound" if bound is not None else ""]), default=0)
    figure, axes = new_figure(title, subtitle, label_width=min(widest, 16))
    ends: list[tuple[str, float, str]] = []
    if bound is not None:
        axes.axhline(bound, color=COLOURS["ink"], linewidth=0.8)
        ends.append(("bound", bound, COLOURS["ink"]))
    for name, given in spectra.items():
        values = np.asarray(given, dtype=np.float64)
        colour = COLOURS[chosen.get(name, "faint")]
        axes.plot(
            np.arange(1, len(values) + 1), values, color=colour, linewidth=1.6, marker="o",
            markersize=0 if len(values) > 40 else 2.6,
        )  # fmt: skip
        if values.size and name in names:
            ends.append((name[:16], float(values[-1]), colour))
    scale(axes, zero=False, whole=True)
    axes.set_yscale("linear")
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(integer_ticks(6))
    label_x(axes, "rank")
    label_ends(axes, ends)
    return figure


def _fields(topology: Topology) -> Floats:
    """Density of each field of a grid of at most so many rows and columns."""
    shape = topology.matrix_shape
    sizes = [math.ceil(n / _MOST_CELLS) for n in shape]
    grid = [math.ceil(n / size) for n, size in zip(shape, sizes, strict=True)]
    row = topology.rows.cpu().numpy() // sizes[0]
    column = topology.csr()[1].cpu().numpy() // sizes[1]
    counts = np.bincount(row * grid[1] + column, minlength=grid[0] * grid[1]).reshape(grid)
    # The last row and column of fields may be cut short.
    room = [
        np.minimum(np.arange(1, g + 1) * size, n) - np.arange(g) * size
        for g, size, n in zip(grid, sizes, shape, strict=True)
    ]
    share: Floats = counts / np.outer(*room)
    return share


def _frame(axes: Axes) -> None:
    for spine in axes.spines.values():
        spine.set_color(COLOURS["faint"])
        spine.set_linewidth(0.6)


def _colour_bar(figure: Figure, bar: Axes, shown: object, *, percent: bool = False) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    figure.colorbar(shown, cax=bar)  # type: ignore[arg-type]
    bar.tick_params(length=0, labelsize=FONT, labelcolor=COLOURS["muted"])
    bar.yaxis.set_major_locator(MaxNLocator(4))
    bar.yaxis.set_major_formatter(
        FuncFormatter(lambda value, _: f"{100 * value:g}%" if percent else f"{value:g}")
    )
    for spine in bar.spines.values():
        spine.set_visible(False)


def _decades(axes: Axes) -> None:
    """Ticks at powers of ten in words of their own, as mathematics in texts is off."""
    from matplotlib.ticker import FuncFormatter, LogLocator

    for axis, percent in ((axes.xaxis, False), (axes.yaxis, True)):
        axis.set_major_locator(LogLocator(subs=(1,) if percent else (1, 2, 5)))
        axis.set_major_formatter(
            FuncFormatter(lambda value, _, p=percent: f"{100 * value:g}%" if p else f"{value:g}")
        )


def _short_number(number: float) -> str:
    text = f"{number:.2f}"
    if text == "0.00":
        return "0"
    return text.removesuffix(".00") if text.endswith(".00") else text.removeprefix("0")
