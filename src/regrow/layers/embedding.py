"""An embedding table that stores its connections only."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from regrow.kernels import dispatch, lookup
from regrow.layers import weight_gradient
from regrow.layers.base import SparseLayer, given_topology
from regrow.layers.conversion import Start, register, take_weight
from regrow.topology import Topology
from regrow.topology.patterns import free_positions, sample_distinct


class SparseEmbedding(SparseLayer):
    """A lookup table of sparse vectors; stands where ``torch.nn.Embedding`` stood.

    In ``csr`` compute only the stored entries of the rows that are looked up are read, and nothing
    of the size of the dense table is ever made. The gradient of the values is an ordinary vector
    ``[nnz]``. Values start normal with deviation ``1/sqrt(density)``, which is torch's own start
    corrected for the missing connections.

    Args:
        num_embeddings: Rows of the table.
        embedding_dim: Size of each vector.
        padding_idx: A row that is zero always: it has no connection, and none can grow there.
        density: Kept fraction of the positions, in (0, 1], placed uniformly at random; rounded to
            a whole number of connections, at least one.
        topology: Instead of a density, the connections: ``(num_embeddings, embedding_dim)``.
        compute: ``auto`` (``csr``, unless most rows are looked up and ``dense`` is measured to be
            faster), ``csr`` or ``dense``.
        generator: CPU generator for places and values; torch's default one if None.
        device: Of the values.
        dtype: Of the values, float32 by default.

    Shape:
        Input ``(*)`` of integers in ``[0, num_embeddings)``, output ``(*, embedding_dim)``.

    Raises:
        ValueError: A density outside (0, 1], both or neither of density and topology, a topology
            of another shape or with connections in the padding row, a padding row that is not
            there, or an unknown compute.

    Example:
        >>> layer = SparseEmbedding(10_000, 64, padding_idx=0, density=0.05)
        >>> layer
        SparseEmbedding(10000, 64, padding_idx=0, density=0.05, connections=32000, compute=auto)
        >>> layer(torch.tensor([[1, 5, 0], [7, 0, 0]])).shape
        torch.Size([2, 3, 64])
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        *,
        density: float | None = None,
        topology: Topology | None = None,
        compute: str = "auto",
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        shape = (num_embeddings, embedding_dim)
        padding_idx = _row(padding_idx, num_embeddings)
        drawn = density is not None
        topology = given_topology(type(self).__name__, shape, density, topology, generator)
        if drawn:
            topology = _without_row(topology, padding_idx, generator)
        self._check_padding(topology, padding_idx)
        super().__init__(topology, torch.empty(topology.nnz, device=device, dtype=dtype), compute)
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        self.padding_idx = padding_idx
        self.reset_parameters(generator)

    def forward(self, ids: Tensor) -> Tensor:
        """Look up the vectors of ``(*)`` ids, as ``(*, embedding_dim)``.

        Raises:
            TypeError: The ids are not int32 or int64.
            IndexError: An id is outside ``[0, num_embeddings)``.
        """
        if ids.dtype not in (torch.int32, torch.int64):
            raise TypeError(f"ids of SparseEmbedding must be int32 or int64, got {ids.dtype}")
        training = torch.is_grad_enabled() and self.values.requires_grad
        csr = self.topology.csr()
        flat = ids.reshape(-1)
        y = lookup.lookup(flat, self.values, *csr, self.embedding_dim, self._compute, training)
        return y.view(*ids.shape, self.embedding_dim)

    def _closed(self) -> Tensor | None:
        """Positions of the padding row."""
        if self.padding_idx is None:
            return None
        first = self.padding_idx * self.embedding_dim
        return torch.arange(first, first + self.embedding_dim, device=self.topology.device)

    def situation(self, x: Tensor) -> dispatch.Situation:
        """Where ``auto`` files its decision on training steps with as many ids."""
        return lookup.situation(x, self.values, *self.topology.matrix_shape, training=True)

    def start_values(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw values as this layer draws its first ones: normal, scaled to the density."""
        drawn = torch.randn(count, dtype=self.values.dtype, generator=generator)
        return drawn.div_(math.sqrt(self.density)).to(self.values.device)

    def gradient_block(self, x: Tensor, grad: Tensor, rows: slice) -> Tensor:
        """Gradient of rows, from ids ``[batch]`` and output gradient ``[batch, columns]``."""
        return weight_gradient.block(x, grad, rows, self.values.dtype)

    def gradient_pairs(self, x: Tensor, grad: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """Gradient of the table at single positions: zero in rows that were not looked up."""
        return weight_gradient.pairs(x, grad, rows, columns, self.values.dtype)

    def _check_topology(self, topology: Topology) -> None:
        self._check_padding(topology, self.padding_idx)

    @classmethod
    def _check_padding(cls, topology: Topology, row: int | None) -> None:
        cls._check_row(topology.csr()[0], row)

    @staticmethod
    def _check_row(indptr: Tensor, row: int | None) -> None:
        if row is not None and (count := int(indptr[row + 1] - indptr[row])):
            raise ValueError(
                f"topology of SparseEmbedding must have no connection in row {row}, which is "
                f"padding, got {count}"
            )

    def extra_repr(self) -> str:
        """Sizes, density and compute."""
        padding = "" if self.padding_idx is None else f"padding_idx={self.padding_idx}, "
        return (
            f"{self.num_embeddings}, {self.embedding_dim}, {padding}density={self.density:.4g}, "
            f"connections={self.topology.nnz}, compute={self.compute}"
        )


def _row(padding_idx: int | None, rows: int) -> int | None:
    """The padding row counted from the front, as torch counts it."""
    if padding_idx is None:
        return None
    if not -rows <= padding_idx < rows:
        raise ValueError(
            f"padding_idx of SparseEmbedding must be in [{-rows}, {rows}), got {padding_idx}"
        )
    return padding_idx % rows


def _without_row(
    topology: Topology, row: int | None, generator: torch.Generator | None
) -> Topology:
    """Connections of one row moved to random free places elsewhere, as far as there are any."""
    if row is None:
        return topology
    columns = topology.matrix_shape[1]
    keep = topology.rows != row
    moved = topology.nnz - int(keep.sum())
    own = torch.arange(row * columns, (row + 1) * columns)
    rest = topology.kept(keep)
    taken = rest.joined(own)
    free = taken.shape.numel() - taken.nnz
    ranks = sample_distinct(free, min(moved, free), generator)
    return rest.joined(free_positions(taken, ranks))


class _EmbeddingConversion:
    layout = "rows"

    def parameters(self, module: nn.Embedding) -> tuple[str]:
        return ("weight",)

    def weights(self, module: nn.Embedding) -> dict[str, Tensor]:
        return {"": module.weight.detach()}

    def shapes(self, module: nn.Embedding) -> dict[str, tuple[int, ...]]:
        for name in ("max_norm", "scale_grad_by_freq", "sparse"):
            if getattr(module, name):
                raise ValueError(
                    f"an embedding to make sparse must not have {name}={getattr(module, name)}; "
                    f"exclude it from sparsify"
                )
        return {"": tuple(module.weight.shape)}

    def sparse(
        self, module: nn.Embedding, topologies: Mapping[str, Topology], start: Start
    ) -> SparseEmbedding:
        topology = _without_row(topologies[""], module.padding_idx, start.generator)
        layer = SparseEmbedding(
            module.num_embeddings,
            module.embedding_dim,
            module.padding_idx,
            topology=topology,
            compute=start.compute,
            generator=start.generator,
            device=module.weight.device,
            dtype=module.weight.dtype,
        )
        take_weight(layer, module.weight, topology, start)
        return layer

    def dense(self, layer: SparseEmbedding) -> nn.Embedding:
        dense = nn.Embedding(
            layer.num_embeddings,
            layer.embedding_dim,
            layer.padding_idx,
            device=layer.values.device,
            dtype=layer.values.dtype,
        )
        with torch.no_grad():
            dense.weight.copy_(layer.weight)
        dense.weight.requires_grad_(layer.values.requires_grad)
        return dense


register(nn.Embedding, SparseEmbedding, _EmbeddingConversion())
