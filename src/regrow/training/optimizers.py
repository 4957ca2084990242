"""The optimizers of a run by name, and the learning rates that are tried for each."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from regrow.training.options import TrainOptions

# Around the rates that the published sparse runs use; coarse enough that a pilot can tell.
GRIDS: dict[str, tuple[float, ...]] = {
    "sgd": (0.3, 0.1, 0.03, 0.01, 0.003),
    "adam": (0.01, 0.003, 0.001, 0.0003, 0.0001),
    "adamw": (0.01, 0.003, 0.001, 0.0003, 0.0001),
    "rmsprop": (0.01, 0.003, 0.001, 0.0003, 0.0001),
    "adagrad": (0.1, 0.03, 0.01, 0.003, 0.001),
}

_MAKERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "rmsprop": torch.optim.RMSprop,
    "adagrad": torch.optim.Adagrad,
}


def make_optimizer(
    model: nn.Module, options: TrainOptions, learning_rate: float
) -> torch.optim.Optimizer:
    """The optimizer that the options name, over all parameters of a model."""
    extra = {"momentum": options.momentum} if options.optimizer == "sgd" else {}
    return _MAKERS[options.optimizer](
        model.parameters(), lr=learning_rate, weight_decay=options.weight_decay, **extra
    )
