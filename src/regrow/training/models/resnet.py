"""The residual network of twenty layers for small images."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn
from torch.nn import functional

from regrow.data import Dataset
from regrow.training.models.images import Planes, image_shape
from regrow.training.options import TrainOptions

_WIDTH = 16
_BLOCKS = 3  # in each of three stages, with two convolutions each: 18 layers, 20 with the ends


def build(options: TrainOptions, dataset: Dataset) -> nn.Module:
    """Three stages of three residual blocks, with channels doubled and planes halved between.

    Args:
        options: ``width``: channels of the first stage, by default 16.
        dataset: Images.

    References:
        K. He, X. Zhang, S. Ren, J. Sun, "Deep residual learning for image recognition", 2015,
        section 4.2, with shortcuts that have no parameters (its option A).
    """
    channels, *_ = shape = image_shape(dataset)
    width = options.width or _WIDTH
    modules: OrderedDict[str, nn.Module] = OrderedDict(
        planes=Planes(shape),
        convolution=_convolution(channels, width, 1),
        norm=nn.BatchNorm2d(width),
        relu=nn.ReLU(),
    )
    channels = width
    for stage in range(3):
        for block in range(_BLOCKS):
            stride = 2 if stage > 0 and block == 0 else 1
            modules[f"stage{stage + 1}_block{block + 1}"] = Block(channels, width << stage, stride)
            channels = width << stage
    modules["pool"] = nn.AdaptiveAvgPool2d(1)
    modules["flat"] = nn.Flatten()
    modules["output"] = nn.Linear(channels, dataset.n_classes or 1)
    return nn.Sequential(modules)


class Block(nn.Module):
    """Two convolutions with batch norm beside a shortcut.

    Args:
        channels: Of the input.
        width: Channels of the output, at least as many.
        stride: Of the first convolution and of the shortcut.

    Example:
        >>> import torch
        >>> Block(4, 8, 2)(torch.zeros(1, 4, 6, 6)).shape
        torch.Size([1, 8, 3, 3])
    """

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.convolution1 = _convolution(channels, width, stride)
        self.norm1 = nn.BatchNorm2d(width)
        self.convolution2 = _convolution(width, width, 1)
        self.norm2 = nn.BatchNorm2d(width)
        self.stride, self.new_channels = stride, width - channels

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[batch, channels, height, width]``."""
        y = functional.relu(self.norm1(self.convolution1(x)))
        y = self.norm2(self.convolution2(y))
        shortcut = x[:, :, :: self.stride, :: self.stride]
        if self.new_channels:
            shortcut = functional.pad(shortcut, (0, 0, 0, 0, 0, self.new_channels))
        return functional.relu(y + shortcut)


def _convolution(channels: int, width: int, stride: int) -> nn.Conv2d:
    layer = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer
