"""Small-world measures: are neurons clustered, and how many steps are they apart?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from regrow.measure._chain import Network, sources, topologies
from regrow.measure._extra import require
from regrow.topology import Topology, random_topology

_TILE = 512


@dataclass(frozen=True)
class SmallWorld:
    """Clustering and path length beside those of a random and of a regular network.

    Attributes:
        clustering: Share of paths of three connections that are closed to a square, in [0, 1].
        path_length: Mean number of connections on the shortest way between two neurons.
        reachable: Share of pairs of neurons between which there is a way.
        random_clustering: Of random topologies with as many connections in each layer, mean.
        random_path_length: Likewise.
        lattice_clustering: Of topologies in which each neuron is connected to its nearest ones.
    """

    clustering: float
    path_length: float
    reachable: float
    random_clustering: float
    random_path_length: float
    lattice_clustering: float

    @property
    def sigma(self) -> float:
        """Clustering over path length, each against random; well above 1 in a small world."""
        clustering = _quotient(self.clustering, self.random_clustering)
        return _quotient(clustering, _quotient(self.path_length, self.random_path_length))

    @property
    def omega(self) -> float:
        """About -1 in a lattice, 0 in a small world, 1 in a random network."""
        length = _quotient(self.random_path_length, self.path_length)
        return length - _quotient(self.clustering, self.lattice_clustering)


def small_world(
    network: Network, *, references: int = 3, most_sources: int = 256, seed: int = 0
) -> SmallWorld:
    """Measure clustering and path length of a whole network, or of one layer.

    Directions and values of connections do not count. Neurons of layers that follow each other
    form one bipartite graph, even layers on one side and odd ones on the other; it has no
    triangles, so squares take their place.

    Needs SciPy (``pip install regrow[analysis]``).

    Args:
        network: A model with sparse layers, a topology, or several that follow each other.
        references: How many random networks to compare with.
        most_sources: Path lengths are of the ways from so many neurons, drawn at random where
            there are more.
        seed: Of the references and sources.

    Returns:
        The measures.

    Raises:
        ValueError: Layers do not follow each other.

    Example:
        >>> from regrow.topology import random_topology
        >>> generator = torch.Generator().manual_seed(0)
        >>> found = small_world(random_topology((300, 300), 3000, generator=generator))
        >>> 0.8 < found.sigma < 1.25, found.reachable == 1
        (True, True)

    References:
        D. J. Watts, S. H. Strogatz, "Collective dynamics of 'small-world' networks", 1998.
        G. Robins, M. Alexander, "Small worlds among interlocking directors", 2004.
        M. D. Humphries, K. Gurney, "Network 'small-world-ness'", 2008, for sigma.
        Q. K. Telesford, K. E. Joyce, S. Hayasaka, J. H. Burdette, P. J. Laurienti, "The ubiquity of
        small-world networks", 2011, for omega.
    """
    require("scipy", "small_world")
    chain = topologies(network)
    generator = torch.Generator().manual_seed(seed)
    graph = bipartite(chain)
    length, reachable = path_length(graph, most_sources, seed)
    clustering, lengths = [], []
    for _ in range(references):
        random = bipartite(
            [random_topology(t.shape, t.nnz, generator=generator) if t.nnz else t for t in chain]
        )
        clustering.append(square_clustering(random))
        lengths.append(path_length(random, most_sources, seed)[0])
    return SmallWorld(
        clustering=square_clustering(graph),
        path_length=length,
        reachable=reachable,
        random_clustering=float(np.mean(clustering)) if clustering else math.nan,
        random_path_length=float(np.mean(lengths)) if lengths else math.nan,
        lattice_clustering=square_clustering(bipartite([_lattice(t) for t in chain])),
    )


def bipartite(network: Network) -> Topology:
    """A whole network as one bipartite graph: neurons of even layers are columns, of odd ones rows.

    The inputs are layer 0. Connections that join the same two neurons, as those of the taps of a
    convolution, are one.

    Example:
        >>> chain = [Topology((2, 3), torch.tensor([0, 5])), Topology((1, 2), torch.tensor([1]))]
        >>> bipartite(chain)  # rows: 2 hidden neurons; columns: 3 inputs, 1 output
        Topology(shape=(2, 4), nnz=3, density=0.375)
    """
    chain = topologies(network)
    places = [0]  # where the neurons of each layer begin on their side
    sizes = [chain[0].shape[1], 0]  # of the even and the odd side
    rows, columns = [], []
    for number, (topology, source) in enumerate(zip(chain, sources(chain), strict=True), 1):
        side = number % 2
        places.append(sizes[side])
        sizes[side] += topology.matrix_shape[0]
        target = topology.rows.cpu() + places[number]
        source = source + places[number - 1]
        rows.append(target if side else source)
        columns.append(source if side else target)
    flat = torch.cat(rows) * sizes[0] + torch.cat(columns)
    return Topology((sizes[1], sizes[0]), flat.unique())


def square_clustering(graph: Topology) -> float:
    """Share of paths of three connections that a fourth closes, of a bipartite graph.

    0 where there is no such path.

    Example:
        >>> square_clustering(Topology((2, 2), torch.arange(4)))
        1.0
        >>> square_clustering(Topology((2, 2), torch.tensor([0, 1, 3])))
        0.0
    """
    matrix = _matrix(graph)
    if matrix.shape[0] > matrix.shape[1]:
        matrix = matrix.T.tocsr()
    across = matrix.T.tocsc()
    degrees = np.diff(matrix.indptr).astype(np.float64)
    pairs = 0.0
    for start in range(0, matrix.shape[0], _TILE):
        shared = (matrix[start : start + _TILE] @ across).data.astype(np.float64)
        pairs += float((shared * (shared - 1) / 2).sum())
    squares = (pairs - float((degrees * (degrees - 1) / 2).sum())) / 2
    columns = np.bincount(matrix.indices, minlength=matrix.shape[1])
    ends = np.repeat(degrees, np.diff(matrix.indptr)) - 1
    paths = float((ends * (columns[matrix.indices] - 1)).sum())
    return 4 * squares / paths if paths else 0.0


def path_length(graph: Topology, most_sources: int = 256, seed: int = 0) -> tuple[float, float]:
    """Mean length of the shortest ways between neurons of a bipartite graph, of those there are.

    Args:
        graph: Rows and columns are its two sides.
        most_sources: Ways are taken from so many neurons, drawn at random where there are more.
        seed: Of that draw.

    Returns:
        Mean length in connections (NaN if there is no way), and the share of pairs with a way.

    Example:
        >>> path_length(Topology((2, 2), torch.tensor([0, 1, 3])))  # a line of four neurons
        (1.6666666666666667, 1.0)
    """
    matrix = _matrix(graph)
    rows, columns = matrix.shape
    size = rows + columns
    first = np.arange(size)
    if size > most_sources:
        first = np.sort(np.random.default_rng(seed).choice(size, most_sources, replace=False))
    reached = np.zeros((size, len(first)), dtype=bool)
    reached[first, np.arange(len(first))] = True
    front, total, pairs, steps = reached.astype(np.float32), 0, 0, 0
    while front.any():
        steps += 1
        onward = np.concatenate([matrix @ front[rows:], matrix.T @ front[:rows]]) > 0
        onward &= ~reached
        reached |= onward
        found = int(onward.sum())
        total, pairs = total + steps * found, pairs + found
        front = onward.astype(np.float32)
    return (total / pairs if pairs else math.nan), pairs / max(1, len(first) * (size - 1))


def to_networkx(network: Network) -> Any:
    """A whole network as a directed graph of networkx, for its many other measures.

    A node is a pair (layer, neuron), the inputs being layer 0, and has the attribute ``layer``.
    Connections that join the same two neurons are one edge.

    Needs networkx (``pip install regrow[analysis]``).

    Example:
        >>> graph = to_networkx(Topology((2, 3), torch.tensor([0, 1, 5])))
        >>> graph.number_of_nodes(), graph.number_of_edges()
        (5, 3)
        >>> sorted(graph.predecessors((1, 0)))
        [(0, 0), (0, 1)]
    """
    require("networkx", "to_networkx")
    import networkx

    chain = topologies(network)
    graph = networkx.DiGraph()
    sizes = [chain[0].shape[1], *(topology.matrix_shape[0] for topology in chain)]
    for layer, size in enumerate(sizes):
        graph.add_nodes_from(((layer, neuron) for neuron in range(size)), layer=layer)
    for layer, (topology, source) in enumerate(zip(chain, sources(chain), strict=True)):
        graph.add_edges_from(
            ((layer, i), (layer + 1, j))
            for i, j in zip(source.tolist(), topology.rows.tolist(), strict=True)
        )
    return graph


def _matrix(graph: Topology) -> Any:
    from scipy.sparse import csr_array

    indptr, indices = (part.cpu().numpy() for part in graph.csr())
    ones = np.ones(len(indices), dtype=np.float32)
    return csr_array((ones, indices, indptr), shape=graph.matrix_shape)


def _lattice(topology: Topology) -> Topology:
    """As many connections, each row to the columns nearest to it on a ring."""
    rows, columns = topology.matrix_shape
    counts: NDArray[np.int64] = np.full(rows, topology.nnz // rows, dtype=np.int64)
    # Rows with one connection more stand evenly among the others.
    more = topology.nnz % rows
    counts += np.diff(np.arange(rows + 1) * more // rows)
    begin = np.arange(rows) * columns // rows - counts // 2
    owner = np.repeat(np.arange(rows), counts)
    place = np.arange(topology.nnz) - np.repeat(counts.cumsum() - counts, counts)
    flat = owner * columns + (begin[owner] + place) % columns
    return Topology(topology.shape, torch.from_numpy(flat))


def _quotient(a: float, b: float) -> float:
    return a / b if b else math.nan
