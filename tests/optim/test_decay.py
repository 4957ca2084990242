"""Decay beside the gradient."""

import pytest
import torch
from torch import nn

import regrow
from regrow.optim import decayed


def test_decay_does_not_depend_on_the_rate_and_joins_no_momentum() -> None:
    weight = nn.Parameter(torch.tensor([4.0]))
    optimizer = decayed(torch.optim.SGD([weight], lr=0.5, momentum=0.9), 0.25)
    expected, speed = 4.0, 0.0
    for _ in range(3):
        optimizer.zero_grad()
        weight.sum().backward()
        optimizer.step()
        speed = 0.9 * speed - 0.5
        expected = 0.75 * expected + speed
    assert weight.item() == pytest.approx(expected)


def test_a_parameter_without_a_gradient_is_left_alone() -> None:
    weight = nn.Parameter(torch.tensor([4.0]))
    decayed(torch.optim.SGD([weight], lr=0.5), 0.25).step()
    assert weight.item() == 4.0


def test_values_decay_across_updates_of_the_topology() -> None:
    layer = regrow.SparseLinear(8, 4, density=0.5)
    optimizer = decayed(torch.optim.SGD(layer.parameters(), lr=0.0), 0.5)
    evolution = regrow.Evolution(layer, optimizer, "set", every=1, start="zero")
    for _ in range(2):
        before = layer.values.detach().clone()
        layer(torch.ones(2, 8)).sum().backward()
        optimizer.step()
        assert torch.equal(layer.values.detach(), before / 2)
        evolution.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_share_out_of_range(share: float) -> None:
    with pytest.raises(ValueError, match=r"share that decays must be in \[0, 1\), got"):
        decayed(torch.optim.SGD([nn.Parameter(torch.ones(1))]), share)
