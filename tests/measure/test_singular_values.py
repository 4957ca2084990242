"""Singular values against NumPy, and graphs whose spectrum is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from regrow import SparseConv2d, SparseLinear, Topology
from regrow.measure import spectrum
from regrow.topology import random_topology


@pytest.mark.parametrize("layer", [
    SparseLinear(30, 20, density=0.2), SparseConv2d(3, 8, 3, density=0.3),
])  # fmt: skip
def test_all_values_of_weights_and_of_places(layer: SparseLinear) -> None:
    weight = layer.weight.detach().double().flatten(1).numpy()
    mask = layer.topology.mask().double().flatten(1).numpy()
    for given, matrix in ((layer, weight), (layer.topology, mask)):
        found = spectrum(given)
        expected = np.linalg.svd(matrix, compute_uv=False)
        np.testing.assert_allclose(found.values, expected, atol=1e-10)
        assert found.complete
        assert found.largest == pytest.approx(np.linalg.norm(matrix, 2))
        assert found.gap == pytest.approx(expected[0] - expected[1])
        assert found.norm == pytest.approx(np.linalg.norm(matrix))
        assert found.stable_rank == pytest.approx((expected**2).sum() / expected[0] ** 2)


def test_effective_rank() -> None:
    identity = spectrum(Topology((5, 5), torch.arange(0, 25, 6)))
    assert identity.effective_rank == pytest.approx(5)
    assert identity.stable_rank == pytest.approx(5)
    full = spectrum(Topology((5, 5), torch.arange(25)))
    assert full.effective_rank == pytest.approx(1)
    # Singular values 2 and 1: entropy of 2/3 and 1/3.
    layer = SparseLinear(2, 2, topology=Topology((2, 2), torch.tensor([0, 3])))
    with torch.no_grad():
        layer.values.copy_(torch.tensor([2.0, -1.0]))
    entropy = -(2 / 3 * math.log(2 / 3) + 1 / 3 * math.log(1 / 3))
    assert spectrum(layer).effective_rank == pytest.approx(math.exp(entropy))


def test_the_greatest_few(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("scipy")
    topology = random_topology((90, 70), 900, generator=torch.Generator().manual_seed(0))
    whole = spectrum(topology)
    few = spectrum(topology, count=5)
    monkeypatch.setattr("regrow.measure.singular_values._DENSE", 10)
    sparse = spectrum(topology, count=5)
    np.testing.assert_allclose(few.values, whole.values[:5])
    np.testing.assert_allclose(sparse.values, whole.values[:5])
    assert not sparse.complete
    assert math.isnan(sparse.effective_rank)
    assert sparse.stable_rank == pytest.approx(whole.stable_rank)
    assert len(spectrum(topology).values) == 16


def test_known_graphs_are_ramanujan_or_not() -> None:
    # The points and lines of the plane of order 2: 3-regular, singular values 3 and sqrt(2).
    fano = [(0, 1, 2), (0, 3, 4), (0, 5, 6), (1, 3, 5), (1, 4, 6), (2, 3, 6), (2, 4, 5)]
    flat = torch.tensor([7 * line + point for line, points in enumerate(fano) for point in points])
    found = spectrum(Topology((7, 7), flat))
    np.testing.assert_allclose(found.values, [3, *[math.sqrt(2)] * 6])
    assert found.ramanujan_bound == pytest.approx(2 * math.sqrt(2))
    assert found.ramanujan_margin == pytest.approx(math.sqrt(2))
    # Two parts that are not connected have the greatest value twice: the worst expander.
    mask = torch.block_diag(torch.ones(6, 6), torch.ones(6, 6))
    apart = spectrum(Topology((12, 12), mask.flatten().nonzero().flatten()))
    assert apart.gap == pytest.approx(0)
    assert apart.ramanujan_margin == pytest.approx(2 * math.sqrt(5) - 6)


def test_a_random_topology_is_almost_ramanujan() -> None:
    topology = random_topology((500, 500), 10_000, generator=torch.Generator().manual_seed(0))
    found = spectrum(topology)
    assert found.largest == pytest.approx(20, rel=0.1)
    assert abs(found.ramanujan_margin) < 0.1 * found.ramanujan_bound


def test_little_and_nothing() -> None:
    one = spectrum(Topology((1, 4), torch.tensor([0, 2])))
    assert (one.largest, one.gap) == (pytest.approx(math.sqrt(2)),) * 2
    none = spectrum(Topology((2, 2), torch.empty(0, dtype=torch.int64)))
    assert (none.largest, none.stable_rank, none.ramanujan_margin) == (0, 0, 0)
    with pytest.raises(ValueError, match="count of singular values must be at least 1, got 0"):
        spectrum(Topology((1, 1), torch.tensor([0])), count=0)
