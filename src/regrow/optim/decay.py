"""Weight decay that does not depend on the learning rate."""

from __future__ import annotations

from typing import TypeVar

import torch

AnyOptimizer = TypeVar("AnyOptimizer", bound=torch.optim.Optimizer)


def decayed(optimizer: AnyOptimizer, share: float) -> AnyOptimizer:
    """Let every step of an optimizer shrink the parameters by a share of themselves first.

    So the authors' code of SET does: ``W <- (1 - share) * W + V``. Torch's ``weight_decay`` of
    ``SGD`` goes through the gradient, that of ``AdamW`` is multiplied by the learning rate.

    Args:
        optimizer: Of any kind; its own ``weight_decay`` should be 0.
        share: In [0, 1). Parameters without a gradient are left alone.

    Returns:
        The optimizer.

    Raises:
        ValueError: The share is out of range.

    Example:
        >>> weight = torch.nn.Parameter(torch.tensor([2.0]))
        >>> optimizer = decayed(torch.optim.SGD([weight], lr=1.0), 0.1)
        >>> weight.sum().backward()
        >>> optimizer.step()
        >>> round(weight.item(), 6)
        0.8
    """
    if not 0 <= share < 1:
        raise ValueError(f"share that decays must be in [0, 1), got {share}")

    @torch.no_grad()
    def shrink(stepping: torch.optim.Optimizer, args: object, kwargs: object) -> None:
        for group in stepping.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.mul_(1 - share)

    if share:
        optimizer.register_step_pre_hook(shrink)
    return optimizer
