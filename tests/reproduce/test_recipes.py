"""Every recipe at its quick scale: it runs without a data folder, and tells what came out."""

import math
from pathlib import Path
from typing import Any

import pytest

from regrow.files import read_json
from regrow.reproduce.recipe import SCALES
from regrow.reproduce.run import Job, reproduce
from regrow.reproduce.show import markdown, text
from regrow.reproduce.systems import recipe_of, systems

ROOT = Path(__file__).parents[2]
WORKING = [name for name, system in systems().items() if system.works]


@pytest.mark.parametrize("name", WORKING)
def test_quick(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REGROW_DATA", raising=False)
    runs = tmp_path / "runs"
    done = reproduce(Job(name, "quick", jobs=1, out=str(tmp_path), runs=str(runs), quiet=True))
    record = read_json(done.path)
    assert record["claims"]
    assert record["tables"]
    assert done.pictures
    assert all(path.stat().st_size > 5_000 for path in done.pictures)
    assert all(claim["statement"] in text(record) for claim in record["claims"])
    assert record["command"] in markdown(record, ".")
    assert not any(runs.iterdir())
    for part in record["parts"]:
        assert part["figures"]
        assert _finite(part["figures"]), part["arguments"]


@pytest.mark.parametrize("name", WORKING)
def test_every_scale_is_there_and_has_a_page(name: str) -> None:
    assert list(recipe_of(name).scales) == list(SCALES)
    page = (ROOT / "docs" / "systems" / f"{name}.md").read_text()
    assert f"<!-- table system_{name.replace('-', '_')} -->" in page


def _finite(value: Any) -> bool:
    """Whether there is no number that is none, except where a training was given up."""
    if isinstance(value, dict):
        return all(map(_finite, value.values()))
    if isinstance(value, list):
        return all(map(_finite, value))
    return not isinstance(value, float) or math.isfinite(value)
