"""Metrics: lines that are cut back to what a checkpoint knows."""

import json
from pathlib import Path

from regrow.training.metrics import MetricsFile


def row(arm: str, epoch: int) -> dict[str, object]:
    return {"arm": arm, "seed": 0, "epoch": epoch, "train_loss": 0.1 + epoch}


def test_cut_forgets_later_epochs_and_torn_lines(tmp_path: Path) -> None:
    metrics = MetricsFile(tmp_path / "metrics.jsonl")
    metrics.cut("set", 0, 0)
    for arm, epoch in (("set", 1), ("set", 2), ("dense", 1), ("dense", 2)):
        metrics.append(row(arm, epoch))
    with metrics.path.open("a") as file:
        file.write('{"arm": "dense", "se')
    metrics.cut("dense", 0, 1)
    expected = [row("set", 1), row("set", 2), row("dense", 1)]
    assert [json.loads(line) for line in metrics.path.read_text().splitlines()] == expected
    assert metrics.rows("set", 0) == expected[:2]


def test_cut_keeps_the_bytes_of_what_stays(tmp_path: Path) -> None:
    metrics = MetricsFile(tmp_path / "metrics.jsonl")
    metrics.append({**row("set", 1), "train_loss": 1 / 3, "exploration": None})
    before = metrics.path.read_bytes()
    metrics.append(row("set", 2))
    metrics.cut("set", 0, 1)
    assert metrics.path.read_bytes() == before
