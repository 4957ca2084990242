"""Optimisers that know how long each connection has been trained."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

# State entry that counts the steps of each connection. It is a single number as long as all
# connections of a parameter are equally old, and one number each, int32, once they are not.
AGE = "age"


def spread_age(age: Tensor, parameter: nn.Parameter) -> Tensor:
    """One age for each entry of a parameter, int32, from a single one or from what is there."""
    if age.dim():
        return age
    return torch.full(parameter.shape, int(age), dtype=torch.int32, device=parameter.device)


class AgedOptimizer(torch.optim.Optimizer):
    """A torch optimiser that steps parameter by parameter and whose state may hold ages.

    ``torch.optim.Optimizer`` casts the state that it loads to the dtype of the parameters, which
    would round ages and moments of low-precision parameters. Here state keeps its dtype.

    Args:
        params: Parameters or groups of them.
        defaults: Options of groups that do not give their own.
    """

    def __init__(
        self, params: Iterable[Tensor] | Iterable[dict[str, Any]], defaults: dict[str, Any]
    ) -> None:
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step with every parameter that has a gradient.

        Args:
            closure: Evaluates the model anew and returns the loss.

        Returns:
            What the closure returns, if there is one.

        Raises:
            TypeError: A gradient is sparse, or a parameter complex.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._check(parameter)
                    self._update(parameter, parameter.grad, self.state[parameter], group)
        return loss

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue from a saved state; its tensors keep their dtype."""
        super().load_state_dict(dict(state_dict))
        indices = (index for group in state_dict["param_groups"] for index in group["params"])
        parameters = (p for group in self.param_groups for p in group["params"])
        for index, parameter in zip(indices, parameters, strict=True):
            for name, entry in state_dict["state"].get(index, {}).items():
                if isinstance(entry, Tensor):
                    device = parameter.device if entry.dim() else entry.device
                    self.state[parameter][name] = entry.to(device, copy=True)

    def _update(
        self, parameter: Tensor, grad: Tensor, state: dict[str, Any], group: dict[str, Any]
    ) -> None:
        raise NotImplementedError

    def _check(self, parameter: Tensor) -> None:
        if parameter.grad is not None and parameter.grad.is_sparse:
            raise TypeError(f"gradients of {type(self).__name__} must be dense tensors, got sparse")
        if parameter.is_complex():
            raise TypeError(
                f"parameters of {type(self).__name__} must be real, got {parameter.dtype}"
            )
