"""How many different positions a network has tried."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from regrow.layers import sparse_layers
from regrow.topology import Topology

# Connections that are marked at a time.
_TILE = 2**20


class Exploration:
    """The in-time over-parameterisation rate: the share of positions that ever had a connection.

    Holds one bit for each position of the sparse layers, an eighth of a byte.

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
        self._tried = {path: _Marks(x.topology.shape) for path, x in sparse_layers(model).items()}
        self.update()

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(marks.bits.nbytes for marks in self._tried.values())

    def update(self) -> None:
        """Count the connections that the model has now; call it after every update."""
        for path, layer in sparse_layers(self.model).items():
            self._tried[path].add(layer.topology)

    def rates(self) -> dict[str, float]:
        """Share of tried positions of each layer, by path, in (0, 1]."""
        return {path: marks.count / marks.shape.numel() for path, marks in self._tried.items()}

    def total(self) -> float:
        """Share of tried positions over all layers (R_s), in (0, 1]."""
        tried = sum(marks.count for marks in self._tried.values())
        return tried / sum(marks.shape.numel() for marks in self._tried.values())

    def tried(self, path: str) -> Tensor:
        """Which positions of a layer were ever connected: bool in the dense shape, for looking at.

        Raises:
            KeyError: No sparse layer has this path.
        """
        return self._tried[path].mask()

    def state_dict(self) -> dict[str, Any]:
        """The marks, for a checkpoint: by path, the dense shape and the bits, uint8."""
        return {
            path: {"shape": list(marks.shape), "bits": marks.bits.clone()}
            for path, marks in self._tried.items()
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from saved marks.

        Raises:
            ValueError: The marks are of other layers.
        """
        own = {path: tuple(marks.shape) for path, marks in self._tried.items()}
        other = {path: tuple(entry["shape"]) for path, entry in state.items()}
        if own != other:
            raise ValueError(f"exploration state must have {own}, got {other}")
        for path, entry in state.items():
            self._tried[path].load(torch.as_tensor(entry["bits"]))


def expected_exploration(density: float, fractions: list[float]) -> float:
    """R_s of one layer whose connections are replaced at random, and only then come back.

    ``1 - R_s = (1 - d) prod_t (1 - p_t d / (1 - d + p_t d))`` for updates that drop shares ``p_t``
    and grow as many uniformly among all positions that are then free, just dropped ones included.

    Args:
        density: Of the layer, in (0, 1].
        fractions: Share that each update drops, in [0, 1].

    Returns:
        The expected share of positions ever tried, in (0, 1].

    Example:
        >>> round(expected_exploration(0.1, [0.3] * 20), 3)
        0.533
    """
    missing = 1 - density
    for fraction in fractions:
        moved = fraction * density
        if moved:
            missing *= 1 - moved / (1 - density + moved)
    return 1 - missing


class _Marks:
    """One bit for each position of a layer."""

    def __init__(self, shape: torch.Size) -> None:
        self.shape = shape
        self.bits = torch.zeros((shape.numel() + 7) // 8, dtype=torch.uint8)
        self.count = 0

    def add(self, topology: Topology) -> None:
        for positions in topology.positions.cpu().split(_TILE):
            # Distinct bits of one byte add up to what they are together.
            places, owner = (positions >> 3).unique_consecutive(return_inverse=True)
            added = torch.zeros(places.numel(), dtype=torch.int16)
            added.index_add_(0, owner, (1 << (positions & 7)).to(torch.int16))
            old = self.bits[places]
            new = old | added.to(torch.uint8)
            self.count += _ones(new) - _ones(old)
            self.bits[places] = new

    def load(self, bits: Tensor) -> None:
        self.bits = bits.clone()
        self.count = sum(_ones(part) for part in bits.split(_TILE))

    def mask(self) -> Tensor:
        single = self.bits.unsqueeze(1) >> torch.arange(8, dtype=torch.uint8)
        return (single & 1).bool().view(-1)[: self.shape.numel()].view(self.shape)


def _ones(numbers: Tensor) -> int:
    """Bits that are set in uint8 numbers."""
    return int(torch.bincount(numbers, minlength=256) @ _SET)


_SET = torch.tensor([number.bit_count() for number in range(256)])
