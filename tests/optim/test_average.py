"""Averages of a model whose topology changes."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from regrow import Evolution, SparseLinear
from regrow.evolution.schedules import Cubic
from regrow.optim import AveragedModel


def trained(average_of, steps: int, **parts):
    torch.manual_seed(0)
    model = nn.Sequential(SparseLinear(6, 5, density=0.5, dtype=torch.float64))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    evolution = Evolution(model, optimizer, "set", **parts)
    average, seen = average_of(model), []
    for _ in range(steps):
        model(torch.randn(4, 6, dtype=torch.float64)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        evolution.step()
        average.update_parameters(model)
        layer = model[0]
        seen.append(
            dict(zip(layer.topology.positions.tolist(), layer.values.tolist(), strict=True))
        )
    return model, average, seen


def test_moving_average_starts_with_the_connection() -> None:
    model, average, seen = trained(
        lambda m: AveragedModel(m, multi_avg_fn=get_ema_multi_avg_fn(0.9)), 9, every=3, until=6
    )
    layer = average.module[0]
    assert layer.topology == model[0].topology
    found = dict(zip(layer.topology.positions.tolist(), layer.values.tolist(), strict=True))
    for position, value in found.items():
        expected = None
        for values in seen:
            if position not in values:
                expected = None
            elif expected is None:
                expected = values[position]
            else:
                expected = 0.9 * expected + 0.1 * values[position]
        assert abs(value - expected) < 1e-12


def test_it_follows_a_density_that_changes() -> None:
    density = Cubic(0.5, 0.2)
    model, average, _ = trained(AveragedModel, 8, every=2, until=8, density=density)
    assert model[0].topology.nnz == 6
    assert average.module[0].topology == model[0].topology
    assert int(average.n_averaged) == 8
    loaded = AveragedModel(nn.Sequential(SparseLinear(6, 5, density=0.5, dtype=torch.float64)))
    loaded.load_state_dict(average.state_dict())
    assert torch.equal(loaded.module[0].values, average.module[0].values)
