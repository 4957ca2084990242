"""FLOPs of whole trainings against what torch counts while training."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import regrow
from regrow import Evolution, Method, SparseLinear
from regrow.evolution.schedules import Cubic
from regrow.measure import training_flops


def network() -> nn.Sequential:
    generator = torch.Generator().manual_seed(0)
    return nn.Sequential(
        SparseLinear(40, 50, density=0.2, compute="csr", generator=generator),
        nn.ReLU(),
        SparseLinear(50, 30, density=0.2, compute="dense", generator=generator),
        nn.Linear(30, 5),
    )


FIRST, SECOND, HEAD = 2 * 8 * 400, 2 * 8 * 300, 2 * 8 * 150


def test_static_by_hand() -> None:
    found = training_flops(network(), torch.ones(8, 40), steps=7)
    assert (found.steps, found.updates, found.growth) == (7, 0, 0)
    assert found.forward == 7 * (FIRST + SECOND + HEAD)
    assert found.backward == 7 * (FIRST + 2 * SECOND + 2 * HEAD)
    assert found.dense == 7 * (2 * 5 * FIRST + 3 * 5 * SECOND + 3 * HEAD)
    assert found.ratio == found.total / found.dense


def test_growth_by_gradient_looks_at_every_position() -> None:
    found = training_flops(network(), torch.ones(8, 40), "rigl", steps=25, every=10)
    assert found.updates == 2
    assert found.growth == 2 * 5 * (FIRST + SECOND)
    random = training_flops(network(), torch.ones(8, 40), "set", steps=25, every=10)
    assert (random.updates, random.growth) == (2, 0)
    assert random.forward == found.forward


def test_parts_in_shares_and_epochs() -> None:
    given = {"steps": 100, "steps_per_epoch": 10}
    x = torch.ones(8, 40)
    assert training_flops(network(), x, "set", **given).updates == 10
    assert training_flops(network(), x, "set", **given, until=0.75).updates == 7
    assert training_flops(network(), x, "set", **given, begin=0.5, until=0.75).updates == 2
    own = Method(name="own", every=None)
    assert training_flops(network(), x, own, **given).updates == 0


def test_what_torch_counts_during_a_training_with_a_falling_density() -> None:
    model, x = network(), torch.ones(8, 40)
    method = Method(
        name="pruning", grow="gradient", every=4, until=16, density=Cubic(0.2, 0.05), fraction=0.1
    )
    foreseen = training_flops(model, x, method, steps=20)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    evolution = Evolution(model, optimizer, method, total_steps=20)
    updates = counted = 0
    for _ in range(20):
        with FlopCounterMode(display=False) as counter:
            model(x).square().mean().backward()
        counted += counter.get_total_flops()
        optimizer.step()
        optimizer.zero_grad()
        updates += evolution.step() is not None
    assert foreseen.updates == updates == 4
    assert foreseen.forward + foreseen.backward == counted
    total = sum(layer.topology.nnz for layer in regrow.sparse_layers(model).values())
    assert total == round(0.05 * 3500)


def test_history_costs_as_many_passes() -> None:
    score = regrow.evolution.GrowScore(lambda site, candidates: site.gradient(candidates), True, 3)
    found = training_flops(network(), torch.ones(8, 40), steps=10, grow=score, every=5)
    assert found.growth == 2 * 3 * 5 * (FIRST + SECOND)


def test_a_density_that_decides_by_the_loss_cannot_be_foreseen() -> None:
    class Listening:
        def decide(self, loss: float, density: float, memory: dict[str, float]) -> None: ...

        def target(self, density: float, fraction: float, memory: dict[str, float]) -> float:
            return density

    with pytest.raises(ValueError, match="must follow a schedule to be counted before"):
        training_flops(network(), torch.ones(8, 40), steps=9, every=3, density=Listening())


def test_a_model_without_products() -> None:
    layer = regrow.SparseEmbedding(10, 4, density=0.5)
    found = training_flops(layer, torch.arange(3), steps=2)
    assert found.total == 0
    assert math.isnan(found.ratio)


def test_a_tied_weight_costs_where_it_is_used() -> None:
    embedding = regrow.SparseEmbedding(40, 10, density=0.5)
    head = SparseLinear(10, 40, topology=embedding.topology, bias=False, compute="csr")
    head.values = embedding.values
    model = nn.Sequential(embedding, head)
    assert list(regrow.sparse_layers(model)) == ["0"]
    found = training_flops(model, torch.arange(6), "rigl", steps=4, every=2)
    once = 2 * 6 * 200
    assert (found.forward, found.backward) == (4 * once, 4 * 2 * once)
    assert found.growth == 2 * 2 * once
    half = training_flops(
        model, torch.arange(6), "rigl", steps=4, every=2, until=4, density=Cubic(0.5, 0.25)
    )
    # Steps 1 and 2 with 200 connections, 3 and 4 with those of the density at step 2.
    assert half.forward == 2 * once + 2 * 2 * 6 * round(400 * Cubic(0.5, 0.25)(2, 4))
