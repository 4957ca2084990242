"""The matrix equations against derivatives by SymPy, exactly, on small symbolic matrices."""

from __future__ import annotations

import numpy as np
import pytest
import sympy as sp

from regrow import matrixform as mf

N, D, K = 2, 3, 2


def symbols(name: str, rows: int, columns: int) -> sp.Matrix:
    return sp.Matrix(rows, columns, lambda i, j: sp.Symbol(f"{name}{i}{j}", real=True))


def ones(rows: int, columns: int = 1) -> sp.Matrix:
    return sp.ones(rows, columns)


def product(a: sp.Matrix, b: sp.Matrix) -> sp.Matrix:
    return a.multiply_elementwise(b)


def gradient(y: sp.Matrix, dy: sp.Matrix, x: sp.Matrix) -> sp.Matrix:
    """Of ``sum(DY o Y)``, which is the loss as far as a layer sees it."""
    total = sum(product(dy, y))
    return x.applyfunc(lambda entry: sp.diff(total, entry))


def same(a: sp.Matrix, b: sp.Matrix) -> None:
    assert (a - b).applyfunc(sp.simplify) == sp.zeros(*a.shape)


X, W, B = symbols("x", N, D), symbols("w", K, D), symbols("b", 1, K)
Z, DY = symbols("z", N, K), symbols("g", N, K)
T = symbols("t", N, K)


def softmax(z: sp.Matrix) -> sp.Matrix:
    powers = z.applyfunc(sp.exp)
    return product(powers, (powers * ones(K)).applyfunc(lambda e: 1 / e) * ones(1, K))


def log_softmax(z: sp.Matrix) -> sp.Matrix:
    return z - (z.applyfunc(sp.exp) * ones(K)).applyfunc(sp.log) * ones(1, K)


def test_linear() -> None:
    y = X * W.T + ones(N) * B
    same(gradient(y, DY, W), DY.T * X)
    same(gradient(y, DY, B), ones(1, N) * DY)
    same(gradient(y, DY, X), DY * W)


def test_dropped_weights() -> None:
    r = symbols("r", K, D)
    y = X * product(W, r).T + ones(N) * B
    same(gradient(y, DY, W), product(DY.T * X, r))
    same(gradient(y, DY, X), DY * product(W, r))


def test_softmax() -> None:
    y = softmax(Z)
    diagonal = sp.Matrix([(DY * y.T)[i, i] for i in range(N)])
    same(gradient(y, DY, Z), product(y, DY - diagonal * ones(1, K)))


def test_log_softmax() -> None:
    y = log_softmax(Z)
    same(gradient(y, DY, Z), DY - product(softmax(Z), DY * ones(K) * ones(1, K)))


def test_batch_normalisation() -> None:
    x, dy = symbols("x", N, 1), symbols("g", N, 1)
    gamma, beta = symbols("c", 1, 1), symbols("d", 1, 1)
    epsilon = sp.Symbol("e", positive=True)
    mean = ones(N, N) / N
    r = x - mean * x
    scale = 1 / sp.sqrt((r.T * r)[0] / N + epsilon)
    z = scale * r
    y = z * gamma + ones(N) * beta
    dz = dy * gamma
    same(gradient(y, dy, beta), ones(1, N) * dy)
    same(gradient(y, dy, gamma), ones(1, N) * product(z, dy))
    same(gradient(y, dy, x), scale * (dz - mean * dz - product(z, mean * product(z, dz))))


@pytest.mark.parametrize(
    ("name", "value", "derivative"),
    [
        ("tanh", sp.tanh, lambda z: 1 - sp.tanh(z) ** 2),
        (
            "sigmoid",
            lambda z: 1 / (1 + sp.exp(-z)),
            lambda z: 1 / (1 + sp.exp(-z)) * (1 - 1 / (1 + sp.exp(-z))),
        ),
    ],
)
def test_smooth_activation(name: str, value: sp.Function, derivative: sp.Function) -> None:
    z = sp.Symbol("z", real=True)
    assert sp.simplify(sp.diff(value(z), z) - derivative(z)) == 0


def test_srelu() -> None:
    z, a_l, t_l, a_r, t_r = sp.symbols("z a_l t_l a_r t_r", real=True)
    left, right = t_l + a_l * (z - t_l), t_r + a_r * (z - t_r)
    assert [
        sp.expand(sp.diff(left, s) - d) for s, d in ((z, a_l), (a_l, z - t_l), (t_l, 1 - a_l))
    ] == [0] * 3
    assert [
        sp.expand(sp.diff(right, s) - d) for s, d in ((z, a_r), (a_r, z - t_r), (t_r, 1 - a_r))
    ] == [0] * 3


LOSSES = {
    "squared error": (
        lambda y: sum(product(y - T, y - T)), lambda y: 2 * (y - T),
    ),
    "cross-entropy": (
        lambda y: -sum(product(T, y.applyfunc(sp.log))),
        lambda y: -product(T, y.applyfunc(lambda e: 1 / e)),
    ),
    "softmax cross-entropy": (
        lambda y: -sum(product(T, log_softmax(y))),
        lambda y: product(softmax(y), T * ones(K) * ones(1, K)) - T,
    ),
    "logistic cross-entropy": (
        lambda y: -sum(product(T, y.applyfunc(lambda e: sp.log(1 / (1 + sp.exp(-e)))))),
        lambda y: product(T, y.applyfunc(lambda e: 1 / (1 + sp.exp(-e)))) - T,
    ),
    "negative log-likelihood": (
        lambda y: -sum((product(y, T) * ones(K)).applyfunc(sp.log)),
        lambda y: -product((product(y, T) * ones(K)).applyfunc(lambda e: 1 / e) * ones(1, K), T),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LOSSES)
def test_loss(name: str) -> None:
    value, derivative = LOSSES[name]
    y = sp.Matrix(N, K, lambda i, j: sp.Symbol(f"y{i}{j}", positive=True))
    same(y.applyfunc(lambda entry: sp.diff(value(y), entry)), derivative(y))


def test_the_code_computes_what_the_symbols_say() -> None:
    """A layer with softmax and a loss, its derivatives evaluated with 40 digits."""
    rng = np.random.default_rng(0)
    numbers = {s: sp.Rational(int(v), 100) for s, v in zip(
        [*X, *W, *B], rng.integers(-200, 200, N * D + K * D + K), strict=True
    )}  # fmt: skip
    targets = sp.Matrix([[1, 0], [0, 1]])
    y = softmax(X * W.T + ones(N) * B)
    loss = -sum(product(targets, y.applyfunc(sp.log)))

    def evaluated(matrix: sp.Matrix) -> np.ndarray:
        exact = matrix.applyfunc(lambda e: sp.diff(loss, e).subs(numbers).evalf(40))
        return np.array(exact.tolist(), dtype=np.float64)

    def array(matrix: sp.Matrix) -> np.ndarray:
        return np.array(matrix.subs(numbers).tolist(), dtype=np.float64)

    layer = mf.Linear(mf.DenseWeight(array(W)), array(B), mf.Softmax())
    t = np.array(targets.tolist(), dtype=np.float64)
    output = layer.forward(array(X))
    dx = layer.backward(mf.CrossEntropy().gradient(output, t))
    np.testing.assert_allclose(dx, evaluated(X), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(layer.weight.parameter.gradient, evaluated(W), rtol=1e-12)
    np.testing.assert_allclose(layer.bias.gradient, evaluated(B), rtol=1e-12)
