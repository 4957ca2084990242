"""Singular values of a layer: of its weight, or of its topology alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regrow.layers import SparseLayer
from regrow.measure._extra import require
from regrow.topology import Topology

Floats = NDArray[np.float64]

# Up to this many rows or columns all singular values are found, by a dense decomposition.
_DENSE = 2048
_FEW = 16


@dataclass(frozen=True)
class Spectrum:
    """Singular values of one layer and what follows from them.

    Attributes:
        values: Singular values, falling; all, or the greatest ones.
        complete: Whether these are all.
        norm: Root of the sum of squares of all entries, which is that of all singular values.
        degrees: Mean connections of a row and of a column.
    """

    values: Floats
    complete: bool
    norm: float
    degrees: tuple[float, float]

    @property
    def largest(self) -> float:
        """Greatest singular value: how much the layer stretches at most."""
        return float(self.values[0])

    @property
    def gap(self) -> float:
        """Greatest less second greatest; a wide gap in a topology means that it mixes well."""
        return float(self.values[0] - self.values[1]) if self.values.size > 1 else self.largest

    @property
    def stable_rank(self) -> float:
        """Sum of squares over the greatest square, in [1, rank]."""
        return (self.norm / self.largest) ** 2 if self.largest else 0.0

    @property
    def effective_rank(self) -> float:
        """``exp`` of the entropy of the singular values as shares of their sum, in [1, rank].

        NaN where not all are known.

        References:
            O. Roy, M. Vetterli, "The effective rank: a measure of effective dimensionality", 2007.
        """
        if not self.complete:
            return math.nan
        positive = self.values[self.values > 0]
        share = positive / positive.sum()
        return float(np.exp(-(share * np.log(share)).sum()))

    @property
    def ramanujan_bound(self) -> float:
        """``sqrt(r - 1) + sqrt(c - 1)``, with the mean degrees of rows and columns.

        A regular bipartite graph is a Ramanujan graph, as good an expander as there can be, where
        the second singular value of its topology is at most this. Of a random topology, whose
        degrees differ, it is approximately a bound. It means nothing for weights.

        References:
            B. Pal, A. Biswas, S. Kolay, P. Mitra, B. Basu, "A study on the Ramanujan graph property
            of winning lottery tickets", 2022.
        """
        return sum(math.sqrt(max(0.0, degree - 1)) for degree in self.degrees)

    @property
    def ramanujan_margin(self) -> float:
        """Bound less second singular value: at least zero for a Ramanujan graph."""
        second = float(self.values[1]) if self.values.size > 1 else 0.0
        return self.ramanujan_bound - second


def spectrum(weight: SparseLayer | Topology, *, count: int | None = None) -> Spectrum:
    """Singular values of a weight as the matrix (rows, all other axes).

    Needs SciPy (``pip install regrow[analysis]``) where only the greatest values are found.

    Args:
        weight: A sparse layer, for its values; or a topology, for a 1 at each connection.
        count: How many of the greatest to find; all if None, or 16 where rows and columns are more
            than 2048.

    Raises:
        ValueError: ``count`` is less than 1.

    Example:
        >>> import torch
        >>> found = spectrum(Topology((3, 3), torch.arange(9)))  # every connection
        >>> round(found.largest, 6), round(found.gap, 6), round(found.effective_rank, 6)
        (3.0, 3.0, 1.0)
        >>> found = spectrum(Topology((3, 3), torch.tensor([0, 4, 8])))  # the identity
        >>> found.values.tolist(), found.gap, found.stable_rank
        ([1.0, 1.0, 1.0], 0.0, 2.9999999999999996)
    """
    if count is not None and count < 1:
        raise ValueError(f"count of singular values must be at least 1, got {count}")
    topology = weight if isinstance(weight, Topology) else weight.topology
    if isinstance(weight, Topology):
        entries = np.ones(topology.nnz)
    else:
        entries = weight.values.detach().cpu().double().numpy()
    rows, columns = topology.matrix_shape
    least = min(rows, columns)
    wanted = count if count is not None else (least if least <= _DENSE else _FEW)
    found: Floats
    if least <= _DENSE:
        matrix = np.zeros(rows * columns)
        matrix[topology.positions.cpu().numpy()] = entries
        dense = matrix.reshape(rows, columns)
        found = np.asarray(np.linalg.svd(dense, compute_uv=False)[:wanted], dtype=np.float64)
    else:
        found = _greatest(topology, entries, min(wanted, least - 1))
    return Spectrum(
        values=found,
        complete=found.size == least,
        norm=float(np.linalg.norm(entries)),
        degrees=(topology.nnz / rows, topology.nnz / columns),
    )


def _greatest(topology: Topology, entries: Floats, count: int) -> Floats:
    require("scipy", "spectrum of a weight this large")
    from scipy.sparse import csr_array
    from scipy.sparse.linalg import svds

    indptr, indices = (part.cpu().numpy() for part in topology.csr())
    matrix: Any = csr_array((entries, indices, indptr), shape=topology.matrix_shape)
    start = np.random.default_rng(0).standard_normal(min(matrix.shape))
    found = svds(matrix, k=count, return_singular_vectors=False, v0=start)
    return np.sort(found)[::-1].copy()
