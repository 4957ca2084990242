"""Counting what a sparse network has, does and explores."""

from regrow.measure.clustering import SmallWorld, bipartite, small_world, to_networkx
from regrow.measure.degrees import Comparison, DegreeLaw, degree_law, neuron_degrees
from regrow.measure.distance import TopologyDistance, distance_matrix, topology_distance
from regrow.measure.energy import ENERGY_COSTS, Energy, EnergyCosts, step_energy
from regrow.measure.exploration import Exploration, expected_exploration
from regrow.measure.flops import TrainingFlops, training_flops
from regrow.measure.memory import LayerMemory, Memory, memory
from regrow.measure.reliability import Calibration, calibration, detection, fgsm
from regrow.measure.similarity import Similarity, drop_similarity
from regrow.measure.singular_values import Spectrum, spectrum
from regrow.measure.summary import LayerSummary, Summary, summary
from regrow.measure.ways import Paths, paths

__all__ = [
    "ENERGY_COSTS",
    "Calibration",
    "Comparison",
    "DegreeLaw",
    "Energy",
    "EnergyCosts",
    "Exploration",
    "LayerMemory",
    "LayerSummary",
    "Memory",
    "Paths",
    "Similarity",
    "SmallWorld",
    "Spectrum",
    "Summary",
    "TopologyDistance",
    "TrainingFlops",
    "bipartite",
    "calibration",
    "degree_law",
    "detection",
    "distance_matrix",
    "drop_similarity",
    "expected_exploration",
    "fgsm",
    "memory",
    "neuron_degrees",
    "paths",
    "small_world",
    "spectrum",
    "step_energy",
    "summary",
    "to_networkx",
    "topology_distance",
    "training_flops",
]
