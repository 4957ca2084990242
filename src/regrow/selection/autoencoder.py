"""The sparse autoencoder that unsupervised selectors train."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from regrow.layers import SparseLinear


class SparseAutoencoder(nn.Module):
    """One hidden layer of sigmoid units between two sparse layers.

    Args:
        features: Inputs, and outputs.
        hidden: Hidden units.
        connections: Of each of the two layers; all positions where there are no more.
        generator: Of the places and values.
        tanh: Whether the outputs go through a tanh; else they are linear.

    Example:
        >>> network = SparseAutoencoder(20, 8, 40, torch.Generator().manual_seed(0))
        >>> network(torch.ones(3, 20)).shape
        torch.Size([3, 20])
        >>> network.encoder.topology.nnz, network.decoder.topology.nnz
        (40, 40)
    """

    def __init__(
        self,
        features: int,
        hidden: int,
        connections: int,
        generator: torch.Generator,
        *,
        tanh: bool = False,
    ) -> None:
        super().__init__()
        density = min(1.0, connections / (features * hidden))
        self.encoder = SparseLinear(features, hidden, density=density, generator=generator)
        self.decoder = SparseLinear(hidden, features, density=density, generator=generator)
        self.tanh = tanh

    def forward(self, x: Tensor, dropped: Tensor | None = None) -> Tensor:
        """Reconstruct ``[batch, features]``; ``dropped`` ``[batch, hidden]`` mutes hidden units."""
        hidden = torch.sigmoid(self.encoder(x))
        if dropped is not None:
            hidden = hidden.masked_fill(dropped, 0.0)
        output: Tensor = self.decoder(hidden)
        return torch.tanh(output) if self.tanh else output
