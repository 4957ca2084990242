"""The learning rate over the steps of a training."""

from __future__ import annotations

import math

_STEPS = (0.5, 0.75)  # shares of the training after which the step schedule divides by ten


def rate_factor(schedule: str, warm_up: float, step: int, total: int) -> float:
    """What the learning rate is multiplied by in a step.

    Args:
        schedule: ``constant``, ``cosine`` (half a wave down to 0 at the end) or ``step`` (a tenth
            after half of the training, a hundredth after three quarters).
        warm_up: Share of the training, in [0, 1), in which the factor also rises from near 0 to 1.
        step: Which step, from 0.
        total: Steps of the training.

    Returns:
        A number in (0, 1].

    Example:
        >>> [rate_factor("step", 0.0, step, 100) for step in (0, 49, 50, 75)]
        [1.0, 1.0, 0.1, 0.01]
        >>> [round(rate_factor("cosine", 0.1, step, 100), 2) for step in (0, 9, 50, 99)]
        [0.1, 0.98, 0.5, 0.0]
    """
    rising = warm_up * total
    factor = min(1.0, (step + 1) / rising) if rising > 0 else 1.0
    progress = step / total
    if schedule == "cosine":
        return factor * (1 + math.cos(math.pi * progress)) / 2
    if schedule == "step":
        return float(factor * 10.0 ** -sum(progress >= share for share in _STEPS))
    return factor
