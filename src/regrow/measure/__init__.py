"""Counting what a sparse network has, does and explores."""

from regrow.measure.exploration import Exploration
from regrow.measure.summary import LayerSummary, Summary, summary

__all__ = ["Exploration", "LayerSummary", "Summary", "summary"]
