"""Every registered method is trained as an arm, ends with its budget, and continues exactly."""

import json
from typing import Any

import pytest

from regrow.evolution import methods
from regrow.training import train
from regrow.training.differences import differences

from .conftest import Make
from .test_resume import crash_and_resume, undisturbed


@pytest.mark.parametrize("method", sorted(methods()))
def test_every_method(make_options: Make, method: str) -> None:
    common: dict[str, Any] = {
        "method": method,
        "density": 0.25,
        "every": 3 if methods()[method].every is not None else None,
        "checkpoint_every": 2,
        "learning_rate": 0.01,
    }
    whole = undisturbed(make_options("whole", **common))
    parts = crash_and_resume(make_options("parts", **common), 9)
    assert differences(whole, parts) == []
    result = json.loads((whole / "arms" / method / "seed-0" / "result.json").read_text())
    asked = 0.25 * result["dense_connections"]
    assert result["flops_training_total"] > 0
    if methods()[method].density is None:
        # Structures take the nearest number that they can have.
        assert result["connections"] == pytest.approx(asked, rel=0.1)


def test_gates_keep_their_budgets_where_asked(make_options: Make, tmp_path: Any) -> None:
    (tmp_path / "words.txt").write_text("to be or not to be, that is the question. " * 15)
    options = make_options(
        data=str(tmp_path / "words.txt"),
        model="lstm",
        width=8,
        context=10,
        limit_train=54,
        limit_test=10,
        density=0.3,
        every=2,
        scope="gate",
    )
    rows = [
        json.loads(line)
        for line in (train(options).run_dir / "metrics.jsonl").read_text().splitlines()
    ]
    assert sum(row["grown"] for row in rows) > 0
