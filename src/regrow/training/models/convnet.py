"""A plain convolutional network."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from regrow.data import Dataset
from regrow.training.models.images import Planes, image_shape
from regrow.training.options import TrainOptions

_WIDTH, _DEPTH = 32, 3


def build(options: TrainOptions, dataset: Dataset) -> nn.Module:
    """Stages of a 3 x 3 convolution, batch norm, ReLU and pooling; then a linear layer.

    Each stage has twice the channels of the one before it and half its height and width.

    Args:
        options: ``width``: channels of the first stage, by default 32; ``depth``: stages, by
            default 3; ``dropout`` before the linear layer.
        dataset: Images.
    """
    channels, *_ = shape = image_shape(dataset)
    width, depth = options.width or _WIDTH, options.depth or _DEPTH
    modules: OrderedDict[str, nn.Module] = OrderedDict(planes=Planes(shape))
    for stage in range(1, depth + 1):
        modules[f"convolution{stage}"] = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        modules[f"norm{stage}"] = nn.BatchNorm2d(width)
        modules[f"relu{stage}"] = nn.ReLU()
        modules[f"pool{stage}"] = nn.MaxPool2d(2, ceil_mode=True)
        channels, width = width, 2 * width
    modules[f"pool{depth}"] = nn.AdaptiveAvgPool2d(1)
    modules["flat"] = nn.Flatten()
    if options.dropout > 0:
        modules["dropout"] = nn.Dropout(options.dropout)
    modules["output"] = nn.Linear(channels, dataset.n_classes or 1)
    return nn.Sequential(modules)
