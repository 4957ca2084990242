"""A run directory holds what the report and its readers are promised."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from regrow.evolution import methods
from regrow.training import OptionError, Progress, RunError, train
from regrow.training.job import job_folder

from .conftest import Make


class Notes(Progress):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def test_run_directory(make_options: Make, with_report: None) -> None:
    result = train(make_options(compare=["dense"], density=0.25))
    run_dir = result.run_dir
    config = read(run_dir / "config.json")
    assert config["density"] == 0.25
    assert config["threads"] == 1
    assert config["torch"] == torch.__version__
    assert {"regrow", "machine"} <= config.keys()
    dataset = read(run_dir / "dataset.json")
    assert (dataset["n_train"], dataset["n_test"], dataset["image_shape"]) == (180, 50, [8, 8])
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert [(row["arm"], row["epoch"]) for row in rows] == [
        (arm, epoch) for arm in ("set", "dense") for epoch in (1, 2, 3)
    ]
    assert rows[2].keys() == {
        "arm", "seed", "epoch", "step", "train_loss", "validation_loss", "validation_score",
        "test_loss", "test_score", "seconds", "learning_rate", "connections", "flops",
        "exploration", "dropped", "grown",
    }  # fmt: skip
    assert rows[2]["step"] == 18
    assert rows[0]["exploration"] > 0.25
    assert rows[3]["exploration"] is None
    assert not (run_dir / "tuning.json").exists()
    assert (run_dir / "report.html").exists()


def test_result(make_options: Make) -> None:
    sparse, dense = (
        rows[0] for rows in train(make_options(compare=["dense"], density=0.25)).results.values()
    )
    full = 64 * 16 + 16 * 10
    assert sparse["connections"] == full // 4
    assert sparse["dense_connections"] == dense["connections"] == full
    assert dense["flops_forward_per_sample"] == 2 * full
    assert sparse["flops_forward_per_sample"] == 2 * full // 4
    assert dense["bytes_values"] == dense["bytes_optimizer"] == 4 * (full + 26)
    assert dense["bytes_indices"] == 0
    assert sparse["bytes_values"] == sparse["bytes_optimizer"] == 4 * (full // 4 + 26)
    assert sparse["bytes_indices"] > 0
    assert sparse["bytes_total"] == sum(
        sparse[f"bytes_{part}"] for part in ("values", "indices", "optimizer")
    )
    per_sample = sparse["flops_forward_per_sample"] + sparse["flops_backward_per_sample"]
    assert sparse["flops_training_total"] == per_sample * 180 * 3
    assert [layer["path"] for layer in sparse["layers"]] == ["hidden1", "output"]
    assert {layer["compute"] for layer in sparse["layers"]} == {"csr"}
    assert 1 <= sparse["best_epoch"] <= 3


def test_updates_stop_before_the_end(make_options: Make) -> None:
    run_dir = train(make_options(epochs=4)).run_dir
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert [row["dropped"] > 0 for row in rows] == [True, True, True, False]


def test_same_start_and_data_for_all_arms(make_options: Make) -> None:
    run_dir = train(make_options(compare=["static"], epochs=1)).run_dir
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert rows[0]["train_loss"] == rows[1]["train_loss"]


def test_regression(make_options: Make, tmp_path: Path) -> None:
    table = tmp_path / "line.csv"
    table.write_text("\n".join(["x,y", *(f"{i / 50},{3 * i + 1000.5}" for i in range(200))]))
    options = make_options(
        data=str(table), target="y", limit_train=None, limit_test=None, density=0.5, epochs=20
    )
    result = train(options)
    assert result.task == "regression"
    assert result.results["set"][0]["test_score"] > 0.9
    assert "R2" in result.table


def test_divergence_ends_the_arm_and_not_the_run(make_options: Make) -> None:
    notes = Notes()
    options = make_options(compare=["static"], learning_rate=1e12, optimizer="sgd")
    result = train(options, progress=notes)
    assert result.diverged
    assert result.report is None
    found = read(job_folder(result.run_dir, "static", 0) / "diverged.json")
    assert found["reason"].startswith("training of static diverged in epoch ")
    assert found["reason"].endswith(" at learning rate 1e+12")
    assert f"{found['reason']}; try a smaller --learning-rate" in notes.notes
    assert result.table.count("diverged") == 2


def test_tuning_gives_every_arm_the_same_grid(make_options: Make) -> None:
    options = make_options(compare=["dense"], learning_rate="auto", epochs=2, optimizer="adam")
    result = train(options)
    tuning = read(result.run_dir / "tuning.json")
    assert tuning["epochs"] == 2
    for arm in ("set", "dense"):
        scores = tuning["scores"][arm]
        assert [float(rate) for rate in scores] == tuning["grid"]
        assert scores[f"{tuning['chosen'][arm]:g}"] == max(scores.values())
        assert result.results[arm][0]["learning_rate"] == tuning["chosen"][arm]


def test_tuning_survives_rates_that_diverge(
    make_options: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("regrow.training.tune").training.tune.GRIDS, "sgd", (1e12, 0.05))
    result = train(make_options(learning_rate="auto", epochs=1))
    tuning = read(result.run_dir / "tuning.json")
    assert tuning["scores"]["set"]["1e+12"] is None
    assert tuning["chosen"] == {"set": 0.05}


def test_tuning_that_only_diverges_is_refused(
    make_options: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("regrow.training.tune").training.tune.GRIDS, "sgd", (1e12,))
    with pytest.raises(RunError) as caught:
        train(make_options(learning_rate="auto", epochs=1))
    assert str(caught.value) == (
        "training of set diverged at every learning rate of the grid (1e+12); "
        "give a smaller --learning-rate"
    )


def test_unknown_methods(make_options: Make) -> None:
    known = ", ".join(sorted([*methods(), "dense"]))
    for values in ({"method": "sett"}, {"compare": ["sett"]}):
        with pytest.raises(OptionError) as caught:
            train(make_options(**values))
        assert str(caught.value) == (f"{next(iter(values))} must be one of {known}, got sett")


def test_folders_that_are_not_free(make_options: Make, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("x")
    train(make_options("run", epochs=1))
    sentences = {
        "file": f"out must be the path of a folder, got the file {tmp_path}/file",
        "full": f"out must be a new or empty folder, got {tmp_path}/full, which has files",
        "run": (
            f"out must be a new folder, or be continued with --resume, "
            f"got {tmp_path}/run, which has a run"
        ),
    }
    for name, sentence in sentences.items():
        with pytest.raises(OptionError) as caught:
            train(make_options(name))
        assert str(caught.value) == sentence


def test_a_run_killed_before_it_had_options_is_begun_anew(
    make_options: Make, tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    for name in (".lock", "dataset.json", ".config.json.tmp"):
        (tmp_path / "run" / name).write_text("{")
    assert train(make_options("run", epochs=1)).results["set"]


def test_a_schedule_that_never_comes_is_said(make_options: Make) -> None:
    notes = Notes()
    train(make_options(method="rigl", epochs=1), progress=notes)
    assert (
        "rigl updates every 100 steps and so not at all in 6; give a smaller --every" in notes.notes
    )


def test_dense_alone_and_a_net_without_hidden_layer(make_options: Make) -> None:
    result = train(make_options(method="dense", hidden=[], epochs=1))
    assert result.results["dense"][0]["connections"] == 640
    assert math.isfinite(result.results["dense"][0]["test_loss"])


def test_full_density_is_dense(make_options: Make) -> None:
    result = train(make_options(density=1.0, epochs=1))
    assert result.results["set"][0]["bytes_indices"] == 0
