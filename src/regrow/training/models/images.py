"""What networks for images share: the way from a row of features to planes."""

from __future__ import annotations

from torch import Tensor, nn

from regrow.data import Dataset


class Planes(nn.Module):
    """Features ``[batch, channels * height * width]`` as planes.

    Args:
        shape: Channels, height and width.

    Example:
        >>> import torch
        >>> Planes((3, 8, 8))(torch.zeros(2, 192)).shape
        torch.Size([2, 3, 8, 8])
    """

    def __init__(self, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        """Planes ``[batch, channels, height, width]``."""
        return x.view(-1, *self.shape)


def image_shape(dataset: Dataset) -> tuple[int, int, int]:
    """Channels, height and width of the images of a data set."""
    assert dataset.image_shape is not None
    *channels, height, width = dataset.image_shape
    return (channels[0] if channels else 1, height, width)
