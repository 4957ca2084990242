"""The sections that look inside the sparse network: layers, topology, exploration, inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from regrow.measure import pictures
from regrow.training.report import gallery, wording
from regrow.training.report.gallery import InputMaps, Picture
from regrow.training.report.markup import Html, join, table, tag
from regrow.training.report.run import Row, Run, Training, as_number

Show = Callable[[Picture, str], Html]

_OPEN_ROWS = 16
_SHOWN_INPUTS = 12


def layers(run: Run) -> Html | None:
    """What each layer is, what computes it and why."""
    blocks = []
    for arm in run.arms:
        with_layers = [training for training in run.of(arm) if training.layers]
        if not with_layers:
            continue
        first = with_layers[0]
        inner = _layer_table(arm, first.layers)
        note = f"{arm}, seed {first.seed}, {wording.plural(len(first.layers), 'layer')}"
        if _computes_differ(with_layers):
            note += "; other seeds measured differently and chose another compute for some"
        is_open = arm == run.main and len(first.layers) <= _OPEN_ROWS
        blocks.append(tag("details", tag("summary", note), inner, open=is_open))
    if not blocks:
        return None
    text = (
        "A sparse layer can be computed by kernels that touch only its connections (csr) or as a "
        "dense product of a transient copy (dense). Each candidate is timed on this machine; what "
        "was chosen is printed bold."
    )
    return join([tag("p", text), *blocks])


def topology(run: Run, show: Show) -> Html | None:
    """Degrees at start and end, and final values, layer by layer."""
    training = next((training for training in run.trainings if training.paths), None)
    if training is None:
        return None
    colour = gallery.colours(run).get(training.arm, "blue")
    shown = gallery.shown_paths(training.paths)
    blocks = [tag("p", _topology_text(training, len(shown)))]
    about = {str(layer.get("path")): layer for layer in training.layers}
    for path in shown:
        figures = gallery.layer_pictures(training, path, colour)
        if figures:
            title = tag("h3", path, " ", tag("small", _layer_line(about.get(path, {}))))
            panels = [show(figure, "") for figure in figures]
            blocks.append(join([title, tag("div", *panels, class_="grid three")]))
    return join(blocks)


def exploration(run: Run, show: Show) -> Html | None:
    """How many positions were tried, and how many connections replaced."""
    figures = gallery.exploration(run)
    if not figures:
        return None
    text = (
        "A network that drops and grows connections tries more positions than it ever holds at "
        "once. Exploration is the share of all positions of the sparse layers that have held a "
        "connection so far; without evolution it stays at the density."
    )
    panels = [show(figure, "") for figure in figures]
    return join([tag("p", text), tag("div", *panels, class_="grid two")])


def inputs(run: Run, show: Show) -> Html | None:
    """Where the first sparse layer looks: a map of the pixels, or a list of the features."""
    maps = gallery.input_maps(run)
    if maps is None:
        return None
    text = tag("p", _inputs_text(maps))
    if maps.shape is None:
        names = run.dataset.get("feature_names")
        known = isinstance(names, list) and len(names) == maps.counts.shape[1]
        colour = gallery.colours(run).get(maps.training.arm, "blue")
        found = list(map(str, names)) if known and names else []
        return join([text, _feature_table(maps, found, colour)])
    picture = gallery.map_picture(maps)
    show(picture, "file only")
    top = maps.top
    figures = [
        tag(
            "figure",
            tag(
                "img",
                src=_data_url(pictures.map_png(image, top)),
                alt=f"Connections per pixel, {label}: {image.min():g} to {image.max():g}.",
                width=224,
                height=round(224 * maps.shape[0] / maps.shape[1]),
            ),
            tag("figcaption", label),
        )
        for image, label in zip(maps.images, maps.labels, strict=True)
    ]
    gradient = f"background:linear-gradient(90deg,{','.join(pictures.map_gradient())})"
    key = tag("p", "0 ", tag("i", style=gradient), f" {top:.0f} connections or more", class_="key")
    return join([text, tag("div", *figures, class_="maps"), key])


def _layer_table(arm: str, rows: Sequence[Row]) -> Html:
    heads = ["layer", "shape", "density", "connections", "computed", "ms measured", "bytes", "why"]
    body = [
        [
            join([str(row.get("path", "")), tag("small", str(row.get("kind", "")))]),
            _shape(row.get("shape")),
            _density(as_number(row.get("density"))),
            wording.count(as_number(row.get("nnz"))),
            str(row.get("compute") or wording.MISSING),
            _milliseconds(row),
            wording.size(as_number(row.get("bytes"))),
            str(row.get("reason") or ""),
        ]
        for row in rows
    ]
    return table(f"Layers of {arm}", heads, body, class_="layers")


def _milliseconds(row: Row) -> Html:
    found = row.get("milliseconds")
    parts = []
    for name, value in (found if isinstance(found, dict) else {}).items():
        number = as_number(value)
        if number is not None:
            text = f"{name} {number:.3g}"
            parts.append(tag("b", text) if name == row.get("compute") else Html(tag("span", text)))
    return join(parts, " · ") if parts else Html(wording.MISSING)


def _shape(shape: object) -> str:
    if not isinstance(shape, list) or not shape:
        return wording.MISSING
    if len(shape) == 2:
        return f"{shape[1]} → {shape[0]}"
    return " × ".join(map(str, shape))


def _density(value: float | None) -> Html:
    if value is None:
        return Html(wording.MISSING)
    bar = tag("i", style=f"width:{100 * value:.1f}%")
    return join([wording.percent(value), tag("span", bar, class_="fill", aria_hidden="true")])


def _computes_differ(trainings: Sequence[Training]) -> bool:
    return len({tuple(layer.get("compute") for layer in t.layers) for t in trainings}) > 1


def _layer_line(layer: Row) -> str:
    if not layer:
        return ""
    kept = wording.count(as_number(layer.get("nnz")))
    share = wording.percent(as_number(layer.get("density")))
    return f"{_shape(layer.get('shape'))}, {kept} connections, density {share}"


def _topology_text(training: Training, shown: int) -> str:
    text = (
        f"How connections are spread over neurons in {training.arm}, seed {training.seed}: the "
        "outline is the start, the filled shape the end. "
    )
    if training.moved:
        text += "A wide end means that some neurons gathered connections and others gave them up."
    else:
        text += "The topology did not change, so start and end are the same."
    if shown < len(training.paths):
        text += f" {shown} of {len(training.paths)} sparse layers are shown."
    return text


def _inputs_text(maps: InputMaps) -> str:
    start, end = maps.counts[0].astype(float), maps.counts[-1].astype(float)
    what = "pixel" if maps.shape else "input"
    tenth = max(1, round(end.size / 10))
    total = max(end.sum(), 1.0)
    share = float(np.sort(end)[-tenth:].sum() / total)
    before = float(np.sort(start)[-tenth:].sum() / max(start.sum(), 1.0))
    silent = int((end == 0).sum())
    text = (
        f"Connections that leave each {what}, in the first sparse layer of {maps.training.arm}, "
        f"seed {maps.training.seed}. "
    )
    if np.array_equal(start, end):
        return text + "They did not move: the topology did not change."
    text += (
        f"The tenth of the {what}s with the most connections held {wording.percent(before)} of all "
        f"connections at the start and holds {wording.percent(share)} at the end; "
    )
    gone = f"{wording.plural(silent, what)} of {end.size} {'has' if silent == 1 else 'have'} none."
    gone = gone if silent else f"Every {what} has at least one."
    if abs(share - before) < 0.1 * before:
        return f"{text}that is hardly a change. {gone}"
    if share > before:
        return f"{text}the network looks more where it found something to use. {gone}"
    return f"{text}the connections have spread out. {gone}"


def _feature_table(maps: InputMaps, names: list[str], colour: str) -> Html:
    start, end = maps.counts[0], maps.counts[-1]
    order = np.argsort(-end, kind="stable")[:_SHOWN_INPUTS]
    rows = [
        [
            names[index] if names else f"input {index}",
            f"{start[index]:g}",
            f"{end[index]:g}",
            tag(
                "span",
                tag(
                    "i",
                    style=f"width:{100 * end[index] / max(end.max(), 1):.1f}%;"
                    f"background:var(--{colour})",
                ),
                class_="fill wide",
                aria_hidden="true",
            ),
        ]
        for index in map(int, order)
    ]
    note = f"The {len(order)} of {end.size} inputs with the most connections at the end."
    heads = ["input", "at the start", "at the end", ""]
    return join([table("Connections per input", heads, rows), tag("p", note, class_="note")])


def _data_url(png: bytes) -> str:
    from base64 import b64encode

    return f"data:image/png;base64,{b64encode(png).decode()}"
