"""Optimisers under a topology that changes."""

from regrow.optim.average import AveragedModel, union_average
from regrow.optim.carry import carry_state
from regrow.optim.decay import decayed
from regrow.optim.local_age_adam import LocalAgeAdam
from regrow.optim.rates import scaled_by_density
from regrow.optim.snt_asgd import SNTASGD

__all__ = [
    "SNTASGD",
    "AveragedModel",
    "LocalAgeAdam",
    "carry_state",
    "decayed",
    "scaled_by_density",
    "union_average",
]
