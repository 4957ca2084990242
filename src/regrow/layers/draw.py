"""Where the connections of a model that becomes sparse are: how many in each weight, and which."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from regrow.layers.choose import Target, join
from regrow.layers.criteria import CRITERIA, Criterion, highest, highest_of_all, scores_of
from regrow.layers.row_groups import drawn_by_part
from regrow.topology import Topology, allocate
from regrow.topology.allocation import Allocation, Given, check_density
from regrow.topology.initial import Pattern, pattern_of

Places = str | Pattern | Criterion
Numbers = str | Allocation | Given | Criterion | None


def drawn(
    model: nn.Module,
    targets: Sequence[Target],
    rows: Mapping[str, Mapping[str, slice]],
    *,
    density: float | None,
    epsilon: float | None,
    allocation: Numbers,
    pattern: Places,
    generator: torch.Generator | None,
) -> dict[str, Topology]:
    """The topology of every weight that is to become sparse, full ones too.

    Args:
        model: The dense model.
        targets: Its modules that become sparse.
        rows: By path of a weight, its parts that have budgets of their own.
        density: As of ``sparsify``, and so the others.
        epsilon: See there.
        allocation: See there.
        pattern: See there.
        generator: See there.

    Returns:
        By path of the weight.
    """
    shapes = {join(t.path, name): shape for t in targets for name, shape in t.shapes.items()}
    if isinstance(allocation, str):
        allocation = CRITERIA.get(allocation, allocation)
    if isinstance(pattern, str):
        pattern = CRITERIA.get(pattern, pattern)
    if isinstance(pattern, Criterion):
        if allocation is None and epsilon is None:
            allocation = pattern
    else:
        pattern = pattern_of(pattern)
        if density is None and epsilon is None and hasattr(pattern, "density"):
            density, allocation = pattern.density, "uniform"

    def judged(criterion: Criterion, share: float) -> dict[str, Tensor]:
        check_density(share, "the allocation")
        return scores_of(criterion, model, lambda twin: _weights(twin, targets), share)

    scores: dict[str, Tensor] = {}
    share_like: str | Allocation | Given | None
    if isinstance(allocation, Criterion):
        if density is None:
            raise ValueError(
                f"{type(allocation).__name__} shares a density among the layers, got none; "
                f"an epsilon is shared as er or erk does"
            )
        scores = judged(allocation, density)
        share_like = highest_of_all(scores)
    else:
        share_like = allocation
    counts = allocate(shapes, density=density, epsilon=epsilon, allocation=share_like)
    if not isinstance(pattern, Criterion):
        return {
            path: drawn_by_part(shapes[path], count, rows.get(path), pattern, generator)
            for path, count in counts.items()
        }
    if pattern is not allocation:
        size = sum(math.prod(shape) for shape in shapes.values())
        scores = judged(pattern, density or sum(counts.values()) / size)
    return {path: highest(scores[path], count) for path, count in counts.items()}


def _weights(model: nn.Module, targets: Sequence[Target]) -> dict[str, Tensor]:
    """The weights in question, in a model that may be a copy."""
    found: dict[str, Tensor] = {}
    for target in targets:
        weights = target.conversion.weights(model.get_submodule(target.path))
        found |= {join(target.path, name): weights[name] for name in target.shapes}
    return found
