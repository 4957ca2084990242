"""The named methods: compositions with their papers' defaults."""

from __future__ import annotations

from regrow.evolution.methods import Method, register
from regrow.evolution.schedules import Constant, Cosine
from regrow.evolution.starts import Normal

register(
    Method(
        name="static",
        every=None,
        source="the random start that evolving methods are compared with",
    )
)
register(
    Method(
        name="set",
        drop="sign-split",
        grow="random",
        fraction=Constant(0.3),
        every="epoch",
        start=Normal(0.1),
        regrow=True,
        source="D. C. Mocanu, E. Mocanu, P. Stone, P. H. Nguyen, M. Gibescu, A. Liotta, "
        '"Scalable training of artificial neural networks with adaptive sparse connectivity '
        'inspired by network science", 2018',
        differs="drops exactly the fraction (the published code also drops threshold ties); "
        "the final removal without growth is a call of its own, Evolution.prune()",
    )
)
register(
    Method(
        name="rigl",
        drop="magnitude",
        grow="gradient",
        fraction=Cosine(0.3),
        every=100,
        until=25_000,
        start="zero",
        regrow=True,
        source="U. Evci, T. Gale, J. Menick, P. S. Castro, E. Elsen, "
        '"Rigging the lottery: making all tickets winners", 2020',
        differs="the update follows an optimiser step instead of replacing it",
    )
)
