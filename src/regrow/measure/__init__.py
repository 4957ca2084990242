"""Counting what a sparse network has, does and explores."""

from regrow.measure.exploration import Exploration, expected_exploration
from regrow.measure.summary import LayerSummary, Summary, summary

__all__ = ["Exploration", "LayerSummary", "Summary", "expected_exploration", "summary"]
