"""Which connections exist: topologies, initial patterns, and sharing a density among layers."""

from regrow.topology.allocation import allocate
from regrow.topology.patterns import random_topology
from regrow.topology.topology import Rewiring, Topology

__all__ = ["Rewiring", "Topology", "allocate", "random_topology"]
