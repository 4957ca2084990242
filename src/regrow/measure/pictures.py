"""Pictures of a training, drawn with matplotlib from plain arrays.

Every function takes arrays or dicts of arrays and returns a `matplotlib.figure.Figure` that belongs
to no window and to no global state: nothing here touches pyplot, so nothing has to be closed and a
server may draw. matplotlib is imported by the functions, never by the module.

`save_png` writes a figure on white; `to_svg` gives an SVG element for a web page whose colours are
CSS variables, so that one picture follows the light and the dark scheme of the page around it.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from regrow.measure._bench_picture import break_even_curves
from regrow.measure._canvas import (
    COLOURS,
    FONT,
    arm_colours,
    beside,
    head,
    integer_ticks,
    label_ends,
    label_x,
    logarithms,
    new_figure,
    save_png,
    scale,
    style,
    to_svg,
)
from regrow.measure._ranks_picture import critical_difference
from regrow.measure._scaling_picture import scaling
from regrow.measure._structure_pictures import (
    adjacency,
    degree_law_curve,
    heat_map,
    singular_values,
)
from regrow.measure._trade_picture import trade_off

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats: TypeAlias = NDArray[np.float64]

__all__ = [
    "COLOURS",
    "adjacency",
    "arm_colours",
    "break_even_curves",
    "critical_difference",
    "curves",
    "degree_law_curve",
    "degrees",
    "heat_map",
    "histogram",
    "input_maps",
    "map_gradient",
    "map_png",
    "save_png",
    "scaling",
    "singular_values",
    "to_svg",
    "trade_off",
    "updates",
]

_SMALL_WIDTH, _SMALL_HEIGHT = 3.1, 2.2
_MAP_COLOURS = "magma"


@style()
def curves(
    arms: Mapping[str, Sequence[tuple[ArrayLike, ArrayLike]]],
    *,
    title: str,
    subtitle: str = "",
    x_label: str = "epoch",
    dashed: Mapping[str, Sequence[tuple[ArrayLike, ArrayLike]]] | None = None,
    colours: Mapping[str, str] | None = None,
    percent: bool = False,
    floor: float | None = None,
    logarithmic: bool = False,
) -> Figure:
    """Draw one line per arm, its seeds as thin lines behind their mean, its name beside its end.

    Args:
        arms: Arm name to its seeds, each a pair (x, y) of equally long 1-D arrays; values that are
            not a number leave gaps.
        title: What the picture shows.
        subtitle: What the vertical axis is.
        x_label: What the horizontal axis is; whole-number ticks for `"epoch"`.
        dashed: A second quantity of the same arms, drawn as dashed means without labels.
        colours: Arm name to a key of `COLOURS`; by default `arm_colours`.
        percent: Whether y is a fraction to be labelled in percent.
        floor: The lowest y shown, for a score that has no lower bound; `None` shows all.
        logarithmic: Whether both axes are logarithmic, for what is greater than 0 and spans
            several powers; x has a tick at each of at most eight values.

    Returns:
        The figure, 4.0 x 2.65 inches.

    Example:
        >>> figure = curves({"set": [([1, 2], [0.5, 0.9])]}, title="Test accuracy", percent=True)
        >>> [text.get_text() for text in figure.axes[0].texts]
        ['set']
    """
    chosen = dict(colours) if colours is not None else arm_colours(list(arms))
    named = [arm for arm in arms if chosen.get(arm, "faint") != "faint"]
    figure, axes = new_figure(
        title, subtitle, label_width=max(map(len, map(_short, named)), default=0)
    )
    ends: list[tuple[str, float, str]] = []
    for arm in sorted(
        arms, key=lambda arm: (chosen.get(arm, "faint") != "faint", -list(arms).index(arm))
    ):
        colour = COLOURS[chosen.get(arm, "faint")]
        seeds = [_pair(x, y) for x, y in arms[arm]]
        end = _draw_arm(axes, seeds, colour, context=arm not in named)
        if end is not None and arm in named:
            ends.append((_short(arm), end, colour))
        if arm in named:
            x, y = _mean([_pair(x, y) for x, y in (dashed or {}).get(arm, ())])
            axes.plot(x, y, color=colour, linewidth=1.1, linestyle=(0, (3, 2)), alpha=0.8)
    scale(axes, percent=percent, floor=floor, whole=x_label == "epoch")
    if logarithmic:
        logarithms(
            axes,
            sorted({float(v) for seeds in arms.values() for x, _ in seeds for v in np.ravel(x)}),
        )
    label_x(axes, x_label)
    label_ends(axes, ends)
    return figure


@style()
def degrees(
    start: ArrayLike, end: ArrayLike, *, title: str, subtitle: str = "", colour: str = "blue"
) -> Figure:
    """Draw how many neurons have how many connections: outline at the start, filled at the end.

    Args:
        start: Degrees at the start, whole numbers >= 0, one per neuron.
        end: Degrees at the end, one per neuron.
        title: What the picture shows.
        subtitle: What is counted.
        colour: Key of `COLOURS` for the end.

    Returns:
        The figure, 3.1 x 2.2 inches.

    Example:
        >>> degrees([2, 2, 2], [0, 2, 4], title="In-degree").axes[0].get_xlabel()
        'connections'
    """
    first, last = _numbers(start), _numbers(end)
    figure, axes = new_figure(title, subtitle, width=_SMALL_WIDTH, height=_SMALL_HEIGHT)
    both = np.concatenate([first, last])
    low, high = (math.floor(both.min()), math.floor(both.max())) if both.size else (0, 0)
    step = max(1, math.ceil((high - low + 1) / 36))
    edges = list(np.arange(low, high + 2 * step, step) - 0.5)
    axes.hist(last, bins=edges, **_filled(colour))
    axes.hist(first, bins=edges, histtype="step", color=COLOURS["ink"], linewidth=1.0)
    scale(axes, whole=True, zero=True)
    label_x(axes, "connections")
    return figure


@style()
def histogram(
    values: ArrayLike,
    *,
    title: str,
    subtitle: str = "",
    x_label: str = "value",
    colour: str = "blue",
) -> Figure:
    """Draw the distribution of numbers, such as the final values of a layer, with a rule at zero.

    Args:
        values: Numbers of any shape; those that are not finite are left out.
        title: What the picture shows.
        subtitle: What is counted.
        x_label: What the horizontal axis is.
        colour: Key of `COLOURS`.

    Returns:
        The figure, 3.1 x 2.2 inches.

    Example:
        >>> histogram([-1.0, 0.5, 0.7], title="Values").axes[0].get_xlabel()
        'value'
    """
    numbers = _numbers(values)
    figure, axes = new_figure(title, subtitle, width=_SMALL_WIDTH, height=_SMALL_HEIGHT)
    if numbers.size:
        reach = float(np.abs(numbers).max()) or 1.0
        bins = int(np.clip(math.sqrt(numbers.size), 9, 61)) | 1
        axes.hist(numbers, bins=bins, range=(-reach, reach), **_filled(colour))
    axes.axvline(0, color=COLOURS["muted"], linewidth=0.8)
    scale(axes, zero=True)
    label_x(axes, x_label)
    return figure


@style()
def updates(
    x: ArrayLike,
    dropped: ArrayLike,
    grown: ArrayLike,
    *,
    title: str,
    subtitle: str = "",
    colour: str = "blue",
) -> Figure:
    """Draw connections grown (above the line) and dropped (below it) over training.

    Args:
        x: Epochs, ascending.
        dropped: Connections dropped in each epoch, >= 0.
        grown: Connections grown in each epoch, >= 0.
        title: What the picture shows.
        subtitle: What is counted.
        colour: Key of `COLOURS`; dropped connections get a paler tone of it.

    Returns:
        The figure, 4.0 x 2.65 inches.

    Example:
        >>> figure = updates([1, 2], [30, 20], [30, 20], title="Connections replaced")
        >>> [text.get_text() for text in figure.axes[0].texts]
        ['grown', 'dropped']
    """
    position, down, up = (
        np.nan_to_num(np.asarray(item, dtype=np.float64)) for item in (x, dropped, grown)
    )
    figure, axes = new_figure(title, subtitle, label_width=len("dropped"))
    width = 0.8 if len(position) <= 60 else 1.0
    axes.bar(position, up, width=width, color=COLOURS[colour], linewidth=0)
    axes.bar(position, -down, width=width, color=COLOURS[colour], alpha=0.45, linewidth=0)
    axes.axhline(0, color=COLOURS["ink"], linewidth=0.8)
    reach = 1.08 * max(float(up.max(initial=0)), float(down.max(initial=0)), 1.0)
    axes.set_ylim(-reach, reach)
    scale(axes, whole=True, unsigned=True)
    label_x(axes, "epoch")
    beside(axes, 0.75, "grown", COLOURS[colour])
    beside(axes, 0.25, "dropped", COLOURS[colour])
    return figure


@style()
def input_maps(
    maps: ArrayLike,
    labels: Sequence[str],
    *,
    title: str,
    subtitle: str = "",
    top: float | None = None,
) -> Figure:
    """Draw connections per input pixel at several moments, side by side on one colour scale.

    Args:
        maps: Counts, shape [moments, height, width].
        labels: One label per moment, such as `"epoch 10"`.
        title: What the picture shows.
        subtitle: What a pixel counts.
        top: The count shown in the brightest colour, > 0; by default the highest.

    Returns:
        The figure, 1.35 inches per moment wide, with a colour bar.

    Example:
        >>> counts = np.arange(8).reshape(2, 2, 2)
        >>> figure = input_maps(counts, ["start", "end"], title="Connections per pixel")
        >>> len(figure.axes)
        3
    """
    from matplotlib.figure import Figure

    images = np.asarray(maps, dtype=np.float64)
    width = max(1.35 * len(images) + 0.7, 3.4)
    figure = Figure(figsize=(width, 2.15))
    panels = figure.subplots(1, len(images), squeeze=False)[0]
    figure.subplots_adjust(
        left=0.12 / width, right=1 - 0.75 / width, bottom=0.04, top=0.72, wspace=0.08
    )
    head(figure, title, subtitle)
    brightest = top if top is not None else max(float(images.max(initial=0)), 1.0)
    for panel, image, label in zip(panels, images, labels, strict=True):
        shown = panel.imshow(
            image, cmap=_MAP_COLOURS, vmin=0, vmax=brightest, interpolation="nearest"
        )
        panel.set_title(label, fontsize=FONT, color=COLOURS["ink"], pad=3)
        panel.set_axis_off()
    last = panels[-1].get_position()
    bar = figure.add_axes((1 - 0.62 / width, last.y0, 0.1 / width, last.height))
    figure.colorbar(shown, cax=bar)
    bar.tick_params(length=0, labelsize=FONT, labelcolor=COLOURS["muted"])
    bar.yaxis.set_major_locator(integer_ticks(4))
    for spine in bar.spines.values():
        spine.set_visible(False)
    return figure


def map_png(image: ArrayLike, top: float, *, pixels: int = 224) -> bytes:
    """Give one map of counts as a bare PNG without axes, each input pixel a crisp square.

    Args:
        image: Counts >= 0, shape [height, width].
        top: The count shown in the brightest colour, > 0; the same for maps to be compared.
        pixels: About how many pixels the longer side gets.

    Returns:
        The bytes of the PNG file.

    Example:
        >>> map_png([[0, 1], [2, 3]], top=3)[1:4]
        b'PNG'
    """
    from matplotlib import colormaps
    from matplotlib.image import imsave

    counts = np.asarray(image, dtype=np.float64)
    factor = max(1, round(pixels / max(counts.shape)))
    painted = colormaps[_MAP_COLOURS](np.clip(counts / top, 0, 1))
    buffer = io.BytesIO()
    imsave(
        buffer,
        painted.repeat(factor, axis=0).repeat(factor, axis=1),
        format="png",
        metadata={"Software": ""},
    )
    return buffer.getvalue()


def map_gradient(stops: int = 9) -> list[str]:
    """Give the colours of the maps from none to most, for the colour scale of a web page.

    Args:
        stops: How many colours, >= 2.

    Returns:
        Hex colours, `#rrggbb`.

    Example:
        >>> map_gradient(2)
        ['#000004', '#fcfdbf']
    """
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return [to_hex(colormaps[_MAP_COLOURS](place)) for place in np.linspace(0, 1, stops)]


def _draw_arm(
    axes: Axes, seeds: list[tuple[Floats, Floats]], colour: str, *, context: bool
) -> float | None:
    """Draw seeds and mean and gives the last finite height of the mean."""
    x, y = _mean(seeds)
    finite = np.flatnonzero(np.isfinite(y))
    if len(seeds) > 1 and not context:
        for seed_x, seed_y in seeds:
            axes.plot(seed_x, seed_y, color=colour, linewidth=0.6, alpha=0.45)
    axes.plot(x, y, color=colour, linewidth=0.8 if context else 1.8, alpha=0.6 if context else 1.0)
    if not finite.size:
        return None
    if not context:
        axes.plot(
            x[finite[-1:]],
            y[finite[-1:]],
            color=colour,
            marker="o",
            markersize=3.2,
            linestyle="none",
        )
    return float(y[finite[-1]])


def _mean(seeds: list[tuple[Floats, Floats]]) -> tuple[Floats, Floats]:
    """Average seeds point by point over the length that all have reached."""
    shared = min((len(x) for x, _ in seeds), default=0)
    if not shared:
        return np.empty(0), np.empty(0)
    x = np.mean([x[:shared] for x, _ in seeds], axis=0)
    y = np.mean([y[:shared] for _, y in seeds], axis=0)
    return x, y


def _short(name: str, limit: int = 16) -> str:
    return name if len(name) <= limit else name[: limit - 1] + "…"


def _filled(colour: str) -> dict[str, Any]:
    """One shape for all bars of a histogram, since bars side by side show seams."""
    return {"histtype": "stepfilled", "color": COLOURS[colour], "alpha": 0.55, "linewidth": 0}


def _numbers(values: ArrayLike) -> Floats:
    numbers = np.asarray(values, dtype=np.float64).reshape(-1)
    return numbers[np.isfinite(numbers)]


def _pair(x: ArrayLike, y: ArrayLike) -> tuple[Floats, Floats]:
    return np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
