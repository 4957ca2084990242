"""Rates that follow the density."""

import pytest
import torch
from torch import nn

from regrow import SparseLinear
from regrow.optim import scaled_by_density


@pytest.mark.parametrize(("exponent", "rates"), [(-1.0, [4.0, 10.0]), (-0.5, [2.0, 10**0.5])])
def test_rate_of_each_layer(exponent: float, rates: list[float]) -> None:
    quarter = [SparseLinear(20, 10, density=0.25), SparseLinear(10, 20, density=0.25)]
    tenth = SparseLinear(20, 10, density=0.1)
    model = nn.Sequential(*quarter, tenth, nn.Linear(10, 2))
    groups = scaled_by_density(model, 1.0, exponent)
    assert [group["lr"] for group in groups] == pytest.approx([*rates, 1.0])
    assert [len(group["params"]) for group in groups] == [2, 1, 5]
    optimizer = torch.optim.SGD(groups, lr=1.0)
    held = [p for group in optimizer.param_groups for p in group["params"]]
    assert {id(p) for p in held} == {id(p) for p in model.parameters()}


def test_a_dense_model_has_one_group() -> None:
    assert len(scaled_by_density(nn.Linear(3, 2), 0.1)) == 1
