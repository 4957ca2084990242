"""The canvas of the pictures: colours, frame, axes, and how a figure becomes a PNG or an SVG."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS: dict[str, str] = {
    "blue": "#0b6bb0",
    "orange": "#b9520c",
    "purple": "#9a3d86",
    "green": "#007a5e",
    "ochre": "#8a6a01",
    "teal": "#00768a",
    "red": "#b3261e",
    "grey": "#4a525b",
    "faint": "#a9b1ba",
    "ink": "#1c2127",
    "muted": "#5b6570",
    "grid": "#dfe3e8",
}
"""Names and hex values of every colour used.

Seven are for lines, which also carry their names, so that no reading rests on colour alone; `grey`
is for the dense reference, `faint` for lines that are only context.
"""

FONT = 8.5
"""Points; a picture is shown about 1.5 times its size."""

_STEPS = (1, 2, 5, 10)
_TICKS = 8
_KNOWN_ARMS = {"set": "blue", "static": "orange", "rigl": "purple", "dense": "grey"}
_FREE_COLOURS = ("green", "ochre", "teal", "red", "purple", "orange", "blue")


def arm_colours(arms: Sequence[str]) -> dict[str, str]:
    """Give each arm of a comparison its colour, the same in every picture of every run.

    Known arms keep theirs (`set` blue, `static` orange, `rigl` purple, `dense` grey), others take
    the free ones in order; when none is left an arm becomes `faint`.

    Args:
        arms: Names of the arms, the most important first.

    Returns:
        Arm name to colour name, a key of `COLOURS`.

    Example:
        >>> arm_colours(["set", "mine", "dense"])
        {'set': 'blue', 'mine': 'green', 'dense': 'grey'}
    """
    taken = {_KNOWN_ARMS[arm] for arm in arms if arm in _KNOWN_ARMS}
    free = iter([colour for colour in _FREE_COLOURS if colour not in taken])
    return {arm: _KNOWN_ARMS.get(arm) or next(free, "faint") for arm in arms}


@contextmanager
def style() -> Iterator[None]:
    """Within this context texts and files are made the same way, whatever the user's settings."""
    import matplotlib

    settings: Any = {
        "font.family": ["sans-serif"],
        "font.sans-serif": ["DejaVu Sans"],
        "font.size": FONT,
        "text.parse_math": False,
        "svg.fonttype": "none",
        "svg.hashsalt": "regrow",
        "path.simplify": True,
    }
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font")
        yield


@style()
def save_png(figure: Figure, path: str | Path, *, dpi: int = 200) -> Path:
    """Write a figure as a PNG on white and returns its path.

    Args:
        figure: A figure of this module.
        path: Where to; its folder exists.
        dpi: Pixels per inch.

    Returns:
        The path written.

    Example:
        >>> import tempfile
        >>> from regrow.measure.pictures import histogram, save_png
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_png(histogram([1.0], title="One"), folder + "/one.png").name
        'one.png'
    """
    figure.savefig(path, format="png", dpi=dpi, facecolor="white")
    return Path(path)


@style()
def to_svg(figure: Figure, name: str, description: str) -> str:
    """Give a figure as an inline SVG element that takes its colours and its font from the page.

    Each colour of `COLOURS` becomes `var(--NAME)`, text stays text, and ids are prefixed so that
    many such pictures live on one page.

    Args:
        figure: A figure of this module.
        name: Prefix of the ids, unique on the page.
        description: What a reader who does not see the picture is told.

    Returns:
        One `<svg>` element.

    Example:
        >>> from regrow.measure.pictures import histogram, to_svg
        >>> to_svg(histogram([1.0], title="One"), "one", "A bar at 1")[:15]
        '<svg role="img"'
    """
    buffer = io.StringIO()
    figure.savefig(
        buffer,
        format="svg",
        transparent=True,
        metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")),
    )
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    box = re.search(r'viewBox="[^"]*"', text)
    opening = f'<svg role="img" aria-label="{escape(description)}" {box.group() if box else ""}>'
    text = opening + text[text.index(">") + 1 :].strip()
    text = re.sub(
        r"<metadata>.*?</metadata>\s*|<style.*?</style>\s*|<!--.*?-->\s*", "", text, flags=re.S
    )
    text = text.replace("xlink:href", "href")
    prefix = re.sub(r"[^A-Za-z0-9_-]", "-", name)
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{prefix}-", text)
    for colour, value in COLOURS.items():
        text = text.replace(value, f"var(--{colour})")
    return text


def new_figure(
    title: str, subtitle: str, *, width: float = 4.0, height: float = 2.65, label_width: int = 0
) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    right = 0.12 + (0.1 + label_width * 0.62 * FONT / 72 if label_width else 0.0)
    left, bottom, top = 0.52, 0.42, 0.56 if subtitle else 0.36
    axes = figure.add_axes(
        (left / width, bottom / height, 1 - (left + right) / width, 1 - (bottom + top) / height)
    )
    for side in ("top", "left", "right"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(COLOURS["faint"])
    axes.tick_params(length=0, labelsize=FONT, labelcolor=COLOURS["muted"], pad=4)
    axes.grid(axis="y", color=COLOURS["grid"], linewidth=0.7)
    axes.set_axisbelow(True)
    head(figure, title, subtitle)
    return figure, axes


def head(figure: Figure, title: str, subtitle: str) -> None:
    width, height = figure.get_size_inches()
    figure.text(
        0.12 / width,
        1 - 0.09 / height,
        title,
        va="top",
        weight="bold",
        fontsize=FONT + 0.5,
        color=COLOURS["ink"],
    )
    if subtitle:
        figure.text(
            0.12 / width,
            1 - 0.27 / height,
            subtitle,
            va="top",
            fontsize=FONT - 0.5,
            color=COLOURS["muted"],
        )


def scale(
    axes: Axes,
    *,
    percent: bool = False,
    floor: float | None = None,
    whole: bool = False,
    zero: bool = False,
    unsigned: bool = False,
) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    heights = [np.asarray(line.get_ydata(), dtype=np.float64) for line in axes.lines]
    finite = np.concatenate([*heights, np.empty(0)])
    finite = finite[np.isfinite(finite)]
    if (
        not (percent or zero or unsigned)
        and finite.size
        and finite.min() > 0
        and finite.max() > 100 * finite.min()
    ):
        axes.set_yscale("log")
        axes.minorticks_off()
    else:
        axes.yaxis.set_major_locator(MaxNLocator(7, integer=zero, steps=_STEPS))
    if floor is not None and finite.size and finite.min() < floor < finite.max():
        axes.set_ylim(bottom=floor)
    if zero:
        axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(integer_ticks(6) if whole else MaxNLocator(6, steps=_STEPS))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _tick(value)))
    axes.yaxis.set_major_formatter(
        FuncFormatter(_percent_ticks(axes) if percent else _tick_formatter(unsigned))
    )


def logarithms(axes: Axes, values: Sequence[float]) -> None:
    """Both axes in logarithms, with a tick at each value of x where they are at most eight."""
    from matplotlib.ticker import FixedLocator, LogLocator, NullLocator

    ticks = axes.xaxis.get_major_formatter(), axes.yaxis.get_major_formatter()
    axes.set_xscale("log")
    axes.set_yscale("log")
    few = len(values) <= _TICKS
    axes.xaxis.set_major_locator(
        FixedLocator(values) if few else LogLocator(subs=(1, 2, 5), numticks=_TICKS)
    )
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=_TICKS))
    for axis, tick in zip((axes.xaxis, axes.yaxis), ticks, strict=True):
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(tick)


def _percent_ticks(axes: Axes) -> Callable[[float, int | None], str]:
    def label(value: float, _: int | None) -> str:
        low, high = axes.get_ylim()
        digits = 0 if high - low >= 0.05 else 1 if high - low >= 0.005 else 2
        return f"{100 * value:.{digits}f}%".replace("-", "\N{MINUS SIGN}")

    return label


def _tick_formatter(unsigned: bool) -> Callable[[float, int | None], str]:
    return lambda value, _: _tick(abs(value) if unsigned else value)


def _tick(value: float) -> str:
    size = abs(value)
    for unit, name in ((1e15, " P"), (1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if size >= unit:
            return f"{value / unit:g}{name}".replace("-", "\N{MINUS SIGN}")
    return f"{value:.4g}".replace("-", "\N{MINUS SIGN}")


def integer_ticks(count: int) -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(count, integer=True, min_n_ticks=1, steps=_STEPS)


def label_x(axes: Axes, label: str) -> None:
    axes.set_xlabel(label, fontsize=FONT, color=COLOURS["muted"], loc="right", labelpad=2)


def label_ends(axes: Axes, ends: list[tuple[str, float, str]]) -> None:
    """Write names beside the line ends, moved apart where they would touch."""
    gap = 0.085
    axes.get_ylim()  # settles the limits, which the transform below does not
    to_axes = axes.transAxes.inverted()
    heights = [
        float(to_axes.transform(axes.transData.transform((0, end)))[1]) for _, end, _ in ends
    ]
    order = sorted(range(len(ends)), key=lambda index: heights[index])
    places: list[float] = []
    for index in order:
        wanted = min(max(heights[index], 0.0), 1.0)
        places.append(max(wanted, places[-1] + gap) if places else wanted)
    overflow = max(places[-1] - 1.0, 0.0) if places else 0.0
    for rank in range(len(places) - 1, -1, -1):
        ceiling = places[rank + 1] - gap if rank + 1 < len(places) else places[rank] - overflow
        places[rank] = min(places[rank], ceiling)
    for place, index in zip(places, order, strict=True):
        name, _, colour = ends[index]
        beside(axes, place, name, colour)


def beside(axes: Axes, height: float, name: str, colour: str) -> None:
    """Write a label to the right of the axes, at a height between 0 and 1."""
    axes.text(
        1.025,
        height,
        name,
        color=colour,
        transform=axes.transAxes,
        va="center",
        weight="bold",
        fontsize=FONT,
    )
