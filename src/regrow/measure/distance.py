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
Colours = NDArray[np.uint64]

# Less than any two sums of costs differ by, but for rounding.
_TIE = 1e-9


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
    the sources of the second network are renamed as the layer before was matched. Of matchings that
    cost the same, one is taken in which neurons agree in what lies behind them as often as can be.
    0 means equal up to a permutation that this search finds, and 1 that nothing is shared.

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
        of least cost are not unique, and deeper layers depend on which one is taken. The published
        code takes any; then a network with neurons of equal sources, as small and very sparse ones
        have, is seldom at distance 0 from a copy of itself with its neurons in another order. Here
        it nearly always is.

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
    behind = [_behind(chain, match_outputs) if follow else None for chain in (first, second)]
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
        colours = [None if all_ is None else all_[number] for all_ in behind]
        matching = np.arange(len(cost)) if last and not match_outputs else _matched(cost, *colours)
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


def _matched(cost: Floats, own: Colours | None, other: Colours | None) -> Integers:
    """The matching of least cost, and of those one in which most colours agree."""
    from scipy.optimize import linear_sum_assignment

    if own is not None and other is not None:
        cost = cost + _TIE * (own[:, None] != other[None, :])
    _, columns = linear_sum_assignment(cost)
    return np.asarray(columns, dtype=np.int64)


def _behind(chain: Sequence[Topology], match_outputs: bool) -> list[Colours]:
    """For each layer a colour of each neuron: equal where what lies behind it looks the same.

    A neuron looks like the set of its targets, each of which looks like the inputs that it can be
    reached from, the way there, and what lies behind it. Outputs have an order, or have none.
    """
    ends: list[tuple[Integers, Integers, Colours]] = []
    reached: list[Colours] = []
    for number, topology in enumerate(chain):
        pointers, columns = (part.cpu().numpy().astype(np.int64) for part in topology.csr())
        row = np.repeat(np.arange(len(pointers) - 1), np.diff(pointers))
        width = places(len(reached[-1]), topology.matrix_shape[1], number) if number else 1
        source, place = columns // width, _mixed(columns % width if number else columns)
        ends.append((row, source, place))
        seen = place if number == 0 else _mixed(reached[-1][source] + place)
        reached.append(_summed(seen, row, len(pointers) - 1))
    outputs = len(reached[-1])
    behind = [_mixed(np.zeros(outputs) if match_outputs else np.arange(outputs))]
    for (row, source, place), targets, before in zip(
        ends[:0:-1], reached[:0:-1], reached[-2::-1], strict=True
    ):
        looks = _mixed(targets ^ behind[0])
        behind.insert(0, _summed(_mixed(looks[row] + place), source, len(before)))
    return behind


def _summed(colours: Colours, owner: Integers, count: int) -> Colours:
    """One colour for each owner, whatever the order of those that it owns."""
    total = np.zeros(count, dtype=np.uint64)
    np.add.at(total, owner, colours)
    return _mixed(total)


def _mixed(numbers: Any) -> Colours:
    """Numbers spread over 64 bits (the finaliser of SplitMix64)."""
    found: Colours = np.asarray(numbers).astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        found = (found ^ (found >> np.uint64(shift))) * np.uint64(factor)
    return found ^ (found >> np.uint64(31))
