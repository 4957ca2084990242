"""Small runs to stop, continue and compare."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from regrow.data import Dataset
from regrow.training import Progress, TrainOptions

Make = Callable[..., TrainOptions]


def table(n_features: int, n_classes: int) -> Dataset:
    """A data set of which only the sizes matter."""
    return _dataset("classification", torch.empty(0, n_features), n_classes, None)


def pictures(shape: tuple[int, ...], n_classes: int) -> Dataset:
    """Likewise, of images."""
    return _dataset("classification", torch.empty(0, torch.Size(shape).numel()), n_classes, shape)


def words(context: int, n_characters: int) -> Dataset:
    """Likewise, of text."""
    return _dataset("language", torch.empty(0, context, dtype=torch.int64), n_characters, None)


def _dataset(task: Any, x: torch.Tensor, n_classes: int, shape: tuple[int, ...] | None) -> Dataset:
    return Dataset(
        "toy",
        task,
        *[x] * 6,
        feature_names=tuple(map(str, range(x.shape[1]))),
        class_names=tuple(map(str, range(n_classes))),
        image_shape=shape,
        target_scale=None,
        notes=(),
    )


class Crash(Exception):  # noqa: N818
    """Stands for whatever ends a process."""


class CrashAt(Progress):
    """Ends a run in the middle of a step, before that step can be saved."""

    def __init__(self, step: int) -> None:
        self.left = step

    def step(self, loss: float) -> None:
        self.left -= 1
        if self.left == 0:
            raise Crash


@pytest.fixture
def make_options(tmp_path: Path) -> Make:
    """Options of a run of a second or less: 180 digits, 3 epochs of 6 steps."""

    def make(name: str = "run", **changes: Any) -> TrainOptions:
        small: dict[str, Any] = {
            "hidden": [16],
            "limit_train": 200,
            "limit_test": 50,
            "batch_size": 32,
            "epochs": 3,
            "learning_rate": 0.05,
            "compute": "csr",
            "threads": 1,
            "out": str(tmp_path / name),
        }
        return TrainOptions(**{**small, **changes})

    return make


@pytest.fixture(autouse=True)
def _no_report(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than these runs; a test that wants the report says so."""
    if "with_report" in request.fixturenames:
        return
    monkeypatch.setattr("regrow.training.run._Run._report", lambda run: run.run_dir / "report.html")


@pytest.fixture
def with_report() -> None:
    """Let the runs of a test write their reports."""
