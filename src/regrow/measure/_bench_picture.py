"""The picture of a bench: how many times faster than dense, over density."""

from __future__ import annotations

from typing import TYPE_CHECKING

from regrow.measure._canvas import COLOURS, label_ends, label_x, new_figure, scale, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from regrow.measure.bench import Bench, Curve

_TICKS_APART = 1.6
_COLOURS = ("blue", "orange", "purple", "green", "ochre", "teal", "red")


@style()
def break_even_curves(bench: Bench) -> Figure:
    """Draw a line for each shape, ``csr`` solid and ``auto`` dashed, and a rule where dense is.

    Args:
        bench: What was measured.

    Returns:
        The figure, 4.6 x 3.2 inches.

    Example:
        >>> from regrow.measure.bench import Bench, Curve, Point
        >>> point = Point(0.1, {"dense": 2.0, "csr": 1.0, "auto": 1.0}, {}, "csr")
        >>> figure = break_even_curves(Bench([Curve(64, 64, [point])], 128, 1))
        >>> figure.axes[0].get_yscale(), figure.axes[0].get_xlabel()
        ('log', 'density')
    """
    names = [curve.name for curve in bench.curves]
    figure, axes = new_figure(
        "How many times faster than a dense layer",
        f"training step, batch {bench.batch}, {bench.threads} thread(s); dashed: what auto takes",
        width=4.6,
        height=3.2,
        label_width=max(map(len, names), default=0),
    )
    axes.axhline(1, color=COLOURS["ink"], linewidth=0.8)
    ends = []
    for number, curve in enumerate(bench.curves):
        # Shapes beyond the palette are context, and say no name.
        colour = COLOURS[_COLOURS[number] if number < len(_COLOURS) else "faint"]
        last = _draw(axes, curve, colour)
        if number < len(_COLOURS):
            ends.append((curve.name, last, colour))
    scale(axes)
    _set_scales(axes, bench)
    label_x(axes, "density")
    label_ends(axes, ends)
    return figure


def _draw(axes: Axes, curve: Curve, colour: str) -> float:
    """Draw one shape, and give the height of its last point."""
    x = [point.density for point in curve.points]
    csr, auto = ([p.against_dense(name) for p in curve.points] for name in ("csr", "auto"))
    axes.plot(x, csr, color=colour, linewidth=1.8, marker="o", markersize=3.2)
    axes.plot(x, auto, color=colour, linewidth=1.1, linestyle=(0, (3, 2)), alpha=0.8)
    return csr[-1]


def _set_scales(axes: Axes, bench: Bench) -> None:
    """Logarithms both ways; densities fall to the right, with ticks where their numbers fit."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

    densities = {point.density for curve in bench.curves for point in curve.points}
    ticks: list[float] = []
    for density in sorted(densities, reverse=True):
        if not ticks or ticks[-1] >= _TICKS_APART * density:
            ticks.append(density)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}".lstrip("0")))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))
    axes.invert_xaxis()
