"""Consecutive rows of one weight that have budgets of their own, as the parts of a fused one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

import torch

from regrow.topology import Topology
from regrow.topology.initial import Pattern

Parts = Sequence[str] | Mapping[str, int]
Groups = Mapping[str, Parts]


def row_groups(
    groups: Groups, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, dict[str, slice]]:
    """Which rows of which weights belong together.

    Args:
        groups: By path glob, the names of the parts of a weight, in the order of its rows: parts
            of one size, or names with their numbers of rows.
        shapes: Dense shape of each weight, by path.

    Returns:
        By path, consecutive rows by name.

    Raises:
        ValueError: A glob meets no weight, or the rows of one cannot be divided so.

    Example:
        >>> row_groups({"*kv": ["k", "v"]}, {"attention.kv": (64, 32)})
        {'attention.kv': {'k': slice(0, 32, None), 'v': slice(32, 64, None)}}
        >>> row_groups({"qkv": {"q": 4, "kv": 2}}, {"qkv": (6, 32)})
        {'qkv': {'q': slice(0, 4, None), 'kv': slice(4, 6, None)}}
    """
    found: dict[str, dict[str, slice]] = {}
    for glob, parts in groups.items():
        met = [path for path in shapes if fnmatchcase(path, glob)]
        if not met:
            raise ValueError(
                f"path glob {glob!r} of groups meets no weight that becomes sparse; these do: "
                f"{', '.join(shapes)}"
            )
        for path in met:
            found[path] = _divided(path, parts, shapes[path][0])
    return found


def drawn_by_part(
    shape: tuple[int, ...],
    connections: int,
    rows: Mapping[str, slice] | None,
    pattern: Pattern,
    generator: torch.Generator | None,
) -> Topology:
    """Draw a topology, in which every part of the weight has its share of the connections.

    Args:
        shape: Dense shape of the weight.
        connections: Of the whole weight.
        rows: Consecutive rows by name, together all rows; None where there are no parts.
        pattern: Draws a part, or the whole.
        generator: CPU generator, torch's default one if None.
    """
    if connections == math.prod(shape):
        return Topology(shape, torch.arange(connections))
    if rows is None:
        return pattern(shape, connections, generator=generator)
    ends = [round(connections * part.stop / shape[0]) for part in rows.values()]
    indptr, indices = [torch.zeros(1, dtype=torch.int64)], []
    for part, count in zip(rows.values(), torch.tensor([0, *ends]).diff().tolist(), strict=True):
        height = part.stop - part.start
        pointers = torch.zeros(height + 1, dtype=torch.int64)
        if count:
            pointers, columns = pattern((height, *shape[1:]), count, generator=generator).csr()
            indices.append(columns)
        indptr.append(pointers[1:] + indptr[-1][-1])
    return Topology.from_csr(shape, torch.cat(indptr), torch.cat(indices))


def _divided(path: str, parts: Parts, rows: int) -> dict[str, slice]:
    if isinstance(parts, Mapping):
        sizes = dict(parts)
    else:
        sizes = {name: rows // len(parts) for name in parts} if len(parts) else {}
    if len(sizes) != len(parts) or sum(sizes.values()) != rows or min(sizes.values()) < 1:
        form = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise ValueError(
            f"groups of {path} must divide its {rows} rows into parts with names of their own, "
            f"got {form or 'none'}"
        )
    groups, start = {}, 0
    for name, size in sizes.items():
        groups[name] = slice(start, start + size)
        start += size
    return groups
