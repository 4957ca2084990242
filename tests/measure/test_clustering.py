"""Clustering and path lengths against networkx, and small worlds among random and regular ones."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from regrow import SparseConv2d, SparseLinear, Topology
from regrow.measure import bipartite, small_world, to_networkx
from regrow.measure.clustering import _lattice, path_length, square_clustering
from regrow.topology import random_topology, redrawn

networkx = pytest.importorskip("networkx")
pytest.importorskip("scipy")


def random(rows: int, columns: int, connections: int, seed: int = 0) -> Topology:
    generator = torch.Generator().manual_seed(seed)
    return random_topology((rows, columns), connections, generator=generator)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("rows", "columns", "connections"), [(12, 9, 40), (20, 31, 70), (5, 5, 25)]
)
def test_clustering_and_length_of_a_layer(
    rows: int, columns: int, connections: int, seed: int
) -> None:
    topology = random(rows, columns, connections, seed)
    graph = to_networkx(topology).to_undirected()
    clustering = networkx.algorithms.bipartite.robins_alexander_clustering(graph)
    assert square_clustering(topology) == pytest.approx(clustering)
    lengths = dict(networkx.all_pairs_shortest_path_length(graph))
    ways = [n for source, ends in lengths.items() for end, n in ends.items() if end != source]
    length, reachable = path_length(topology)
    assert length == pytest.approx(sum(ways) / len(ways))
    size = rows + columns
    assert reachable == pytest.approx(len(ways) / (size * (size - 1)))


def test_a_whole_network_is_one_bipartite_graph() -> None:
    chain = [random(10, 8, 30), random(6, 10, 20, 1), random(4, 6, 10, 2)]
    graph = bipartite(chain)
    assert graph.matrix_shape == (10 + 4, 8 + 6)
    assert graph.nnz == 60
    other = to_networkx(chain).to_undirected()
    assert other.number_of_edges() == 60
    clustering = networkx.algorithms.bipartite.robins_alexander_clustering(other)
    assert square_clustering(graph) == pytest.approx(clustering)
    lengths = dict(networkx.all_pairs_shortest_path_length(other))
    ways = [n for source, ends in lengths.items() for end, n in ends.items() if end != source]
    assert path_length(graph)[0] == pytest.approx(sum(ways) / len(ways))


def test_tiles_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    topology = random(50, 40, 300)
    whole = square_clustering(topology)
    monkeypatch.setattr("regrow.measure.clustering._TILE", 7)
    assert square_clustering(topology) == pytest.approx(whole)


def test_sampled_sources_are_close() -> None:
    topology = random(300, 300, 2000)
    exact, few = path_length(topology, 600), path_length(topology, 100, seed=1)
    assert few[0] == pytest.approx(exact[0], rel=0.02)
    assert few[1] == pytest.approx(exact[1], abs=0.02)


def test_taps_of_a_convolution_are_one_connection_between_channels() -> None:
    model = nn.Sequential(
        SparseConv2d(3, 8, 3, density=0.5), nn.Flatten(), SparseLinear(8 * 4, 5, density=0.4)
    )
    channels = model[0].topology.mask().flatten(2).any(2)
    heads = model[2].topology.mask().view(5, 8, 4).any(2)
    graph = bipartite(model)
    assert graph.nnz == int(channels.sum() + heads.sum())
    assert torch.equal(graph.mask()[:, :3], channels)
    assert torch.equal(graph.mask()[:, 3:], heads.t())


@pytest.mark.parametrize(("rows", "columns", "connections"), [(10, 10, 40), (7, 13, 45), (3, 9, 1)])
def test_a_lattice_is_regular(rows: int, columns: int, connections: int) -> None:
    lattice = _lattice(random(rows, columns, connections))
    assert lattice.nnz == connections
    degrees = lattice.degrees()[0]
    assert degrees.max() - degrees.min() <= 1


def test_random_regular_and_in_between() -> None:
    lattice = _lattice(random(400, 400, 4000))
    regular = small_world(lattice)
    between = small_world(redrawn(lattice, 0.1, torch.Generator().manual_seed(0)))
    chance = small_world(random(400, 400, 4000, 5))
    assert regular.clustering == regular.lattice_clustering
    assert regular.clustering > between.clustering > 5 * chance.clustering
    assert regular.path_length > 2 * between.path_length
    assert between.path_length < 2 * chance.path_length
    assert between.sigma > 4
    assert chance.sigma == pytest.approx(1, abs=0.2)
    assert regular.omega < -0.5 < between.omega < 0.5 < chance.omega


def test_nothing_to_cluster_or_to_reach() -> None:
    single = small_world(Topology((3, 3), torch.tensor([4])))
    assert (single.clustering, single.path_length) == (0, 1)
    assert single.reachable == pytest.approx(2 / 30)
    assert math.isnan(single.sigma)
    empty = small_world(Topology((2, 2), torch.empty(0, dtype=torch.int64)), references=0)
    assert math.isnan(empty.path_length)
    assert empty.reachable == 0


def test_layers_that_do_not_follow() -> None:
    with pytest.raises(ValueError, match="topologies must follow each other: layer 1"):
        bipartite([random(4, 4, 4), random(4, 5, 4)])
