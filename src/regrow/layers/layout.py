"""Sparse layers in a row hand on their activations as their kernels want them."""

from __future__ import annotations

from torch import nn

from regrow.layers.activations import AllReLU, SReLU
from regrow.layers.linear import SparseLinear

# What works element by element keeps the layout of its input.
_ELEMENTWISE = (
    *(nn.Dropout, nn.ELU, nn.GELU, nn.Identity, nn.LeakyReLU, nn.ReLU, nn.SiLU, nn.Sigmoid),
    *(nn.Tanh, AllReLU, SReLU),
)


def share_layouts(model: nn.Module) -> None:
    """Set ``feature_major`` of each `SparseLinear` whose output only meets another one.

    That is known of a ``torch.nn.Sequential``, where nothing but modules that work element by
    element stands between the two.

    Args:
        model: Whose sequences are looked at, at any depth; changed in place.

    Example:
        >>> first, second = (SparseLinear(64, 64, density=0.1) for _ in range(2))
        >>> share_layouts(nn.Sequential(first, nn.ReLU(), second))
        >>> first.feature_major, second.feature_major
        (True, False)
    """
    for sequence in model.modules():
        if type(sequence) is not nn.Sequential:
            continue
        before = None
        for module in sequence:
            if isinstance(module, SparseLinear):
                if before is not None:
                    before.feature_major = True
                before = module
            elif not isinstance(module, _ELEMENTWISE):
                before = None
