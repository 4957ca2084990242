"""A drop rule that looks at the curvature of the loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from regrow.evolution.scores import DropScore, described
from regrow.evolution.site import Site


@described
def gradient_flow(loss: Callable[[], Tensor], step: float = 1e-2) -> DropScore:
    """Weight times (H g), H the Hessian: those without which the gradient shrinks least go.

    H g is taken over all sparse layers together, from two gradients a little to both sides along
    g, so three backward passes are made at an update, through the sparse layers as they are.

    Args:
        loss: Forward pass of the model that is trained, on data of the caller's choice, and its
            loss; the same at every call within an update (no dropout). Dividing the outputs by a
            temperature of 200 is usual.
        step: Length of the way to each side, in lengths of the weights.

    Example:
        >>> import regrow
        >>> model, x = regrow.SparseLinear(8, 4, density=0.5), torch.randn(16, 8)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> rule = gradient_flow(lambda: model(x).square().mean())
        >>> regrow.Evolution(model, optimizer, drop=rule, every=10).update().dropped
        5

    References:
        C. Wang, G. Zhang, R. Grosse, "Picking winning tickets before training by preserving
        gradient flow", 2020.
    """
    products: dict[str, Tensor] = {}

    def count(sites: Sequence[Site], asked: int) -> list[int]:
        weights = [site.layer.values for site in sites]
        start = [weight.detach().clone() for weight in weights]

        def gradients(way: Sequence[Tensor], length: float) -> tuple[Tensor, ...]:
            for weight, at, g in zip(weights, start, way, strict=True):
                weight.data.copy_(at + length * g)
            with torch.enable_grad():
                return torch.autograd.grad(loss(), weights)

        flow = gradients(start, 0.0)
        length = step * _norm(start) / max(_norm(flow), 1e-30)
        ahead, behind = gradients(flow, length), gradients(flow, -length)
        for site, weight, at, a, b in zip(sites, weights, start, ahead, behind, strict=True):
            weight.data.copy_(at)
            products[site.path] = at * (a - b) / (2 * length)
        return [round(site.fraction * site.topology.nnz) for site in sites]

    return DropScore(lambda site: products.pop(site.path), count=count)


def _norm(parts: Sequence[Tensor]) -> float:
    return float(torch.stack([part.double().square().sum() for part in parts]).sum().sqrt())
