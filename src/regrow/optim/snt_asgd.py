"""Averaged SGD whose averages begin with each connection."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from regrow.optim.ages import AGE, AgedOptimizer, spread_age


class SNTASGD(AgedOptimizer):
    """SGD that, once validation stops improving, averages each connection since it was grown.

    First it is plain SGD. Give it the validation loss of every epoch with ``report``: as soon as
    the loss is above the best of all but the last ``window`` epochs, averaging begins. From then
    on the average of a connection runs over its own steps; one that is grown later starts a fresh
    average, where plain averaged SGD would average it with the zeros of the time before.
    Training goes on with the last values; to evaluate or save with the averages::

        with optimizer.averaged():
            evaluate(model)

    do this before an update of the topology: new connections have no average yet and keep their
    start values there. Dense parameters get the average of ``torch.optim.ASGD`` with ``lambd=0``
    and ``t0=0``.

    Args:
        params: Parameters or groups of them, sparse and dense ones alike.
        lr: Learning rate.
        weight_decay: Added to the gradient, times the value.
        window: Epochs of patience of the trigger.

    Raises:
        ValueError: An option is out of range.
        TypeError: In a step, a gradient is sparse or a parameter complex.

    Example:
        >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
        >>> optimizer = SNTASGD([weight], lr=1.0, weight_decay=0.0, window=1)
        >>> [optimizer.report(loss) for loss in (2.0, 3.0, 2.5)]
        [False, False, True]
        >>> for gradient in (1.0, 1.0, 2.0):
        ...     weight.grad = torch.tensor([gradient])
        ...     optimizer.step()
        >>> weight.item()
        -3.0
        >>> with optimizer.averaged():
        ...     weight.item()  # the mean of -1 and -3; the first step is left out
        -2.0

    References:
        S. Liu, D. C. Mocanu, Y. Pei, M. Pechenizkiy, "Selfish sparse RNN training", 2021.
        S. Merity, N. S. Keskar, R. Socher, "Regularizing and optimizing LSTM language models",
        2018 (the trigger).
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 1e-2,
        weight_decay: float = 1.2e-6,
        *,
        window: int = 5,
    ) -> None:
        if window < 1:
            raise ValueError(f"window of SNTASGD must be at least 1, got {window}")
        # Flag and losses are options of the groups, for those are saved, copied and pickled.
        defaults = {
            "lr": lr,
            "weight_decay": weight_decay,
            "window": window,
            "averaging": False,
            "losses": (),
        }
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters with options of their own.

        Raises:
            ValueError: An option is out of range.
        """
        for name in ("lr", "weight_decay"):
            value = param_group.get(name, self.defaults[name])
            if not value >= 0:
                raise ValueError(f"{name} of SNTASGD must be at least 0, got {value}")
        super().add_param_group(param_group)

    @property
    def averaging(self) -> bool:
        """Whether averaging has begun; set it to True to begin at a moment of your own."""
        return bool(self.param_groups[0]["averaging"])

    @averaging.setter
    def averaging(self, begun: bool) -> None:
        for group in self.param_groups:
            group["averaging"] = begun

    def report(self, loss: float) -> bool:
        """Tell the validation loss of an epoch, measured without the averages.

        Args:
            loss: Lower is better.

        Returns:
            Whether averaging has just begun. Its authors leave out the update of the topology that
            is due then.
        """
        first = self.param_groups[0]
        earlier, window = first["losses"], first["window"]
        begins = not self.averaging and len(earlier) > window and loss > min(earlier[:-window])
        for group in self.param_groups:
            group["losses"] = (*earlier, float(loss))
        if begins:
            self.averaging = True
        return begins

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Parameters are their averages inside, and what they were again afterwards."""
        kept: list[tuple[Tensor, Tensor]] = []
        with torch.no_grad():
            for group in self.param_groups:
                for parameter in group["params"]:
                    state = self.state.get(parameter)
                    if state:
                        kept.append((parameter, parameter.clone()))
                        begun = spread_age(state[AGE], parameter) > 0
                        parameter.copy_(torch.where(begun, state["ax"].to(parameter), parameter))
        try:
            yield
        finally:
            with torch.no_grad():
                for parameter, value in kept:
                    parameter.copy_(value)

    def _update(
        self, parameter: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]
    ) -> None:
        if group["weight_decay"]:
            grad = grad.add(parameter, alpha=group["weight_decay"])
        parameter.add_(grad, alpha=-float(group["lr"]))
        if not group["averaging"]:
            return
        if not state:
            low = parameter.dtype in (torch.float16, torch.bfloat16)
            state[AGE] = torch.tensor(0, dtype=torch.int32)
            state["ax"] = torch.zeros_like(parameter, dtype=torch.float32 if low else None)
        average, age = state["ax"], state[AGE].add_(1)
        value = parameter.to(average)
        if age.dim() == 0:
            weight = 1 / max(1, int(age) - 1)
            average.copy_(value) if weight == 1 else average.lerp_(value, weight)
        else:
            weights = (age - 1).clamp_(min=1).to(average).reciprocal_()
            average.lerp_(value, weights)
