"""Random crops and flips of images, the same for every arm."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_MARGIN = 4


def augmented(x: Tensor, shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
    """Shift every image by up to an eighth of its size, edges mirrored, and flip half of them.

    Args:
        x: Images as rows, ``[n, channels * height * width]``.
        shape: Channels, height and width.
        generator: Decides.

    Returns:
        As ``x``.

    Example:
        >>> images = torch.arange(64.0).reshape(1, 64)
        >>> augmented(images, (1, 8, 8), torch.Generator().manual_seed(0)).shape
        torch.Size([1, 64])
    """
    channels, height, width = shape
    n, margin = len(x), min(_MARGIN, height // 8, width // 8)
    images = functional.pad(x.view(n, *shape), (margin,) * 4, mode="reflect")
    shifts = torch.randint(0, 2 * margin + 1, (2, n, 1), generator=generator)
    flips = torch.rand(n, 1, generator=generator) < 0.5
    rows = shifts[0] + torch.arange(height)
    columns = torch.arange(width)
    columns = shifts[1] + torch.where(flips, columns.flip(0), columns)
    sample = torch.arange(n)[:, None, None, None]
    plane = torch.arange(channels)[None, :, None, None]
    return images[sample, plane, rows[:, None, :, None], columns[:, None, None, :]].view(n, -1)
