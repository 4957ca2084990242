"""The Python blocks of README and docs run as they stand, each page from top to bottom."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from regrow.evolution.methods import _METHODS
from regrow.evolution.scores import DROP_SCORES, GROW_SCORES

ROOT = Path(__file__).parents[1]
FOLDERS = (ROOT / "docs", ROOT / "docs" / "systems")
PAGES = [ROOT / "README.md", *(page for folder in FOLDERS for page in sorted(folder.glob("*.md")))]


def python_blocks(page: Path) -> list[tuple[int, str]]:
    """The line number and the text of every fenced Python block of a page."""
    text = page.read_text(encoding="utf-8")
    blocks = re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [(text.count("\n", 0, block.start(1)), block[1]) for block in blocks]


EXAMPLES = {page.relative_to(ROOT).as_posix(): python_blocks(page) for page in PAGES}


@pytest.fixture(autouse=True)
def _registries_as_before() -> Iterator[None]:
    """What an example registers under a name is gone after it."""
    registries: list[dict[str, Any]] = [_METHODS, DROP_SCORES, GROW_SCORES]
    before = [dict(registry) for registry in registries]
    yield
    for registry, entries in zip(registries, before, strict=True):
        registry.clear()
        registry.update(entries)


@pytest.mark.parametrize("page", [page for page, blocks in EXAMPLES.items() if blocks])
def test_page_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where an example writes, it must not write into the checkout
    scope: dict[str, object] = {"__name__": "__main__"}
    for line, block in EXAMPLES[page]:
        # Blank lines in front make a traceback point at the line of the page.
        exec(compile("\n" * line + block, ROOT / page, "exec"), scope)
