"""What an arm of a run takes from its method, and what from the options."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from regrow.data import Dataset
from regrow.evolution import Method, methods
from regrow.evolution.fitted import falling, n_of_m, pattern_for
from regrow.evolution.schedules import Cosine
from regrow.topology import NofM
from regrow.training.errors import OptionError
from regrow.training.model import DEFAULT_DENSITY, Beginning, sparse_shapes
from regrow.training.options import TrainOptions

_SCHEDULE_SHARE = 0.75


def method_parts(
    options: TrainOptions, arm: str, total_steps: int, dataset: Dataset
) -> dict[str, Any]:
    """Parts of a method that the options, or the length of the training, decide.

    A method without an end of its own updates until the last step but one, since connections grown
    after the last would never be trained. One whose schedule has an end (RigL) gets it at three
    quarters of the training, as its authors did, or at the share that it names. A method that
    changes the density ends with the density of the options, at an update, and n of m are those
    that come nearest to it.

    Args:
        options: The options of the run.
        arm: Name of the method.
        total_steps: Optimizer steps of the whole training.
        dataset: What to learn.

    Raises:
        OptionError: An epsilon for a method that changes the density.
    """
    method = methods().get(arm)
    if method is None or method.every is None:
        return {}
    parts: dict[str, Any] = {"until": _last_update(options, method, total_steps)}
    if options.every is not None:
        parts["every"] = options.every
    if options.start is not None:
        parts["start"] = options.start
    if options.scope is not None:
        parts["scope"] = options.scope
    elif isinstance(method.scope, NofM):
        shapes = sparse_shapes(options, dataset).values()
        parts["scope"] = n_of_m(options.density or DEFAULT_DENSITY, shapes)
    if options.fraction is not None:
        scheduled = isinstance(method.fraction, Cosine)
        parts["fraction"] = Cosine(options.fraction) if scheduled else options.fraction
    density: Any = method.density
    if density is not None:
        if options.epsilon is not None:
            raise OptionError("epsilon", f"be left out for {arm}, which changes its density", "one")
        parts |= _falling(density, options, method, parts, dataset)
    return parts


def _falling(
    density: Any, options: TrainOptions, method: Method, parts: dict[str, Any], dataset: Dataset
) -> dict[str, Any]:
    every: Any = parts.get("every", method.every)
    if every == "epoch":
        every = steps_of_an_epoch(options, dataset)
    return falling(density, options.density or DEFAULT_DENSITY, parts["until"], every)


def _last_update(options: TrainOptions, method: Method, total_steps: int) -> int:
    share = options.until
    if share is None and isinstance(method.until, float):
        share = method.until
    if share is None:
        share = 1.0 if method.until is None else _SCHEDULE_SHARE
    return min(total_steps - 1, int(share * total_steps))


def beginning(arm: str, parts: Mapping[str, Any]) -> Beginning:
    """How an arm begins: dense enough and in the form that its method keeps.

    A method that finds its density on the way starts with every connection.

    Args:
        arm: Name of the method, or ``dense``.
        parts: Of the method, as `method_parts` gives them.
    """
    method = methods().get(arm)
    if method is None or not parts:
        return Beginning()
    schedule = parts.get("density")
    pattern = pattern_for(method, parts.get("scope", method.scope))
    if schedule is None:
        return Beginning(None, pattern)
    density = float(schedule(0, parts["until"])) if callable(schedule) else 1.0
    return Beginning(density, pattern)


def steps_of_an_epoch(options: TrainOptions, dataset: Dataset) -> int:
    """Optimizer steps of a pass over the training part."""
    return math.ceil(len(dataset.x_train) / options.batch_size)
