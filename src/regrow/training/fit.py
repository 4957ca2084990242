"""A training without a run directory: the loop alone, for experiments and estimators."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from regrow.data import Dataset
from regrow.evolution import Evolution
from regrow.training.flops import FlopCount
from regrow.training.passes import connections, data_order, evaluate
from regrow.training.rates import rate_factor
from regrow.training.score import loss_of

Loss = Callable[[Tensor, Tensor], Tensor]
Row = dict[str, Any]


def fit(
    model: nn.Module,
    dataset: Dataset,
    optimizer: Optimizer,
    *,
    epochs: int,
    batch_size: int,
    seed: int = 0,
    evolution: Evolution | None = None,
    loss: Loss | None = None,
    rate_schedule: str = "constant",
    warm_up: float = 0.0,
    augment: Callable[[Tensor], Tensor] | None = None,
    count_flops: bool = False,
    after_step: Callable[[int], object] | None = None,
    at_epoch: Callable[[int], Row | None] | None = None,
) -> list[Row]:
    """Train a network, and measure it after every epoch.

    The order of the samples depends on seed and epoch alone, so it is the same for every network
    that is compared. A network is measured before the update that is due at the end of an epoch:
    as it was trained, not with connections that never were.

    Args:
        model: Maps ``[batch, features]`` to ``[batch, outputs]``.
        dataset: Of classification or regression.
        optimizer: Of the model.
        epochs: Passes over the training part.
        batch_size: Samples of a step.
        seed: Of the order of the samples and of dropout.
        evolution: Of the model; None leaves the topology as it is.
        loss: Of outputs and targets; default: cross-entropy, or mean squared error.
        rate_schedule: How the learning rates of the optimizer change: ``constant``, ``cosine`` or
            ``step`` (a tenth at half and again at three quarters).
        warm_up: Share of the training in which the rates rise from 0.
        augment: Changes the inputs of every batch of training.
        count_flops: Whether rows tell the FLOPs of the training.
        after_step: Called with the number of steps done, after each but before the update.
        at_epoch: Called with the number of epochs done, when they are measured and before the
            update; what it returns joins the row.

    Returns:
        One row an epoch: ``epoch``, ``train_loss`` (mean over the epoch), ``test`` and
        ``validation`` (scores; left out where the part is empty), ``test_loss``,
        ``validation_loss``, ``connections`` of the sparse layers and the dense ones, ``seconds`` of
        training, and, if asked for, ``flops``: of the training so far, forward and backward with
        the connections of each step, and of the gradients that growth has looked at. A training
        whose loss is no longer finite ends with a row in which it is ``nan``.

    Example:
        >>> from regrow.data import load
        >>> model = nn.Linear(64, 10)
        >>> rows = fit(model, load("digits"), torch.optim.SGD(model.parameters(), lr=0.1),
        ...            epochs=2, batch_size=64)
        >>> [row["epoch"] for row in rows], rows[-1]["test"] > 0.8
        ([1, 2], True)
    """
    x, y = dataset.x_train, dataset.y_train
    loss = loss or (lambda output, target: loss_of(output, target, dataset.task))
    rates = [group["lr"] for group in optimizer.param_groups]
    total = epochs * math.ceil(len(x) / batch_size)
    rows: list[Row] = []
    steps = flops = 0
    count = FlopCount(model, x[:1]) if count_flops else None
    torch.manual_seed(seed)
    for epoch in range(epochs):
        begin, lost = time.perf_counter(), 0.0
        model.train()
        batches = data_order(len(x), seed, epoch).split(batch_size)
        for number, chosen in enumerate(batches, start=1):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * rate_factor(rate_schedule, warm_up, steps, total)
            batch = x[chosen] if augment is None else augment(x[chosen])
            value = loss(model(batch), y[chosen])
            value.backward()
            optimizer.step()
            optimizer.zero_grad()
            steps += 1
            lost += value.item() * len(chosen)
            flops += len(chosen) * (count.forward + count.backward) if count is not None else 0
            if after_step is not None:
                after_step(steps)
            if evolution is not None and number < len(batches):
                flops += len(chosen) * _evolved(evolution, count)
        seconds = time.perf_counter() - begin
        row = {"epoch": epoch + 1, "train_loss": lost / len(x), **measured(model, dataset)}
        row["connections"] = connections(model)
        row |= {"flops": flops} if count_flops else {}
        row |= (at_epoch(epoch + 1) if at_epoch is not None else None) or {}
        rows.append(row)
        if not math.isfinite(row["train_loss"]):
            return rows
        begin = time.perf_counter()
        if evolution is not None:
            flops += len(chosen) * _evolved(evolution, count)
        row["seconds"] = seconds + time.perf_counter() - begin
    return rows


def _evolved(evolution: Evolution, count: FlopCount | None) -> int:
    """Let the topology change if it is time; FLOPs of a sample that this took."""
    record = evolution.step()
    looked = record is not None and evolution.looks_at_gradients
    return count.dense_gradient if looked and count is not None else 0


def measured(model: nn.Module, dataset: Dataset) -> Row:
    """Score and loss on the validation and the test part, where there is one."""
    found: Row = {}
    for part in ("validation", "test"):
        x, y = getattr(dataset, f"x_{part}"), getattr(dataset, f"y_{part}")
        if len(x):
            score = evaluate(model, x, y, dataset.task)
            found |= {part: score.score, f"{part}_loss": score.loss}
    return found
