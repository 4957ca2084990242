"""What scores are asked about: one layer at the time of an update, and positions of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from regrow.evolution.ranks import ALONE, Ranks
from regrow.kernels.capture import Captured
from regrow.layers import SparseLayer
from regrow.topology import Topology


class Candidates:
    """Positions of one layer that a grow score is asked about.

    They are either given one by one, or are all columns of consecutive rows; a score may use the
    latter to form one matrix product instead of many sampled ones.

    Attributes:
        block: The consecutive rows, or None if the positions were given one by one.
    """

    def __init__(
        self, columns: int, *, positions: Tensor | None = None, block: slice | None = None
    ):
        """Take flat positions, or a block of rows, in a weight with this many columns."""
        if (positions is None) == (block is None):
            raise ValueError("candidates need positions or a block of rows, not both or neither")
        self.block = block
        self._positions = positions
        self._columns = columns

    def __len__(self) -> int:
        """Number of candidates."""
        if self._positions is not None:
            return self._positions.numel()
        assert self.block is not None
        return int(self.block.stop - self.block.start) * self._columns

    @property
    def positions(self) -> Tensor:
        """Flat position of each candidate, int64 ``[k]``."""
        if self._positions is not None:
            return self._positions
        assert self.block is not None
        return torch.arange(self.block.start * self._columns, self.block.stop * self._columns)

    @property
    def rows(self) -> Tensor:
        """Row of each candidate, int64 ``[k]``."""
        return torch.div(self.positions, self._columns, rounding_mode="floor")

    @property
    def columns(self) -> Tensor:
        """Column of each candidate, int64 ``[k]``."""
        return self.positions % self._columns


@dataclass(frozen=True)
class Site:
    """What a score may look at: one layer at the time of an update.

    Attributes:
        path: Path of the layer in the model.
        layer: The layer, before the update.
        generator: The evolution's random generator (CPU).
        captured: Passes of the last optimiser steps, where the grow score asked for gradients.
        optimizer: The optimiser that trains the layer, if any.
        step: Optimiser steps taken so far.
        fraction: Share of the connections that the update is to drop.
        tracked: The numbers of each tracker that a score declared, ``[nnz]``, by name.
        ever: All positions that were ever active, where the grow score asked for them.
        memory: Numbers by name that all layers of the evolution share, saved with it; a rule may
            keep its own here.
        samples: Inputs ``[samples, in]`` and outputs ``[samples, out]`` of the layer, where the
            grow score asked for activations.
        probed: Gradient of the values in a probe, in place of what the parameter holds.
        notes: What the rules of one update tell each other, shared by its layers and then gone.
        ranks: The processes that train the model. ``gradient`` is a mean over them; what a rule
            makes of ``captured`` itself, it averages with ``site.ranks.mean``.
    """

    path: str
    layer: SparseLayer
    generator: torch.Generator
    captured: Captured = field(default_factory=list)
    optimizer: torch.optim.Optimizer | None = None
    step: int = 0
    fraction: float = 0.0
    tracked: dict[str, Tensor] = field(default_factory=dict)
    memory: dict[str, float] = field(default_factory=dict)
    ever: Topology | None = None
    samples: tuple[Tensor, Tensor] | None = None
    probed: Tensor | None = None
    ranks: Ranks = ALONE
    notes: dict[Any, Any] = field(default_factory=dict)

    @property
    def topology(self) -> Topology:
        """Connections before the update."""
        return self.layer.topology

    @property
    def values(self) -> Tensor:
        """Values of the connections ``[nnz]``, detached."""
        return self.layer.values.detach()

    @property
    def free(self) -> int:
        """Number of positions at which a connection can grow."""
        closed = self.layer.closed
        barred = 0 if closed is None else closed.numel()
        return self.topology.shape.numel() - self.topology.nnz - barred

    @property
    def grad(self) -> Tensor:
        """Gradient of the values ``[nnz]``; a score that reads it is one of ``before=True``."""
        grad = self.layer.values.grad if self.probed is None else self.probed
        if grad is None:
            raise RuntimeError(
                f"the score in {self.path} needs the gradient of the values, got none: it must be "
                f"taken before the optimiser step (before=True), after a backward pass"
            )
        # Fused optimisers take the scale of GradScaler away themselves, later.
        scale = getattr(self.optimizer, "grad_scale", None)
        return grad if scale is None else grad / scale

    @property
    def age(self) -> Tensor:
        """Optimiser steps since each connection was grown ``[nnz]``; of ``tracks=(AGE,)``."""
        return self.tracked["age"]

    @property
    def seen(self) -> Topology:
        """All positions that were ever active; of a grow score with ``seen=True``."""
        if self.ever is None:
            raise RuntimeError(f"the score in {self.path} reads site.seen without seen=True")
        return self.ever

    def optimizer_state(self, name: str) -> Tensor | None:
        """One entry of the optimiser's state of the values ``[nnz]``, None if it has none yet."""
        state = {} if self.optimizer is None else self.optimizer.state.get(self.layer.values, {})
        entry = state.get(name)
        if isinstance(entry, Tensor) and entry.shape == self.values.shape:
            return entry.detach()
        return None

    @property
    def momentum(self) -> Tensor:
        """Smoothed gradient of the connections ``[nnz]``, as the optimiser holds it.

        SGD's momentum buffer, or Adam's first moment over the root of its second; zero before the
        first step.

        Raises:
            RuntimeError: The optimiser has neither.
        """
        buffer = self.optimizer_state("momentum_buffer")
        if buffer is not None:
            return buffer
        first, second = self.optimizer_state("exp_avg"), self.optimizer_state("exp_avg_sq")
        if first is not None and second is not None:
            return first / (second.sqrt() + 1e-8)
        if self.optimizer is not None and not self.optimizer.state.get(self.layer.values):
            return torch.zeros_like(self.values)
        raise RuntimeError(
            f"the score in {self.path} needs an optimiser with momentum, "
            f"got {type(self.optimizer).__name__} without"
        )

    @property
    def inputs(self) -> Tensor:
        """Inputs of the layer since the last update, a sample of rows ``[samples, in]``."""
        return self._sampled()[0]

    @property
    def outputs(self) -> Tensor:
        """Outputs of the layer for ``inputs``, after its activation ``[samples, out]``."""
        return self._sampled()[1]

    def _sampled(self) -> tuple[Tensor, Tensor]:
        if self.samples is None:
            raise RuntimeError(
                f"growth by activations in {self.path} needs a forward pass in training since the "
                f"last update, and activations=True, got none"
            )
        return self.samples

    def gradient(self, candidates: Candidates, decay: float = 1.0) -> Tensor:
        """Gradient of the loss with respect to the weights at the candidates ``[k]``.

        Positions without a value have one too: it is what the weight's gradient would be there.

        Args:
            candidates: Positions of the layer.
            decay: Each gradient counts ``decay ** steps ago``, where the score has a history.
        """
        total = None
        for x, grad, ago in self.captured:
            if candidates.block is not None:
                part = self.layer.gradient_block(x, grad, candidates.block).reshape(-1)
            else:
                part = self.layer.gradient_pairs(x, grad, candidates.rows, candidates.columns)
            if ago:
                part = part * decay**ago
            total = part if total is None else total.add_(part)
        if total is None:
            raise RuntimeError(
                f"growth by gradient in {self.path} needs a backward pass before the optimiser "
                f"step of an update, got none since the last one"
            )
        return self.ranks.mean(total)
