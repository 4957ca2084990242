"""What a run shows."""

import io

from regrow.training.progress import BarProgress, LineProgress, Progress, default_progress

ROW = {"epoch": 1, "train_loss": 0.5, "validation_score": 0.75}


def show(progress: Progress) -> None:
    progress.plan(2)
    progress.note("a sentence")
    progress.start("set seed 0", 2, 3, 0)
    for _ in range(3):
        progress.step(0.25)
    progress.epoch(ROW)
    progress.step(0.125)
    progress.end()
    progress.close()


def test_lines() -> None:
    file = io.StringIO()
    show(LineProgress(file))
    assert file.getvalue() == (
        "a sentence\nset seed 0: epoch 1/2, loss 0.5000, validation score 0.7500, 0 s left\n"
    )


def test_bars() -> None:
    file = io.StringIO()
    show(BarProgress(file))
    text = file.getvalue()
    assert "set seed 0" in text
    assert "whole run" in text
    assert "a sentence" in text


def test_choice() -> None:
    assert type(default_progress(quiet=True)) is Progress
    assert type(default_progress()) is LineProgress
