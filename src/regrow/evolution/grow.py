"""Grow scores: the catalogue."""

from __future__ import annotations

from torch import Tensor

from regrow.evolution.scores import GROW_SCORES, GrowScore, grow_score, register_score
from regrow.evolution.site import Candidates, Site

# Uniformly at random.
register_score(GROW_SCORES, "random", GrowScore())
# Uniformly at random, and first among the positions that have never been active.
register_score(GROW_SCORES, "random-unfired", GrowScore(seen=True))


@grow_score("gradient", gradient=True)
def gradient(site: Site, candidates: Candidates) -> Tensor:
    """Absolute gradient of the loss at the position.

    References:
        U. Evci, T. Gale, J. Menick, P. S. Castro, E. Elsen, "Rigging the lottery: making all
        tickets winners", 2020.
    """
    return site.gradient(candidates).abs_()
