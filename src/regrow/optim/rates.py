"""Learning rates that follow the density of each layer."""

from __future__ import annotations

from typing import Any

from torch import nn

from regrow.layers import sparse_layers


def scaled_by_density(model: nn.Module, lr: float, exponent: float = -1.0) -> list[dict[str, Any]]:
    """Parameter groups for any optimiser: sparse weights learn at ``lr * density**exponent``.

    Fewer connections carry the change that many carried, so each may move further. Schedulers work
    on the groups as always: each keeps its ratio.

    Args:
        model: With sparse layers.
        lr: Rate of everything that is not a sparse weight.
        exponent: -1, as the scripts of SMET have it; -0.5, as its text is quoted; 0 for one rate.

    Returns:
        A group for each density, and one for all other parameters if there are any.

    Example:
        >>> import regrow, torch
        >>> model = nn.Sequential(regrow.SparseLinear(20, 10, density=0.25), nn.Linear(10, 2))
        >>> optimizer = torch.optim.Adam(scaled_by_density(model, lr=0.001))
        >>> [(group["lr"], len(group["params"])) for group in optimizer.param_groups]
        [(0.004, 1), (0.001, 3)]
    """
    groups: dict[float, dict[str, Any]] = {}
    scaled = set()
    for layer in sparse_layers(model).values():
        rate = lr * layer.density**exponent
        groups.setdefault(rate, {"params": [], "lr": rate})["params"].append(layer.values)
        scaled.add(id(layer.values))
    rest = [p for p in model.parameters() if id(p) not in scaled]
    return [*groups.values(), *([{"params": rest, "lr": lr}] if rest else [])]
