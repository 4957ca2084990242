"""Drop scores: the catalogue."""

from __future__ import annotations

import torch
from torch import Tensor

from regrow.evolution.scores import drop_score
from regrow.evolution.site import Site
from regrow.topology.select import without_nearest_zero


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
    return (site.values * site.grad).abs()
