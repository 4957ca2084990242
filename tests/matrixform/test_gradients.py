"""Every equation against torch's autograd in float64."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from regrow import matrixform as mf

SIZES = [(5, 4, 3), (1, 4, 3), (5, 1, 3), (5, 4, 1), (1, 1, 1), (7, 9, 23)]
SLOPES = (-0.3, 0.7, 1.2, 1.9)


def close(found: np.ndarray, expected: Tensor) -> None:
    np.testing.assert_allclose(found, expected.detach().numpy(), rtol=1e-10, atol=1e-12)


def srelu(z: Tensor, a_l: Tensor, t_l: Tensor, a_r: Tensor, t_r: Tensor) -> Tensor:
    inner = torch.where(z >= t_r, t_r + a_r * (z - t_r), z)
    return torch.where(z <= t_l, t_l + a_l * (z - t_l), inner)


ACTIVATIONS: dict[str, tuple[Callable[[], mf.ReLU], Callable[[Tensor], Tensor]]] = {
    "identity": (mf.Identity, lambda z: z),
    "relu": (mf.ReLU, torch.relu),
    "leaky": (lambda: mf.LeakyReLU(0.2), lambda z: functional.leaky_relu(z, 0.2)),
    "all-relu, first": (lambda: mf.AllReLU(0.6, 1), lambda z: torch.where(z < 0, -0.6 * z, z)),
    "all-relu, second": (lambda: mf.AllReLU(0.6, 2), lambda z: torch.where(z < 0, 0.6 * z, z)),
    "tanh": (mf.HyperbolicTangent, torch.tanh),
    "sigmoid": (mf.Sigmoid, torch.sigmoid),
    "softmax": (mf.Softmax, lambda z: z.softmax(1)),
    "log-softmax": (mf.LogSoftmax, lambda z: z.log_softmax(1)),
}


def sparse_weight(rng: np.random.Generator, k: int, d: int) -> mf.SparseWeight:
    nnz = max(1, round(0.4 * k * d))
    positions = np.sort(rng.choice(k * d, nnz, replace=False))
    return mf.SparseWeight((k, d), positions, rng.standard_normal(nnz))


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("kind", ["dense", "sparse"])
@pytest.mark.parametrize("keep", [1.0, 0.6])
def test_linear_layer(name: str, sizes: tuple[int, int, int], kind: str, keep: float) -> None:
    n, d, k = sizes
    rng = np.random.default_rng(3)
    ours, theirs = ACTIVATIONS[name]
    dense = kind == "dense"
    weight = mf.DenseWeight(rng.standard_normal((k, d))) if dense else sparse_weight(rng, k, d)
    bias, x, dy = rng.standard_normal(k), rng.standard_normal((n, d)), rng.standard_normal((n, k))
    layer = mf.Linear(weight, bias, ours(), keep=keep, generator=rng)
    y, dx = layer.forward(x), layer.backward(dy)

    values = torch.tensor(weight.parameter.value, requires_grad=True)
    kept = values if layer.kept is None else values * torch.tensor(layer.kept)
    if dense:
        matrix = kept
    else:
        places = (torch.tensor(weight.positions),)
        matrix = torch.zeros(k * d, dtype=torch.float64).index_put(places, kept).view(k, d)
    given, b = (torch.tensor(a, requires_grad=True) for a in (x, bias))
    output = theirs(functional.linear(given, matrix, b))
    output.backward(torch.tensor(dy))
    close(y, output)
    close(dx, given.grad)
    close(weight.parameter.gradient, values.grad)
    close(layer.bias.gradient[0], b.grad)


@pytest.mark.parametrize("sizes", SIZES)
def test_srelu_and_its_parameters(sizes: tuple[int, int, int]) -> None:
    n, d, k = sizes
    rng = np.random.default_rng(4)
    a_l, t_l, a_r, t_r = SLOPES[0], -0.2, SLOPES[1], 0.4
    activation = mf.SReLU(a_l, t_l, a_r, t_r)
    layer = mf.Linear(mf.DenseWeight(rng.standard_normal((k, d))), None, activation)
    x, dy = rng.standard_normal((n, d)), rng.standard_normal((n, k))
    y, dx = layer.forward(x), layer.backward(dy)
    numbers = [
        torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (a_l, t_l, a_r, t_r)
    ]
    given, w = torch.tensor(x, requires_grad=True), torch.tensor(layer.weight.parameter.value)
    w.requires_grad_()
    output = srelu(given @ w.t(), *numbers)
    output.backward(torch.tensor(dy))
    close(y, output)
    close(dx, given.grad)
    close(layer.weight.parameter.gradient, w.grad)
    for found, expected in zip(activation.parameters, numbers, strict=True):
        close(found.gradient, expected.grad)


def test_srelu_where_the_pieces_meet_or_cross() -> None:
    # The first case that fits wins: left of t_l, even where that is right of t_r too.
    activation = mf.SReLU(a_l=0.5, t_l=1.0, a_r=2.0, t_r=0.0)
    z = np.array([[-1.0, 0.0, 0.5, 1.0, 2.0]])
    assert activation.forward(z).tolist() == [[0.0, 0.5, 0.75, 1.0, 4.0]]
    assert activation.backward(z, np.ones_like(z)).tolist() == [[0.5, 0.5, 0.5, 0.5, 2.0]]
    assert activation.t_l.gradient == 4 * 0.5
    assert activation.t_r.gradient == 1 * -1.0


def test_derivatives_at_zero() -> None:
    zero = np.zeros((1, 1))
    found = [a.derivative(zero).item() for a in (mf.ReLU(), mf.LeakyReLU(0.2), mf.AllReLU(0.6, 1))]
    assert found == [0.0, 0.2, 1.0]


@pytest.mark.parametrize("n", [1, 2, 9])
@pytest.mark.parametrize("d", [1, 5])
def test_batch_normalisation(n: int, d: int) -> None:
    rng = np.random.default_rng(5)
    layer = mf.BatchNormalization(d)
    layer.gamma.value, layer.beta.value = rng.standard_normal((2, 1, d))
    x, dy = rng.standard_normal((2, n, d))
    y, dx = layer.forward(x), layer.backward(dy)
    given, gamma, beta = (
        torch.tensor(a, requires_grad=True) for a in (x, layer.gamma.value, layer.beta.value)
    )
    # torch's own refuses a batch of one, so its formula is written out.
    centred = given - given.mean(0)
    output = gamma * centred / torch.sqrt(centred.square().mean(0) + 1e-7) + beta
    output.backward(torch.tensor(dy))
    close(y, output)
    np.testing.assert_allclose(dx, given.grad.numpy(), rtol=1e-8, atol=1e-8)
    close(layer.gamma.gradient, gamma.grad)
    close(layer.beta.gradient, beta.grad)
    if n > 1:
        theirs = functional.batch_norm(
            given, None, None, gamma[0], beta[0], training=True, eps=1e-7
        )
        close(y, theirs)


LOSSES = {
    "squared error": (mf.SquaredError(), lambda y, t: ((y - t) ** 2).sum()),
    "cross-entropy": (mf.CrossEntropy(), lambda y, t: -(t * y.log()).sum()),
    "softmax cross-entropy": (
        mf.SoftmaxCrossEntropy(), lambda y, t: -(t * y.log_softmax(1)).sum(),
    ),
    "logistic cross-entropy": (
        mf.LogisticCrossEntropy(), lambda y, t: -(t * functional.logsigmoid(y)).sum(),
    ),
    "negative log-likelihood": (
        mf.NegativeLogLikelihood(), lambda y, t: -(y * t).sum(1).log().sum(),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("n", "k"), [(1, 1), (1, 6), (8, 1), (8, 6)])
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("hot", [True, False])
def test_loss(name: str, n: int, k: int, hot: bool) -> None:
    rng = np.random.default_rng(6)
    ours, theirs = LOSSES[name]
    y = rng.uniform(0.1, 0.9, (n, k))
    t = mf.one_hot(rng.integers(0, k, n), k) if hot else rng.uniform(0.1, 1, (n, k))
    given = torch.tensor(y, requires_grad=True)
    expected = theirs(given, torch.tensor(t))
    expected.backward()
    assert ours.value(y, t) == pytest.approx(expected.item(), rel=1e-12)
    close(ours.gradient(y, t), given.grad)


def test_one_hot_softmax_cross_entropy_is_that_of_torch() -> None:
    rng = np.random.default_rng(7)
    y, labels = rng.standard_normal((8, 5)), rng.integers(0, 5, 8)
    given = torch.tensor(y, requires_grad=True)
    expected = functional.cross_entropy(given, torch.tensor(labels), reduction="sum")
    expected.backward()
    t = mf.one_hot(labels, 5)
    assert mf.SoftmaxCrossEntropy().value(y, t) == pytest.approx(expected.item(), rel=1e-12)
    close(mf.SoftmaxCrossEntropy().gradient(y, t), given.grad)
    close(mf.SoftmaxCrossEntropy().gradient(y, t), given.softmax(1) - torch.tensor(t))


def test_large_numbers_do_not_overflow() -> None:
    z = np.array([[1000.0, -1000.0, 0.0]])
    assert np.isfinite(mf.log_softmax(z)).all()
    assert mf.softmax(z).tolist() == [[1.0, 0.0, 0.0]]
    assert mf.sigmoid(z).tolist() == [[1.0, 0.0, 0.5]]
    assert mf.LogisticCrossEntropy().value(z, np.ones_like(z)) == 1000 + np.log(2)


def test_the_sparse_gradient_is_the_dense_one_at_the_support() -> None:
    rng = np.random.default_rng(8)
    weight = sparse_weight(rng, 37, 11)
    x, dy = rng.standard_normal((6, 11)), rng.standard_normal((6, 37))
    dense = mf.DenseWeight(weight.matrix())
    gathered = dense.gradient(dy, x).reshape(-1)[weight.positions]
    np.testing.assert_allclose(weight.gradient(dy, x), gathered, rtol=1e-13)
    np.testing.assert_allclose(weight.forward(x), dense.forward(x), rtol=1e-13)
    np.testing.assert_allclose(weight.backward(dy), dense.backward(dy), rtol=1e-12, atol=1e-13)
