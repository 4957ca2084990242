"""Evolution in a loop of accelerate."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from regrow.evolution import Evolution, Method


class AcceleratedEvolution(Evolution):
    """An ``Evolution`` of what ``accelerator.prepare`` returned, saved with its states.

    Call ``step()`` after each ``optimizer.step()``; in steps that only accumulate gradients neither
    does anything. ``accelerator.save_state`` and ``load_state`` include it.

    Args:
        accelerator: The ``accelerate.Accelerator``.
        model: As prepared.
        optimizer: As prepared.
        method: Name of a registered method, or a ``Method``.
        **parts: As of ``Evolution``.

    Example:
        >>> import regrow
        >>> from accelerate import Accelerator
        >>> accelerator = Accelerator(gradient_accumulation_steps=2, cpu=True)
        >>> model = regrow.SparseLinear(64, 32, density=0.1)
        >>> optimizer = torch.optim.Adam(model.parameters())
        >>> model, optimizer = accelerator.prepare(model, optimizer)
        >>> evolution = AcceleratedEvolution(accelerator, model, optimizer, "set", every=1)
        >>> for batch in torch.randn(4, 8, 64):
        ...     with accelerator.accumulate(model):
        ...         accelerator.backward(model(batch).square().mean())
        ...         optimizer.step()
        ...         _ = evolution.step()
        ...         optimizer.zero_grad()
        >>> evolution.steps
        2
    """

    def __init__(
        self,
        accelerator: Any,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        method: str | Method = "set",
        **parts: Any,
    ) -> None:
        super().__init__(model, optimizer, method, **parts)
        accelerator.register_for_checkpointing(self)
