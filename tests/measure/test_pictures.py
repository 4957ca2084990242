"""Pictures are drawn from plain arrays, without pyplot, and survive what data can hold."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from regrow.measure import pictures

NAN = float("nan")


def counted(figure: object) -> list[int]:
    """How many things each histogram of a figure counts: its area in bars."""
    counts = []
    for patch in figure.axes[0].patches:  # type: ignore[attr-defined]
        x, y = patch.get_xy().T
        area = abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2
        steps = np.abs(np.diff(x))
        counts.append(round(area / steps[steps > 1e-9].min()))
    return counts


def labels(figure: object) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]  # type: ignore[attr-defined]


def test_importing_and_drawing_touch_no_pyplot() -> None:
    code = (
        "import sys; from regrow.measure import pictures; assert 'matplotlib' not in sys.modules;"
        "pictures.histogram([1.0], title='x'); assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_known_arms_keep_their_colours() -> None:
    alone = pictures.arm_colours(["rigl", "dense"])
    among = pictures.arm_colours(["mine", "other", "dense", "rigl", "set", "static"])
    assert alone["rigl"] == among["rigl"]
    assert len(set(among.values())) == len(among)
    assert set(among.values()) <= set(pictures.COLOURS)


def test_arms_beyond_the_palette_are_context() -> None:
    colours = pictures.arm_colours([f"arm {i}" for i in range(40)])
    assert list(colours.values()).count("faint") == 33
    lines = {arm: [([1, 2], [0.1, 0.2])] for arm in colours}
    assert sorted(labels(pictures.curves(lines, title="t"))) == [f"arm {i}" for i in range(7)]


def test_labels_stand_beside_the_ends_and_apart() -> None:
    figure = pictures.curves(
        {"low": [([1, 2], [0, 0])], "high": [([1, 2], [1, 1])], "close": [([1, 2], [1, 0.999])]},
        title="t",
    )
    places = {text.get_text(): text.get_position()[1] for text in figure.axes[0].texts}
    assert places["low"] < 0.1
    assert places["high"] - places["close"] >= 0.084
    assert places["high"] <= 1


def test_many_labels_stay_in_the_picture() -> None:
    lines = {f"arm {i}": [([1, 2], [0.0, 1.0])] for i in range(7)}
    figure = pictures.curves(lines, title="t")
    places = sorted(text.get_position()[1] for text in figure.axes[0].texts)
    assert min(np.diff(places)) > 0.08
    assert places[0] >= -0.01
    assert places[-1] <= 1.01


def test_seeds_are_averaged_over_what_all_have_reached() -> None:
    figure = pictures.curves({"set": [([1, 2, 3], [0, 0, 9]), ([1, 2], [1, 1])]}, title="t")
    means = [line.get_ydata() for line in figure.axes[0].lines if line.get_linewidth() == 1.8]
    assert [list(mean) for mean in means] == [[0.5, 0.5]]


@pytest.mark.parametrize("y", [[], [NAN, NAN], [0.5], [NAN, 0.5], [0.5, NAN]])
def test_curves_of_little(tmp_path: Path, y: list[float]) -> None:
    x = list(range(len(y)))
    figure = pictures.curves({"set": [(x, y)], "none": []}, title="t", percent=True)
    assert pictures.save_png(figure, tmp_path / "x.png").stat().st_size > 1000


def test_a_loss_over_many_sizes_is_logarithmic_and_a_score_is_not() -> None:
    lines = {"set": [([1, 2, 3], [1e4, 10, 0.1])]}
    assert pictures.curves(lines, title="t").axes[0].get_yscale() == "log"
    assert pictures.curves(lines, title="t", percent=True).axes[0].get_yscale() == "linear"


def test_curves_in_logarithms_have_a_tick_at_each_x() -> None:
    lines = {"set": [([0.01, 0.1, 1.0], [3.0, 20.0, 100.0])]}
    axes = pictures.curves(lines, title="t", logarithmic=True).axes[0]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert axes.get_xticks().tolist() == [0.01, 0.1, 1.0]


def test_a_floor_cuts_a_score_without_bound() -> None:
    lines = {"set": [([1, 2, 3], [-1e4, 0.2, 0.8])]}
    assert pictures.curves(lines, title="t", floor=-0.5).axes[0].get_ylim()[0] == -0.5


@pytest.mark.parametrize("degrees", [[], [0], [1], [0, 0, 1], [7] * 9, [0, 100_000]])
def test_degrees_of_any_size(degrees: list[int]) -> None:
    figure = pictures.degrees(degrees, degrees[::-1], title="t")
    assert counted(figure) == [len(degrees)] * 2


@pytest.mark.parametrize("values", [[], [0.0], [NAN], [1.0], [-1.0, NAN, float("inf"), 2.0]])
def test_a_histogram_counts_what_is_finite(values: list[float]) -> None:
    figure = pictures.histogram(values, title="t")
    number = np.isfinite(values).sum()
    assert counted(figure) == ([number] if number else [])


@pytest.mark.parametrize("number", [1, 2, 30])
def test_names_of_marks_do_not_touch(number: int) -> None:
    marks = {f"arm-{i}": [(1.0 + i, 0.5), (2.0 + i, 0.5 + 0.01 * (i % 3))] for i in range(number)}
    axes = pictures.trade_off(marks, title="t", x_label="seconds").axes[0]
    places = [text.get_position()[1] for text in axes.texts]
    height = axes.get_position().height * axes.figure.get_figheight()
    assert sorted(places) == places
    assert all(0 <= place <= 1 for place in places)
    assert np.diff(places).min(initial=1) * height > 0.1


@pytest.mark.parametrize("high", [0.2, 0.5, 1.0, 30.0, 1e4])
def test_numbers_below_a_narrow_logarithmic_axis_do_not_meet(high: float) -> None:
    marks = {"an arm of a rather long name": [(0.02, 0.5)], "b": [(high, 0.6)]}
    figure = pictures.trade_off(marks, title="t", x_label="share")
    figure.draw_without_rendering()
    axes = figure.axes[0]
    left, right = axes.get_xlim()
    shown = [
        label.get_window_extent()
        for place, label in zip(axes.get_xticks(), axes.get_xticklabels(), strict=True)
        if left <= place <= right
    ]
    assert shown
    assert all(a.x1 < b.x0 for a, b in pairwise(shown))


def test_costs_of_many_sizes_are_on_a_logarithmic_axis() -> None:
    marks = {"a": [(1e9, 0.5)], "b": [(1e12, 0.7)]}
    assert pictures.trade_off(marks, title="t", x_label="FLOPs").axes[0].get_xscale() == "log"
    marks = {"a": [(1e9, 0.5)], "b": [(2e9, 0.7)]}
    assert pictures.trade_off(marks, title="t", x_label="FLOPs").axes[0].get_xscale() == "linear"


def test_updates_mirror_dropped_and_grown() -> None:
    figure = pictures.updates([1, 2], [3, NAN], [3, 5], title="t")
    assert sorted(patch.get_height() for patch in figure.axes[0].patches) == [-3, 0, 3, 5]
    low, high = figure.axes[0].get_ylim()
    assert low == -high


def test_maps_share_a_colour_scale() -> None:
    maps = np.arange(18).reshape(2, 3, 3)
    figure = pictures.input_maps(maps, ["start", "end"], title="t")
    scales = {axes.images[0].get_clim() for axes in figure.axes[:2]}
    assert scales == {(0, 17)}
    figure = pictures.input_maps(np.zeros((1, 2, 2)), ["start"], title="t", top=5)
    assert figure.axes[0].images[0].get_clim() == (0, 5)


def test_a_map_is_bare_crisp_squares() -> None:
    from io import BytesIO

    from matplotlib.image import imread

    pixels = imread(BytesIO(pictures.map_png([[0, 9], [9, 0]], top=9, pixels=8)))
    assert pixels.shape == (8, 8, 4)
    assert (pixels[:4, :4] == pixels[0, 0]).all()
    assert (pixels[0, 0] != pixels[0, -1]).any()


def test_svg_is_well_formed_takes_page_colours_and_prefixes_ids() -> None:
    lines = {"a<&$b$": [([1, 2], [0.1, 0.2])], "dense": [([1, 2], [0.2, 0.1])]}
    text = pictures.to_svg(pictures.curves(lines, title="t"), "one two", 'say "<this>"')
    root = ElementTree.fromstring(text)
    assert root.attrib["aria-label"] == 'say "<this>"'
    assert "a<&$b$" in "".join(root.itertext())
    identities = [found.attrib["id"] for found in root.iter() if "id" in found.attrib]
    assert all(identity.startswith("one-two-") for identity in identities)
    assert "var(--green)" in text
    assert "var(--grey)" in text
    assert "#" not in text.replace("url(#", "").replace('href="#', "")
    assert "http" not in text


def test_svg_is_the_same_each_time() -> None:
    first, second = (
        pictures.to_svg(pictures.histogram([1.0, 2.0], title="t"), "n", "d") for _ in range(2)
    )
    assert first == second


def test_letters_without_a_glyph_are_no_warning(tmp_path: Path) -> None:
    figure = pictures.curves({"训练": [([1, 2], [0.1, 0.2])]}, title="t")
    pictures.save_png(figure, tmp_path / "x.png")


def test_a_cost_that_grows_with_size_lies_on_the_line_of_slope_one() -> None:
    figure = pictures.scaling({"step": [(10.0, 2.0), (1000.0, 200.0)]}, title="t", x_label="size")
    guide, line = figure.axes[0].lines
    assert np.allclose(guide.get_ydata(), line.get_ydata())
    assert (figure.axes[0].get_xscale(), figure.axes[0].get_yscale()) == ("log", "log")
