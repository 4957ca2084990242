"""What a training remembers of its past: best epoch, first topology, input maps, peak memory."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from regrow.files import write_atomically
from regrow.layers import SparseLayer, sparse_layers
from regrow.training.loop import Trainer
from regrow.training.score import Score

_SNAPSHOTS = 8


@dataclass
class History:
    """The past of one training, kept in its checkpoints.

    Attributes:
        start: In- and out-degrees of each sparse layer before the first step.
        input_map: For image data, the connections of each pixel at some epochs, int64.
        input_map_epochs: Those epochs.
        best_epoch: Epoch of the highest validation score; 0 before the first.
        best: Loss and score on the validation part in it.
        best_test: Test score in it.
        peak_bytes: Most memory that an epoch took.
    """

    start: dict[str, list[Tensor]]
    input_map: list[Tensor] = field(default_factory=list)
    input_map_epochs: list[int] = field(default_factory=list)
    best_epoch: int = 0
    best: Score | None = None
    best_test: float = 0.0
    peak_bytes: int | None = None

    @classmethod
    def begin(cls, trainer: Trainer) -> History:
        """The history of a training that has not made a step yet."""
        layers = sparse_layers(trainer.model)
        history = cls({path: list(layer.topology.degrees()) for path, layer in layers.items()})
        history._snapshot(trainer)
        return history

    def saw_peak(self, peak: int | None) -> None:
        """Take note of the memory that an epoch took."""
        if peak is not None:
            self.peak_bytes = max(peak, self.peak_bytes or 0)

    def saw_epoch(self, trainer: Trainer, validation: Score, test: Score) -> bool:
        """Take note of an epoch; whether it is the best so far."""
        self._snapshot(trainer)
        if not validation.better_than(self.best):
            return False
        self.best, self.best_epoch, self.best_test = validation, trainer.epoch, test.score
        return True

    def write_topology(self, path: Path, trainer: Trainer) -> None:
        """Write the degrees at start and end, the values, and the input maps as ``.npz``."""
        arrays: dict[str, np.ndarray[Any, Any]] = {}
        for name, layer in sparse_layers(trainer.model).items():
            end_in, end_out = layer.topology.degrees()
            arrays[f"{name}/start_in"] = self.start[name][0].numpy()
            arrays[f"{name}/start_out"] = self.start[name][1].numpy()
            arrays[f"{name}/end_in"] = end_in.numpy()
            arrays[f"{name}/end_out"] = end_out.numpy()
            arrays[f"{name}/values"] = layer.values.detach().numpy()
        if self.input_map:
            name = next(iter(self.start))
            arrays[f"{name}/input_map"] = np.stack([entry.numpy() for entry in self.input_map])
            arrays[f"{name}/input_map_epochs"] = np.array(self.input_map_epochs)
        write_atomically(path, lambda file: np.savez(file, allow_pickle=False, **arrays))

    def state_dict(self) -> dict[str, Any]:
        """Tensors and numbers for a checkpoint."""
        return {
            "start": self.start,
            "input_map": self.input_map,
            "input_map_epochs": self.input_map_epochs,
            "best_epoch": self.best_epoch,
            "best": None if self.best is None else asdict(self.best),
            "best_test": self.best_test,
            "peak_bytes": self.peak_bytes,
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> History:
        """The history that `state_dict` described."""
        best = None if state["best"] is None else Score(**state["best"])
        return cls(**{**state, "best": best})

    def _snapshot(self, trainer: Trainer) -> None:
        layer = _input_layer(trainer)
        if layer is not None and trainer.epoch in snapshot_epochs(trainer.job.epochs):
            self.input_map.append(layer.topology.degrees()[1])
            self.input_map_epochs.append(trainer.epoch)


def snapshot_epochs(epochs: int) -> list[int]:
    """At most eight epochs from 0 to the last, evenly spread.

    Example:
        >>> snapshot_epochs(50)
        [0, 7, 14, 21, 29, 36, 43, 50]
        >>> snapshot_epochs(2)
        [0, 1, 2]
    """
    steps = min(epochs, _SNAPSHOTS - 1)
    return [round(i * epochs / steps) for i in range(steps + 1)]


def _input_layer(trainer: Trainer) -> SparseLayer | None:
    if trainer.dataset.image_shape is None or len(trainer.dataset.image_shape) != 2:
        return None
    layers = sparse_layers(trainer.model)
    first = next(iter(layers.values()), None)
    if first is None or first.topology.matrix_shape[1] != trainer.dataset.n_features:
        return None
    return first
