"""The optimizers of a run by name, and the learning rates that are tried for each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from regrow.optim import SNTASGD, LocalAgeAdam
from regrow.training.options import TrainOptions

_WARM_UP = 100  # steps, where there are as many between two updates

# Around the rates that the published sparse runs use; coarse enough that a pilot can tell.
GRIDS: dict[str, tuple[float, ...]] = {
    "sgd": (0.3, 0.1, 0.03, 0.01, 0.003),
    "adam": (0.01, 0.003, 0.001, 0.0003, 0.0001),
    "adamw": (0.01, 0.003, 0.001, 0.0003, 0.0001),
    "rmsprop": (0.01, 0.003, 0.001, 0.0003, 0.0001),
    "adagrad": (0.1, 0.03, 0.01, 0.003, 0.001),
    "local-age-adam": (0.01, 0.003, 0.001, 0.0003, 0.0001),
    "snt-asgd": (10.0, 3.0, 1.0, 0.3, 0.1),
}

# Those that torch has in one pass over values, gradient and state, which is several times quicker.
_FUSED = frozenset({"sgd", "adam", "adamw", "adagrad"})

_MAKERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "rmsprop": torch.optim.RMSprop,
    "adagrad": torch.optim.Adagrad,
    "local-age-adam": LocalAgeAdam,
    "snt-asgd": SNTASGD,
}


def make_optimizer(
    model: nn.Module, options: TrainOptions, learning_rate: float
) -> torch.optim.Optimizer:
    """The optimizer that the options name, over all parameters of a model.

    Those that know the age of a connection are given times that fit the run: no connection warms
    up for longer than there is between two updates, and averaging can begin after a fifth of the
    epochs without progress.
    """
    extra: dict[str, Any] = {}
    if options.optimizer in _FUSED:
        extra["fused"] = True
    if options.optimizer == "sgd":
        extra["momentum"] = options.momentum
    if options.optimizer == "local-age-adam" and isinstance(options.every, int):
        extra["warmup"] = min(_WARM_UP, options.every)
    if options.optimizer == "snt-asgd":
        extra["window"] = max(1, options.epochs // 5)
    return _MAKERS[options.optimizer](
        model.parameters(), lr=learning_rate, weight_decay=options.weight_decay, **extra
    )
