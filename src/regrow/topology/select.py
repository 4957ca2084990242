"""Selecting the lowest or the highest scores in linear time; ties go to the first position."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from regrow.topology import extension
from regrow.topology.topology import Topology

_FLOATS = (torch.float32, torch.float64)


def without_lowest(scores: Tensor, count: int) -> Tensor:
    """All but the lowest scores; of equal ones the first go, and NaN is above everything.

    Args:
        scores: Real numbers ``[n]``.
        count: How many to leave out, in ``[0, n]``.

    Returns:
        Which ones stay, bool ``[n]``.

    Example:
        >>> without_lowest(torch.tensor([3.0, 1.0, 2.0, 1.0]), 2)
        tensor([ True, False,  True, False])
    """
    if not extension.usable(scores) or scores.dtype not in _FLOATS:
        keep = torch.ones(scores.numel(), dtype=torch.bool, device=scores.device)
        keep[scores.sort(stable=True).indices[:count]] = False
        return keep
    return _by_native(extension.native.drop_lowest, scores, count)


def without_nearest_zero(values: Tensor, count: int) -> Tensor:
    """All but the values nearest zero, the same share of the positive and of the negative ones.

    Let the i-th of the p positive values, from zero, have score (i + 1/2) / p, and negative ones
    likewise: the lowest scores go, of equal ones the positive first. Zeros count as positive. NaN
    is neither, and stays.

    Args:
        values: Real numbers ``[n]``.
        count: How many to leave out, in ``[0, n]``; all numbers go where there are not as many.

    Returns:
        Which ones stay, bool ``[n]``.

    Example:
        >>> without_nearest_zero(torch.tensor([1.0, -5.0, 2.0, -6.0, 3.0, 4.0]), 3)
        tensor([False, False, False,  True,  True,  True])
    """
    if extension.usable(values) and values.dtype in _FLOATS:
        return _by_native(extension.native.drop_nearest_zero, values, count)
    positives = int(torch.count_nonzero(values >= 0))
    negatives = int(torch.count_nonzero(values < 0))
    positive, negative = _shares(positives, negatives, min(count, positives + negatives))
    above = torch.where(values >= 0, values, torch.nan)
    below = torch.where(values < 0, -values, torch.nan)
    return without_lowest(above, positive) & without_lowest(below, negative)


def _by_native(select: Any, numbers: Tensor, count: int) -> Tensor:
    numbers = numbers.detach().contiguous()
    keep = torch.empty(numbers.numel(), dtype=torch.bool)
    given = numbers.itemsize, numbers.data_ptr(), numbers.numel(), count
    select(*given, keep.data_ptr(), torch.get_num_threads())
    return keep


def _shares(positives: int, negatives: int, count: int) -> tuple[int, int]:
    """How many of ``count`` are positive and how many negative, exactly.

    The least number p of positives for which the next one has a higher score than the last
    negative: (2p + 1) negatives > (2 (count - p) - 1) positives.
    """
    if count == 0:
        return 0, 0
    total = positives + negatives
    share = (2 * count * positives - total) // (2 * total) + 1
    positive = min(max(share, 0, count - negatives), positives, count)
    return positive, count - positive


class Highest:
    """The highest free scores of a weight, offered in tiles of whole rows from the top down.

    Memory is O(count), whatever the number of scores.

    Args:
        taken: Positions that are not free.
        count: How many to keep, at most the number of free positions.

    Example:
        >>> best = Highest(Topology((2, 3), torch.tensor([0, 5])), 2)
        >>> best.offer(torch.tensor([9.0, 1.0, 4.0]), 0, 1)
        >>> best.offer(torch.tensor([3.0, 2.0, 9.0]), 1, 2)
        >>> best.found()
        (tensor([4., 3.]), tensor([2, 3]))
    """

    def __init__(self, taken: Topology, count: int) -> None:
        self._taken = taken
        self._count = count
        self._scores = torch.empty(0, device=taken.device)
        self._positions = torch.empty(0, dtype=torch.int64, device=taken.device)
        self._native: Any = None
        self._busy: Tensor | None = None

    def offer(self, tile: Tensor, first_row: int, last_row: int) -> None:
        """Take in the scores of rows ``[first_row, last_row)``; NaN counts as the lowest.

        Args:
            tile: Scores ``[rows * columns]``, of the same dtype at every call.
            first_row: First row of the tile.
            last_row: The row after its last.
        """
        tile = tile.detach().reshape(-1).to(torch.promote_types(tile.dtype, torch.float32))
        tile = tile.to(self._taken.device).contiguous()
        if extension.usable(tile) and tile.dtype in _FLOATS:
            self._offer_native(tile, first_row, last_row)
        else:
            self._offer(tile, first_row, last_row)

    def found(self) -> tuple[Tensor, Tensor]:
        """Scores ``[count]`` and flat positions int64 ``[count]``, by position."""
        if self._native is not None:
            size = self._native.settle(torch.get_num_threads())
            return self._scores[:size], self._positions[:size]
        return self._scores, self._positions

    def _offer_native(self, tile: Tensor, first_row: int, last_row: int) -> None:
        if self._native is None:
            indptr, indices = self._taken.csr()
            rows, columns = self._taken.matrix_shape
            # With room for as many again, each selection among them pays for itself.
            capacity = 1 + min(2 * self._count + 1024, rows * columns)
            self._scores = tile.new_empty(capacity)
            self._positions = torch.empty(capacity, dtype=torch.int64)
            kind = "HighestFloat" if tile.dtype == torch.float32 else "HighestDouble"
            self._native = getattr(extension.native, kind)(
                self._scores.data_ptr(),
                self._positions.data_ptr(),
                capacity,
                self._count,
                indptr.data_ptr(),
                indices.data_ptr(),
                rows,
                columns,
                indices.numel(),
            )
        self._native.offer(tile.data_ptr(), first_row, last_row, torch.get_num_threads())

    def _offer(self, tile: Tensor, first_row: int, last_row: int) -> None:
        if self._busy is None:
            self._busy = self._taken.positions
        columns = self._taken.matrix_shape[1]
        first, stop = first_row * columns, last_row * columns
        # Minus infinity marks what is taken; no free score is as low.
        least = torch.finfo(tile.dtype).min
        tile = torch.where(tile.isnan(), least, tile).clamp_(min=least)
        bounds = torch.tensor([first, stop], device=tile.device)
        low, high = torch.searchsorted(self._busy, bounds).tolist()
        tile[self._busy[low:high] - first] = -torch.inf
        free = torch.arange(first, stop, device=tile.device)[tile > -torch.inf]
        scores = torch.cat([self._scores.to(tile.dtype), tile[tile > -torch.inf]])
        positions = torch.cat([self._positions, free])
        best = scores.sort(descending=True, stable=True).indices[: self._count].sort().values
        self._scores, self._positions = scores[best], positions[best]
