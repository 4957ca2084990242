"""Counting what a sparse network has, does and explores."""

from regrow.measure.clustering import SmallWorld, bipartite, small_world, to_networkx
from regrow.measure.degrees import Comparison, DegreeLaw, degree_law, neuron_degrees
from regrow.measure.distance import TopologyDistance, distance_matrix, topology_distance
from regrow.measure.exploration import Exploration, expected_exploration
from regrow.measure.singular_values import Spectrum, spectrum
from regrow.measure.summary import LayerSummary, Summary, summary
from regrow.measure.ways import Paths, paths

__all__ = [
    "Comparison",
    "DegreeLaw",
    "Exploration",
    "LayerSummary",
    "Paths",
    "SmallWorld",
    "Spectrum",
    "Summary",
    "TopologyDistance",
    "bipartite",
    "degree_law",
    "distance_matrix",
    "expected_exploration",
    "neuron_degrees",
    "paths",
    "small_world",
    "spectrum",
    "summary",
    "to_networkx",
    "topology_distance",
]
