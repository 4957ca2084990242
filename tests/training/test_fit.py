"""The loop alone: what its rows tell."""

import pytest
import torch
from torch import nn

import regrow
from regrow.data import load
from regrow.evolution.schedules import Cubic
from regrow.measure import training_flops
from regrow.training.fit import fit

DIGITS = load("digits", limit_train=200, limit_test=20)


@pytest.mark.parametrize(
    ("method", "parts"),
    [
        ("static", {}),
        ("set", {"every": 3}),
        ("rigl", {"every": 3, "until": 100}),
        ("rigl", {"every": 2, "until": 8, "density": Cubic(0.5, 0.1)}),
    ],
)
def test_flops_are_those_foreseen(method: str, parts: dict) -> None:
    generator = torch.Generator().manual_seed(0)
    layer = regrow.SparseLinear(64, 10, density=0.5, generator=generator)
    model = nn.Sequential(layer)
    foreseen = training_flops(model, DIGITS.x_train[:45], method, steps=8, **parts)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    evolution = regrow.Evolution(model, optimizer, method, **parts)
    rows = fit(
        model,
        DIGITS,
        optimizer,
        epochs=2,
        batch_size=45,
        evolution=evolution,
        count_flops=True,
    )
    late = 45 * 2 * 640 if "density" in parts else 0  # an update after the last step, in no row
    assert rows[-1]["flops"] == pytest.approx(foreseen.total - late, rel=1e-3)
    assert 0 < rows[0]["flops"] < rows[1]["flops"]
    assert "flops" not in fit(model, DIGITS, optimizer, epochs=1, batch_size=45)[0]


def test_batches_of_training_are_augmented_and_those_of_measuring_are_not() -> None:
    data, seen = load("digits", limit_train=100), []
    model = torch.nn.Linear(64, 10)

    def nothing(x: torch.Tensor) -> torch.Tensor:
        seen.append(len(x))
        return torch.zeros_like(x)

    before = model.weight.detach().clone()
    fit(
        model,
        data,
        torch.optim.SGD(model.parameters(), lr=0.1),
        epochs=1,
        batch_size=50,
        augment=nothing,
    )
    assert seen == [50, 40]
    assert torch.equal(model.weight.detach(), before)
