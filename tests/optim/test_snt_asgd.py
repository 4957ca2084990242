"""SNTASGD: averages that begin with each connection, by hand and beside torch's ASGD."""

from __future__ import annotations

import copy
import re

import pytest
import torch
from torch import nn

from regrow import Evolution, SparseLinear, Topology
from regrow.optim import SNTASGD, carry_state

old_topology = Topology((3, 4), torch.tensor([1, 2, 8, 11]))


def stepped(optimizer: torch.optim.Optimizer, parameter: nn.Parameter, gradients) -> None:
    for gradient in torch.as_tensor(gradients):
        parameter.grad = gradient.to(parameter)
        optimizer.step()


def averaging(parameter: nn.Parameter, **options) -> SNTASGD:
    optimizer = SNTASGD([parameter], **{"lr": 1.0, "weight_decay": 0.0, **options})
    optimizer.averaging = True
    return optimizer


def average(optimizer: SNTASGD, parameter: nn.Parameter) -> list[float]:
    with optimizer.averaged():
        return parameter.tolist()


def test_the_average_leaves_out_the_first_iterate() -> None:
    parameter = nn.Parameter(torch.tensor([10.0]))
    optimizer = averaging(parameter)
    found = []
    for _ in range(4):
        stepped(optimizer, parameter, [[1.0]])  # 9 8 7 6
        found.append(average(optimizer, parameter)[0])
    assert found == [9.0, 8.0, 7.5, 7.0]
    assert parameter.item() == 6.0


def test_each_connection_has_a_start_of_its_own() -> None:
    parameter = nn.Parameter(torch.tensor([1.0, 2.0, 8.0, 11.0], dtype=torch.float64))
    optimizer = averaging(parameter)
    stepped(optimizer, parameter, torch.ones(3, 4))  # of 11: 10 9 8
    change = old_topology.rewire(torch.tensor([True, False, True, True]), torch.tensor([0]))
    with torch.no_grad():
        parameter.copy_(change.carry(parameter.detach(), torch.tensor([0.5])))
    carry_state(optimizer, parameter, parameter, change)
    # No step yet: a new connection is its value, the others their averages.
    torch.testing.assert_close(average(optimizer, parameter), [0.5, -1.5, 5.5, 8.5])
    found = []
    for _ in range(3):
        stepped(optimizer, parameter, torch.ones(1, 4))
        found.append(average(optimizer, parameter))
    # -0.5, then -1.5, then the mean of -1.5 and -2.5; and of 9 8 7 6 5 without the first.
    torch.testing.assert_close([f[0] for f in found], [-0.5, -1.5, -2.0])
    torch.testing.assert_close([f[3] for f in found], [8.0, 7.5, 7.0])
    assert optimizer.state[parameter]["age"].tolist() == [3, 6, 6, 6]


def test_dense_parameters_have_torchs_average() -> None:
    generator = torch.Generator().manual_seed(0)
    ours = nn.Parameter(torch.randn(5, 4, generator=generator, dtype=torch.float64))
    theirs = nn.Parameter(ours.detach().clone())
    one = averaging(ours, lr=0.1, weight_decay=0.01)
    other = torch.optim.ASGD([theirs], lr=0.1, lambd=0, t0=0, weight_decay=0.01)
    for _ in range(20):
        gradient = torch.randn(1, 5, 4, generator=generator, dtype=torch.float64)
        stepped(one, ours, gradient)
        stepped(other, theirs, gradient)
        torch.testing.assert_close(one.state[ours]["ax"], other.state[theirs]["ax"])
        torch.testing.assert_close(ours, theirs)


def test_before_it_averages_it_is_sgd_and_holds_nothing() -> None:
    ours = nn.Parameter(torch.tensor([1.0, -2.0]))
    theirs = nn.Parameter(ours.detach().clone())
    one = SNTASGD([ours], lr=0.1, weight_decay=0.5)
    other = torch.optim.SGD([theirs], lr=0.1, weight_decay=0.5)
    gradients = [[1.0, 2.0], [3.0, -1.0]]
    stepped(one, ours, gradients)
    stepped(other, theirs, gradients)
    assert torch.equal(ours, theirs)
    assert not one.state[ours]
    assert average(one, ours) == ours.tolist()


@pytest.mark.parametrize(
    ("window", "losses", "begins"),
    [
        (1, [2.0, 3.0, 2.5], 2),
        (1, [3.0, 2.0, 2.5], None),  # the last loss but one is in the window
        (2, [1.0, 3.0, 3.0, 0.5], None),
        (2, [1.0, 3.0, 0.9, 1.1, 1.2], 3),
        (5, [1.0, 2.0, 2.0, 2.0, 2.0], None),  # too few
        (5, [1.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0], 6),
        (1, [2.0, 2.0, 2.0, 2.0], None),  # equal is not above
    ],
)
def test_the_trigger(window: int, losses: list[float], begins: int | None) -> None:
    optimizer = SNTASGD([nn.Parameter(torch.ones(1))], window=window)
    found = [optimizer.report(loss) for loss in losses]
    assert found == [at == begins for at in range(len(losses))]
    assert optimizer.averaging == (begins is not None)
    assert not optimizer.report(100.0) or begins is None


def test_parameters_come_back_after_an_error() -> None:
    parameter = nn.Parameter(torch.tensor([10.0]))
    optimizer = averaging(parameter)
    stepped(optimizer, parameter, torch.ones(4, 1))

    def evaluate() -> None:
        with optimizer.averaged():
            assert parameter.item() == 7.0
            raise RuntimeError("evaluation")

    with pytest.raises(RuntimeError, match="evaluation"):
        evaluate()
    assert parameter.item() == 6.0


@pytest.mark.parametrize("through", ["state", "deepcopy"])
def test_it_goes_on_as_if_never_stopped(through: str) -> None:
    parameter = nn.Parameter(torch.tensor([10.0, 4.0], dtype=torch.bfloat16))
    optimizer = SNTASGD([parameter], lr=0.5, window=1)
    for loss in (2.0, 3.0, 2.5):
        optimizer.report(loss)
    stepped(optimizer, parameter, torch.ones(3, 2))
    if through == "deepcopy":
        twin, other = copy.deepcopy((parameter, optimizer))
    else:
        twin = nn.Parameter(parameter.detach().clone())
        other = SNTASGD([twin])
        other.load_state_dict(optimizer.state_dict())
    assert other.averaging
    assert other.state[twin]["ax"].dtype == torch.float32
    stepped(optimizer, parameter, torch.ones(2, 2))
    stepped(other, twin, torch.ones(2, 2))
    assert torch.equal(parameter, twin)
    assert average(other, twin) == average(optimizer, parameter)
    assert other.param_groups[0]["losses"] == (2.0, 3.0, 2.5)


def test_averages_of_an_evolution_are_of_active_steps_only() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(SparseLinear(12, 10, density=0.3, dtype=torch.float64))
    optimizer = SNTASGD(model.parameters(), lr=0.05, weight_decay=0.0)
    optimizer.averaging = True
    evolution = Evolution(model, optimizer, "set", every=4)
    layer: SparseLinear = model[0]
    histories: dict[int, list[float]] = {p: [] for p in layer.topology.positions.tolist()}
    for _ in range(14):
        model(torch.randn(8, 12, dtype=torch.float64)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        for position, value in zip(
            layer.topology.positions.tolist(), layer.values.tolist(), strict=True
        ):
            histories[position].append(value)
        if evolution.step() is not None:
            ages = optimizer.state[layer.values]["age"].tolist()
            positions = layer.topology.positions.tolist()
            histories = {
                p: histories[p] if age else [] for p, age in zip(positions, ages, strict=True)
            }
    expected = [
        sum(history[1:]) / len(history[1:]) if len(history) > 1 else history[0]
        for history in (histories[p] for p in layer.topology.positions.tolist())
    ]
    assert len({len(history) for history in histories.values()}) > 2
    torch.testing.assert_close(average(optimizer, layer.values), expected)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"lr": -1.0}, "lr of SNTASGD must be at least 0, got -1.0"),
        ({"weight_decay": -0.1}, "weight_decay of SNTASGD must be at least 0, got -0.1"),
        ({"window": 0}, "window of SNTASGD must be at least 1, got 0"),
    ],
)
def test_options_out_of_range_are_refused(options: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        SNTASGD([nn.Parameter(torch.ones(2))], **options)
