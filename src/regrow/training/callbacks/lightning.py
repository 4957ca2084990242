"""Evolution in the ``Trainer`` of Lightning."""

from __future__ import annotations

import math
import sys
from typing import Any

from regrow.evolution import Evolution, Method, UpdateRecord

try:  # the package has two names, and each refuses callbacks of the other
    if "pytorch_lightning" in sys.modules and "lightning.pytorch" not in sys.modules:
        from pytorch_lightning import Callback
    else:
        from lightning.pytorch import Callback
except ImportError:
    try:
        from pytorch_lightning import Callback
    except ImportError:
        Callback = object


class EvolutionCallback(Callback):  # type: ignore[misc]
    """Evolves the sparse layers of the module that a Lightning ``Trainer`` trains.

    It acts after optimiser steps, so gradient accumulation is respected, and its state travels in
    Lightning's checkpoints: ``trainer.fit(module, ckpt_path=...)`` goes on exactly. A density that
    follows the validation loss is told the metric that ``monitor`` names.

    Args:
        method: Name of a registered method, or a ``Method``.
        monitor: Metric that the module logs in validation, lower being better.
        optimizer: Which of the module's optimisers trains the sparse layers.
        **parts: As of ``Evolution``: ``seed``, and parts of the method to replace. The number of
            steps, of an epoch and in all, is taken from the trainer.

    Attributes:
        evolution: The evolution, from the beginning of training on.
        record: What the last update did, or None.

    Raises:
        ImportError: Neither lightning nor pytorch_lightning is installed.

    Example:
        >>> callback = EvolutionCallback("rigl", every=100, until=0.75)
        >>> # lightning.Trainer(max_epochs=3, callbacks=[callback]).fit(module, loader)
    """

    def __init__(
        self,
        method: str | Method = "set",
        *,
        monitor: str = "val_loss",
        optimizer: int = 0,
        **parts: Any,
    ) -> None:
        if Callback is object:
            raise ImportError(
                "EvolutionCallback needs Lightning: install regrow with the extra lightning"
            )
        self.evolution: Evolution | None = None
        self.record: UpdateRecord | None = None
        self._method, self._parts = method, parts
        self._monitor, self._optimizer = monitor, optimizer
        self._saved: dict[str, Any] | None = None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Make the evolution, and continue a saved one."""
        total, epoch = trainer.estimated_stepping_batches, trainer.num_training_batches
        self.evolution = Evolution(
            trainer.strategy.model,
            trainer.optimizers[self._optimizer],
            self._method,
            steps_per_epoch=_whole(math.ceil(epoch / trainer.accumulate_grad_batches)),
            total_steps=_whole(total),
            **self._parts,
        )
        self.record = None
        if self._saved is not None:
            self.evolution.load_state_dict(self._saved)
            self._saved = None

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Update the topology if one is due."""
        if self.evolution is not None:
            self.record = self.evolution.step() or self.record

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Tell the validation loss to a density that listens."""
        loss = trainer.callback_metrics.get(self._monitor)
        if self.evolution is not None and loss is not None and not trainer.sanity_checking:
            self.evolution.report(float(loss))

    def state_dict(self) -> dict[str, Any]:
        """What Lightning writes into its checkpoints."""
        return {} if self.evolution is None else self.evolution.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep a saved state until training starts."""
        self._saved = state_dict or None


def _whole(number: float) -> int | None:
    """The number of steps; None where it has no end."""
    return None if math.isinf(number) or number < 0 else max(1, int(number))
