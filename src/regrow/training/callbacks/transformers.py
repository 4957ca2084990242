"""Evolution in the ``Trainer`` of transformers."""

from __future__ import annotations

import base64
import io
import json
import math
from typing import Any

import torch
from torch import nn

from regrow.evolution import Evolution, Method, UpdateRecord

try:
    from transformers import TrainerCallback
    from transformers.trainer_callback import ExportableState
except ImportError:
    TrainerCallback, ExportableState = (type(name, (), {}) for name in ("Callback", "State"))


class EvolutionCallback(TrainerCallback, ExportableState):  # type: ignore[misc]
    """Evolves the sparse layers of the model that a ``transformers.Trainer`` trains.

    It acts after the optimiser steps of the trainer, so gradient accumulation is respected, and its
    state travels in the checkpoints of the trainer: ``trainer.train(resume_from_checkpoint=...)``
    goes on exactly. Where a density follows the validation loss it is told the ``eval_loss``.

    Args:
        method: Name of a registered method, or a ``Method``.
        **parts: As of ``Evolution``: ``seed``, and parts of the method to replace. The number of
            steps, of an epoch and in all, is taken from the trainer.

    Attributes:
        evolution: The evolution, from the beginning of training on.
        record: What the last update did, or None.

    Raises:
        ImportError: transformers is not installed.

    Example:
        >>> import regrow
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> sizes = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
        >>> config = LlamaConfig(vocab_size=32, num_hidden_layers=1, **sizes)
        >>> model = LlamaForCausalLM(config)
        >>> model = regrow.sparsify(model, density=0.25, include=["*.mlp.*"])
        >>> callback = EvolutionCallback("rigl", every=100, until=0.75)
        >>> # Trainer(model, arguments, train_dataset=..., callbacks=[callback]).train()
    """

    def __init__(self, method: str | Method = "set", **parts: Any) -> None:
        if TrainerCallback is object:
            raise ImportError(
                "EvolutionCallback needs transformers: install regrow with the extra transformers"
            )
        self.evolution: Evolution | None = None
        self.record: UpdateRecord | None = None
        self._method, self._parts = method, parts

    def on_train_begin(
        self,
        args: Any,
        state: Any,
        control: Any,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        **_: Any,
    ) -> None:
        """Make the evolution, and continue a saved one."""
        self.evolution = Evolution(
            model,
            optimizer,
            self._method,
            steps_per_epoch=max(1, math.ceil(state.max_steps / args.num_train_epochs)),
            total_steps=state.max_steps,
            **self._parts,
        )
        self.record = None
        saved = state.stateful_callbacks.get(type(self).__name__)
        if state.global_step and saved:
            saved = saved[-1] if isinstance(saved, list) else saved
            self.evolution.load_state_dict(_decoded(saved["attributes"]["evolution_state"]))

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Update the topology if one is due."""
        if self.evolution is not None:
            self.record = self.evolution.step() or self.record

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: dict[str, float], **_: Any
    ) -> None:
        """Tell the validation loss to a density that listens."""
        if self.evolution is not None and "eval_loss" in metrics:
            self.evolution.report(metrics["eval_loss"])

    def state(self) -> dict[str, Any]:
        """What the trainer writes into its checkpoints, as JSON."""
        arguments = {"method": self._method, **self._parts}
        try:
            json.dumps(arguments)
        except TypeError:  # a part is a function or a schedule; the trainer has the callback itself
            arguments = {}
        saved = None if self.evolution is None else _encoded(self.evolution.state_dict())
        return {"args": arguments, "attributes": {"evolution_state": saved}}


def _encoded(state: dict[str, Any]) -> str:
    file = io.BytesIO()
    torch.save(state, file)
    return base64.b64encode(file.getvalue()).decode()


def _decoded(text: str) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(io.BytesIO(base64.b64decode(text)), weights_only=True)
    return state
