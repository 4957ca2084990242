"""How many different positions a network has tried."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from regrow.layers import sparse_layers


class Exploration:
    """The in-time over-parameterisation rate: the share of positions that ever had a connection.

    Holds one bit-sized mark (a byte) per position of the sparse layers, so it is for networks
    whose dense shape fits in memory.

    Args:
        model: With sparse layers; its connections now count as tried.

    Example:
        >>> import regrow
        >>> model = nn.Sequential(regrow.SparseLinear(8, 4, density=0.25))
        >>> Exploration(model).total()
        0.25

    References:
        S. Liu, L. Yin, D. C. Mocanu, M. Pechenizkiy, "Do we actually need dense
        over-parameterization? In-time over-parameterization in sparse training", 2021.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._tried = {path: layer.topology.mask() for path, layer in sparse_layers(model).items()}

    def update(self) -> None:
        """Count the connections that the model has now; call it after every update."""
        for path, layer in sparse_layers(self.model).items():
            self._tried[path].view(-1)[layer.topology.positions] = True

    def rates(self) -> dict[str, float]:
        """Share of tried positions of each layer, by path, in (0, 1]."""
        return {path: int(tried.sum()) / tried.numel() for path, tried in self._tried.items()}

    def total(self) -> float:
        """Share of tried positions over all layers (R_s), in (0, 1]."""
        tried = sum(int(tried.sum()) for tried in self._tried.values())
        return tried / sum(tried.numel() for tried in self._tried.values())

    def state_dict(self) -> dict[str, Tensor]:
        """The marks, for a checkpoint: bool tensors in the dense shapes, by path."""
        return {path: tried.clone() for path, tried in self._tried.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from saved marks.

        Raises:
            ValueError: The marks are of other layers.
        """
        shapes = [{p: tuple(t.shape) for p, t in marks.items()} for marks in (self._tried, state)]
        if shapes[0] != shapes[1]:
            raise ValueError(f"exploration state must have {shapes[0]}, got {shapes[1]}")
        self._tried = {path: torch.as_tensor(t).clone() for path, t in state.items()}
