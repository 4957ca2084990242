"""HTML that cannot be broken by what it shows: text is escaped unless it is `Html`."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

_VOID = {"br", "hr", "img", "meta"}


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def tag(name: str, *children: object, **attributes: object) -> Html:
    """Make an element.

    Args:
        name: Name of the element.
        children: Text, which is escaped, `Html`, which is not, or None, which is left out.
        attributes: By name; a trailing underscore is dropped (``class_``), others become hyphens;
            None and False leave an attribute out, True gives it without a value.

    Returns:
        The element.

    Example:
        >>> tag("p", "a < b", tag("br"), class_="note")
        '<p class="note">a &lt; b<br></p>'
    """
    opening = "".join(
        f" {key.rstrip('_').replace('_', '-')}"
        + ("" if value is True else f'="{escape(str(value))}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    if name in _VOID:
        return Html(f"<{name}{opening}>")
    return Html(f"<{name}{opening}>{join(children)}</{name}>")


def join(children: Iterable[object], between: str = "") -> Html:
    """Put pieces together, escaping those that are not `Html`.

    Example:
        >>> join(["<", tag("b", ">"), None])
        '&lt;<b>&gt;</b>'
    """
    return Html(
        between.join(
            child if isinstance(child, Html) else escape(str(child))
            for child in children
            if child is not None
        )
    )


def table(
    caption: str, heads: Iterable[object], rows: Iterable[Iterable[object]], **attributes: object
) -> Html:
    """Make a table that scrolls in its own container; the first cell of a row is its header.

    Args:
        caption: What the table shows, read out but not displayed.
        heads: Column headers.
        rows: Cells of each row, as many as heads.
        attributes: Attributes of the table.

    Returns:
        The table in its container.

    Example:
        >>> '<th scope="row">a</th><td>1</td>' in table("Counts", ["", "n"], [["a", 1]])
        True
    """
    head = tag("tr", *(tag("th", cell, scope="col") for cell in heads))
    body = []
    for row in rows:
        first, *others = row
        body.append(tag("tr", tag("th", first, scope="row"), *(tag("td", cell) for cell in others)))
    inner = tag(
        "table",
        tag("caption", caption),
        tag("thead", head),
        tag("tbody", *body),
        **attributes,
    )
    return tag("div", inner, class_="scroll", tabindex="0", role="region", aria_label=caption)
