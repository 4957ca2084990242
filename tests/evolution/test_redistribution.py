"""Sharing growth among layers."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from regrow import Evolution, SparseLinear
from regrow.evolution.redistribution import REDISTRIBUTIONS, allot


def test_shares_by_hand() -> None:
    assert allot(10, [1.0, 1.0], [10, 10]) == [5, 5]
    assert allot(10, [3.0, 1.0], [4, 10]) == [4, 6]
    assert allot(6, [1.0, 0.0, 2.0], [9, 9, 9]) == [2, 0, 4]
    assert allot(6, [0.0, 0.0], [9, 9]) == [3, 3]
    assert allot(5, [math.nan, 1.0], [9, 9]) == [0, 5]
    assert allot(12, [1.0, 0.0], [9, 9]) == [9, 3]
    assert allot(0, [1.0], [4]) == [0]
    assert allot(4, [1e-300, 1.0], [4, 0]) == [4, 0]


@given(st.data())
def test_the_sum_is_exact_and_nobody_gets_more_than_fits(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 6))
    most = data.draw(st.lists(st.integers(0, 50), min_size=size, max_size=size))
    weights = data.draw(st.lists(st.floats(0, 1e6), min_size=size, max_size=size))
    total = data.draw(st.integers(0, sum(most)))
    counts = allot(total, weights, most)
    assert sum(counts) == total
    assert all(0 <= count <= limit for count, limit in zip(counts, most, strict=True))
    scale = sum(weights)
    if scale and all(total * w / scale + 1 <= m for w, m in zip(weights, most, strict=True)):
        for count, weight in zip(counts, weights, strict=True):
            assert abs(count - total * weight / scale) <= 1


def moved(**options: object) -> list[list[int]]:
    """Numbers of connections of two layers, before and after each of three updates."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        SparseLinear(12, 10, density=0.3), torch.nn.Tanh(), SparseLinear(10, 8, density=0.3)
    )
    with torch.no_grad():
        model[2].values.mul_(10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    evolution = Evolution(model, optimizer, every=1, fraction=0.3, start="init", **options)
    counts = []
    for _ in range(3):
        counts.append([model[0].topology.nnz, model[2].topology.nnz])
        model(torch.randn(6, 12)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        assert evolution.step().dropped == round(0.3 * counts[-1][0]) + round(0.3 * counts[-1][1])
    return [*counts, [model[0].topology.nnz, model[2].topology.nnz]]


def test_growth_goes_where_the_weight_is() -> None:
    for rule in ("magnitude", lambda site: site.values.abs().mean()):
        counts = moved(redistribute=rule)
        assert all(sum(count) == sum(counts[0]) for count in counts)
        assert counts[-1][1] > counts[0][1]
    counts = moved(redistribute="momentum")
    assert all(sum(count) == sum(counts[0]) for count in counts)
    assert counts[-1] != counts[0]


def test_weights_of_a_layer_by_hand() -> None:
    layer = SparseLinear(4, 1, density=1.0)
    with torch.no_grad():
        layer.values.copy_(torch.tensor([1.0, -3.0, 0.0, 0.0]))
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)
    evolution = Evolution(layer, optimizer, every=None)
    assert REDISTRIBUTIONS["momentum"](evolution.sites()[""]) == 0  # before the first step
    layer(torch.tensor([[1.0, -2.0, 3.0, 0.0]])).sum().backward()
    before = evolution.sites()[""]
    assert REDISTRIBUTIONS["magnitude"](before) == 1.0
    assert REDISTRIBUTIONS["nonzero"](before) == 2
    optimizer.step()
    assert REDISTRIBUTIONS["momentum"](evolution.sites()[""]) == 1.5
    adam = torch.optim.Adam(layer.parameters())
    adam.step()
    site = Evolution(layer, adam, every=None).sites()[""]
    torch.testing.assert_close(
        site.momentum, torch.tensor([3.1623, -3.1623, 3.1623, 0.0]), rtol=1e-3, atol=1e-4
    )
    plain = torch.optim.RMSprop(layer.parameters())
    plain.step()
    with pytest.raises(RuntimeError, match="needs an optimiser with momentum, got RMSprop without"):
        _ = Evolution(layer, plain, every=None).sites()[""].momentum


def test_without_redistribution_every_layer_keeps_its_number() -> None:
    counts = moved()
    assert all(count == counts[0] for count in counts)
