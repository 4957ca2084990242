"""How long the phases of a parallel training are, and how its topology evolves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from regrow.evolution import Method


@dataclass(frozen=True)
class Plan:
    """What all processes of one training must agree on.

    Args:
        epochs: Passes over all data, both phases together.
        local: Share of them in the second phase, in which every worker trains alone; in [0, 1].
        synchronous: Whether the first phase waits for a gradient of every shard at each step,
            and takes their mean.
        warm_up: Epochs in which the learning rate of a synchronous first phase rises from the
            optimizer's own to as many times that as there are shards.
        method: How topologies evolve, once an epoch: a name, or a method. One that grows by
            gradients is refused, since the server forms none.
        options: Parts of the method to replace, as of `regrow.Evolution`.
        seed: Of evolution, and of what workers draw, such as dropout.

    Raises:
        ValueError: A number is out of range.

    Example:
        >>> plan = Plan(epochs=10, local=0.3)
        >>> plan.shared_epochs, plan.local_epochs
        (7, 3)
    """

    epochs: int
    local: float = 0.3
    synchronous: bool = False
    warm_up: float = 5.0
    method: str | Method = "set"
    options: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise ValueError(f"epochs of a plan must be at least 1, got {self.epochs}")
        if not 0 <= self.local <= 1:
            raise ValueError(f"local share of a plan must be in [0, 1], got {self.local}")
        if not self.warm_up >= 0:
            raise ValueError(f"warm_up of a plan must be at least 0 epochs, got {self.warm_up}")

    @property
    def shared_epochs(self) -> int:
        """Epochs of the first phase."""
        return self.epochs - self.local_epochs

    @property
    def local_epochs(self) -> int:
        """Epochs of the second phase."""
        return round(self.local * self.epochs)

    def rate_factor(self, epoch: float, shards: int) -> float:
        """By what the learning rate of the first phase is multiplied.

        Args:
            epoch: Passes over the data so far.
            shards: How many gradients are averaged for one step.

        Example:
            >>> plan = Plan(10, synchronous=True)
            >>> [plan.rate_factor(epoch, shards=3) for epoch in (0, 2.5, 5, 9)]
            [1.0, 2.0, 3.0, 3.0]
        """
        if not self.synchronous:
            return 1.0
        risen = min(1.0, epoch / self.warm_up) if self.warm_up else 1.0
        return (shards - 1) * risen + 1
