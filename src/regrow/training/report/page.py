"""One HTML page of sections, which needs nothing else: its styles and pictures are in it."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from importlib import resources
from string import Template

from regrow.training.report.markup import Html, join, tag


def assemble(
    title: str, head: Html, sections: Iterable[tuple[str, str, Html | None]], foot: Html
) -> str:
    """Put a page together.

    Args:
        title: Of the window.
        head: What stands above the sections.
        sections: Key, heading and body of each; those without a body are left out.
        foot: What stands below.

    Returns:
        The HTML.
    """
    there = [(key, heading, body) for key, heading, body in sections if body]
    bodies = [
        tag(
            "section",
            tag("h2", heading, id=f"{key}-title"),
            body,
            id=key,
            aria_labelledby=f"{key}-title",
        )
        for key, heading, body in there
    ]
    links = [tag("a", heading, href=f"#{key}") for key, heading, _ in there]
    here = resources.files(__package__)
    return Template(here.joinpath("page.html").read_text(encoding="utf-8")).substitute(
        title=escape(title),
        style=here.joinpath("page.css").read_text(encoding="utf-8"),
        head=head,
        nav=tag("nav", *links, aria_label="Sections"),
        sections=join(bodies, "\n"),
        foot=foot,
    )
