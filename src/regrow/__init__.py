"""Truly sparse training of neural networks that drop and grow their own connections.

Every public name is importable from here. Each is loaded on first use, so `import regrow` itself
imports neither torch nor any other dependency. The estimators need scikit-learn, an extra, so
`from regrow import *` leaves them out.
"""

from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from regrow import export, measure
    from regrow.estimators import SparseAutoencoder as SparseAutoencoder
    from regrow.estimators import SparseMLPClassifier as SparseMLPClassifier
    from regrow.estimators import SparseMLPRegressor as SparseMLPRegressor
    from regrow.estimators import SparseRBM as SparseRBM
    from regrow.evolution import Evolution, Method
    from regrow.evolution.methods import methods
    from regrow.layers import (
        AllReLU,
        Grasp,
        Magnitude,
        Snip,
        SparseConv1d,
        SparseConv2d,
        SparseConv3d,
        SparseEmbedding,
        SparseGRU,
        SparseLinear,
        SparseLSTM,
        SparseMultiheadAttention,
        SparseRNN,
        SReLU,
        SynFlow,
        compact,
        densify,
        describe,
        sparse_layers,
        sparsify,
        tie,
    )
    from regrow.layers.align import align
    from regrow.topology import Block, FanIn, NofM, Topology

    __version__: str
    _native: Any  # the C++ extension, where it could be built

__all__ = [
    "AllReLU",
    "Block",
    "Evolution",
    "FanIn",
    "Grasp",
    "Magnitude",
    "Method",
    "NofM",
    "SReLU",
    "Snip",
    "SparseConv1d",
    "SparseConv2d",
    "SparseConv3d",
    "SparseEmbedding",
    "SparseGRU",
    "SparseLSTM",
    "SparseLinear",
    "SparseMultiheadAttention",
    "SparseRNN",
    "SynFlow",
    "Topology",
    "__version__",
    "align",
    "compact",
    "densify",
    "describe",
    "export",
    "measure",
    "methods",
    "sparse_layers",
    "sparsify",
    "tie",
]

# Public name -> the subpackage that holds it.
_ROOMS = {
    "AllReLU": "layers",
    "Block": "topology",
    "Evolution": "evolution",
    "FanIn": "topology",
    "Grasp": "layers",
    "Magnitude": "layers",
    "Method": "evolution",
    "NofM": "topology",
    "SReLU": "layers",
    "Snip": "layers",
    "SparseConv1d": "layers",
    "SparseConv2d": "layers",
    "SparseConv3d": "layers",
    "SparseEmbedding": "layers",
    "SparseGRU": "layers",
    "SparseLSTM": "layers",
    "SparseLinear": "layers",
    "SparseMultiheadAttention": "layers",
    "SparseRNN": "layers",
    "SynFlow": "layers",
    "Topology": "topology",
    "align": "layers",
    "compact": "layers",
    "densify": "layers",
    "describe": "layers",
    "export": "export",
    "measure": "measure",
    "methods": "evolution",
    "sparse_layers": "layers",
    "sparsify": "layers",
    "tie": "layers",
}


# Likewise, of what needs an extra.
_ROOMS_OF_EXTRAS = {
    "SparseAutoencoder": "estimators",
    "SparseMLPClassifier": "estimators",
    "SparseMLPRegressor": "estimators",
    "SparseRBM": "estimators",
}


if not TYPE_CHECKING:  # type checkers see the imports above, and refuse other names

    def __getattr__(name: str) -> object:
        """Load a public name the first time it is asked for, and keep it (PEP 562)."""
        if name == "__version__":
            value = version("regrow")
        elif place := _ROOMS.get(name) or _ROOMS_OF_EXTRAS.get(name):
            room = import_module(f"regrow.{place}")
            value = room if name == place else getattr(room, name)
        else:
            raise AttributeError(f"module 'regrow' has no attribute {name!r}")
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    more = _ROOMS_OF_EXTRAS if find_spec("sklearn") and find_spec("scipy") else ()
    return sorted({*globals(), *__all__, *more})
