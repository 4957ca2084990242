"""Whole training steps of sparse networks: NumPy's equations and torch's layers do the same."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from regrow import Evolution, SparseLinear
from regrow import matrixform as mf
from regrow.data import load
from regrow.topology.structured import Block, block_topology, nm_topology

ACTIVATIONS = {
    "relu": (mf.ReLU, nn.ReLU),
    "leaky": (lambda: mf.LeakyReLU(0.1), lambda: nn.LeakyReLU(0.1)),
    "tanh": (mf.HyperbolicTangent, nn.Tanh),
    "sigmoid": (mf.Sigmoid, nn.Sigmoid),
}
OPTIMIZERS = {
    "gradient descent": (mf.GradientDescent, {}),
    "momentum": (mf.Momentum, {"momentum": 0.9}),
    "nesterov": (mf.Nesterov, {"momentum": 0.9, "nesterov": True}),
}


def twin_of(model: nn.Sequential, activation: str) -> mf.MultilayerPerceptron:
    """The same network in NumPy, its values copied."""
    layers = []
    for module in model:
        if isinstance(module, SparseLinear):
            weight = mf.SparseWeight(
                tuple(module.topology.shape),
                module.topology.positions.numpy(),
                module.values.detach().numpy().copy(),
            )
            bias = module.bias.detach().numpy().copy()
            layers.append(mf.Linear(weight, bias, mf.Identity()))
        elif isinstance(module, nn.BatchNorm1d):
            layers.append(mf.BatchNormalization(module.num_features, module.eps))
        else:
            layers[-1].activation = ACTIVATIONS[activation][0]()
    return mf.MultilayerPerceptron(layers)


def sparse_network(
    widths: list[int],
    density: float,
    compute: str,
    activation: str = "relu",
    dtype: torch.dtype = torch.float64,
) -> nn.Sequential:
    generator = torch.Generator().manual_seed(1)
    modules: list[nn.Module] = []
    for n_in, n_out in itertools.pairwise(widths):
        if modules:
            modules.append(ACTIVATIONS[activation][1]())
        modules.append(
            SparseLinear(
                n_in, n_out, density=density, compute=compute, generator=generator, dtype=dtype
            )
        )
    return nn.Sequential(*modules)


def parameters_agree(
    model: nn.Module, twin: mf.MultilayerPerceptron, tolerance: float, gradients: bool = True
) -> None:
    theirs = list(model.parameters())
    assert len(theirs) == len(twin.parameters)
    for ours, parameter in zip(twin.parameters, theirs, strict=True):
        expected = parameter.detach().numpy().reshape(ours.value.shape)
        np.testing.assert_allclose(ours.value, expected, rtol=0, atol=tolerance)
        if gradients:
            expected = parameter.grad.numpy().reshape(ours.value.shape)
            np.testing.assert_allclose(ours.gradient, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("compute", ["csr", "dense", "auto"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_whole_training_steps(compute: str, optimizer: str, activation: str) -> None:
    model = sparse_network([20, 50, 33, 7], 0.2, compute, activation)
    twin = twin_of(model, activation)
    make, options = OPTIMIZERS[optimizer]
    ours, theirs = make(), torch.optim.SGD(model.parameters(), lr=0.1, **options)
    rng = np.random.default_rng(2)
    for _ in range(20):
        x, labels = rng.standard_normal((16, 20)), rng.integers(0, 7, 16)
        loss = mf.train_batch(twin, mf.SoftmaxCrossEntropy(), ours, x, mf.one_hot(labels, 7), 0.1)
        expected = functional.cross_entropy(model(torch.tensor(x)), torch.tensor(labels))
        theirs.zero_grad()
        expected.backward()
        theirs.step()
        assert loss == pytest.approx(expected.item(), abs=1e-10)
        parameters_agree(model, twin, 1e-10)


@pytest.mark.parametrize("compute", ["block", "nm"])
def test_structured_weights(compute: str) -> None:
    generator = torch.Generator().manual_seed(1)
    modules: list[nn.Module] = []
    for shape in ((48, 32), (32, 48), (8, 32)):
        if compute == "nm":
            topology = nm_topology(shape, 2, 4, generator=generator)
        else:
            connections = shape[0] * shape[1] // 4
            topology = block_topology(shape, connections, Block(4, 4), generator=generator)
        modules += [
            SparseLinear(
                shape[1], shape[0], topology=topology, compute=compute, generator=generator,
                dtype=torch.float64,
            ),
            nn.Tanh(),
        ]  # fmt: skip
    model = nn.Sequential(*modules[:-1])
    twin, ours = twin_of(model, "tanh"), mf.Momentum(0.9)
    theirs = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    rng = np.random.default_rng(6)
    for _ in range(10):
        x, labels = rng.standard_normal((16, 32)), rng.integers(0, 8, 16)
        mf.train_batch(twin, mf.SoftmaxCrossEntropy(), ours, x, mf.one_hot(labels, 8), 0.1)
        theirs.zero_grad()
        functional.cross_entropy(model(torch.tensor(x)), torch.tensor(labels)).backward()
        theirs.step()
        parameters_agree(model, twin, 1e-10)


@pytest.mark.parametrize("compute", ["csr", "dense"])
def test_with_batch_normalisation(compute: str) -> None:
    sparse = sparse_network([12, 30, 4], 0.3, compute)
    model = nn.Sequential(sparse[0], nn.BatchNorm1d(30, dtype=torch.float64), nn.Tanh(), sparse[2])
    weights = [twin_of(nn.Sequential(layer), "relu").layers[0] for layer in (model[0], model[3])]
    twin = mf.MultilayerPerceptron(
        [weights[0], mf.BatchNormalization(30, model[1].eps), _Tanh(), weights[1]]
    )
    ours, theirs = mf.Nesterov(), torch.optim.SGD(
        model.parameters(), lr=0.05, momentum=0.9, nesterov=True
    )  # fmt: skip
    rng = np.random.default_rng(3)
    for _ in range(20):
        x, t = rng.standard_normal((10, 12)), rng.standard_normal((10, 4))
        mf.train_batch(twin, mf.SquaredError(), ours, x, t, 0.05)
        theirs.zero_grad()
        ((model(torch.tensor(x)) - torch.tensor(t)) ** 2).sum().div(10).backward()
        theirs.step()
        parameters_agree(model, twin, 1e-10)


class _Tanh:
    """An activation as a layer of its own, which any object with this form is."""

    parameters: tuple[mf.Parameter, ...] = ()

    def forward(self, x: np.ndarray, training: bool = True) -> np.ndarray:
        self._x = x
        return np.tanh(x)

    def backward(self, dy: np.ndarray) -> np.ndarray:
        return mf.HyperbolicTangent().backward(self._x, dy)


def test_after_an_update_of_the_topology() -> None:
    """Evolve, copy the new state over, and the next steps are the same again."""
    model = sparse_network([20, 40, 5], 0.2, "csr")
    theirs = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    evolution = Evolution(model, theirs, "set", every=3)
    rng = np.random.default_rng(4)
    updates = 0
    for _ in range(4):
        twin, ours = twin_of(model, "relu"), mf.Momentum(0.9)
        for theta, parameter in zip(twin.parameters, model.parameters(), strict=True):
            moments = theirs.state.get(parameter, {}).get("momentum_buffer")
            if moments is not None:
                delta = -0.1 * moments.numpy().reshape(theta.value.shape)
                ours._buffers[id(theta)] = (theta, delta)
        for _ in range(3):
            x, labels = rng.standard_normal((8, 20)), rng.integers(0, 5, 8)
            mf.train_batch(twin, mf.SoftmaxCrossEntropy(), ours, x, mf.one_hot(labels, 5), 0.1)
            theirs.zero_grad()
            functional.cross_entropy(model(torch.tensor(x)), torch.tensor(labels)).backward()
            theirs.step()
            parameters_agree(model, twin, 1e-10)
            updates += evolution.step() is not None
    assert updates == 4


def test_200_steps_on_digits_in_float32() -> None:
    """The losses of both stay together over a training, in single precision."""
    data = load("digits")
    model = sparse_network([64, 100, 50, 10], 0.1, "csr", dtype=torch.float32)
    twin = twin_of(model, "relu")
    ours, theirs = mf.Momentum(0.9), torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    x, y = data.x_train, data.y_train
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        rows = torch.randperm(len(x), generator=generator)[:32]
        given, t = x[rows].numpy(), mf.one_hot(y[rows].numpy(), 10).astype(np.float32)
        loss = mf.train_batch(twin, mf.SoftmaxCrossEntropy(), ours, given, t, 0.05)
        expected = functional.cross_entropy(model(x[rows]), y[rows])
        theirs.zero_grad()
        expected.backward()
        theirs.step()
        assert loss == pytest.approx(expected.item(), rel=1e-4)
    assert loss < 0.6
    assert all(parameter.value.dtype == np.float32 for parameter in twin.parameters)


def test_minibatches_cover_every_sample_once_an_epoch() -> None:
    seen: list[float] = []

    class Spy(mf.Linear):
        def forward(self, x: np.ndarray, training: bool = True) -> np.ndarray:
            seen.extend(x[:, 0])
            return super().forward(x, training)

    network = mf.MultilayerPerceptron([Spy(mf.DenseWeight([[1.0]]))])
    x = np.arange(7.0).reshape(-1, 1)
    given = {"epochs": 2, "batch": 3, "schedule": mf.constant(0.0)}
    losses = mf.train(network, mf.SquaredError(), mf.GradientDescent(), x, x + 1, **given)
    assert seen == [*range(7), *range(7)]
    assert losses == [1.0, 1.0]
    seen.clear()
    mf.train(network, mf.SquaredError(), mf.GradientDescent(), x, x, **given,
             generator=np.random.default_rng(0))  # fmt: skip
    assert sorted(seen[:7]) == sorted(seen[7:]) == list(range(7))
    assert seen[:7] != seen[7:]


def test_dropped_weights_are_drawn_anew_and_only_in_training() -> None:
    rng = np.random.default_rng(0)
    weight = mf.SparseWeight((40, 50), np.arange(0, 2000, 2), np.ones(1000))
    layer = mf.Linear(weight, keep=0.75, generator=rng)
    x = np.ones((1, 50))
    first, kept = layer.forward(x), layer.kept
    assert set(kept) == {0, 1 / 0.75}
    assert 0.7 < (kept > 0).mean() < 0.8
    second = layer.forward(x)
    assert (first != second).any()
    assert layer.forward(x, training=False).sum() == 1000
    assert layer.kept is None
