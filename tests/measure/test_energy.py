"""The energy of a step, by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from regrow import SparseLinear
from regrow.measure import ENERGY_COSTS, EnergyCosts, step_energy


def test_costs() -> None:
    costs = EnergyCosts(multiply=3, add=1, byte=10)
    assert costs.of(flops=2_000, bytes_moved=0) == pytest.approx(4e-9)
    assert costs.of(flops=0, bytes_moved=500) == pytest.approx(5e-9)
    assert EnergyCosts() == ENERGY_COSTS["float32, DRAM"]
    # 32 bits of DRAM cost 640 pJ, 64 bits of a small cache 10 pJ.
    assert EnergyCosts().byte * 4 == 640
    assert ENERGY_COSTS["float16, 8 KiB cache"].byte * 8 == 10


@pytest.mark.parametrize("compute", ["csr", "dense"])
def test_a_sparse_layer_by_hand(compute: str) -> None:
    layer = SparseLinear(30, 20, bias=False, density=0.1, compute=compute)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)
    x = torch.ones(8, 30)
    layer(x).sum().backward()
    optimizer.step()
    found = step_energy(layer, x, optimizer, costs=EnergyCosts(2.0, 1.0, 5.0))
    products = 2 * 2 * 8 * 60  # forward, and the gradient of the values
    values, row_order, column_order = 4 * 60, 4 * 60 + 8 * 21, 8 * 60 + 8 * 31
    moved = 6 * values + row_order + 2 * values + 3 * x.nbytes + 2 * 4 * 8 * 20
    if compute == "csr":
        moved += column_order
    else:
        products *= 10
        moved += 6 * 4 * 600
    assert (found.flops, found.bytes_moved) == (products, moved)
    assert found.arithmetic == pytest.approx(1.5e-12 * products)
    assert found.traffic == pytest.approx(5e-12 * moved)
    assert found.total == found.arithmetic + found.traffic


def test_fewer_connections_cost_less() -> None:
    x = torch.ones(16, 200)
    energies = [
        step_energy(SparseLinear(200, 200, density=d, compute="csr"), x).total
        for d in (0.01, 0.1, 0.5)
    ]
    assert energies == sorted(energies)
    assert energies[-1] > 5 * energies[0]


def test_the_model_is_left_as_it_was() -> None:
    model = nn.Sequential(SparseLinear(30, 20, density=0.1), nn.BatchNorm1d(20), nn.Linear(20, 2))
    step_energy(model, torch.ones(4, 30))
    assert model.training
    assert int(model[1].num_batches_tracked) == 0
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
