"""Trackers: numbers that an evolution keeps for every connection, step after step."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from regrow.evolution.site import Site

TrackFunction = Callable[["Site", Tensor], Tensor]


@dataclass(frozen=True)
class Tracker:
    """A number per connection that a score asks for, brought up to date at each optimiser step.

    The evolution owns it: it follows its connection through updates, and is saved. Scores read it
    as ``site.tracked[name]``, in the dtype of the values.

    Attributes:
        name: Its name.
        update: From a site and the numbers so far ``[nnz]`` to the next ones ``[nnz]``.
        start: Where a new connection starts.
        before: Whether it looks at values and gradients before the optimiser step.

    Example:
        >>> import torch, regrow
        >>> swings = Tracker("swings", lambda site, count: count + (site.values < 0))
        >>> rule = regrow.evolution.DropScore(lambda site: site.tracked["swings"], tracks=(swings,))
        >>> layer = regrow.SparseLinear(8, 4, density=0.5)
        >>> optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
        >>> evolution = regrow.Evolution(layer, optimizer, drop=rule, every=2)
        >>> optimizer.step()
        >>> bool((evolution.sites()[""].tracked["swings"] == (layer.values < 0)).all())
        True
    """

    name: str
    update: TrackFunction
    start: float = 0.0
    before: bool = False


# Optimiser steps since the connection was grown.
AGE = Tracker("age", lambda site, age: age + 1)


def together(*declared: Iterable[Tracker]) -> tuple[Tracker, ...]:
    """The trackers that several scores declare, each once.

    Raises:
        ValueError: Two different ones share a name.
    """
    found: dict[str, Tracker] = {}
    for tracker in (tracker for trackers in declared for tracker in trackers):
        if found.setdefault(tracker.name, tracker) != tracker:
            raise ValueError(
                f"trackers of the drop and of the grow score must differ in name, "
                f"got {tracker.name!r} twice"
            )
    return tuple(found.values())
