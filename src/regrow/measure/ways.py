"""Ways from the inputs of a network to its outputs, counted layer by layer."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from regrow.layers import sparse_layers
from regrow.measure._chain import Network, sources, topologies

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Paths:
    """Ways through a network.

    Attributes:
        log10_total: Logarithm to base 10 of their number (or of their sum of weights); minus
            infinity if there is none.
        log10_expected: What a random topology of as many connections in each layer has on average,
            of the mean-field count: inputs times the mean number of connections that leave each
            neuron, layer after layer.
        through: For the inputs and for each layer, the share of all ways that goes through each
            neuron ``[neurons]``; each array sums to 1 (to 0 if there is no way).
    """

    log10_total: float
    log10_expected: float
    through: tuple[Floats, ...]

    @property
    def dead(self) -> tuple[int, ...]:
        """Neurons without a way through them, of the inputs and of each layer."""
        return tuple(int((share == 0).sum()) for share in self.through)


def paths(network: Network, *, weighted: bool = False) -> Paths:
    """Count the ways from inputs to outputs, in one pass forward and one back.

    Args:
        network: A model with sparse layers, a topology, or several that follow each other.
        weighted: Whether a way counts as the product of the magnitudes of its values, which is
            what SynFlow keeps from vanishing; then ``network`` is a model.

    Raises:
        ValueError: Layers do not follow each other, or weights are asked for of topologies.

    Example:
        >>> from regrow import Topology
        >>> chain = [Topology((2, 2), torch.tensor([0, 1, 3])), Topology((1, 2), torch.tensor([0]))]
        >>> found = paths(chain)  # both inputs reach hidden neuron 0, which alone goes on
        >>> round(10**found.log10_total), found.dead
        (2, (0, 1, 0))

    References:
        H. Tanaka, D. Kunin, D. L. K. Yamins, S. Ganguli, "Pruning neural networks without any data
        by iteratively conserving synaptic flow", 2020.
    """
    chain = topologies(network)
    if weighted and not isinstance(network, nn.Module):
        raise ValueError("ways weighted by values need a model, got topologies")
    if weighted and isinstance(network, nn.Module):
        layers = sparse_layers(network).values()
        weights = [layer.values.detach().abs().cpu().double() for layer in layers]
    else:
        weights = [torch.ones(topology.nnz, dtype=torch.float64) for topology in chain]
    targets = [topology.rows.cpu() for topology in chain]
    origins = sources(chain)
    sizes = [chain[0].shape[1], *(topology.matrix_shape[0] for topology in chain)]

    forward, scale = [torch.ones(sizes[0], dtype=torch.float64)], 0.0
    for target, origin, weight, size in zip(targets, origins, weights, sizes[1:], strict=True):
        level, factor = _scaled(_moved(forward[-1], origin, target, weight, size))
        forward.append(level)
        scale += factor
    back = [torch.ones(sizes[-1], dtype=torch.float64)]
    for target, origin, weight, size in zip(
        targets[::-1], origins[::-1], weights[::-1], sizes[-2::-1], strict=True
    ):
        back.append(_scaled(_moved(back[-1], target, origin, weight, size))[0])
    last = float(forward[-1].sum())
    through = [a * b for a, b in zip(forward, back[::-1], strict=True)]
    return Paths(
        log10_total=scale + math.log10(last) if last else -math.inf,
        log10_expected=_expected(sizes, [float(weight.sum()) for weight in weights]),
        through=tuple((share / max(float(share.sum()), 1e-300)).numpy() for share in through),
    )


def _moved(level: Tensor, origin: Tensor, target: Tensor, weight: Tensor, size: int) -> Tensor:
    return torch.zeros(size, dtype=torch.float64).index_add_(0, target, level[origin] * weight)


def _scaled(level: Tensor) -> tuple[Tensor, float]:
    """Numbers of at most 1, and the logarithm of what they were divided by."""
    most = float(level.max())
    return (level / most, math.log10(most)) if most else (level, 0.0)


def _expected(sizes: list[int], connections: list[float]) -> float:
    total = math.log10(sizes[0])
    for size, count in zip(sizes, connections, strict=False):
        total += math.log10(count / size) if count else -math.inf
    return total
