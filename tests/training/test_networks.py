"""Every kind of network is trained, stopped, continued and told of as a perceptron is."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from regrow.training import TrainOptions, train
from regrow.training.differences import differences

from .conftest import Make
from .test_resume import crash_and_resume, undisturbed

NETWORKS = ["convnet", "resnet-20", "transformer", "lstm"]


@pytest.fixture
def make_small(make_options: Make, tmp_path: Path) -> Make:
    """Options of a run of a network: 3 epochs of 6 steps on 48 images or windows of text."""
    rng = np.random.default_rng(0)
    labels = np.arange(80) % 4
    images = rng.normal(size=(80, 3, 8, 8)) + labels[:, None, None, None]
    np.savez(tmp_path / "squares.npz", x=images.astype(np.float32), y=labels)
    (tmp_path / "words.txt").write_text("to be or not to be, that is the question. " * 15)

    def make(name: str, model: str, **changes: Any) -> TrainOptions:
        text = model in ("transformer", "lstm")
        small = {
            "data": str(tmp_path / ("words.txt" if text else "squares.npz")),
            "model": model,
            "width": 8,
            "depth": 2,
            "context": 10,
            "limit_train": 54,
            "limit_test": 10,
            "batch_size": 8,
            "density": 0.3,
            "every": 4,
        }
        return make_options(name, **{**small, **changes})

    return make


@pytest.mark.parametrize("model", NETWORKS)
def test_stopped_and_continued(make_small: Make, model: str) -> None:
    common: dict[str, Any] = {
        "method": "rigl",
        "compare": ["dense"],
        "dropout": 0.2,
        "checkpoint_every": 3,
        "rate_schedule": "cosine",
        "warm_up": 0.2,
        "clip": 1.0,
        "augment": model in ("convnet", "resnet-20"),
    }
    whole = undisturbed(make_small("whole", model, **common))
    parts = crash_and_resume(make_small("parts", model, **common), 5, 11)
    assert differences(whole, parts) == []
    rows = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    sparse, dense = rows[2], rows[-1]
    assert sparse["flops"] < dense["flops"]
    assert sparse["connections"] < dense["connections"]
    assert sum(row["grown"] for row in rows) > 0


@pytest.mark.parametrize("model", NETWORKS)
def test_results_and_report(make_small: Make, model: str, with_report: None) -> None:
    result = train(make_small("run", model, compare=["dense", "static"]))
    assert not result.diverged
    sparse, dense = result.results["set"][0], result.results["dense"][0]
    assert sparse["dense_connections"] == dense["dense_connections"] == dense["connections"]
    assert sparse["connections"] < dense["connections"]
    assert sparse["flops_training_total"] < dense["flops_training_total"]
    per_sample = sparse["flops_forward_per_sample"] + sparse["flops_backward_per_sample"]
    n_train = json.loads((result.run_dir / "dataset.json").read_text())["n_train"]
    assert sparse["flops_training_total"] == 3 * n_train * per_sample
    text = result.report.read_text() if result.report else ""
    score = "bits per character" if model in ("transformer", "lstm") else "accuracy"
    assert score in text
    assert score in result.table


def test_text_is_learned(make_small: Make) -> None:
    options = make_small(
        "run", "lstm", width=32, depth=1, epochs=12, optimizer="adam", learning_rate=0.01
    )
    rows = train(options).results["set"]
    assert rows[0]["test_score"] < 3.0  # 4.2 bits of 18 characters at the start
    assert rows[0]["best_epoch"] > 6


def test_tuning_takes_the_fewest_bits(make_small: Make) -> None:
    options = make_small("run", "lstm", learning_rate="auto", epochs=2, optimizer="adam")
    run_dir = train(options).run_dir
    tuning = json.loads((run_dir / "tuning.json").read_text())
    scores = tuning["scores"]["set"]
    assert scores[f"{tuning['chosen']['set']:g}"] == min(scores.values())
