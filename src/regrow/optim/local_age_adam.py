"""Adam in which every connection is as old as the steps that it has taken."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from regrow.optim.ages import AGE, AgedOptimizer

# How close to 1 a correction must be to count as 1: below the rounding of float64.
_ROUNDING = 2.0**-54


class LocalAgeAdam(AgedOptimizer):
    """Adam that corrects the bias of each connection's moments by its own age, not by the step.

    A connection grown at step 10,000 has moments of zero. Adam, which corrects by the step, then
    moves it by ``(1 - beta1) / sqrt(1 - beta2)``, about 3.2 learning rates, in its first step, and
    the loss jumps after every update of the topology. Here a new connection is of age 0, its first
    move is one learning rate as that of any weight at the start of training, and for its first
    ``warmup`` steps less. ``Evolution`` carries ages as it carries any state; parameters whose
    entries are all equally old, dense ones among them, have one age for all and cost what Adam
    costs.

    With ``warmup=0`` and equal ages it is ``torch.optim.Adam``, bit for bit.

    Args:
        params: Parameters or groups of them, sparse and dense ones alike.
        lr: Learning rate; ``scaled_by_density`` makes groups whose rate follows the density.
        betas: Decay of the mean of gradients and of that of their squares, each in [0, 1).
        eps: Added to the denominator.
        weight_decay: Added to the gradient, times the value.
        decoupled_weight_decay: Whether to shrink values by ``lr * weight_decay`` instead.
        warmup: Steps over which a connection (every one, also at the start of training) reaches
            its full learning rate: at age ``a`` it has ``min(a / warmup, 1)`` of it. 0 for none.
            At most the steps between two updates, or young connections are dropped before they
            have moved.
        damped: What the warm-up multiplies: ``lr``, the learning rate, or ``moment``, the stored
            mean of gradients, as the published code does, where the damping then compounds.

    Raises:
        ValueError: An option is out of range.
        TypeError: In a step, a gradient is sparse or a parameter complex.

    Example:
        >>> import regrow
        >>> model = torch.nn.Sequential(regrow.SparseLinear(64, 32, density=0.1))
        >>> optimizer = LocalAgeAdam(model.parameters(), lr=0.01, warmup=2)
        >>> evolution = regrow.Evolution(model, optimizer, "set", every=2)
        >>> for _ in range(2):
        ...     model(torch.randn(8, 64)).square().sum().backward()
        ...     optimizer.step(); optimizer.zero_grad()
        ...     record = evolution.step()
        >>> ages = optimizer.state[model[0].values]["age"]
        >>> int((ages == 0).sum()) == record.grown, int((ages == 2).sum()) == 205 - record.grown
        (True, True)

    References:
        Q. Xiao and others, "Memory-efficient LLM training with dynamic sparsity: from stability to
        practical scaling", 2026.

    Differs from the paper:
        New connections are of age 0 and take their first step at age 1; the published code starts
        them at 1, so that their first correction is that of a second step. Moments are float32
        where parameters are of lower precision.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        decoupled_weight_decay: bool = False,
        warmup: int = 100,
        damped: str = "lr",
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": tuple(betas),
            "eps": eps,
            "weight_decay": weight_decay,
            "decoupled_weight_decay": decoupled_weight_decay,
            "warmup": warmup,
            "damped": damped,
        }
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters with options of their own.

        Raises:
            ValueError: An option is out of range.
        """
        _check_options({**self.defaults, **param_group})
        super().add_param_group(param_group)

    def _update(
        self, parameter: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]
    ) -> None:
        low = parameter.dtype in (torch.float16, torch.bfloat16)
        if not state:
            dtype = torch.float32 if low else parameter.dtype
            state["step"] = torch.tensor(0.0)
            state[AGE] = torch.tensor(0, dtype=torch.int32)
            state["exp_avg"] = torch.zeros_like(parameter, dtype=dtype)
            state["exp_avg_sq"] = torch.zeros_like(parameter, dtype=dtype)
        first, second, age = state["exp_avg"], state["exp_avg_sq"], state[AGE].add_(1)
        step = int(state["step"].add_(1))
        lr, (beta1, beta2), decay = float(group["lr"]), group["betas"], group["weight_decay"]
        if decay and group["decoupled_weight_decay"]:
            parameter.mul_(1 - lr * decay)
        elif decay:
            grad = grad.add(parameter, alpha=decay)
        grad = grad.to(first)
        first.lerp_(grad, 1 - beta1)
        second.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)

        damp_moment = group["damped"] == "moment"
        if age.dim() == 0:
            rate, root, warm = _corrections(int(age), beta1, beta2, group["warmup"])
            denominator = (second.sqrt() / root).add_(group["eps"])
            if damp_moment:
                first.mul_(warm)
                warm = 1.0
            if low:
                parameter.sub_((first / denominator).mul_(lr / rate * warm))
            else:
                parameter.addcdiv_(first, denominator, value=-(lr / rate * warm))
            return
        tables = _tables(step, beta1, beta2, group["warmup"], first.dtype, first.device)
        # What is so old that nothing changes any more is as old as the last entry.
        at = age.clamp(max=len(tables[0]) - 1) if len(tables[0]) <= step else age
        rates, roots, warms = (table.index_select(0, at) for table in tables)
        denominator = second.sqrt().div_(roots).add_(group["eps"])
        if damp_moment:
            first.mul_(warms)
            warms.fill_(1.0)
        parameter.sub_(warms.div_(rates).mul_(first).div_(denominator).mul_(lr))


def _corrections(age: int, beta1: float, beta2: float, warmup: int) -> tuple[float, float, float]:
    """Divisors of the mean and of the root of squares at an age, and the warm-up there."""
    warm = min(age / warmup, 1.0) if warmup else 1.0
    return 1 - beta1**age, (1 - beta2**age) ** 0.5, warm


def _tables(
    step: int, beta1: float, beta2: float, warmup: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """The corrections at every age that there may be after so many steps."""
    full = max([warmup, *(_steps_until_full(beta) for beta in (beta1, beta2))])
    length = min(1 << step.bit_length(), full + 1)
    return _made(length, beta1, beta2, warmup, dtype, device)


@lru_cache(maxsize=16)
def _made(
    length: int, beta1: float, beta2: float, warmup: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    ages = torch.arange(length, dtype=torch.float64)
    # No connection is of age 0 in a step: a correction of 1 there keeps the entry finite.
    rate, root = (1 - beta**ages for beta in (beta1, beta2))
    rate[0] = root[0] = 1.0
    warm = (ages / warmup).clamp_(max=1) if warmup else torch.ones_like(ages)
    rate, root, warm = (table.to(device, dtype) for table in (rate, root.sqrt_(), warm))
    return rate, root, warm


def _steps_until_full(beta: float) -> int:
    """Age from which on ``1 - beta**age`` is 1."""
    return math.ceil(math.log(_ROUNDING) / math.log(beta)) if beta > 0 else 1


def _check_options(group: dict[str, Any]) -> None:
    for name in ("lr", "eps", "weight_decay", "warmup"):
        if not group[name] >= 0:
            raise ValueError(f"{name} of LocalAgeAdam must be at least 0, got {group[name]}")
    if not all(0 <= beta < 1 for beta in group["betas"]):
        raise ValueError(f"betas of LocalAgeAdam must be in [0, 1), got {group['betas']}")
    if group["damped"] not in ("lr", "moment"):
        raise ValueError(f"damped of LocalAgeAdam must be lr or moment, got {group['damped']!r}")
