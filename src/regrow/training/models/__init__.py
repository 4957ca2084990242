"""The networks that a run can train, one file each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from regrow.data import Dataset
from regrow.training.models import convnet, lstm, mlp, resnet, transformer
from regrow.training.options import TrainOptions

__all__ = ["NETWORKS", "Network", "mlp"]

Build = Callable[[TrainOptions, Dataset], nn.Module]


@dataclass(frozen=True)
class Network:
    """A kind of network.

    Attributes:
        build: Makes it, dense, from options and data.
        dense: Path globs of layers that stay dense in every arm.
        task: What it learns from: ``images`` or ``text``.
    """

    build: Build
    dense: tuple[str, ...]
    task: str


NETWORKS = {
    "convnet": Network(convnet.build, (), "images"),
    "resnet-20": Network(resnet.build, (), "images"),
    "transformer": Network(transformer.build, ("characters", "positions", "output"), "text"),
    "lstm": Network(lstm.build, ("characters", "output"), "text"),
}
"""By the name that ``--model`` takes, but for ``mlp``: its sparse layers are never dense."""
