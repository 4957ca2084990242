"""Optimisers against torch's, schedules and initialisers against their formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from regrow import matrixform as mf

OPTIMIZERS = {
    "gradient descent": (mf.GradientDescent(), {}),
    "momentum": (mf.Momentum(0.9), {"momentum": 0.9}),
    "nesterov": (mf.Nesterov(0.9), {"momentum": 0.9, "nesterov": True}),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_constant_rate_gives_the_steps_of_torch(name: str) -> None:
    ours, options = OPTIMIZERS[name]
    rng = np.random.default_rng(0)
    parameters = [mf.Parameter(rng.standard_normal(shape)) for shape in ((3, 4), (5,), ())]
    twins = [torch.nn.Parameter(torch.tensor(p.value)) for p in parameters]
    theirs = torch.optim.SGD(twins, lr=0.1, **options)
    for _ in range(10):
        for parameter, twin in zip(parameters, twins, strict=True):
            parameter.gradient = np.asarray(rng.standard_normal(parameter.value.shape))
            twin.grad = torch.tensor(parameter.gradient)
        ours.step(parameters, 0.1)
        theirs.step()
    for parameter, twin in zip(parameters, twins, strict=True):
        np.testing.assert_allclose(parameter.value, twin.detach().numpy(), rtol=1e-12)


def test_by_hand() -> None:
    for optimizer, expected in (
        (mf.GradientDescent(), [0.9, 0.7]),
        (mf.Momentum(0.5), [0.9, 0.65]),  # buffers -0.1, -0.25
        (mf.Nesterov(0.5), [0.85, 0.525]),  # 1 - 0.05 - 0.1, then - 0.125 - 0.2
    ):
        theta = mf.Parameter([1.0])
        found = []
        for gradient in (1.0, 2.0):
            theta.gradient = np.array([gradient])
            optimizer.step([theta], 0.1)
            found.append(theta.value.item())
        assert found == pytest.approx(expected)


def test_a_changing_rate_stays_inside_the_buffer() -> None:
    theta, optimizer = mf.Parameter([0.0]), mf.Momentum(0.5)
    theta.gradient = np.array([1.0])
    optimizer.step([theta], 1.0)
    optimizer.step([theta], 0.0)  # torch would not move with a rate of zero
    assert theta.value.item() == -1.5


def test_a_reset_buffer_starts_at_zero() -> None:
    theta, optimizer = mf.Parameter([0.0]), mf.Momentum(0.5)
    theta.gradient = np.array([1.0])
    optimizer.step([theta], 1.0)
    assert optimizer.buffer(theta).tolist() == [-1.0]
    optimizer.reset(theta)
    assert optimizer.buffer(theta).tolist() == [0.0]
    optimizer.reset(mf.Parameter([1.0]))  # one that was never seen


def test_schedules() -> None:
    assert [mf.constant(0.1)(i) for i in range(2)] == [0.1, 0.1]
    time = mf.time_based(0.1, 0.5)
    assert [time(i) for i in range(4)] == pytest.approx([0.1, 0.1, 0.1 / 1.5, 0.1 / 1.5 / 2])
    assert time(3) == time(3)
    assert [mf.step_based(1.0, 0.1, 3)(i) for i in range(6)] == pytest.approx(
        [1, 1, 0.1, 0.1, 0.1, 0.01]
    )
    assert mf.exponential(2.0, 0.25)(4) == 2 * math.exp(-1)
    multi = mf.multi_step(1.0, [2, 4], 0.1)
    assert [multi(i) for i in range(9)] == pytest.approx([1, 1, 0.1, 0.1, *[0.01] * 5])


@pytest.mark.parametrize(
    ("initializer", "deviation", "bound"),
    [
        (mf.uniform, math.sqrt(1 / 12), 1.0),
        (mf.normal, 1.0, None),
        (mf.xavier_uniform, math.sqrt(2 / 50), math.sqrt(6 / 50)),
        (mf.xavier_normal, math.sqrt(2 / 50), None),
        (mf.he_normal, math.sqrt(2 / 30), None),
        (mf.he_uniform, math.sqrt(2 / 30), math.sqrt(6 / 30)),
    ],
)
def test_initializers(
    initializer: mf.initializers.Initializer, deviation: float, bound: float | None
) -> None:
    drawn = initializer((20, 30), 20_000, np.random.default_rng(0))
    assert drawn.shape == (20_000,)
    assert drawn.std() == pytest.approx(deviation, rel=0.03)
    if bound is not None:
        assert 0.98 * bound < np.abs(drawn).max() <= bound


def test_zeros() -> None:
    assert not mf.zeros((2, 3), 6, np.random.default_rng(0)).any()
