"""The parts of the data that workers train on, batch by batch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import torch
from torch import Tensor


class Batches(Protocol):
    """What workers train on. All processes must see the same; `Shards` is one for tensors."""

    @property
    def shards(self) -> int:
        """How many parts there are: one for each worker."""
        ...

    @property
    def batches(self) -> int:
        """Batches of one part, the same for all."""
        ...

    def batch(self, shard: int, number: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets.

        Args:
            shard: Of which part.
            number: From 0 on through all passes: a pass has ``batches`` of them.
        """
        ...


@dataclass(frozen=True, eq=False)
class Shards:
    """Tensors divided at random into parts of equal size, whole batches each.

    Args:
        x: Inputs ``[samples, ...]``.
        y: Targets ``[samples, ...]``.
        shards: How many parts, as many as there are workers.
        batch_size: Samples of a batch.
        seed: Of the division, and of the order in each pass.

    Raises:
        ValueError: There are not enough samples for a batch in each part, or inputs and targets
            differ in number.

    Example:
        >>> data = Shards(torch.randn(100, 4), torch.arange(100), shards=3, batch_size=8)
        >>> data.batches, data.batch(2, 5)[0].shape
        (4, torch.Size([8, 4]))
    """

    x: Tensor
    y: Tensor
    shards: int
    batch_size: int
    seed: int = 0

    def __post_init__(self) -> None:
        if len(self.x) != len(self.y):
            raise ValueError(
                f"inputs and targets of shards must be as many, got {len(self.x)} and {len(self.y)}"
            )
        if self.shards < 1 or self.batch_size < 1 or not self.batches:
            raise ValueError(
                f"shards must be at least 1, with a batch of at least 1 sample each, got "
                f"{len(self.x)} samples for {self.shards} shards in batches of {self.batch_size}"
            )

    @property
    def batches(self) -> int:
        """Batches of one part."""
        return len(self.x) // (self.shards * self.batch_size)

    def batch(self, shard: int, number: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets of one batch; every pass has its own order."""
        turn, place = divmod(number, self.batches)
        samples = _order(len(self.x), self.seed, -1, 0)
        own = samples[shard :: self.shards][: self.batches * self.batch_size]
        order = _order(len(own), self.seed, shard, turn)
        chosen = own[order[place * self.batch_size : (place + 1) * self.batch_size]]
        return self.x[chosen], self.y[chosen]


@lru_cache(maxsize=64)
def _order(samples: int, seed: int, shard: int, turn: int) -> Tensor:
    generator = torch.Generator().manual_seed(hash((seed, shard, turn)) % 2**63)
    return torch.randperm(samples, generator=generator)
