"""Grow scores: the catalogue. The highest come; each is registered under its name."""

from __future__ import annotations

import torch
from torch import Tensor

from regrow.evolution.budgets import Parts
from regrow.evolution.drop import Importance, input_strength
from regrow.evolution.growth import best_free, best_in_parts, each_tile, random_together, single
from regrow.evolution.scores import (
    GROW_SCORES,
    GrowFunction,
    GrowScore,
    described,
    grow_score,
    register_score,
)
from regrow.evolution.site import Candidates, Site
from regrow.topology import Topology


@grow_score("gradient", gradient=True)
def gradient(site: Site, candidates: Candidates) -> Tensor:
    """|g|: where the loss would change the weight most.

    References:
        U. Evci, T. Gale, J. Menick, P. S. Castro, E. Elsen, "Rigging the lottery: making all
        tickets winners", 2020.
    """
    return site.gradient(candidates).abs_()


@described
def momentum(decay: float, history: int) -> GrowScore:
    """|sum of decay^i g_i| over the last steps, i steps ago: the momentum at free positions.

    No dense buffer is held: the gradients are formed in tiles from the passes of these steps. What
    lies further back, or before the last update, is left out.

    Args:
        decay: Of the momentum, in [0, 1).
        history: Number of optimiser steps.

    References:
        T. Dettmers, L. Zettlemoyer, "Sparse networks from scratch: faster training without losing
        performance", 2019.
    """

    def score(site: Site, candidates: Candidates) -> Tensor:
        return site.gradient(candidates, decay).abs_()

    return GrowScore(score, gradient=True, history=history)


def mean_momentum(site: Site) -> Tensor:
    """Mean |momentum| of the connections of a layer, as ``momentum`` forms it: for redistribution.

    Unlike the one by the name of ``momentum``, it asks nothing of the optimiser.
    """
    own = Candidates(site.topology.matrix_shape[1], positions=site.topology.positions)
    return site.gradient(own, 0.9).abs().mean()


@described
def momentum_by_neuron(decay: float, history: int, least: int) -> GrowScore:
    """|momentum|, rows getting a share of the growth in proportion to the mean of theirs.

    The mean is that of the row's connections. Shares are rounded down; what is left goes to the
    highest of all.

    Args:
        decay: Of the momentum, in [0, 1).
        history: Number of optimiser steps.
        least: Rows whose share would be smaller get none.

    References:
        T. Dettmers, L. Zettlemoyer, "Sparse networks from scratch: faster training without losing
        performance", 2019.
    """

    def score(site: Site, candidates: Candidates) -> Tensor:
        return site.gradient(candidates, decay).abs_()

    def place(site: Site, taken: Topology, count: int) -> Tensor:
        rows, columns = taken.matrix_shape
        own = score(site, Candidates(columns, positions=site.topology.positions))
        mean = site.topology.sums(own, 0)
        mean /= site.topology.degrees()[0].clamp(min=1)
        share = (mean / mean.sum() * count).nan_to_num(0.0).floor()
        wanted = torch.where(share >= least, share, 0).long()
        wanted = wanted.minimum(columns - taken.degrees()[0]).cpu()
        parts = Parts(torch.arange(rows + 1) * columns)
        first = best_in_parts(site, taken, parts, wanted, score)
        rest = best_free(site, taken.joined(first), count - first.numel(), score)[1]
        return torch.cat([first, rest])

    return GrowScore(gradient=True, history=history, place=place)


@described
def mix(share: float, rule: GrowFunction, gradient: bool = True) -> GrowScore:
    """A share of the growth by a score, the rest at random.

    Args:
        share: By the score, in [0, 1].
        rule: The score.
        gradient: Whether it calls ``site.gradient``.

    References:
        A. I. Nowak, B. Grooten, D. C. Mocanu, J. Tabor, "Fantastic weights and how to find them:
        where to prune in dynamic sparse training", 2023.
    """

    def place(site: Site, taken: Topology, count: int) -> Tensor:
        best = best_free(site, taken, int(share * count), rule)[1]
        return torch.cat([best, random_free(site, taken.joined(best), count - best.numel())])

    return GrowScore(gradient=gradient, place=place)


@described
def sampled(size: float, guided: bool) -> GrowScore:
    """|g| among a random sample of free positions: gradient growth in O(connections).

    Args:
        size: Of the sample, in connections of the layer; at least what is to grow.
        guided: Whether ends are drawn in proportion to the summed |input| and |output gradient| of
            their neurons, in layers of vectors; else positions are drawn uniformly.

    References:
        M. Heddes, N. Srinivasa, T. Givargis, A. Nicolau, "Always-sparse training by growing
        connections with guided stochastic exploration", 2024.
    """

    def place(site: Site, taken: Topology, count: int) -> Tensor:
        columns = taken.matrix_shape[1]
        asked = max(count, round(size * site.topology.nnz))
        drawn = _guided(site, taken, asked) if guided else taken.positions[:0]
        free = taken.shape.numel() - taken.nnz - drawn.numel()
        fill = min(free, max(0, (count if guided else asked) - drawn.numel()))
        drawn = torch.cat([drawn, random_free(site, taken.joined(drawn), fill)])
        found = site.gradient(Candidates(columns, positions=drawn)).abs_()
        return drawn[found.sort(descending=True, stable=True).indices[:count]]

    return GrowScore(gradient=True, place=place)


def _guided(site: Site, taken: Topology, asked: int) -> Tensor:
    """Free positions whose ends are drawn each by what goes through it; none where that is not."""
    rows, columns = taken.matrix_shape
    through = [taken.positions.new_zeros(n, dtype=torch.float64) for n in (rows, columns)]
    for x, grad, _ in site.captured:
        fits = x.is_floating_point() and (grad.shape[-1], x.shape[-1]) == (rows, columns)
        if fits and x.dim() == 2:
            through[0] += grad.abs().sum(0)
            through[1] += x.abs().sum(0)
    through = [site.ranks.mean(total) for total in through]
    if not all(bool(total.sum() > 0) for total in through):
        return taken.positions[:0]
    row, column = (
        torch.searchsorted(
            total.cumsum(0),
            torch.rand(asked, dtype=torch.float64, generator=site.generator) * total.sum(),
            right=True,
        ).clamp_(max=total.numel() - 1)
        for total in through
    )
    drawn: Tensor = torch.unique(row * columns + column)
    return drawn[~torch.isin(drawn, taken.positions)]


@described
def exploring(weight: float) -> GrowScore:
    """|g| + weight ln(step) at positions that were never active: a bonus for exploring.

    Args:
        weight: Of the bonus.

    References:
        S. Huang et al., "Dynamic sparse training via balancing the exploration-exploitation
        trade-off", 2023.
    """

    def score(site: Site, candidates: Candidates) -> Tensor:
        new = ~torch.isin(candidates.positions, site.seen.positions)
        bonus = weight * torch.tensor(float(max(1, site.step))).log()
        return site.gradient(candidates).abs_() + bonus * new

    return GrowScore(score, gradient=True, seen=True)


@grow_score("cosine", activations=True)
def cosine(site: Site, candidates: Candidates) -> Tensor:
    """|cos| of the activations at both ends, over a sample of the last steps.

    Or over what ``Evolution.look`` has shown, such as the whole training set. A neuron that was
    silent in all samples has 0.

    References:
        Z. Atashgahi, J. Pieterse, S. Liu, D. C. Mocanu, R. Veldhuis, M. Pechenizkiy, "A
        brain-inspired algorithm for training highly sparse neural networks", 2022.
    """
    x, y = (_unit_columns(part) for part in (site.inputs, site.outputs))
    if candidates.block is not None:
        return (y[:, candidates.block].t() @ x).abs_().reshape(-1)
    return (y[:, candidates.rows] * x[:, candidates.columns]).sum(0).abs_()


def _unit_columns(activations: Tensor) -> Tensor:
    norms = activations.norm(dim=0)
    return activations / torch.where(norms == 0, 1, norms)


@described
def cosine_until_plateau(patience: int) -> GrowScore:
    """|cos| as ``cosine``; at random for good once the validation loss stops to improve.

    Args:
        patience: Reports of the validation loss without a new best one.
    """

    def score(site: Site, candidates: Candidates) -> Tensor:
        if site.memory.get("reports_since_best", 0.0) >= patience:
            site.memory["at_random"] = 1.0
        if "at_random" in site.memory:
            return torch.rand(len(candidates), generator=site.generator)
        return cosine(site, candidates)

    return GrowScore(score, activations=True)


@described
def outer(importance: Importance) -> GrowScore:
    """I_row I_column: the product of the importances of the neurons at both ends.

    Args:
        importance: From a site to one number per row and one per column; None counts as 1.

    References:
        G. Sokar, Z. Atashgahi, M. Pechenizkiy, D. C. Mocanu, "Where to pay attention in sparse
        training for feature selection?", 2022.
    """

    def score(site: Site, candidates: Candidates) -> Tensor:
        product = site.values.new_ones(len(candidates))
        ends = candidates.rows, candidates.columns
        for of_neuron, end in zip(importance(site), ends, strict=True):
            if of_neuron is not None:
                product *= of_neuron[end]
        return product

    return GrowScore(score)


@described
def by_input(revived: float) -> GrowScore:
    """|g| at inputs that have a connection, and at a few that have none, of the largest |g|.

    Args:
        revived: Share of the inputs without a connection that may have some again.

    References:
        Z. Atashgahi et al., "Supervised feature selection with neuron evolution in sparse neural
        networks", 2023.
    """

    def place(site: Site, taken: Topology, count: int) -> Tensor:
        columns = taken.matrix_shape[1]
        largest = site.values.new_full((columns,), -torch.inf)

        def take(tile: Tensor, first: int, last: int) -> None:
            torch.maximum(largest, tile.view(-1, columns).amax(0), out=largest)

        each_tile(take, site, gradient, single(site))
        active = taken.degrees()[1] > 0
        idle = (~active).nonzero().view(-1)
        again = idle[largest[idle].argsort(descending=True)[: round(revived * idle.numel())]]
        active[again] = True

        def score(site: Site, candidates: Candidates) -> Tensor:
            size = site.gradient(candidates).abs_()
            return torch.where(active[candidates.columns], size, -1 - size.new_ones(()))

        return best_free(site, taken, count, score)[1]

    return GrowScore(gradient=True, place=place)


def random_free(site: Site, taken: Topology, count: int) -> Tensor:
    """Free positions drawn uniformly without replacement; for rules that place."""
    return random_together([taken], count, site.generator)[0]


def random_among(site: Site, taken: Topology, count: int, alive: tuple[Tensor, Tensor]) -> Tensor:
    """As `random_free`, but between neurons that live; others only where these have no room.

    Args:
        site: The layer.
        taken: Its positions that are taken.
        count: How many to draw.
        alive: Which rows and which columns live, bool ``[rows]`` and ``[columns]``.
    """
    ends = taken.rows, taken.csr()[1].long()
    # The matrix of those alive, with the places of its rows and columns in the whole one.
    places = [side.nonzero().view(-1) for side in alive]
    row, column = (side.cumsum(0)[end] - 1 for side, end in zip(alive, ends, strict=True))
    height, width = (place.numel() for place in places)
    if not height or not width:
        return random_free(site, taken, count)
    inside = alive[0][ends[0]] & alive[1][ends[1]]
    part = Topology((height, width), (row * width + column)[inside])
    found = random_free(site, part, min(count, height * width - part.nnz))
    found = places[0][found // width] * taken.matrix_shape[1] + places[1][found % width]
    return torch.cat([found, random_free(site, taken.joined(found), count - found.numel())])


# Entries with a number in them, as their papers or the studies of them have it.
for _name, _entry in {
    "random": GrowScore(says="Uniformly at random, without replacement."),
    "random-unfired": GrowScore(
        seen=True, says="Uniformly at random among positions never active; then anywhere."
    ),
    "bernoulli": GrowScore(
        exact=False, says="A coin for each free position: the number is right on average only."
    ),
    "momentum": momentum(0.9, history=20),
    "momentum-by-neuron": momentum_by_neuron(0.9, history=20, least=10),
    "mix": mix(0.5, gradient),
    "sampled-gradient": sampled(1.0, guided=False),
    "guided-gradient": sampled(1.0, guided=True),
    "exploring-gradient": exploring(1e-3),
    "cosine-until-plateau": cosine_until_plateau(40),
    "outer-importance": outer(input_strength),
    "gradient-by-input": by_input(0.2),
}.items():
    register_score(GROW_SCORES, _name, _entry)
