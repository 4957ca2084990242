"""LocalAgeAdam: the paper's formulas by hand, Adam where ages are equal, ages that follow."""

from __future__ import annotations

import copy
import io
import math
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import regrow
from regrow import Evolution, SparseLinear, Topology
from regrow.optim import LocalAgeAdam, carry_state
from regrow.optim.local_age_adam import _corrections, _tables

B1, B2, EPS = 0.9, 0.999, 1e-8
OWN = {"betas": (0.8, 0.95), "eps": 1e-3}


def by_hand(
    value: float, gradients: list[float], age: int, lr: float, warmup: int, damped: str
) -> float:
    """The formulas as they are printed, for one number with moments of zero at the start."""
    first = second = 0.0
    for gradient in gradients:
        age += 1
        warm = min(age / warmup, 1) if warmup else 1.0
        first = B1 * first + (1 - B1) * gradient
        second = B2 * second + (1 - B2) * gradient**2
        if damped == "moment":
            first *= warm
        factor = warm if damped == "lr" else 1.0
        mean, square = first / (1 - B1**age), second / (1 - B2**age)
        value -= lr * factor * mean / (math.sqrt(square) + EPS)
    return value


def stepped(optimizer: torch.optim.Optimizer, parameter: nn.Parameter, gradients: Tensor) -> None:
    for gradient in gradients:
        parameter.grad = gradient.to(parameter)
        optimizer.step()


def grown(parameter: nn.Parameter, optimizer: LocalAgeAdam, keep: list[bool], new: list[int]):
    """Rewire a weight of 3 x 4 with connections 1 2 8 11, as an evolution does."""
    old = Topology((3, 4), torch.tensor([1, 2, 8, 11]))
    change = old.rewire(torch.tensor(keep), torch.tensor(new))
    with torch.no_grad():
        parameter.copy_(change.carry(parameter.detach(), torch.zeros(len(new))))
    carry_state(optimizer, parameter, parameter, change)


@pytest.mark.parametrize("damped", ["lr", "moment"])
@pytest.mark.parametrize("warmup", [0, 3, 10])
def test_formulas_by_hand(warmup: int, damped: str) -> None:
    parameter = nn.Parameter(torch.tensor([1.0, 2.0, 8.0, 11.0], dtype=torch.float64))
    optimizer = LocalAgeAdam([parameter], lr=0.1, warmup=warmup, damped=damped)
    before = torch.tensor([[1.0, -2.0, 3.0, -4.0], [0.5, 1.0, -1.0, 2.0]])
    after = torch.tensor([[1.0, 1.0, 2.0, -1.0], [0.1, 1.0, -3.0, 2.0], [2.0, 1.0, 0.5, 1.0]])
    stepped(optimizer, parameter, before)
    grown(parameter, optimizer, [True, False, True, True], [0])  # 0 1 8 11
    assert optimizer.state[parameter]["age"].tolist() == [0, 2, 2, 2]
    stepped(optimizer, parameter, after)

    def expected(start: float, gradients: list[float]) -> float:
        return by_hand(start, gradients, 0, 0.1, warmup, damped)

    hand = [
        expected(0.0, after[:, 0].tolist()),
        expected(1.0, [*before[:, 0].tolist(), *after[:, 1].tolist()]),
        expected(8.0, [*before[:, 2].tolist(), *after[:, 2].tolist()]),
        expected(11.0, [*before[:, 3].tolist(), *after[:, 3].tolist()]),
    ]
    torch.testing.assert_close(parameter.tolist(), hand, rtol=1e-12, atol=0)
    assert optimizer.state[parameter]["age"].tolist() == [3, 5, 5, 5]


def first_move(make, **options) -> float:
    """Of a connection grown after 2,000 steps, in learning rates."""
    parameter = nn.Parameter(torch.tensor([1.0, 2.0, 8.0, 11.0], dtype=torch.float64))
    optimizer = make([parameter], lr=0.001, **options)
    stepped(optimizer, parameter, torch.ones(2000, 4))
    grown(parameter, optimizer, [True, False, True, True], [0])
    stepped(optimizer, parameter, torch.ones(1, 4))
    return abs(parameter[0].item()) / 0.001


def test_the_cold_start_is_gone() -> None:
    assert first_move(torch.optim.Adam) == pytest.approx(0.1 / math.sqrt(0.001), rel=0.1)
    assert first_move(LocalAgeAdam, warmup=0) == pytest.approx(1, rel=1e-6)
    assert first_move(LocalAgeAdam, warmup=100) == pytest.approx(0.01, rel=1e-6)
    assert first_move(LocalAgeAdam, warmup=100, damped="moment") == pytest.approx(0.01, rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("options", "twin", "of_twin"),
    [
        ({}, torch.optim.Adam, {}),
        ({"weight_decay": 0.1}, torch.optim.Adam, {"weight_decay": 0.1}),
        (
            {"betas": (0.8, 0.95), "eps": 1e-3},
            torch.optim.Adam,
            {"betas": (0.8, 0.95), "eps": 1e-3},
        ),
        (
            {"weight_decay": 0.1, "decoupled_weight_decay": True},
            torch.optim.AdamW,
            {"weight_decay": 0.1},
        ),
    ],
)
def test_with_equal_ages_it_is_adam_bit_for_bit(options, twin, of_twin, dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    start = [torch.randn(shape, generator=generator, dtype=dtype) for shape in ((50,), (6, 4), ())]
    ours, theirs = ([nn.Parameter(p.clone()) for p in start] for _ in range(2))
    one = LocalAgeAdam(ours, lr=0.01, warmup=0, **options)
    other = twin(theirs, lr=0.01, foreach=False, **of_twin)
    for _ in range(20):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = torch.randn(a.shape, generator=generator, dtype=dtype)
            b.grad = a.grad.clone()
        one.step()
        other.step()
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a, b)
        assert one.state[a]["age"].dim() == 0
        assert int(one.state[a]["age"]) == 20


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("warmup", [0, 7])
def test_ages_of_each_connection_that_are_equal_are_one_age(warmup: int, dtype) -> None:
    generator = torch.Generator().manual_seed(1)
    one = nn.Parameter(torch.randn(50, generator=generator, dtype=dtype))
    many = nn.Parameter(one.detach().clone())
    optimizers = [LocalAgeAdam([p], lr=0.01, warmup=warmup) for p in (one, many)]
    for _ in range(3):
        gradient = torch.randn(1, 50, generator=generator, dtype=dtype)
        stepped(optimizers[0], one, gradient)
        stepped(optimizers[1], many, gradient)
    optimizers[1].state[many]["age"] = torch.full((50,), 3, dtype=torch.int32)
    for _ in range(30):
        gradient = torch.randn(1, 50, generator=generator, dtype=dtype)
        stepped(optimizers[0], one, gradient)
        stepped(optimizers[1], many, gradient)
    torch.testing.assert_close(many, one)


@given(
    step=st.integers(1, 100_000),
    beta1=st.sampled_from([0.0, 0.5, 0.9]),
    beta2=st.sampled_from([0.9, 0.999, 0.99999]),
    warmup=st.sampled_from([0, 1, 100, 3000]),
    back=st.floats(0, 1),
)
def test_tables_hold_the_corrections_of_every_age(step, beta1, beta2, warmup, back) -> None:
    age = max(1, round(step * (1 - back)))
    tables = _tables(step, beta1, beta2, warmup, torch.float64, torch.device("cpu"))
    found = [float(table[min(age, len(table) - 1)]) for table in tables]
    assert found == pytest.approx(_corrections(age, beta1, beta2, warmup), rel=1e-12)
    assert min(found) > 0


def test_moments_of_low_precision_parameters_are_float32_and_stay_so() -> None:
    parameter = nn.Parameter(torch.ones(4, dtype=torch.bfloat16))
    twin = nn.Parameter(torch.ones(4))
    low, full = LocalAgeAdam([parameter], warmup=0), LocalAgeAdam([twin], warmup=0)
    stepped(low, parameter, torch.full((3, 4), 0.25))
    stepped(full, twin, torch.full((3, 4), 0.25))
    grown(parameter, low, [True, False, True, True], [0])
    loaded = LocalAgeAdam([parameter])
    loaded.load_state_dict(low.state_dict())
    state = loaded.state[parameter]
    assert {k: v.dtype for k, v in state.items()} == {
        "step": torch.float32,
        "age": torch.int32,
        "exp_avg": torch.float32,
        "exp_avg_sq": torch.float32,
    }
    assert torch.equal(state["exp_avg_sq"][1:], full.state[twin]["exp_avg_sq"][[0, 2, 3]])
    stepped(low, parameter, torch.full((1, 4), 0.25))
    assert parameter.dtype == torch.bfloat16
    assert parameter.isfinite().all()


@pytest.mark.parametrize("through", ["memory", "pickle", "deepcopy"])
def test_saved_and_loaded_it_goes_on_as_if_never_stopped(through: str) -> None:
    parameter = nn.Parameter(torch.tensor([1.0, 2.0, 8.0, 11.0]))
    optimizer = LocalAgeAdam([parameter], lr=0.1, warmup=5)
    stepped(optimizer, parameter, torch.ones(2, 4))
    grown(parameter, optimizer, [True, False, True, True], [0])
    stepped(optimizer, parameter, torch.ones(1, 4))
    if through == "deepcopy":
        twin, other = copy.deepcopy((parameter, optimizer))
    else:
        twin = nn.Parameter(parameter.detach().clone())
        other = LocalAgeAdam([twin], lr=0.5)
        saved = optimizer.state_dict()
        if through == "pickle":
            file = io.BytesIO()
            torch.save(saved, file)
            file.seek(0)
            saved = torch.load(file, weights_only=True)
        other.load_state_dict(saved)
    assert other.state[twin]["age"] is not optimizer.state[parameter]["age"]
    gradients = torch.tensor([[1.0, -1.0, 0.5, 2.0], [3.0, 1.0, 0.1, 1.0]])
    stepped(optimizer, parameter, gradients)
    stepped(other, twin, gradients)
    assert torch.equal(parameter, twin)
    assert other.state[twin]["age"].tolist() == [3, 5, 5, 5]


def test_groups_have_options_of_their_own() -> None:
    slow, fast = (nn.Parameter(torch.zeros(2)) for _ in range(2))
    optimizer = LocalAgeAdam([{"params": [slow]}, {"params": [fast], "lr": 0.5}], lr=0.1, warmup=0)
    slow.grad = fast.grad = torch.ones(2)
    optimizer.step()
    torch.testing.assert_close(slow.detach(), torch.full((2,), -0.1))
    torch.testing.assert_close(fast.detach(), torch.full((2,), -0.5))


def test_a_closure_is_evaluated_with_gradients() -> None:
    parameter = nn.Parameter(torch.ones(2))
    optimizer = LocalAgeAdam([parameter])

    def closure() -> Tensor:
        loss = parameter.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 2.0


def test_a_rate_that_a_scheduler_holds_as_a_tensor() -> None:
    parameter = nn.Parameter(torch.zeros(2))
    optimizer = LocalAgeAdam([parameter], lr=torch.tensor(0.1), warmup=0)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    stepped(optimizer, parameter, torch.ones(1, 2))
    scheduler.step()
    stepped(optimizer, parameter, torch.ones(1, 2))
    torch.testing.assert_close(parameter.detach(), torch.full((2,), -0.15))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"lr": -1.0}, "lr of LocalAgeAdam must be at least 0, got -1.0"),
        ({"betas": (0.9, 1.0)}, "betas of LocalAgeAdam must be in [0, 1), got (0.9, 1.0)"),
        ({"warmup": -1}, "warmup of LocalAgeAdam must be at least 0, got -1"),
        ({"eps": math.nan}, "eps of LocalAgeAdam must be at least 0, got nan"),
        ({"damped": "v"}, "damped of LocalAgeAdam must be lr or moment, got 'v'"),
    ],
)
def test_options_out_of_range_are_refused(options: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        LocalAgeAdam([nn.Parameter(torch.ones(2))], **options)
    with pytest.raises(ValueError, match=re.escape(sentence)):
        LocalAgeAdam([{"params": [nn.Parameter(torch.ones(2))], **options}])


def test_gradients_and_parameters_that_it_does_not_take() -> None:
    embedding = nn.Embedding(4, 2, sparse=True)
    embedding(torch.tensor([1])).sum().backward()
    with pytest.raises(TypeError, match="gradients of LocalAgeAdam must be dense tensors"):
        LocalAgeAdam(embedding.parameters()).step()
    parameter = nn.Parameter(torch.ones(2, dtype=torch.complex64))
    parameter.grad = torch.ones_like(parameter)
    with pytest.raises(TypeError, match="parameters of LocalAgeAdam must be real"):
        LocalAgeAdam([parameter]).step()


def test_ages_follow_their_connections_through_an_evolution() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(SparseLinear(12, 10, density=0.3), nn.Tanh(), nn.Linear(10, 4))
    optimizer = LocalAgeAdam(model.parameters(), lr=0.01, warmup=2)
    evolution = Evolution(model, optimizer, "set", every=3, state="age")
    layer, born = model[0], {}
    for step in range(1, 13):
        model(torch.randn(8, 12)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        before = set(layer.topology.positions.tolist())
        record = evolution.step()
        positions = layer.topology.positions.tolist()
        if record is not None:
            born = {p: born.get(p, 0) for p in positions if p in before}
            new = optimizer.state[layer.values]["age"] == 0
            assert int(new.sum()) == record.grown
            # One that is dropped and grown again is new.
            born |= {p: step for p, fresh in zip(positions, new.tolist(), strict=True) if fresh}
            ages = optimizer.state[layer.values]["age"]
            expected = [step - born.get(p, 0) for p in positions]
            assert ages.tolist() == expected
    assert optimizer.state[model[2].weight]["age"].dim() == 0


def test_state_age_asks_for_an_optimiser_with_ages() -> None:
    model = nn.Sequential(SparseLinear(12, 10, density=0.3))
    optimizer = torch.optim.Adam(model.parameters())
    evolution = Evolution(model, optimizer, "set", every=1, state="age")
    model(torch.ones(2, 12)).sum().backward()
    optimizer.step()
    sentence = (
        "optimiser of 0 must count the age of connections for state 'age', as LocalAgeAdam does, "
        "got Adam"
    )
    with pytest.raises(TypeError, match=re.escape(sentence)):
        evolution.step()


def test_it_is_public() -> None:
    assert regrow.optim.LocalAgeAdam is LocalAgeAdam
