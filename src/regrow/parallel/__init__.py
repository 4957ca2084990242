"""Sparse training in several processes that need not wait for each other: WASAP-SGD."""

from regrow.parallel.plan import Plan
from regrow.parallel.server import Tally
from regrow.parallel.shards import Batches, Shards
from regrow.parallel.simulate import simulate
from regrow.parallel.trained import Trained
from regrow.parallel.wasap import train

__all__ = ["Batches", "Plan", "Shards", "Tally", "Trained", "simulate", "train"]
