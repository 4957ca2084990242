"""Ways through a network, against products of dense matrices."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from regrow import SparseLinear, Topology
from regrow.measure import paths
from regrow.topology import random_topology


def network(widths: list[int], density: float) -> nn.Sequential:
    generator = torch.Generator().manual_seed(0)
    pairs = itertools.pairwise(widths)
    return nn.Sequential(
        *(SparseLinear(a, b, density=density, generator=generator) for a, b in pairs)
    )


def dense_paths(matrices: list[torch.Tensor]) -> tuple[float, list[np.ndarray]]:
    total = torch.linalg.multi_dot(matrices[::-1]) if len(matrices) > 1 else matrices[0]
    through = []
    for i in range(len(matrices) + 1):
        into = torch.ones(1, matrices[0].shape[1], dtype=torch.float64).t()
        for matrix in matrices[:i]:
            into = matrix @ into
        out = torch.ones(1, matrices[-1].shape[0], dtype=torch.float64)
        for matrix in matrices[: i - 1 if i else None : -1]:
            out = out @ matrix
        through.append((into.flatten() * out.flatten() / total.sum()).numpy())
    return float(total.sum()), through


@pytest.mark.parametrize("widths", [[6, 5], [6, 8, 4], [10, 12, 9, 3]])
def test_number_and_shares(widths: list[int]) -> None:
    model = network(widths, 0.4)
    masks = [layer.topology.mask().double() for layer in model]
    total, through = dense_paths(masks)
    found = paths(model)
    assert 10**found.log10_total == pytest.approx(total)
    for ours, expected in zip(found.through, through, strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-12)
        assert ours.sum() == pytest.approx(1)
    assert found.dead == tuple(int((share == 0).sum()) for share in through)


def test_weighted_ways_are_what_synflow_sums() -> None:
    model = network([6, 8, 4], 0.5)
    matrices = [layer.weight.detach().abs().double() for layer in model]
    total, through = dense_paths(matrices)
    found = paths(model, weighted=True)
    assert 10**found.log10_total == pytest.approx(total, rel=1e-6)
    np.testing.assert_allclose(found.through[1], through[1], rtol=1e-6)
    with pytest.raises(ValueError, match="need a model, got topologies"):
        paths([layer.topology for layer in model], weighted=True)


def test_random_topologies_have_what_is_expected() -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = [(300, 200), (300, 300), (100, 300)]
    chain = [random_topology(s, s[0] * 12, generator=generator) for s in shapes]
    found = paths(chain)
    assert found.log10_expected == pytest.approx(
        math.log10(300 * 12) + math.log10(12) + math.log10(100 * 12 / 300)
    )
    assert found.log10_total == pytest.approx(found.log10_expected, abs=0.02)


def test_more_ways_than_a_float_can_count() -> None:
    generator = torch.Generator().manual_seed(0)
    chain = [random_topology((300, 300), 30_000, generator=generator)] * 200
    found = paths(chain)
    assert found.log10_total == pytest.approx(found.log10_expected, rel=0.01)
    assert found.log10_total > 390
    assert np.isfinite(found.through[100]).all()


def test_no_way_at_all() -> None:
    chain = [Topology((2, 2), torch.tensor([0, 1])), Topology((1, 2), torch.tensor([1]))]
    found = paths(chain)
    assert found.log10_total == -math.inf
    assert found.dead == (2, 2, 1)
    empty = Topology((2, 2), torch.empty(0, dtype=torch.int64))
    assert paths(empty).log10_expected == -math.inf
