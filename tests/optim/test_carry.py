"""Optimiser state follows the connection: by hand, and for the optimisers of torch."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

import regrow
from regrow import Topology
from regrow.optim import carry_state
from regrow.optim.carry import STATE_POLICIES, check_optimizer, unwrapped

old_topology = Topology((3, 4), torch.tensor([1, 2, 8, 11]))


def change_of(keep: list[bool], grown: list[int]):
    return old_topology.rewire(torch.tensor(keep), torch.tensor(grown, dtype=torch.int64))


same_size = change_of([True, False, True, True], [0])  # 0 1 8 11
smaller = change_of([True, False, False, True], [])  # 1 11
larger = change_of([True] * 4, [0, 9])  # 0 1 2 8 9 11

OPTIMIZERS = {
    "sgd": (torch.optim.SGD, {"lr": 0.1}),
    "momentum": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}),
    "adam": (torch.optim.Adam, {}),
    "adam-fused": (torch.optim.Adam, {"fused": True}),
    "amsgrad": (torch.optim.AdamW, {"amsgrad": True}),
    "rmsprop": (torch.optim.RMSprop, {"centered": True, "momentum": 0.9}),
    "adagrad": (torch.optim.Adagrad, {"initial_accumulator_value": 0.25}),
    "adadelta": (torch.optim.Adadelta, {}),
    "adamax": (torch.optim.Adamax, {}),
    "nadam": (torch.optim.NAdam, {}),
    "radam": (torch.optim.RAdam, {}),
    "rprop": (torch.optim.Rprop, {"lr": 0.05}),
    "asgd": (torch.optim.ASGD, {"t0": 1}),
    "adafactor": (torch.optim.Adafactor, {}),
    "fused-sgd": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "fused": True}),
    "foreach-adamw": (torch.optim.AdamW, {"foreach": True}),
}


def stepped(name: str) -> tuple[nn.Parameter, torch.optim.Optimizer]:
    make, options = OPTIMIZERS[name]
    values = nn.Parameter(torch.tensor([1.0, 2.0, 8.0, 11.0]))
    optimizer = make([values, nn.Parameter(torch.ones(4))], **options)
    for _ in range(3):
        (values * torch.tensor([1.0, -2.0, 3.0, -4.0])).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return values, optimizer


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("change", [same_size, smaller, larger])
def test_state_of_torchs_optimisers(name: str, change) -> None:
    values, optimizer = stepped(name)
    before = {
        key: entry.clone() if isinstance(entry, torch.Tensor) else entry
        for key, entry in optimizer.state.get(values, {}).items()
    }
    # What the optimiser gives a parameter that it has not seen.
    fresh = nn.Parameter(torch.zeros(1))
    make, options = OPTIMIZERS[name]
    newborn = make([fresh], **(options | ({"lr": 0.0} if name != "rprop" else {})))
    fresh.grad = torch.zeros(1)
    newborn.step()
    start = {key: float(entry) for key, entry in newborn.state[fresh].items() if entry is not None}
    if "exp_inf" in start:  # of Adamax: zero before its first step, which adds a tiny number
        start["exp_inf"] = 0.0
    stays = change.topology.nnz == old_topology.nnz
    new = values if stays else nn.Parameter(torch.zeros(change.topology.nnz))
    tensors = dict(optimizer.state.get(values, {}))

    carry_state(optimizer, values, new, change)

    assert optimizer.param_groups[0]["params"][0] is new
    assert len(optimizer.param_groups[0]["params"]) == 2
    state = optimizer.state.get(new, {})
    assert set(state) == set(before)
    if not stays:
        assert values not in optimizer.state
    for key, entry in state.items():
        if before[key] is None or not getattr(entry, "dim", lambda: 0)():
            assert entry is tensors[key]
            continue
        assert entry.shape == (change.topology.nnz,)
        assert torch.equal(entry[~change.fresh], before[key][change.keep])
        expected = torch.full((change.grown,), start[key])
        if key == "ax":  # an average of the values starts at the value
            expected = new.detach()[change.fresh]
        assert torch.equal(entry[change.fresh], expected), key
        assert (entry is tensors[key]) == stays
    new.grad = torch.ones(change.topology.nnz)
    optimizer.step()  # and it goes on
    assert new.isfinite().all()


def test_every_optimiser_of_torch_is_covered_or_refused() -> None:
    known = {
        name
        for name, entry in vars(torch.optim).items()
        if isinstance(entry, type) and issubclass(entry, torch.optim.Optimizer)
    }
    refused = {"LBFGS", "Muon", "SparseAdam"}
    assert known - {"Optimizer"} == {make.__name__ for make, _ in OPTIMIZERS.values()} | refused


def test_lbfgs_is_refused_where_the_topology_changes() -> None:
    layer = regrow.SparseLinear(6, 4, density=0.5)
    optimizer = torch.optim.LBFGS(layer.parameters())
    sentence = (
        "optimizer of a topology that changes must keep its state parameter by parameter, "
        "got LBFGS, whose history is over all parameters together"
    )
    with pytest.raises(TypeError, match=re.escape(sentence)):
        check_optimizer(optimizer)
    check_optimizer(torch.optim.SGD(layer.parameters(), lr=0.1))


def test_torch_itself_refuses_values_in_muon_and_dense_gradients_in_sparse_adam() -> None:
    layer = regrow.SparseLinear(6, 4, bias=False, density=0.5)
    with pytest.raises(ValueError, match="only supports 2D parameters"):
        torch.optim.Muon(layer.parameters())
    optimizer = torch.optim.SparseAdam(layer.parameters())
    layer(torch.ones(2, 6)).sum().backward()
    with pytest.raises(RuntimeError, match="does not support dense gradients"):
        optimizer.step()


@pytest.mark.parametrize("change", [same_size, larger])
def test_an_age_of_all_becomes_one_of_each_when_some_are_new(change) -> None:
    values, optimizer = stepped("adam")
    optimizer.state[values]["age"] = torch.tensor(3, dtype=torch.int32)
    new = values if change is same_size else nn.Parameter(torch.zeros(6))
    carry_state(optimizer, values, new, change, STATE_POLICIES["age"])
    ages = optimizer.state[new]["age"]
    assert ages.dtype == torch.int32
    assert ages.tolist() == [0 if fresh else 3 for fresh in change.fresh.tolist()]


def test_an_age_of_all_stays_one_where_none_are_new() -> None:
    values, optimizer = stepped("adam")
    optimizer.state[values]["age"] = torch.tensor(3, dtype=torch.int32)
    new = nn.Parameter(torch.zeros(2))
    carry_state(optimizer, values, new, smaller, STATE_POLICIES["age"])
    assert optimizer.state[new]["age"].dim() == 0


def test_the_age_policy_refuses_an_optimiser_without_ages() -> None:
    values, optimizer = stepped("adam")
    sentence = (
        "optimiser of body.0 must count the age of connections for state 'age', as LocalAgeAdam "
        "does, got Adam"
    )
    with pytest.raises(TypeError, match=re.escape(sentence)):
        carry_state(optimizer, values, values, same_size, STATE_POLICIES["age"], path="body.0")


def test_the_optimiser_inside_a_wrapper() -> None:
    class Wrapper(torch.optim.Optimizer):
        def __init__(self, optimizer):
            self.optimizer = optimizer

    inner = stepped("adam")[1]
    assert unwrapped(Wrapper(Wrapper(inner))) is inner
    assert unwrapped(inner) is inner


def test_no_state_yet() -> None:
    values, new = nn.Parameter(torch.zeros(4)), nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.Adam([values])
    carry_state(optimizer, values, new, smaller)
    assert optimizer.param_groups[0]["params"] == [new]
    assert len(optimizer.state) == 0


def test_a_parameter_that_the_optimiser_does_not_hold_is_no_matter() -> None:
    optimizer = torch.optim.Adam([nn.Parameter(torch.zeros(4))])
    held = optimizer.param_groups[0]["params"][0]
    carry_state(optimizer, nn.Parameter(torch.zeros(4)), nn.Parameter(torch.zeros(2)), smaller)
    assert optimizer.param_groups[0]["params"][0] is held


def test_the_right_group_is_changed() -> None:
    bias, values, new = (nn.Parameter(torch.zeros(n)) for n in (3, 4, 2))
    optimizer = torch.optim.SGD([{"params": [bias]}, {"params": [values], "lr": 0.5}], lr=0.1)
    carry_state(optimizer, values, new, smaller)
    assert optimizer.param_groups[0]["params"][0] is bias
    assert optimizer.param_groups[1]["params"][0] is new


@pytest.mark.parametrize(
    ("entry", "form"),
    [
        (torch.zeros(3), "(3,)"),
        (torch.zeros(4, 2), "(4, 2)"),
        ([torch.zeros(4)], "list"),
        ("slow", "str"),
    ],
)
def test_unknown_state_is_refused_by_name(entry: object, form: str) -> None:
    values, optimizer = stepped("adam")
    optimizer.state[values]["preconditioner"] = entry
    before = optimizer.state[values]["exp_avg"].clone()
    sentence = (
        "optimiser state 'preconditioner' of body.0 must be a scalar or have shape (4,) to "
        f"follow a change of topology, got {form}"
    )
    with pytest.raises(TypeError, match=re.escape(sentence)):
        carry_state(optimizer, values, values, same_size, path="body.0")
    assert torch.equal(optimizer.state[values]["exp_avg"], before)


def test_mean_policy() -> None:
    values, optimizer = stepped("momentum")
    before = optimizer.state[values]["momentum_buffer"].clone()
    carry_state(optimizer, values, values, same_size, STATE_POLICIES["mean"])
    after = optimizer.state[values]["momentum_buffer"]
    torch.testing.assert_close(after[0], before[[0, 2, 3]].mean())
    assert torch.equal(after[1:], before[[0, 2, 3]])


def test_a_policy_of_ones_own() -> None:
    values, optimizer = stepped("adam")
    asked = []

    def policy(name, entry, change, group):
        given = entry is optimizer.state[values][name], change is same_size
        asked.append((name, *given, group is optimizer.param_groups[0]))
        return torch.full((change.grown,), 7.0)

    carry_state(optimizer, values, values, same_size, policy)
    assert asked == [(name, True, True, True) for name in ("exp_avg", "exp_avg_sq")]
    assert optimizer.state[values]["exp_avg"][0] == 7.0
