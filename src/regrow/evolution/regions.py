"""Where an update may work: which connections go, which positions are free, gate by gate or not."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from regrow.evolution.growth import best_free, grow_random
from regrow.evolution.scores import GrowFunction, Site
from regrow.topology import Topology
from regrow.topology.select import without_lowest


def taken(site: Site, keep: Tensor, regrow: bool) -> Topology:
    """Positions of a layer at which nothing can grow.

    Args:
        site: The layer.
        keep: Which of its connections stay, bool ``[nnz]``.
        regrow: Whether the places of the others are free at once.
    """
    topology, closed = site.topology, site.layer.closed
    if closed is None and not regrow:
        return topology
    blocked = torch.empty(0, dtype=torch.int64) if closed is None else closed
    stay = keep if regrow else torch.ones_like(keep)
    return topology.rewire(stay, blocked).topology


def kept_in_gates(site: Site, scores: Tensor, fraction: float, grows: bool) -> Tensor:
    """Drop a fraction of the connections of every gate of a layer by itself.

    Args:
        site: A layer with row groups, which are its gates.
        scores: Drop scores ``[nnz]``.
        fraction: Share of each gate's connections to drop.
        grows: Whether as many are to grow again, for which there must be room.

    Returns:
        Which connections stay, bool ``[nnz]``.
    """
    kept = []
    for rows, slots in _gates(site):
        part = scores[slots]
        most = max(0, part.numel() - 1)
        if grows:
            positions = (rows.stop - rows.start) * site.topology.matrix_shape[1]
            most = min(most, positions - part.numel())
        kept.append(without_lowest(part, min(round(fraction * part.numel()), most)))
    return torch.cat(kept)


def grown_in_gates(site: Site, busy: Topology, keep: Tensor, score: GrowFunction | None) -> Tensor:
    """Grow in every gate of a layer as many connections as it has dropped.

    Args:
        site: A layer with row groups, which are its gates.
        busy: Positions of the layer that are not free.
        keep: Which connections stay, bool ``[nnz]``.
        score: Grow score; None grows uniformly at random.

    Returns:
        Flat positions int64.
    """
    indptr, indices = busy.csr()
    columns = busy.matrix_shape[1]
    grown = []
    for rows, slots in _gates(site):
        pointers = indptr[rows.start : rows.stop + 1]
        own = indices[int(pointers[0]) : int(pointers[-1])]
        shape = (rows.stop - rows.start, columns)
        part = Topology.from_csr(shape, pointers - pointers[0], own)
        count = int((~keep[slots]).sum())
        if score is None:
            new = grow_random([part], count, site.generator)[0]
        else:
            new = best_free(site, part, count, score, rows.start)[1]
        grown.append(new + rows.start * columns)
    return torch.cat(grown)


def _gates(site: Site) -> Iterator[tuple[slice, slice]]:
    """Rows of each gate, and its connections among those of the layer."""
    indptr = site.topology.csr()[0]
    for rows in site.layer.row_groups.values():
        yield rows, slice(int(indptr[rows.start]), int(indptr[rows.stop]))
