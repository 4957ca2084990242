"""A generator of plausible run directories: what a training writes, without a training."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from regrow.measure import pictures

DIGITS = [str(digit) for digit in range(10)]


def fabricate(
    folder: Path,
    *,
    arms: Sequence[str] = ("set", "static", "dense"),
    seeds: int = 3,
    epochs: int = 30,
    sizes: Sequence[int] = (784, 1000, 1000, 1000, 10),
    density: float = 0.05,
    task: str = "classification",
    image_shape: tuple[int, int] | None = (28, 28),
    finished: int | None = None,
    diverged: Sequence[str] = (),
    best: dict[str, float] | None = None,
    seconds: dict[str, float] | None = None,
    tuned: bool = True,
    class_names: Sequence[str] = DIGITS,
    name: str = "fashion-mnist",
) -> Path:
    """Writes a run directory. `finished` trainings have a result, the next stopped half way."""
    folder.mkdir(parents=True, exist_ok=True)
    classification = task == "classification"
    _write(folder / "config.json", _config(name, arms, seeds, epochs, sizes, density, folder))
    _write(
        folder / "dataset.json",
        {
            "name": name,
            "task": task,
            "n_train": 54000,
            "n_validation": 6000,
            "n_test": 10000,
            "n_features": sizes[0],
            "n_classes": len(class_names) if classification else None,
            "class_names": list(class_names) if classification else None,
            "image_shape": list(image_shape) if image_shape else None,
            "notes": ["2 constant columns were left out"],
        },
    )
    if tuned:
        _write(folder / "tuning.json", _tuning(arms, classification))
    rng = np.random.default_rng(5)
    done = 0
    with (folder / "metrics.jsonl").open("w") as lines:
        for seed in range(seeds):
            for arm in arms:
                complete = finished is None or done < finished
                if finished is not None and done > finished:
                    continue
                done += 1
                training = _Training(arm, seed, epochs, sizes, density, rng)
                training.top = (best or {}).get(arm, training.top)
                training.pace = (seconds or {}).get(arm, training.pace)
                rows = training.metrics(
                    epochs if complete else epochs // 2, arm in diverged, classification
                )
                lines.writelines(json.dumps(row) + "\n" for row in rows)
                where = folder / "arms" / arm / f"seed-{seed}"
                where.mkdir(parents=True)
                if complete:
                    _write(where / "result.json", training.result(rows))
                    if arm != "dense":
                        np.savez_compressed(where / "topology.npz", **training.topology())
    return folder


class _Training:
    def __init__(
        self,
        arm: str,
        seed: int,
        epochs: int,
        sizes: Sequence[int],
        density: float,
        rng: np.random.Generator,
    ) -> None:
        self.arm, self.seed, self.epochs, self.rng = arm, seed, epochs, rng
        self.sizes, self.density = sizes, density
        self.top = {"set": 0.882, "static": 0.871, "dense": 0.889, "rigl": 0.884}.get(arm, 0.86)
        self.pace = {"set": 1.9, "static": 1.7, "dense": 3.6}.get(arm, 2.2)
        self.layers = list(enumerate(pairwise(sizes)))
        full = [a * b for a, b in pairwise(sizes)]
        sparse = [max(1, round(density * size)) for size in full[:-1]] + full[-1:]
        self.full = full
        self.kept = full if arm == "dense" else sparse

    def metrics(self, epochs: int, diverged: bool, classification: bool) -> list[dict[str, Any]]:
        rows = []
        evolving = self.arm not in {"dense", "static"}
        explored = self.density
        for epoch in range(1, epochs + 1):
            progress = 1 - np.exp(-6 * epoch / self.epochs)
            score = self.top * (0.86 + 0.14 * progress) + self.rng.normal(0, 0.002)
            loss = 1.4 - 1.05 * progress + 0.002 * epoch + self.rng.normal(0, 0.006)
            broken = diverged and epoch > 3
            replaced = int(0.3 * sum(self.kept[:-1])) if evolving and epoch < epochs else 0
            explored += (1 - explored) * self.density * 0.3 if replaced else 0.0
            row: dict[str, Any] = {
                "arm": self.arm,
                "seed": self.seed,
                "epoch": epoch,
                "step": 422 * epoch,
                "train_loss": float("nan") if broken else loss - 0.004 * epoch,
                "validation_loss": float("nan") if broken else loss,
                "validation_score": 0.1 if broken else score + 0.003,
                "test_score": 0.1 if broken and classification else float(score),
                "seconds": self.pace * float(self.rng.uniform(0.95, 1.1)),
                "learning_rate": 0.05,
                "connections": sum(self.kept),
                "exploration": explored if evolving else None,
                "dropped": replaced,
                "grown": replaced,
            }
            if broken and not classification:
                row["test_score"] = None
            rows.append(row)
        return rows

    def result(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        kept, full, dense = sum(self.kept), sum(self.full), self.arm == "dense"
        values, indices = 4 * kept, 0 if dense else 12 * kept
        return {
            "arm": self.arm,
            "seed": self.seed,
            "epochs": self.epochs,
            "learning_rate": 0.05,
            "test_score": rows[-1]["test_score"],
            "test_loss": rows[-1]["validation_loss"],
            "best_epoch": len(rows) - 2,
            "test_score_at_best": rows[max(0, len(rows) - 3)]["test_score"],
            "connections": kept,
            "dense_connections": full,
            "bytes_values": values,
            "bytes_indices": indices,
            "bytes_optimizer": values,
            "bytes_total": 2 * values + indices,
            "peak_bytes": None if self.seed else 3 * (2 * values + indices),
            "flops_forward_per_sample": 2 * kept,
            "flops_backward_per_sample": 4 * kept,
            "flops_training_total": 6 * kept * 54000 * self.epochs,
            "seconds_per_epoch": float(np.median([row["seconds"] for row in rows])),
            "layers": [self._layer(index) for index, _ in self.layers],
        }

    def _layer(self, index: int) -> dict[str, Any]:
        rows, columns = self.sizes[index + 1], self.sizes[index]
        kept, full = self.kept[index], self.full[index]
        sparse = kept < full
        dense_ms, csr_ms = full / 1.1e6 * 4, kept / 1.1e6 * 17
        return {
            "path": f"layers.{2 * index}",
            "kind": "SparseLinear" if sparse else "Linear",
            "shape": [rows, columns],
            "density": kept / full,
            "nnz": kept,
            "compute": ("csr" if csr_ms < dense_ms else "dense") if sparse else "dense",
            "reason": "fastest of 2 measured, batch 128, 2 threads" if sparse else "a dense layer",
            "milliseconds": {"dense": dense_ms, "csr": csr_ms} if sparse else {},
            "bytes": kept * (20 if sparse else 8),
        }

    def topology(self) -> dict[str, np.ndarray]:
        arrays: dict[str, np.ndarray] = {}
        for index, (columns, rows) in self.layers[:-1]:
            path, kept = f"layers.{2 * index}", self.kept[index]
            even_in, even_out = np.full(rows, 1 / rows), np.full(columns, 1 / columns)
            tilt = self.rng.gamma(2.2, size=columns) if self.arm != "static" else np.ones(columns)
            if index == 0 and columns == 784:
                y, x = np.mgrid[-1:1:28j, -1:1:28j]
                tilt = (np.exp(-2.2 * (x**2 + y**2)) * self.rng.gamma(6.0, size=(28, 28))).ravel()
            arrays[f"{path}/start_in"] = self.rng.multinomial(kept, even_in)
            arrays[f"{path}/start_out"] = start = self.rng.multinomial(kept, even_out)
            skew = self.rng.gamma(9.0, size=rows)
            arrays[f"{path}/end_in"] = self.rng.multinomial(kept, skew / skew.sum())
            end = start if self.arm == "static" else self.rng.multinomial(kept, tilt / tilt.sum())
            arrays[f"{path}/end_out"] = end
            signs = self.rng.choice([-1.0, 1.0], kept)
            arrays[f"{path}/values"] = signs * self.rng.gamma(3.0, 0.03, kept)
            if index == 0:
                moments = np.unique(np.linspace(0, self.epochs, 8).astype(np.int64))
                shares = moments[:, None] / self.epochs
                mixed = np.round((1 - shares) * start + shares * end)
                arrays[f"{path}/input_map"] = mixed.astype(np.int64)
                arrays[f"{path}/input_map_epochs"] = moments
        return arrays


def _config(
    name: str,
    arms: Sequence[str],
    seeds: int,
    epochs: int,
    sizes: Sequence[int],
    density: float,
    folder: Path,
) -> dict[str, Any]:
    compare = " ".join(arms[1:])
    return {
        "data": name,
        "model": "mlp",
        "hidden": list(sizes[1:-1]),
        "method": arms[0] if arms else "set",
        "compare": list(arms[1:]),
        "density": density,
        "epochs": epochs,
        "batch_size": 128,
        "optimizer": "sgd",
        "seeds": seeds,
        "seed": 0,
        "output": str(folder),
        "command": f"regrow train {name} --epochs {epochs} --seeds {seeds} --compare {compare}",
        "started": "2026-03-01T10:20:30+00:00",
        "regrow": "0.1.0",
        "torch": "2.13.0",
        "machine": {"cpu": "AMD EPYC 7763", "isa": "avx2", "cores": 2, "system": "Linux 6.1"},
        "threads": 2,
    }


def _tuning(arms: Sequence[str], classification: bool) -> dict[str, Any]:
    grid = [0.01, 0.05, 0.2]
    shift = 0.0 if classification else -0.05
    scores = {arm: {str(lr): 0.8 + shift + 0.02 * k for k, lr in enumerate(grid)} for arm in arms}
    for row in scores.values():
        row["0.2"] = 0.79
    return {"grid": grid, "epochs": 3, "scores": scores, "chosen": dict.fromkeys(arms, 0.05)}


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")


@pytest.fixture
def real_files() -> None:
    """Asked for by a test that looks at the PNG files."""


@pytest.fixture(autouse=True)
def _quick_files(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the time of a report goes into PNG files, which few tests look at."""
    if "real_files" not in request.fixturenames:
        monkeypatch.setattr(pictures, "save_png", lambda figure, path: Path(path).touch())


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Gives the generator, writing into a folder of the test."""

    def make(**options: Any) -> Path:
        defaults = {"seeds": 2, "epochs": 6, "sizes": (64, 20, 3), "image_shape": (8, 8)}
        return fabricate(tmp_path / "run", **{**defaults, **options})

    return make
