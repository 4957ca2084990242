"""The perceptrons that experiments compare."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from regrow.layers import sparsify


def mlp(
    sizes: Sequence[int],
    *,
    seed: int,
    density: float | None = None,
    epsilon: float | None = None,
    activation: Callable[[], nn.Module] = nn.ReLU,
    dropout: float = 0.0,
    **options: Any,
) -> nn.Sequential:
    """A perceptron: linear layers with an activation, and dropout, between them.

    Networks of one seed start from the same dense weights, whatever their topology.

    Args:
        sizes: Neurons of every layer, inputs first.
        seed: Of weights and topology.
        density: Of the sparse network; with neither this nor ``epsilon`` it is dense.
        epsilon: SET's way to say it.
        activation: Makes the activation.
        dropout: Share of the hidden activations left out in training.
        options: Further ones of `regrow.sparsify`: ``allocation``, ``pattern``, ``exclude``, ...

    Example:
        >>> import regrow
        >>> model = mlp([64, 100, 10], density=0.1, allocation="uniform", seed=0)
        >>> [layer.topology.nnz for layer in regrow.sparse_layers(model).values()]
        [640, 100]
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        modules: list[nn.Module] = []
        for number, (inputs, outputs) in enumerate(pairwise(sizes)):
            modules.append(nn.Linear(inputs, outputs))
            if number < len(sizes) - 2:
                modules.append(activation())
                modules += [nn.Dropout(dropout)] if dropout > 0 else []
    model = nn.Sequential(*modules)
    if density is None and epsilon is None:
        return model
    generator = torch.Generator().manual_seed(seed)
    kept = {"density": density} if epsilon is None else {"epsilon": epsilon}
    sparse: nn.Sequential = sparsify(model, generator=generator, **kept, **options)
    return sparse
