"""Scores: which connections to drop, and which free positions to grow.

A drop score maps a ``Site`` to one number per connection; the lowest go. A grow score maps a site
and ``Candidates`` to one number per candidate; the highest come. A rule of one's own is such a
function, given to ``Evolution`` as it is, or registered under a name with the decorators here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor

from regrow.kernels.capture import Captured
from regrow.layers import SparseLayer
from regrow.topology import Topology
from regrow.topology.select import without_nearest_zero


class Candidates:
    """Positions of one layer that a grow score is asked about.

    They are either given one by one, or are all columns of consecutive rows; a score may use the
    latter to form one matrix product instead of many sampled ones.

    Attributes:
        block: The consecutive rows, or None if the positions were given one by one.
    """

    def __init__(
        self, columns: int, *, positions: Tensor | None = None, block: slice | None = None
    ):
        """Take flat positions, or a block of rows, in a weight with this many columns."""
        if (positions is None) == (block is None):
            raise ValueError("candidates need positions or a block of rows, not both or neither")
        self.block = block
        self._positions = positions
        self._columns = columns

    def __len__(self) -> int:
        """Number of candidates."""
        if self._positions is not None:
            return self._positions.numel()
        assert self.block is not None
        return int(self.block.stop - self.block.start) * self._columns

    @property
    def positions(self) -> Tensor:
        """Flat position of each candidate, int64 ``[k]``."""
        if self._positions is not None:
            return self._positions
        assert self.block is not None
        return torch.arange(self.block.start * self._columns, self.block.stop * self._columns)

    @property
    def rows(self) -> Tensor:
        """Row of each candidate, int64 ``[k]``."""
        return torch.div(self.positions, self._columns, rounding_mode="floor")

    @property
    def columns(self) -> Tensor:
        """Column of each candidate, int64 ``[k]``."""
        return self.positions % self._columns


@dataclass(frozen=True)
class Site:
    """What a score may look at: one layer at the time of an update.

    Attributes:
        path: Path of the layer in the model.
        layer: The layer, before the update.
        generator: The evolution's random generator (CPU).
        captured: Inputs and output gradients since the last optimiser step, where the grow score
            asked for gradients.
    """

    path: str
    layer: SparseLayer
    generator: torch.Generator
    captured: Captured = field(default_factory=list)

    @property
    def topology(self) -> Topology:
        """Connections before the update."""
        return self.layer.topology

    @property
    def values(self) -> Tensor:
        """Values of the connections ``[nnz]``, detached."""
        return self.layer.values.detach()

    @property
    def free(self) -> int:
        """Number of positions at which a connection can grow."""
        closed = self.layer.closed
        barred = 0 if closed is None else closed.numel()
        return self.topology.shape.numel() - self.topology.nnz - barred

    def gradient(self, candidates: Candidates) -> Tensor:
        """Gradient of the loss with respect to the weights at the candidates ``[k]``.

        Positions without a value have one too: it is what the weight's gradient would be there.
        """
        total = None
        for x, grad, _ in self.captured:
            if candidates.block is not None:
                part = self.layer.gradient_block(x, grad, candidates.block).reshape(-1)
            else:
                part = self.layer.gradient_pairs(x, grad, candidates.rows, candidates.columns)
            total = part if total is None else total.add_(part)
        if total is None:
            raise RuntimeError(
                f"growth by gradient in {self.path} needs a backward pass before the optimiser "
                f"step of an update, got none since the last one"
            )
        return total


DropFunction = Callable[[Site], Tensor]
KeepFunction = Callable[[Site, int], Tensor]
GrowFunction = Callable[[Site, Candidates], Tensor]
Function = TypeVar("Function", DropFunction, GrowFunction)


@dataclass(frozen=True)
class DropScore:
    """A drop score and what it needs.

    Attributes:
        score: One number per connection; the lowest are dropped.
        before: Whether it is to be taken before the optimiser step instead of after it.
        keep: All but the given number of lowest scores, bool ``[nnz]``, where a layer is a budget
            of its own and this is faster than scores; None selects by the scores.
    """

    score: DropFunction
    before: bool = False
    keep: KeepFunction | None = None


@dataclass(frozen=True)
class GrowScore:
    """A grow score and what it needs.

    Attributes:
        score: One number per candidate, the highest are grown; None grows uniformly at random.
        gradient: Whether it calls ``site.gradient``.
    """

    score: GrowFunction | None
    gradient: bool = False


DROP_SCORES: dict[str, DropScore] = {}
GROW_SCORES: dict[str, GrowScore] = {"random": GrowScore(None)}


def drop_score(
    name: str, *, before: bool = False, keep: KeepFunction | None = None
) -> Callable[[DropFunction], DropFunction]:
    """Register a drop score under a name; the rest as in ``DropScore``.

    Example:
        >>> @drop_score("oldest-example")
        ... def by_slot(site):
        ...     return torch.arange(site.topology.nnz)
        >>> "oldest-example" in DROP_SCORES
        True
        >>> del DROP_SCORES["oldest-example"]
    """

    def register(function: DropFunction) -> DropFunction:
        _register(DROP_SCORES, name, DropScore(function, before, keep))
        return function

    return register


def grow_score(name: str, *, gradient: bool = False) -> Callable[[GrowFunction], GrowFunction]:
    """Register a grow score under a name; ``gradient`` says that it calls ``site.gradient``.

    Example:
        >>> @grow_score("near-example")
        ... def near_the_diagonal(site, candidates):
        ...     return -(candidates.rows - candidates.columns).abs().float()
        >>> "near-example" in GROW_SCORES
        True
        >>> del GROW_SCORES["near-example"]
    """

    def register(function: GrowFunction) -> GrowFunction:
        _register(GROW_SCORES, name, GrowScore(function, gradient))
        return function

    return register


Entry = TypeVar("Entry")


def _register(registry: dict[str, Entry], name: str, entry: Entry) -> None:
    if name in registry:
        raise ValueError(f"score name must be new, got {name!r}, which is registered already")
    registry[name] = entry


@drop_score("magnitude")
def magnitude(site: Site) -> Tensor:
    """Absolute value: the weights nearest zero go."""
    return site.values.abs()


def _nearest_zero_by_sign(site: Site, count: int) -> Tensor:
    return without_nearest_zero(site.values, count)


@drop_score("sign-split", keep=_nearest_zero_by_sign)
def sign_split(site: Site) -> Tensor:
    """Rank by magnitude among the weights of the same sign, as a share of their number.

    The lowest fraction of this score is the fraction nearest zero of the positive weights and of
    the negative weights each, which is SET's rule. Zeros count as positive.

    References:
        D. C. Mocanu et al., "Scalable training of artificial neural networks with adaptive sparse
        connectivity inspired by network science", 2018.
    """
    values = site.values
    score = torch.full_like(values, torch.nan, dtype=torch.float64)
    for part in (values < 0, values >= 0):
        magnitudes = values[part].abs()
        order = torch.argsort(magnitudes, stable=True)
        rank = torch.arange(len(order), device=values.device, dtype=torch.float64).add_(0.5)
        score[part] = torch.empty_like(rank).scatter_(0, order, rank / max(1, len(order)))
    return score


@drop_score("random")
def random(site: Site) -> Tensor:
    """Uniform random numbers: any connection may go."""
    return torch.rand(site.topology.nnz, generator=site.generator).to(site.values.device)


@drop_score("taylor", before=True)
def taylor(site: Site) -> Tensor:
    """|weight x gradient| before the optimiser step: the first-order change of the loss."""
    grad = site.layer.values.grad
    if grad is None:
        raise RuntimeError(f"the taylor drop score in {site.path} needs a gradient, got none")
    return (site.values * grad).abs()


@grow_score("gradient", gradient=True)
def gradient(site: Site, candidates: Candidates) -> Tensor:
    """Absolute gradient of the loss at the position.

    References:
        U. Evci, T. Gale, J. Menick, P. S. Castro, E. Elsen, "Rigging the lottery: making all
        tickets winners", 2020.
    """
    return site.gradient(candidates).abs_()
