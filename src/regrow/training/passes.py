"""What every loop does with a network and data: order the samples, score a part, count weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from regrow.layers import sparse_layers
from regrow.training.score import Score, score_of

_BATCH = 2048


def data_order(n_samples: int, seed: int, epoch: int) -> Tensor:
    """Order of the samples in an epoch: decided by seed and epoch alone, so equal for all arms."""
    generator = torch.Generator().manual_seed((seed << 32) + epoch)
    return torch.randperm(n_samples, generator=generator)


def evaluate(
    model: nn.Module, x: Tensor, y: Tensor, task: str = "classification", batch: int = _BATCH
) -> Score:
    """Mean loss and score on samples ``[n, features]`` with targets ``[n, ...]``.

    The model is in evaluation mode afterwards.
    """
    model.eval()
    with torch.inference_mode():
        return score_of(torch.cat([model(part) for part in x.split(batch)]), y, task)


def connections(model: nn.Module) -> int:
    """Weights of a network, those of dense layers included, biases and norms not."""
    sparse = sum(layer.topology.nnz for layer in sparse_layers(model).values())
    return sparse + dense_weights(model)


def dense_weights(model: nn.Module) -> int:
    """Weights of layers that are not sparse; a vector is a bias or a norm."""
    return sum(p.numel() for p in model.parameters() if p.dim() > 1)
