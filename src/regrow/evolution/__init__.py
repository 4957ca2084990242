"""Evolution: dropping and growing connections while a network learns."""

from regrow.evolution import drop as _drop
from regrow.evolution import grow as _grow
from regrow.evolution import named as _named
from regrow.evolution import neurons as _neurons
from regrow.evolution.budgets import Parts
from regrow.evolution.engine import Evolution
from regrow.evolution.importance import ImportancePruning
from regrow.evolution.methods import Method, methods, register
from regrow.evolution.record import LayerUpdate, UpdateRecord
from regrow.evolution.scores import DropScore, GrowScore, drop_score, grow_place, grow_score
from regrow.evolution.site import Candidates, Site
from regrow.evolution.trackers import AGE, Tracker

__all__ = [
    "AGE",
    "Candidates",
    "DropScore",
    "Evolution",
    "GrowScore",
    "ImportancePruning",
    "LayerUpdate",
    "Method",
    "Parts",
    "Site",
    "Tracker",
    "UpdateRecord",
    "drop_score",
    "grow_place",
    "grow_score",
    "methods",
    "register",
]

# Importing the catalogues fills the registries.
del _drop, _grow, _named, _neurons
