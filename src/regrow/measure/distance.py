"""How far apart two topologies are, when hidden neurons may change places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regrow.measure._chain import Network, places, topologies
from regrow.measure._extra import require
from regrow.topology import Topology

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class TopologyDistance:
    """What ``topology_distance`` found.

    Attributes:
        layers: Distance of each layer.
        matchings: For each layer, the neuron of the second network that each neuron of the first
            was matched with, int64 ``[neurons]``.
    """

    layers: tuple[float, ...]
    matchings: tuple[Integers, ...]

    @property
    def mean(self) -> float:
        """Mean over the layers: NNSTD, where distances are normalised."""
        return float(np.mean(self.layers))

    @property
    def total(self) -> float:
        """Sum over the layers: all edits, where distances are not normalised."""
        return float(np.sum(self.layers))


def topology_distance(
    a: Network,
    b: Network,
    *,
    normalised: bool = True,
    match_outputs: bool = True,
    follow: bool = True,
) -> TopologyDistance:
    """The neural network sparse topology distance (NNSTD) of two networks of equal shape.

    Neurons are compared by the set of neurons that they have connections from. The cost of
    matching two is the share of these sources that only one of them has (the Jaccard distance; 0
    where both have none). The neurons of each layer are matched at the lowest total cost, and the
    distance of the layer is the mean cost of its pairs. Inputs are matched by index; from there on
    the sources of the second network are renamed as the layer before was matched. 0 means equal up
    to a permutation that this search finds, and 1 that nothing is shared.

    Needs SciPy (``pip install regrow[analysis]``). Time grows with the cube of the widest layer:
    about a second at 1000 neurons.

    Args:
        a: A model with sparse layers, a topology (rows are the outputs), or several that follow
            each other. The columns of convolutions, and of layers behind them, belong to channels.
        b: As many topologies of the same shapes.
        normalised: Whether costs are shares; if not, they are the number of connections to be
            added and taken away, and the distance of a layer is their sum.
        match_outputs: Whether outputs of the last layer are matched too, as in the published code,
            or keep their index.
        follow: Whether the inputs of each layer are the neurons of the one before. If not, as in
            networks with attention or with residual connections, each layer is compared by itself,
            its inputs in their order.

    Returns:
        Distances and matchings.

    Raises:
        ValueError: The networks differ in shape, or layers do not follow each other.

    Differs from the paper:
        Columns of convolutions are grouped by channel; the paper has linear layers only. Matchings
        of least cost are not unique, and deeper layers depend on which one is found.

    Example:
        >>> import torch
        >>> a = Topology((3, 2), torch.tensor([0, 2, 3, 5]))
        >>> b = Topology((3, 2), torch.tensor([0, 1, 2, 5]))
        >>> topology_distance(a, b).matchings[0]  # {0}, {0, 1}, {1} are {0, 1}, {0}, {1}
        array([1, 0, 2])
        >>> topology_distance(a, b).mean
        0.0

    References:
        S. Liu, T. van der Lee, A. Yaman, Z. Atashgahi, D. Ferraro, G. Sokar, M. Pechenizkiy,
        D. C. Mocanu, "Topological insights into sparse neural networks", 2020.
    """
    require("scipy", "topology_distance")
    first, second = topologies(a), topologies(b)
    shapes = [[tuple(topology.shape) for topology in chain] for chain in (first, second)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"networks to compare must have the same shapes, got {shapes[0]} and {shapes[1]}"
        )
    layers: list[float] = []
    matchings: list[Integers] = []
    for number, (own, other) in enumerate(zip(first, second, strict=True)):
        renamed = _matrix(other)
        if number and follow:
            width = places(len(matchings[-1]), own.matrix_shape[1], number)
            order = matchings[-1][:, None] * width + np.arange(width)
            renamed = renamed[:, order.reshape(-1)]
        cost = _costs(_matrix(own), renamed, normalised)
        last = number == len(first) - 1
        matching = _matched(cost) if match_outputs or not last else np.arange(len(cost))
        pairs = cost[np.arange(len(cost)), matching]
        layers.append(float(pairs.mean() if normalised else pairs.sum()))
        matchings.append(matching)
    return TopologyDistance(tuple(layers), tuple(matchings))


def distance_matrix(
    networks: Sequence[Network],
    *,
    layer: int | None = None,
    match_outputs: bool = True,
    follow: bool = True,
) -> Floats:
    """NNSTD of every pair of networks.

    The distance from the first of a pair to the second is taken for both ways.

    Args:
        networks: As for ``topology_distance``.
        layer: Number of the layer to compare; the mean over all if None.
        match_outputs: As there.
        follow: As there.

    Returns:
        ``[networks, networks]``, symmetric with zeros on the diagonal.

    Example:
        >>> import torch
        >>> a, b = (Topology((2, 2), torch.tensor(p)) for p in ([0, 3], [0, 1]))
        >>> distance_matrix([a, b])
        array([[0.  , 0.75],
               [0.75, 0.  ]])
    """
    chains = [topologies(network) for network in networks]
    found = np.zeros((len(chains), len(chains)))
    for i, first in enumerate(chains):
        for j in range(i):
            options = {"match_outputs": match_outputs, "follow": follow}
            pair = topology_distance(chains[j], first, **options)
            found[i, j] = found[j, i] = pair.mean if layer is None else pair.layers[layer]
    return found


def _matrix(topology: Topology) -> Any:
    """As a SciPy matrix of ones."""
    from scipy.sparse import csr_array

    indptr, indices = (part.cpu().numpy() for part in topology.csr())
    ones = np.ones(len(indices), dtype=np.int32)
    return csr_array((ones, indices, indptr), shape=topology.matrix_shape)


def _costs(a: Any, b: Any, normalised: bool) -> Floats:
    """Cost of matching each row of ``a`` with each row of ``b``, ``[rows, rows]``."""
    shared = (a @ b.T).toarray().astype(np.float64)
    in_a, in_b = (np.diff(m.indptr).astype(np.float64) for m in (a, b))
    both = in_a[:, None] + in_b[None, :]
    if not normalised:
        edits: Floats = both - 2 * shared
        return edits
    union = both - shared
    shares: Floats = np.divide(union - shared, union, out=np.zeros_like(union), where=union > 0)
    return shares


def _matched(cost: Floats) -> Integers:
    from scipy.optimize import linear_sum_assignment

    _, columns = linear_sum_assignment(cost)
    return np.asarray(columns, dtype=np.int64)
