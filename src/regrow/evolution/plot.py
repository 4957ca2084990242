"""What an update works on: one layer with its units, its budgets and its scores."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from regrow.evolution.budgets import SCOPES, Parts, ScopeFunction, groups_of
from regrow.evolution.compose import scores as named_scores
from regrow.evolution.methods import Method
from regrow.evolution.scores import DropScore
from regrow.evolution.site import Site
from regrow.evolution.units import Units, block_of
from regrow.topology import Block, FanIn, NofM, Topology
from regrow.topology.structure import Structure


class Plot:
    """One layer during one update, counted in units.

    Args:
        site: The layer.
        method: Says what units and budgets are.
        drop: The drop score.
        early: Its scores, where they were taken before the optimiser step.

    Raises:
        ValueError: The layer cannot be divided into such units or budgets.
    """

    def __init__(
        self, site: Site, method: Method, drop: DropScore, early: Tensor | None = None
    ) -> None:
        self.site = site
        unit, scope = fitting(method, site.topology.structure)
        block = block_of(unit, site.layer)
        _check_kept(site, method, block, scope)
        self.units = Units(site.layer, block, site.path)
        self.parts = _parts(scope, self.units, site.path)
        self._drop = drop
        self._early = early
        self._scores: Tensor | None = None

    @property
    def nnz(self) -> int:
        """Units there are."""
        return self.units.topology.nnz

    @property
    def free(self) -> int:
        """Units that can grow."""
        return self.units.free

    @property
    def scores(self) -> Tensor:
        """Drop score of each unit; NaN counts as the lowest."""
        if self._scores is None:
            scores = self._drop.score(self.site) if self._early is None else self._early
            if scores.shape != (self.site.topology.nnz,):
                raise ValueError(
                    f"drop score in {self.site.path} must have shape ({self.site.topology.nnz},), "
                    f"got {tuple(scores.shape)}"
                )
            scores = self.site.ranks.first(scores.detach())
            self._scores = without_nan(self.units.pooled(scores))
        return self._scores

    def taken(self, keep: Tensor, regrow: bool) -> Topology:
        """Units at which nothing can grow.

        Args:
            keep: Which units stay, bool ``[units]``.
            regrow: Whether the places of the others are free at once.
        """
        topology, closed = self.units.topology, self.units.closed
        left = topology.kept(keep) if regrow else topology
        return left if closed is None else left.joined(closed)

    def quick(self) -> Callable[[int], Tensor] | None:
        """All but the given number of lowest ones, where the score knows a way to find them."""
        keep, site = self._drop.keep, self.site
        whole = self.units.size == 1 and len(self.parts) == 1
        if keep is None or not whole or self._early is not None or self._scores is not None:
            return None
        if bool(site.values.sum().isnan()):  # a shortcut need not know where NaN belongs
            return None
        return lambda count: site.ranks.first(keep(site, count))


def fitting(
    method: Method, structure: Structure | None
) -> tuple[str | Block, str | NofM | ScopeFunction]:
    """Unit and scope for a layer: those of the method, or such that its structure is kept.

    A method that takes single connections takes whole blocks of a layer of blocks. Where a layer
    has N of M, or a constant fan-in, each group or row keeps its number, unless the method changes
    the numbers of layers. One that names positions itself is left as it is.

    Example:
        >>> import regrow
        >>> rigl = regrow.methods()["rigl"]
        >>> fitting(rigl, Block(4, 4)), fitting(rigl, NofM(2, 4))
        ((Block(rows=4, columns=4), 'layer'), ('element', NofM(n=2, m=4)))
    """
    unit, scope = method.unit, method.scope
    grow = named_scores(method)[1]
    if unit != "element" or grow.place is not None or not grow.exact:
        return unit, scope
    if isinstance(structure, Block):
        return structure, scope
    if scope != "layer" or method.density is not None or method.redistribute is not None:
        return unit, scope
    if isinstance(structure, NofM):
        return unit, structure
    return unit, "row" if isinstance(structure, FanIn) else scope


def _check_kept(site: Site, method: Method, unit: Block, scope: object) -> None:
    """Refuse a method that would break a structure which the layer's compute cannot do without."""
    structure, compute = site.topology.structure, site.layer.compute
    if compute in ("block", "nm"):
        whole = isinstance(structure, Block) and not (
            unit.rows % structure.rows or unit.columns % structure.columns
        )
        if not whole and scope != structure:
            raise ValueError(
                f"method {method.name} must keep {structure} of {site.path} for its compute "
                f"{compute!r}, and does not; with compute 'auto' it need not"
            )


def without_nan(scores: Tensor) -> Tensor:
    """The scores, NaN made the lowest."""
    if scores.is_floating_point() and bool(scores.sum().isnan()):
        return torch.where(scores.isnan(), -torch.inf, scores)
    return scores


def _parts(scope: str | NofM | ScopeFunction, units: Units, path: str) -> Parts:
    if isinstance(scope, NofM):
        scope = groups_of(scope)
    divide = SCOPES[scope] if isinstance(scope, str) else scope
    try:
        return divide(units.layer, *units.shape)
    except ValueError as error:
        raise ValueError(f"scope of {path} does not fit: {error}") from None
