"""The report of a selection: one HTML page, and its pictures as PNG files."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import numpy as np

from regrow.files import write_atomically
from regrow.measure import pictures
from regrow.selection.study import Study
from regrow.training.report import wording
from regrow.training.report.gallery import Picture
from regrow.training.report.markup import Html, join, table, tag
from regrow.training.report.page import assemble

_SHOWN = 100  # features of the table


def write_report(done: Study, folder: Path, command: str) -> Path:
    """Write ``report.html`` into a folder, and its pictures into ``figures``.

    Args:
        done: The selection.
        folder: Where to.
        command: What was typed, to be shown.

    Returns:
        Path of the page.
    """
    figures = folder / "figures"
    figures.mkdir(exist_ok=True)

    def show(picture: Picture) -> Html:
        pictures.save_png(picture.figure, figures / f"{picture.name}.png")
        svg = pictures.to_svg(picture.figure, picture.name, picture.description)
        return tag("figure", Html(svg), style="max-width: 38rem")

    grid = [show(picture) for picture in (_importance(done), _accuracy(done)) if picture]
    chosen_map = _map(done)
    sections = [
        ("worth", "What the features are worth", join([_worth(done, grid)])),
        ("pixels", "Where they are", show(chosen_map) if chosen_map else None),
        ("features", "The features", _features(done)),
        ("made", "How this was made", _origin(done, command)),
    ]
    page = assemble(
        f"regrow select: {done.features.name}",
        _head(done),
        sections,
        tag("p", f"Made by regrow {version('regrow')}."),
    )
    path = folder / "report.html"
    write_atomically(path, lambda file: file.write(page.encode()))
    return path


def _head(done: Study) -> Html:
    features, options = done.features, done.options
    rows, all_features = features.table.shape
    at_k = _at_k(done)
    title = f"{options.k:,} of {all_features:,} features"
    if at_k is not None and done.everything is not None:
        title += f": {at_k:.1%} of held-out rows right, {done.everything:.1%} with all"
    lead = f"Chosen by {options.method}"
    if done.stability is not None:
        lead += (
            f"; two of its {options.seeds} seeds share {done.stability:.0%} of what they "
            f"choose (Jaccard)"
        )
    return join(
        [
            tag(
                "p",
                f"{features.name} · {rows:,} rows · {all_features:,} features",
                class_="eyebrow",
            ),
            tag("h1", title, "."),
            tag("p", lead, ".", class_="lead"),
            *(tag("p", note, class_="warning", role="status") for note in done.notes),
        ]
    )


def _at_k(done: Study) -> float | None:
    """Mean accuracy of the method with k features."""
    if done.options.method not in done.curves:
        return None
    place = done.counts.index(done.options.k)
    return float(np.mean([seed[place] for seed in done.curves[done.options.method]]))


def _importance(done: Study) -> Picture:
    ranks = np.arange(1, done.importances.shape[1] + 1)
    seeds = [(ranks, np.sort(seed)[::-1]) for seed in done.importances]
    figure = pictures.curves(
        {done.options.method: seeds},
        title="Importance by rank",
        subtitle="share of the importance of all features",
        x_label="rank",
        colours=_colours(done),
        percent=True,
    )
    line = float(np.sort(done.importances.mean(axis=0))[::-1][: done.options.k].sum())
    said = f"The {done.options.k:,} best features have {line:.0%} of the importance."
    return Picture("importance", figure, said)


def _accuracy(done: Study) -> Picture | None:
    if len(done.counts) < 2:
        return None
    arms = {
        name: [(np.array(done.counts), np.array(seed)) for seed in seeds]
        for name, seeds in done.curves.items()
    }
    figure = pictures.curves(
        arms,
        title="Accuracy by number of features",
        subtitle="support vector machine, held-out rows",
        x_label="features kept",
        colours=_colours(done),
        percent=True,
    )
    ends = ", ".join(f"{name} {mean[-1]:.1%}" for name, mean in _means(done).items())
    return Picture("accuracy", figure, f"With {done.counts[-1]:,} features: {ends}.")


def _colours(done: Study) -> dict[str, str]:
    others = [name for name in done.options.against if name != "chance"]
    free = ("orange", "purple", "green", "ochre", "teal", "red")
    return {done.options.method: "blue", "chance": "faint", **dict(zip(others, free, strict=False))}


def _map(done: Study) -> Picture | None:
    shape = done.features.image
    if shape is None or len(shape) != 2:
        return None
    share = 1000 * done.importances.mean(axis=0).reshape(shape)
    picked = done.picked.reshape(shape) * share.max()
    kept = np.zeros(share.size)
    kept[done.chosen] = share.max()
    figure = pictures.input_maps(
        np.stack([share, picked, kept.reshape(shape)]),
        ["importance", f"seeds that pick it ({done.options.seeds})", f"the {done.options.k} kept"],
        title="Pixels",
        subtitle="thousandths of the importance; other maps from none to all",
    )
    return Picture("pixels", figure, f"Pixels by importance; {done.options.k} are kept.")


def _worth(done: Study, grid: list[Html]) -> Html:
    parts: list[Html] = [tag("div", *grid, class_="grid two")]
    if done.curves:
        heads = ["ranking", *(f"{n:,} features" for n in done.counts)]
        rows = [
            [name, *(_spread([seed[i] for seed in seeds]) for i in range(len(done.counts)))]
            for name, seeds in done.curves.items()
        ]
        rows.append(
            [f"all {len(done.features.names):,}", *[f"{done.everything:.1%}"] * len(done.counts)]
        )
        parts.append(table("Accuracy by ranking and number of features", heads, rows))
        parts.append(
            tag(
                "p",
                "Test accuracy of a support vector machine on rows that no ranking has seen; mean "
                "and standard deviation over seeds.",
                class_="note",
            )
        )
    return join(parts)


def _features(done: Study) -> Html:
    mean = done.importances.mean(axis=0)
    heads = ["feature", "rank", "share of importance", "picked by"]
    rows = [
        [
            done.features.names[i],
            f"{done.ranking[i]}",
            f"{mean[i]:.2%}",
            f"{round(done.picked[i] * done.options.seeds)} of {done.options.seeds} seeds",
        ]
        for i in done.chosen[:_SHOWN]
    ]
    rest = done.options.k - _SHOWN
    more = tag("p", f"{rest:,} more are in ranking.csv.", class_="note") if rest > 0 else None
    return join([table("Kept features", heads, rows), more])


def _origin(done: Study, command: str) -> Html:
    seconds = float(np.median(done.seconds))
    return join(
        [
            tag("pre", command),
            tag(
                "p",
                f"One ranking took {wording.duration(seconds)} (median of {len(done.seconds)}). "
                f"ranking.csv has all features, selected.csv the kept columns, selection.json the "
                f"figures of this page.",
            ),
        ]
    )


def _means(done: Study) -> Mapping[str, list[float]]:
    return {name: np.mean(seeds, axis=0).tolist() for name, seeds in done.curves.items()}


def _spread(values: list[float]) -> str:
    mean = f"{np.mean(values):.1%}"
    return mean if len(values) == 1 else f"{mean} ± {100 * np.std(values, ddof=1):.1f}"
