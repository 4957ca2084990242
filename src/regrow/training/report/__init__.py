"""The report of a run: one HTML page that needs nothing else, and its pictures as PNG files."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

from regrow.files import write_atomically
from regrow.measure import pictures
from regrow.training.report import comparison, gallery, inside, origin
from regrow.training.report import headline as words
from regrow.training.report.gallery import Picture
from regrow.training.report.markup import Html, join, tag
from regrow.training.report.page import assemble
from regrow.training.report.run import Run, read_run

__all__ = ["write_report"]


def write_report(run_dir: str | Path) -> Path:
    """Write the report of a run into its directory.

    The page holds its styles and pictures, so it can be sent as one file; it asks nothing of the
    network and runs no script. A run that is unfinished, failed or without a dense twin gets a
    report of what is there.

    Args:
        run_dir: The run directory; it must hold a ``config.json``.

    Returns:
        Path of the page, ``report.html`` in the run directory; pictures are in ``figures/``.

    Raises:
        RunError: The folder is no run directory.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "config.json").write_text('{"method": "set", "epochs": 5}')
        ...     write_report(folder).name
        'report.html'
    """
    run = read_run(Path(run_dir))
    figures = run.folder / "figures"
    shutil.rmtree(figures, ignore_errors=True)
    figures.mkdir()
    page = render(run, figures)
    path = run.folder / "report.html"
    write_atomically(path, lambda file: file.write(page.encode()))
    return path


def render(run: Run, figures: Path) -> str:
    """Make the page.

    Args:
        run: The run.
        figures: An existing folder for the PNG files.

    Returns:
        The HTML.
    """

    def show(picture: Picture, caption: str) -> Html:
        pictures.save_png(picture.figure, figures / f"{picture.name}.png")
        svg = pictures.to_svg(picture.figure, picture.name, picture.description)
        return tag("figure", Html(svg), tag("figcaption", caption) if caption else None)

    builders: list[tuple[str, str, Callable[[], Html | None]]] = [
        ("compare", "Side by side", lambda: _compare(run, show)),
        ("learning", "Learning curves", lambda: _curves(run, show)),
        ("layers", "Layer by layer", lambda: inside.layers(run)),
        ("topology", "Degrees and values", lambda: inside.topology(run, show)),
        ("exploration", "Exploration", lambda: inside.exploration(run, show)),
        ("inputs", "What the network looks at", lambda: inside.inputs(run, show)),
        ("reproduce", "How this was made", lambda: origin.reproduce(run)),
    ]
    return assemble(
        f"regrow: {run.dataset.get('name') or run.folder.resolve().name}",
        _head(run),
        [(key, title, build()) for key, title, build in builders],
        origin.footer(run),
    )


def _head(run: Run) -> Html:
    unfinished = words.progress(run)
    compared = words.comparison(run)
    given_up = [f"Given up: {t.diverged['reason']}." for t in run.trainings if t.diverged]
    problems = [*given_up, *run.problems]
    return join(
        [
            tag("p", origin.data_line(run), class_="eyebrow"),
            tag("h1", _quiet_deviations(words.headline(run)), "."),
            tag("p", compared, class_="lead") if compared else None,
            tag("p", unfinished, class_="warning", role="status") if unfinished else None,
            *(tag("p", problem, class_="warning", role="status") for problem in problems),
            comparison.tiles(run),
            tag("p", origin.machine_line(run), class_="note"),
        ]
    )


def _compare(run: Run, show: Callable[[Picture, str], Html]) -> Html | None:
    if not run.trainings:
        return None
    panels = [show(figure, "") for figure in gallery.trade_offs(run)]
    grid = tag("div", *panels, class_="grid two") if panels else None
    return join([grid, comparison.arm_table(run), comparison.tuning(run)])


def _curves(run: Run, show: Callable[[Picture, str], Html]) -> Html | None:
    figures = gallery.learning_curves(run)
    if not figures:
        trained = any(training.rows for training in run.trainings)
        return tag("p", "One epoch draws no curve.") if trained else None
    text = "Thick lines are means over seeds, thin lines single seeds. "
    several = any(len(run.of(arm)) > 1 for arm in run.arms)
    text = (text if several else "") + gallery.race(run)
    if "faint" in gallery.colours(run).values():
        text += " Grey lines without a name are the other arms of the table."
    panels = [show(figure, "") for figure in figures]
    return join([tag("p", text.strip()) if text else None, tag("div", *panels, class_="grid two")])


def _quiet_deviations(sentence: str) -> Html:
    """Set the deviations of a headline in a lighter weight."""
    pieces = re.split(r"( ± [0-9.]+)", sentence)
    return join(tag("small", piece) if piece.startswith(" ± ") else piece for piece in pieces)
