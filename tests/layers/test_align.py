"""Averages and target networks follow the online network's topology."""

from __future__ import annotations

import copy
import re

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import regrow
from regrow import SparseLinear, Topology


def at(*positions: int) -> Topology:
    return Topology((2, 3), torch.tensor(positions))


def layer_at(values: list[float], *positions: int) -> nn.Sequential:
    layer = SparseLinear(3, 2, topology=at(*positions))
    with torch.no_grad():
        layer.values.copy_(torch.tensor(values))
    return nn.Sequential(layer)


def test_by_hand() -> None:
    target = layer_at([1.0, 2.0, 3.0], 0, 2, 4)
    source = layer_at([10.0, 20.0, 30.0, 40.0], 1, 2, 4, 5)
    assert regrow.align(target, source)
    assert target[0].topology == at(1, 2, 4, 5)
    assert target[0].values.tolist() == [10.0, 2.0, 3.0, 40.0]
    assert source[0].values.tolist() == [10.0, 20.0, 30.0, 40.0]
    assert not regrow.align(target, source)


def test_last_and_no_shared_positions() -> None:
    target = layer_at([1.0], 0)
    source = layer_at([10.0, 20.0], 1, 5)
    assert regrow.align(target, source)
    assert target[0].values.tolist() == [10.0, 20.0]


def test_an_empty_layer_can_follow() -> None:
    target = nn.Sequential(SparseLinear(3, 2, topology=Topology((2, 3), torch.zeros(0).long())))
    assert regrow.align(target, layer_at([7.0], 3))
    assert target[0].values.tolist() == [7.0]


def test_other_layers_are_refused() -> None:
    one, other = layer_at([1.0], 0), nn.Sequential(nn.ReLU(), *layer_at([1.0], 0))
    sentence = "models to align must have the same sparse layers, got {'0': (2, 3)} and {'1': (2"
    with pytest.raises(ValueError, match=re.escape(sentence)):
        regrow.align(one, other)
    wider = nn.Sequential(SparseLinear(4, 2, density=0.5))
    with pytest.raises(ValueError, match="models to align must have the same sparse layers"):
        regrow.align(one, wider)


def trained(scope: str) -> tuple[nn.Sequential, regrow.Evolution, torch.optim.Optimizer]:
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(
        SparseLinear(8, 6, density=0.3, generator=generator, compute="csr"),
        nn.ReLU(),
        SparseLinear(6, 4, density=0.3, generator=generator, compute="csr"),
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    return model, regrow.Evolution(model, optimizer, "set", every=2, scope=scope), optimizer


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_averaged_model_follows_updates(scope: str) -> None:
    model, evolution, optimizer = trained(scope)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5))
    dense = copy.deepcopy(model[0].weight.detach())  # the same average, in the dense shape
    first = True
    for step in range(6):
        x = torch.randn(5, 8, generator=torch.Generator().manual_seed(step))
        model(x).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        before = model[0].topology.mask()
        if evolution.step() is not None:
            assert regrow.align(average.module, model)
            after = model[0].topology.mask()
            new = after & ~before
            dense = torch.where(new, model[0].weight.detach(), dense) * after
        average.update_parameters(model)
        weight = model[0].weight.detach()
        dense = weight.clone() if first else 0.5 * dense + 0.5 * weight
        first = False
        torch.testing.assert_close(average.module[0].weight, dense)
    assert average.module[2].topology == model[2].topology


def test_soft_target_updates() -> None:
    model, evolution, optimizer = trained("layer")
    target = copy.deepcopy(model)
    for step in range(4):
        x = torch.randn(5, 8, generator=torch.Generator().manual_seed(step))
        model(x).square().sum().backward()
        optimizer.step()
        if evolution.step() is not None:
            regrow.align(target, model)
        for slow, fast in zip(target.parameters(), model.parameters(), strict=True):
            slow.data.lerp_(fast.data, 0.1)
    assert target[0].topology == model[0].topology
    assert not torch.equal(target[0].values, model[0].values)
    assert target(torch.ones(1, 8)).isfinite().all()
