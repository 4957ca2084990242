"""Layers whose weight is a vector of values and a topology."""

from regrow.layers.align import align
from regrow.layers.base import SparseLayer, sparse_layers
from regrow.layers.convert import densify, sparsify
from regrow.layers.linear import SparseLinear

__all__ = ["SparseLayer", "SparseLinear", "align", "densify", "sparse_layers", "sparsify"]
