"""Checking the equations: against autograd, and against finite differences, in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from regrow.matrixform.activations import (
    AllReLU,
    HyperbolicTangent,
    Identity,
    LeakyReLU,
    LogSoftmax,
    ReLU,
    Sigmoid,
    Softmax,
    SReLU,
)
from regrow.matrixform.layers import BatchNormalization, Linear
from regrow.matrixform.losses import (
    CrossEntropy,
    LogisticCrossEntropy,
    NegativeLogLikelihood,
    SoftmaxCrossEntropy,
    SquaredError,
)
from regrow.matrixform.parameter import Array
from regrow.matrixform.weights import DenseWeight, SparseWeight

_STEP = 1e-5
# Differences at one and at two steps are closer than this where there is no kink.
_SMOOTH = 1e-6


@dataclass
class Errors:
    """How far an equation was off, at worst, over all points it was checked at.

    Errors are relative to the largest entry of the gradient, or to 1 where that is smaller.

    Attributes:
        autograd: Against torch's autograd.
        differences: Against central differences, where the function is smooth.
        entries: Of gradients that were checked.
        kinks: Entries next to a kink, left out of the differences.
    """

    autograd: float = 0.0
    differences: float = 0.0
    entries: int = 0
    kinks: int = 0


def check_equations(
    shapes: Sequence[tuple[int, int, int]], generator: np.random.Generator
) -> dict[str, Errors]:
    """Check every equation at random points, by its name.

    Layers have a dense and a sparse weight, and each activation also goes with the dropout of
    weights. ``sparse gradient`` is how far it is from the dense one at the support.

    Args:
        shapes: N, D and K, each at least 1.
        generator: Draws the points.

    Example:
        >>> found = check_equations([(3, 4, 5), (1, 1, 1)], np.random.default_rng(0))
        >>> max(errors.autograd for errors in found.values()) < 1e-12
        True
    """
    found: dict[str, Errors] = {}
    for shape in shapes:
        for name, case in _cases(generator, *shape):
            _add(found.setdefault(name, Errors()), *case)
        own = found.setdefault("sparse gradient", Errors())
        error, entries = _gathered(generator, *shape)
        own.autograd, own.entries = max(own.autograd, error), own.entries + entries
    return found


# The scalar that an equation is checked with, the arrays it depends on, their gradients by the
# equation, and the scalar once more for autograd.
_Case = tuple[Callable[[], float], list[Array], Callable[[], list[Array]], Callable[..., Tensor]]


def _srelu(z: Tensor, a_l: Tensor, t_l: Tensor, a_r: Tensor, t_r: Tensor) -> Tensor:
    inner = torch.where(z >= t_r, t_r + a_r * (z - t_r), z)
    return torch.where(z <= t_l, t_l + a_l * (z - t_l), inner)


_ACTIVATIONS: dict[str, tuple[Callable[[], Any], Callable[..., Tensor]]] = {
    "linear": (Identity, lambda z: z),
    "ReLU": (ReLU, torch.relu),
    "leaky ReLU": (lambda: LeakyReLU(0.2), lambda z: functional.leaky_relu(z, 0.2)),
    "All-ReLU, odd layer": (lambda: AllReLU(0.6, 1), lambda z: torch.where(z < 0, -0.6 * z, z)),
    "All-ReLU, even layer": (lambda: AllReLU(0.6, 2), lambda z: torch.where(z < 0, 0.6 * z, z)),
    "SReLU": (lambda: SReLU(-0.3, -0.2, 0.7, 0.4), _srelu),
    "tanh": (HyperbolicTangent, torch.tanh),
    "sigmoid": (Sigmoid, torch.sigmoid),
    "softmax": (Softmax, lambda z: z.softmax(1)),
    "log-softmax": (LogSoftmax, lambda z: z.log_softmax(1)),
}
_LOSSES: dict[str, tuple[Any, Callable[[Tensor, Tensor], Tensor]]] = {
    "squared error": (SquaredError(), lambda y, t: (y - t).square().sum()),
    "cross-entropy": (CrossEntropy(), lambda y, t: -(t * y.log()).sum()),
    "softmax cross-entropy": (
        SoftmaxCrossEntropy(),
        lambda y, t: -(t * y.log_softmax(1)).sum(),
    ),
    "logistic cross-entropy": (
        LogisticCrossEntropy(),
        lambda y, t: -(t * functional.logsigmoid(y)).sum(),
    ),
    "negative log-likelihood": (
        NegativeLogLikelihood(),
        lambda y, t: -(y * t).sum(1).log().sum(),
    ),
}


def _cases(rng: np.random.Generator, n: int, d: int, k: int) -> Iterator[tuple[str, _Case]]:
    for name in _ACTIVATIONS:
        for sparse in (False, True):
            yield name, _layer(rng, n, d, k, name, sparse, 1.0)
            yield "dropout of weights", _layer(rng, n, d, k, name, sparse, 0.6)
    yield "batch normalisation", _normalisation(rng, n, d)
    for name in _LOSSES:
        yield name, _loss(rng, n, k, name)


def _loss(rng: np.random.Generator, n: int, k: int, name: str) -> _Case:
    loss, theirs = _LOSSES[name]
    y, t = rng.uniform(0.1, 0.9, (2, n, k))
    targets = torch.from_numpy(t)
    return (
        lambda: loss.value(y, t),
        [y],
        lambda: [loss.gradient(y, t)],
        lambda y: theirs(y, targets),
    )


def _layer(
    rng: np.random.Generator, n: int, d: int, k: int, name: str, sparse: bool, keep: float
) -> _Case:
    """A layer followed by a weighted sum of its outputs."""
    ours, theirs = _ACTIVATIONS[name]
    weight = _sparse(rng, k, d) if sparse else DenseWeight(rng.standard_normal((k, d)))
    layer = Linear(weight, rng.standard_normal(k), ours(), keep=keep, generator=rng)
    x, dy = rng.standard_normal((n, d)), rng.standard_normal((n, k))
    again = int(rng.integers(2**31))

    def value() -> float:
        layer.generator = np.random.default_rng(again)  # drops the same weights every time
        return float((layer.forward(x) * dy).sum())

    def gradients() -> list[Array]:
        value()
        return [layer.backward(dy), *(p.gradient for p in layer.parameters)]

    def output(x: Tensor, values: Tensor, bias: Tensor, *numbers: Tensor) -> Tensor:
        kept = values if layer.kept is None else values * torch.from_numpy(layer.kept)
        if isinstance(weight, SparseWeight):
            places = (torch.from_numpy(weight.positions),)
            kept = kept.new_zeros(k * d).index_put(places, kept).view(k, d)
        z = functional.linear(x, kept, bias[0])
        return (theirs(z, *numbers) * torch.from_numpy(dy)).sum()

    return value, [x, *(p.value for p in layer.parameters)], gradients, output


def _normalisation(rng: np.random.Generator, n: int, d: int) -> _Case:
    layer = BatchNormalization(d)
    layer.gamma.value, layer.beta.value = rng.standard_normal((2, 1, d))
    x, dy = rng.standard_normal((2, n, d))

    def value() -> float:
        return float((layer.forward(x) * dy).sum())

    def gradients() -> list[Array]:
        value()
        return [layer.backward(dy), layer.gamma.gradient, layer.beta.gradient]

    def output(x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        r = x - x.mean(0)
        z = r / (r.square().mean(0) + layer.epsilon).sqrt()
        return ((gamma * z + beta) * torch.from_numpy(dy)).sum()

    return value, [x, layer.gamma.value, layer.beta.value], gradients, output


def _add(
    errors: Errors,
    value: Callable[[], float],
    arrays: list[Array],
    gradients: Callable[[], list[Array]],
    theirs: Callable[..., Tensor],
) -> None:
    """Check an equation at one point."""
    ours = [gradient.copy() for gradient in gradients()]
    tensors = [torch.tensor(array, requires_grad=True) for array in arrays]
    expected = torch.autograd.grad(theirs(*tensors), tensors)
    for array, own, their in zip(arrays, ours, expected, strict=True):
        errors.autograd = max(errors.autograd, _error(own, their.numpy()))
        near, far = (_central(value, array, step) for step in (_STEP, 2 * _STEP))
        smooth = np.abs(near - far) < _SMOOTH * max(1.0, float(np.abs(own).max()))
        errors.kinks += int((~smooth).sum())
        errors.entries += array.size
        if smooth.any():
            errors.differences = max(errors.differences, _error(own[smooth], near[smooth]))


def _central(value: Callable[[], float], array: Array, step: float) -> Array:
    found, flat = np.empty(array.size), array.reshape(-1)
    for i, at in enumerate(flat.tolist()):
        flat[i] = at + step
        above = value()
        flat[i] = at - step
        found[i] = (above - value()) / (2 * step)
        flat[i] = at
    return found.reshape(array.shape)


def _gathered(rng: np.random.Generator, n: int, d: int, k: int) -> tuple[float, int]:
    """How far the gradient of a sparse weight is from the dense one read at its positions."""
    weight = _sparse(rng, k, d)
    x, dy = rng.standard_normal((n, d)), rng.standard_normal((n, k))
    dense = DenseWeight(weight.matrix()).gradient(dy, x).reshape(-1)[weight.positions]
    return _error(weight.gradient(dy, x), dense), weight.nnz


def _sparse(rng: np.random.Generator, k: int, d: int) -> SparseWeight:
    nnz = max(1, round(0.4 * k * d))
    positions = np.sort(rng.choice(k * d, nnz, replace=False))
    return SparseWeight((k, d), positions, rng.standard_normal(nnz))


def _error(found: Array, expected: Array) -> float:
    return float(np.abs(found - expected).max() / max(1.0, np.abs(expected).max()))
