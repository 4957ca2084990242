"""Which connections exist: topologies, initial patterns, and sharing a density among layers."""

from regrow.topology.allocation import allocate
from regrow.topology.patterns import random_topology
from regrow.topology.perturb import redrawn, renumbered
from regrow.topology.structured import (
    Block,
    FanIn,
    NofM,
    block_topology,
    fan_in_topology,
    fan_out_topology,
    nm_topology,
)
from regrow.topology.topology import Rewiring, Topology

__all__ = [
    "Block",
    "FanIn",
    "NofM",
    "Rewiring",
    "Topology",
    "allocate",
    "block_topology",
    "fan_in_topology",
    "fan_out_topology",
    "nm_topology",
    "random_topology",
    "redrawn",
    "renumbered",
]
