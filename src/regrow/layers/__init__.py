"""Layers whose weight is a vector of values and a topology."""

from regrow.layers import convert_recurrent  # noqa: F401 - makes its modules known to sparsify
from regrow.layers.activations import AllReLU, SReLU
from regrow.layers.align import align
from regrow.layers.attention import SparseMultiheadAttention
from regrow.layers.base import SparseLayer, sparse_layers, tie
from regrow.layers.compaction import compact
from regrow.layers.conv import SparseConv1d, SparseConv2d, SparseConv3d
from regrow.layers.convert import densify, sparsify
from regrow.layers.criteria import Grasp, Magnitude, Snip, SynFlow
from regrow.layers.description import describe
from regrow.layers.embedding import SparseEmbedding
from regrow.layers.layout import share_layouts
from regrow.layers.linear import SparseLinear
from regrow.layers.projection import SparseProjection
from regrow.layers.recurrent import SparseGRU, SparseLSTM, SparseRNN

__all__ = [
    "AllReLU",
    "Grasp",
    "Magnitude",
    "SReLU",
    "Snip",
    "SparseConv1d",
    "SparseConv2d",
    "SparseConv3d",
    "SparseEmbedding",
    "SparseGRU",
    "SparseLSTM",
    "SparseLayer",
    "SparseLinear",
    "SparseMultiheadAttention",
    "SparseProjection",
    "SparseRNN",
    "SynFlow",
    "align",
    "compact",
    "densify",
    "describe",
    "share_layouts",
    "sparse_layers",
    "sparsify",
    "tie",
]
