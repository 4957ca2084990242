"""Drop scores: the catalogue. The lowest go; each is registered under its name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from regrow.evolution.scores import (
    DROP_SCORES,
    DropFunction,
    DropScore,
    described,
    drop_score,
    register_score,
)
from regrow.evolution.site import Site
from regrow.evolution.trackers import Tracker
from regrow.topology import Topology
from regrow.topology.select import without_nearest_zero

# Keeps quotients finite where a value or a gradient is 0.
_SMALL = 1e-8

Importance = Callable[[Site], tuple[Tensor | None, Tensor | None]]


@drop_score("magnitude")
def magnitude(site: Site) -> Tensor:
    """|w|: the weights nearest zero go."""
    return site.values.abs()


def _nearest_zero_by_sign(site: Site, count: int) -> Tensor:
    return without_nearest_zero(site.values, count)


@drop_score("sign-split", keep=_nearest_zero_by_sign)
def sign_split(site: Site) -> Tensor:
    """Rank of |w| among the weights of the same sign, as a share of their number.

    The lowest fraction of this score is the fraction nearest zero of the positive weights and of
    the negative weights each, which is SET's rule. Zeros count as positive.

    References:
        D. C. Mocanu et al., "Scalable training of artificial neural networks with adaptive sparse
        connectivity inspired by network science", 2018.
    """
    return _shares_by_sign(site.values)


@drop_score("sign-half")
def sign_half(site: Site) -> Tensor:
    """Rank of |w| among the weights of the same sign: half of what goes has each sign.

    Where one sign has too few, the rest is of the other. Zeros count as positive.

    References:
        A. I. Nowak, B. Grooten, D. C. Mocanu, J. Tabor, "Fantastic weights and how to find them:
        where to prune in dynamic sparse training", 2023.
    """
    ranks, _ = _ranks_by_sign(site.values)
    return ranks


@drop_score("random")
def random(site: Site) -> Tensor:
    """A uniform random number: any connection may go."""
    return torch.rand(site.topology.nnz, generator=site.generator).to(site.values.device)


@drop_score("snip", before=True)
def snip(site: Site) -> Tensor:
    """|w g|: how much the loss changes to first order if the connection goes.

    References:
        N. Lee, T. Ajanthan, P. H. S. Torr, "SNIP: single-shot network pruning based on connection
        sensitivity", 2019.
    """
    return (site.values * site.grad).abs()


@drop_score("signed-snip", before=True)
def signed_snip(site: Site) -> Tensor:
    """-w g: those without which the loss falls most go, those without which it rises stay."""
    return -site.values * site.grad


@drop_score("snip-half", before=True)
def snip_half(site: Site) -> Tensor:
    """Rank of |w g| from its nearer end: half of what goes is lowest, half is highest."""
    ranks = (site.values * site.grad).abs().argsort().argsort()
    return torch.minimum(ranks, ranks.numel() - 1 - ranks).to(torch.float64)


@drop_score("taylor", before=True)
def taylor(site: Site) -> Tensor:
    """(w g)^2: the squared first-order change of the loss.

    References:
        P. Molchanov, A. Mallya, S. Tyree, I. Frosio, J. Kautz, "Importance estimation for neural
        network pruning", 2019.
    """
    return (site.values * site.grad).square()


@drop_score("sensitivity", before=True)
def sensitivity(site: Site) -> Tensor:
    """|g| / |w|: large weights that the loss does not ask to change go."""
    return site.grad.abs() / (site.values.abs() + _SMALL)


@drop_score("reciprocal-sensitivity", before=True)
def reciprocal_sensitivity(site: Site) -> Tensor:
    """|w| / |g|: small weights that the loss still moves go.

    References:
        A. I. Nowak, B. Grooten, D. C. Mocanu, J. Tabor, "Fantastic weights and how to find them:
        where to prune in dynamic sparse training", 2023.
    """
    return site.values.abs() / (site.grad.abs() + _SMALL)


@described
def mest(weight: float) -> DropScore:
    """|w| + weight |g|: small weights that the loss does not move either go.

    Args:
        weight: Of the gradient; 0 leaves the magnitude.

    References:
        G. Yuan et al., "MEST: accurate and fast memory-economic sparse training framework on the
        edge", 2021.
    """

    def score(site: Site) -> Tensor:
        return site.values.abs() + weight * site.grad.abs()

    return DropScore(score, before=True)


@described
def gradient_step(rate: float) -> DropScore:
    """|w - rate g|: the magnitude after one more step of gradient descent.

    Args:
        rate: Of the step.
    """

    def score(site: Site) -> Tensor:
        return (site.values - rate * site.grad).abs()

    return DropScore(score, before=True)


@described
def running(name: str, measure: DropFunction, decay: float, before: bool = False) -> DropScore:
    """Exponential mean of a score over all optimiser steps since the connection was grown.

    Args:
        name: Of the tracker.
        measure: The score of one moment.
        decay: Weight of the past at each step, in [0, 1).
        before: Whether it looks at values and gradients before the optimiser step.

    Example:
        >>> slow = running("slow-magnitude", magnitude, decay=0.99)
        >>> slow.tracks[0].name
        'slow-magnitude'
    """

    def update(site: Site, mean: Tensor) -> Tensor:
        return decay * mean + (1 - decay) * measure(site)

    return DropScore(lambda site: site.tracked[name], tracks=(Tracker(name, update, 0.0, before),))


@described
def soft_magnitude(power: float) -> DropScore:
    """Keeps a random sample, drawn without replacement in proportion to ``|w| ** power``.

    Args:
        power: The higher, the nearer to the magnitude itself; 0 is uniform.

    References:
        B. Grooten et al., "NeuroTrails: training with dynamic sparse heads as the key to effective
        ensembling", 2025.
    """

    def score(site: Site) -> Tensor:
        waits = torch.empty(site.topology.nnz, dtype=torch.float64)
        waits.exponential_(generator=site.generator)
        return power * site.values.abs().double().log() - waits.log().to(site.values.device)

    return DropScore(score)


@described
def threshold(level: float) -> DropScore:
    """All weights with |w| <= level go, however many they are.

    Args:
        level: Not negative.
    """

    def count(sites: Sequence[Site], asked: int) -> list[int]:
        return [int((site.values.abs() <= level).sum()) for site in sites]

    return DropScore(lambda site: site.values.abs(), count=count)


@described
def adaptive_threshold(start: float, tolerance: float, rounds: int) -> DropScore:
    """All weights with |w| <= a level go, one level for all layers, that adapts itself.

    Where fewer go than the fraction asks for, by more than the tolerance, the level is doubled,
    where more go it is halved: for the next update, or at once.

    Args:
        start: First level.
        tolerance: Share of what is asked for by which the number may miss it.
        rounds: How often the level is tried anew within an update; 1 waits for the next one.

    References:
        H. Mostafa, X. Wang, "Parameter efficient training of deep convolutional neural networks by
        dynamic sparse reparameterization", 2019.
    """

    def count(sites: Sequence[Site], asked: int) -> list[int]:
        memory = sites[0].memory
        for _ in range(rounds):
            level = memory.get("threshold", start)
            counts = [int((site.values.abs() <= level).sum()) for site in sites]
            if abs(sum(counts) - asked) <= tolerance * asked:
                break
            memory["threshold"] = level * (2.0 if sum(counts) < asked else 0.5)
        return counts

    return DropScore(lambda site: site.values.abs(), count=count)


def _flipped(sites: Sequence[Site], asked: int) -> list[int]:
    return [int((sign_kept(site) < 0).sum()) for site in sites]


@drop_score(
    "sign-flip",
    count=_flipped,
    tracks=(Tracker("sign", lambda s, sign: torch.where(sign == 0, s.values.sign(), sign)),),
)
def sign_kept(site: Site) -> Tensor:
    """Sign(w at first) w: all that have crossed zero go, however many they are.

    References:
        G. Bellec, D. Kappel, W. Maass, R. Legenstein, "Deep rewiring: training very sparse deep
        networks", 2018.
    """
    return site.values * site.tracked["sign"]


def strength(site: Site) -> tuple[Tensor, Tensor]:
    """Importance of the neurons at both ends of a layer: the sum of |w| of each row and column.

    Returns:
        One number per row and one per column.
    """
    size, topology = site.values.abs(), site.topology
    return topology.sums(size, 0), topology.sums(size, 1)


@described
def neuron_weighted(importance: Importance) -> DropScore:
    """SET's rule on w times the importance of the neurons at its ends.

    Args:
        importance: From a site to one number per row and one per column; None counts as 1.

    References:
        G. Sokar, Z. Atashgahi, M. Pechenizkiy, D. C. Mocanu, "Where to pay attention in sparse
        training for feature selection?", 2022.
    """

    def score(site: Site) -> Tensor:
        values = site.values
        for of_neuron, end in zip(importance(site), _ends(site.topology), strict=True):
            if of_neuron is not None:
                values = values * of_neuron[end]
        return _shares_by_sign(values)

    return DropScore(score)


def input_strength(site: Site) -> tuple[None, Tensor]:
    """Importance of the inputs of a layer alone, as ``strength``."""
    return None, strength(site)[1]


# Entries with a number in them, as their papers or the studies of them have it.
for _name, _entry in {
    "mest": mest(1.0),
    "gradient-step": gradient_step(1.0),
    "running-magnitude": running("running-magnitude", magnitude, 0.9),
    "running-snip": running("running-snip", snip, 0.9, before=True),
    "soft-magnitude": soft_magnitude(3.0),
    "threshold": threshold(1e-3),
    "adaptive-threshold": adaptive_threshold(1e-3, tolerance=0.1, rounds=1),
    "neuron-weighted": neuron_weighted(input_strength),
}.items():
    register_score(DROP_SCORES, _name, _entry)


def normalised(rule: str | DropScore | DropFunction, by: str, of: str = "sum") -> DropScore:
    """A drop score divided by the sum, or the maximum, of its group: for comparison across groups.

    Args:
        rule: Score whose numbers are not negative: a name, a function or a ``DropScore``.
        by: Groups: ``layer``, ``row`` or ``column``.
        of: ``sum`` or ``max``.

    Raises:
        ValueError: The name, the groups or the statistic are unknown.

    Example:
        >>> import regrow
        >>> layer = regrow.SparseLinear(3, 2, topology=Topology((2, 3), torch.tensor([0, 1, 5])))
        >>> _ = layer.values.data.copy_(torch.tensor([1.0, -3.0, 5.0]))
        >>> normalised("magnitude", "row").score(Site("", layer, torch.Generator()))
        tensor([0.2500, 0.7500, 1.0000])
    """
    if isinstance(rule, str):
        if rule not in DROP_SCORES:
            raise ValueError(f"drop must be one of {', '.join(sorted(DROP_SCORES))}, got {rule!r}")
        rule = DROP_SCORES[rule]
    entry = rule if isinstance(rule, DropScore) else DropScore(rule)
    if of not in ("sum", "max"):
        raise ValueError(f"of a normalised score must be sum or max, got {of!r}")
    _check_groups("by of a normalised score", by)

    def score(site: Site) -> Tensor:
        plain = entry.score(site)
        group, count = _group(site.topology, by)
        reduce = "sum" if of == "sum" else "amax"
        whole = plain.new_zeros(count).scatter_reduce_(0, group, plain, reduce)
        return plain / torch.where(whole == 0, 1, whole)[group]

    return replace(entry, score=score, keep=None)


def rescaled(topology: Topology, values: Tensor, keep: Tensor, by: str) -> Tensor:
    """Values of the connections that stay, scaled so that the drop leaves a norm as it was.

    Args:
        topology: Connections before the drop.
        values: Their values ``[nnz]``.
        keep: Which stay, bool ``[nnz]``.
        by: What keeps its L2 norm: ``layer``, each ``row`` or each ``column``. Where all that
            stays is zero, it stays so.

    Returns:
        Values ``[nnz]``, those that go at zero.

    Example:
        >>> topology = Topology((2, 3), torch.tensor([0, 1, 5]))
        >>> keep = torch.tensor([False, True, True])
        >>> rescaled(topology, torch.tensor([3.0, 4.0, 2.0]), keep, "row")
        tensor([0., 5., 2.])
    """
    _check_groups("adjust", by)
    group, count = _group(topology, by)
    kept = values * keep
    before, after = (
        values.new_zeros(count).index_add_(0, group, part.square()) for part in (values, kept)
    )
    scale = torch.where(after == 0, 1, before / torch.where(after == 0, 1, after)).sqrt()
    return kept * scale[group]


def _check_groups(what: str, by: str) -> None:
    if by not in ("layer", "row", "column"):
        raise ValueError(f"{what} must be layer, row or column, got {by!r}")


def _ends(topology: Topology) -> tuple[Tensor, Tensor]:
    return topology.rows, topology.csr()[1].long()


def _group(topology: Topology, by: str) -> tuple[Tensor, int]:
    """Group of each connection, and the number of groups."""
    rows, columns = _ends(topology)
    if by == "layer":
        return torch.zeros_like(rows), 1
    return (rows if by == "row" else columns), topology.matrix_shape[0 if by == "row" else 1]


def _ranks_by_sign(values: Tensor) -> tuple[Tensor, Tensor]:
    """Place of |w| among the weights of the same sign, from 0, and how many of them there are."""
    ranks = torch.full_like(values, torch.nan, dtype=torch.float64)
    sizes = torch.ones_like(ranks)
    for part in (values < 0, values >= 0):
        order = torch.argsort(values[part].abs(), stable=True)
        rank = torch.arange(len(order), device=values.device, dtype=torch.float64)
        ranks[part] = torch.empty_like(rank).scatter_(0, order, rank)
        sizes[part] = len(order)
    return ranks, sizes


def _shares_by_sign(values: Tensor) -> Tensor:
    ranks, sizes = _ranks_by_sign(values)
    return (ranks + 0.5) / sizes
