"""Optimisers under a topology that changes."""

from regrow.optim.carry import carry_state

__all__ = ["carry_state"]
