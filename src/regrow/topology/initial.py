"""Initial patterns by name."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Protocol

import torch

from regrow.topology.networks import scale_free_topology, small_world_topology
from regrow.topology.patterns import random_topology
from regrow.topology.structured import fan_in_topology, fan_out_topology
from regrow.topology.topology import Topology


class Pattern(Protocol):
    """Where the connections of a new layer are: any function with these arguments.

    A pattern with a structure takes the nearest number of connections that it can have. One with
    an attribute ``density`` decides the number itself, as ``NofM`` does.
    """

    def __call__(
        self, shape: Sequence[int], connections: int, *, generator: torch.Generator | None = None
    ) -> Topology:
        """A topology of a dense shape with this many connections."""


def fan_in(
    shape: Sequence[int], connections: int, *, generator: torch.Generator | None = None
) -> Topology:
    """As many connections in every row, at random: the whole number nearest to what is asked for.

    Example:
        >>> fan_in((4, 10), 13).degrees()[0]
        tensor([3, 3, 3, 3])
    """
    return fan_in_topology(shape, max(1, round(connections / shape[0])), generator=generator)


def fan_out(
    shape: Sequence[int], connections: int, *, generator: torch.Generator | None = None
) -> Topology:
    """As many connections in every column, at random: the whole number nearest to it.

    Example:
        >>> fan_out((10, 4), 13).degrees()[1]
        tensor([3, 3, 3, 3])
    """
    columns = math.prod(shape[1:])
    return fan_out_topology(shape, max(1, round(connections / columns)), generator=generator)


PATTERNS: dict[str, Pattern] = {
    "random": random_topology,
    "bernoulli": partial(random_topology, sampling="bernoulli"),
    "replacement": partial(random_topology, sampling="replacement"),
    "small-world": small_world_topology,
    "scale-free": scale_free_topology,
    "fan-in": fan_in,
    "fan-out": fan_out,
}


def pattern_of(pattern: str | Pattern) -> Pattern:
    """The pattern of a name, or the one that was given.

    Raises:
        ValueError: There is no pattern of this name.

    Example:
        >>> pattern_of("small-world")((100, 80), 400).nnz
        400
    """
    if not isinstance(pattern, str):
        return pattern
    if pattern not in PATTERNS:
        raise ValueError(
            f"pattern must be one of {', '.join(PATTERNS)}, a Block, an NofM or a function, "
            f"got {pattern!r}"
        )
    return PATTERNS[pattern]
