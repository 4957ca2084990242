"""How alike the rules are that say which connections to drop."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from regrow.evolution import Evolution
from regrow.evolution.scores import DROP_SCORES, DropScore
from regrow.evolution.site import Site
from regrow.topology.select import without_lowest

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Similarity:
    """What ``drop_similarity`` found.

    Attributes:
        names: The rules.
        layers: Jaccard index of every pair of rules in every layer, by path: ``[rules, rules]``,
            symmetric, 1 on the diagonal.
        left_out: Rules that could not be asked, and why.
    """

    names: tuple[str, ...]
    layers: dict[str, Floats]
    left_out: dict[str, str]

    @property
    def mean(self) -> Floats:
        """Mean over the layers ``[rules, rules]``."""
        mean: Floats = np.mean(list(self.layers.values()), axis=0)
        return mean

    def of(self, first: str, second: str) -> float:
        """Mean over the layers of one pair of rules.

        Raises:
            ValueError: A rule was not asked.
        """
        return float(self.mean[self.names.index(first), self.names.index(second)])


def drop_similarity(
    evolution: Evolution,
    backward: Callable[[], object] | None = None,
    *,
    rules: Iterable[str] | Mapping[str, DropScore] | None = None,
    fraction: float | None = None,
) -> Similarity:
    """Ask every drop rule about one and the same state, and compare what they would drop.

    Nothing is changed: not the network, its gradients or its optimiser, nor the evolution, its
    memory or its random numbers. Each rule drops the same number of each layer's connections, the
    lowest of its scores; rules that decide a number of their own are given this one too. Chance
    alone has two rules agree in ``fraction / (2 - fraction)``.

    Args:
        evolution: Of the network in question.
        backward: Runs a forward and a backward pass of the model, for rules that look at
            gradients; if None they see those that there are.
        rules: Names of registered drop scores, or the scores themselves by name; all that are
            registered if None, as far as they can be asked.
        fraction: Share to drop, in (0, 1); that of the evolution's method at this step if None.

    Returns:
        The Jaccard index, shared over united, of the dropped connections of every pair.

    Raises:
        ValueError: A rule is unknown, or the fraction is out of range.

    Example:
        >>> import regrow
        >>> model = regrow.SparseLinear(64, 32, density=0.2)
        >>> evolution = Evolution(model, torch.optim.SGD(model.parameters(), lr=0.1), every=None)
        >>> found = drop_similarity(evolution, rules=["magnitude", "sign-split", "random"],
        ...                         fraction=0.2)
        >>> found.of("magnitude", "sign-split") > 0.7 > found.of("magnitude", "random")
        True

    References:
        A. I. Nowak, B. Grooten, D. C. Mocanu, J. Tabor, "Fantastic weights and how to find them:
        where to prune in dynamic sparse training", 2023.
    """
    asked = _asked(rules)
    sites = evolution.sites() if backward is None else evolution.probe(backward)
    if fraction is None:
        fraction = next(iter(sites.values())).fraction
    if not 0 < fraction < 1:
        raise ValueError(f"fraction to drop must be in (0, 1), got {fraction}")
    dropped: dict[str, dict[str, Tensor]] = {}
    left_out: dict[str, str] = {}
    for name, rule in asked.items():
        try:
            dropped[name] = {
                path: _dropped(rule, _aside(site), fraction) for path, site in sites.items()
            }
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            if rules is not None:
                raise
            left_out[name] = str(error)
    if not dropped:
        raise ValueError(f"a drop rule at least must be asked, got none; left out: {left_out}")
    names = tuple(dropped)
    layers = {path: _jaccard([dropped[name][path] for name in names]) for path in sites}
    return Similarity(names, layers, left_out)


def _asked(rules: Iterable[str] | Mapping[str, DropScore] | None) -> dict[str, DropScore]:
    if isinstance(rules, Mapping):
        return dict(rules)
    names = list(DROP_SCORES) if rules is None else list(rules)
    for name in names:
        if name not in DROP_SCORES:
            raise ValueError(
                f"drop rule must be one of {', '.join(sorted(DROP_SCORES))}, got {name!r}"
            )
    return {name: DROP_SCORES[name] for name in names}


def _aside(site: Site) -> Site:
    """A site whose random numbers and memory are copies."""
    generator = torch.Generator()
    generator.set_state(site.generator.get_state())
    return replace(site, generator=generator, memory=dict(site.memory))


@torch.no_grad()
def _dropped(rule: DropScore, site: Site, fraction: float) -> Tensor:
    if missing := {tracker.name for tracker in rule.tracks} - set(site.tracked):
        raise ValueError(
            f"drop rule needs numbers that the evolution does not track: {', '.join(missing)}"
        )
    count = round(fraction * site.topology.nnz)
    if rule.keep is not None:
        return ~rule.keep(site, count).cpu()
    scores = rule.score(site).detach().cpu().double()
    # As in an update: what is no number goes first.
    return ~without_lowest(torch.where(scores.isnan(), -torch.inf, scores), count)


def _jaccard(dropped: list[Tensor]) -> Floats:
    sets = torch.stack(dropped).double()
    shared = sets @ sets.t()
    sizes = shared.diagonal()
    united = sizes[:, None] + sizes[None, :] - shared
    return torch.where(united > 0, shared / united.clamp(min=1), 1.0).numpy()
