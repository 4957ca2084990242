"""Drawing distinct numbers in many groups at once, in O(numbers drawn)."""

from __future__ import annotations

import torch
from torch import Tensor


def sample_in_groups(
    sizes: Tensor, counts: Tensor, generator: torch.Generator | None = None
) -> Tensor:
    """Draw distinct integers, uniformly, from each of the ranges that lie one behind the other.

    Range i holds the ``sizes[i]`` integers that follow those of the ranges before it.

    Args:
        sizes: Length of each range, int64 ``[groups]``.
        counts: How many to draw from each, int64 ``[groups]``, at most its size.
        generator: CPU generator to draw from; torch's default one if None.

    Returns:
        int64 ``[sum of counts]``, rising.

    Raises:
        ValueError: A count is negative or above the size of its range.

    Example:
        >>> sizes, counts = torch.tensor([3, 2, 4]), torch.tensor([3, 0, 1])
        >>> drawn = sample_in_groups(sizes, counts, torch.Generator().manual_seed(0))
        >>> drawn[:3].tolist(), 5 <= int(drawn[3]) < 9
        ([0, 1, 2], True)
    """
    wrong = (counts < 0) | (counts > sizes)
    if bool(wrong.any()):
        group = int(wrong.nonzero()[0])
        raise ValueError(
            f"count of group {group} must be in [0, {int(sizes[group])}], got {int(counts[group])}"
        )
    ends = sizes.cumsum(0)
    starts = ends - sizes
    # Where most of a range is wanted, throwing until it is hit would take long.
    full = 2 * counts > sizes
    dense = _shuffled(starts[full], sizes[full], counts[full], generator)
    loose = _thrown(starts, ends, sizes, torch.where(full, 0, counts), generator)
    return torch.cat([dense, loose]).sort().values


def _shuffled(
    starts: Tensor, sizes: Tensor, counts: Tensor, generator: torch.Generator | None
) -> Tensor:
    """All numbers of each range in random order, cut off after its count."""
    total = int(sizes.sum())
    group = torch.repeat_interleave(torch.arange(len(sizes)), sizes, output_size=total)
    first = sizes.cumsum(0) - sizes
    rank = torch.arange(total) - first[group]
    mixed = torch.randperm(total, generator=generator)
    mixed = mixed[group[mixed].sort(stable=True).indices]
    chosen = mixed[rank < counts[group]]
    return (starts - first)[group[chosen]] + chosen


def _thrown(
    starts: Tensor, ends: Tensor, sizes: Tensor, counts: Tensor, generator: torch.Generator | None
) -> Tensor:
    """Draw what is missing, keep the distinct ones, and again: fair, for all numbers are alike."""
    drawn = starts.new_empty(0)
    missing = counts
    while total := int(missing.sum()):
        group = torch.repeat_interleave(torch.arange(len(sizes)), missing, output_size=total)
        chance = torch.rand(total, dtype=torch.float64, generator=generator)
        # A chance just below 1 may be rounded up to the size itself.
        offset = (chance * sizes[group]).long().minimum(sizes[group] - 1)
        drawn = torch.cat([drawn, starts[group] + offset]).unique()
        held = torch.searchsorted(ends, drawn, right=True)
        missing = counts - torch.bincount(held, minlength=len(sizes))
    return drawn
