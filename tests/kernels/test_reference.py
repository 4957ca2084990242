"""The oracle itself, checked against dense arithmetic and hand-made vectors."""

from __future__ import annotations

import doctest

import pytest
import torch

from regrow.kernels import reference
from regrow.topology.order import column_order


def sparse(n_out: int, n_in: int, density: float, seed: int, dtype: torch.dtype = torch.float64):
    """A random weight as (dense, values, indptr, indices)."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(n_out, n_in, generator=generator) < density
    dense = torch.randn(n_out, n_in, generator=generator, dtype=dtype) * mask
    indptr = torch.zeros(n_out + 1, dtype=torch.int64)
    indptr[1:] = mask.sum(1).cumsum(0)
    return dense, dense[mask], indptr, mask.nonzero()[:, 1].int()


@pytest.mark.parametrize("batch", [0, 1, 7])
@pytest.mark.parametrize("density", [0.0, 0.2, 1.0])
def test_forward_and_gradients_equal_the_dense_product(batch: int, density: float) -> None:
    dense, values, indptr, indices = sparse(5, 9, density, seed=batch)
    x = torch.randn(batch, 9, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(5, dtype=torch.float64)
    weight = dense.clone().requires_grad_()
    expected = torch.nn.functional.linear(x, weight, bias)
    grad = torch.randn_like(expected)
    expected.backward(grad)

    operands = indptr, indices, *column_order(indptr, indices, 9)
    y = reference.linear_forward(x.detach(), values, operands, bias)
    dx, dvalues = reference.linear_backward(grad, x.detach(), values, operands)

    torch.testing.assert_close(y, expected.detach())
    torch.testing.assert_close(dx, x.grad)
    torch.testing.assert_close(dvalues, reference.gather(weight.grad, indptr, indices))


def test_backward_returns_only_what_is_wanted() -> None:
    _, values, indptr, indices = sparse(4, 3, 0.5, seed=0)
    operands = indptr, indices, *column_order(indptr, indices, 3)
    grad, x = torch.ones(2, 4, dtype=torch.float64), torch.ones(2, 3, dtype=torch.float64)
    both = reference.linear_backward(grad, x, values, operands)
    only_x = reference.linear_backward(grad, x, values, operands, True, False)
    only_values = reference.linear_backward(grad, x, values, operands, False, True)
    assert only_x[1] is None
    assert torch.equal(only_x[0], both[0])
    assert only_values[0] is None
    assert torch.equal(only_values[1], both[1])
    assert reference.linear_backward(grad, x, values, operands, False, False) == (None, None)


def test_scatter_and_gather_are_inverse() -> None:
    dense, values, indptr, indices = sparse(6, 4, 0.4, seed=3)
    assert torch.equal(reference.scatter(values, indptr, indices, 4), dense)
    assert torch.equal(reference.gather(dense, indptr, indices), values)


def test_pair_products_are_entries_of_the_dense_gradient() -> None:
    grad, x = torch.randn(8, 5, dtype=torch.float64), torch.randn(8, 3, dtype=torch.float64)
    rows, columns = torch.tensor([0, 4, 4, 2]), torch.tensor([2, 0, 0, 1])
    products = reference.pair_products(grad, x, rows, columns)
    torch.testing.assert_close(products, (grad.T @ x)[rows, columns])
    assert reference.pair_products(grad, x, rows[:0], columns[:0]).shape == (0,)


def test_small_chunks_change_nothing_but_the_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    _, values, indptr, indices = sparse(20, 30, 0.3, seed=1)
    x, grad = torch.randn(9, 30, dtype=torch.float64), torch.randn(9, 20, dtype=torch.float64)
    operands = indptr, indices, *column_order(indptr, indices, 30)
    whole = reference.linear_forward(x, values, operands)
    gradients = reference.linear_backward(grad, x, values, operands)
    monkeypatch.setattr(reference, "CHUNK", 16)
    monkeypatch.setattr(reference, "_BATCH_CHUNK", 4)
    torch.testing.assert_close(reference.linear_forward(x, values, operands), whole)
    pieces = reference.linear_backward(grad, x, values, operands)
    torch.testing.assert_close(pieces, gradients)


def test_nan_stays_with_the_rows_that_it_reaches() -> None:
    _, values, indptr, indices = sparse(4, 4, 1.0, seed=0)
    x = torch.ones(2, 4, dtype=torch.float64)
    x[0, 1] = float("nan")
    y = reference.linear_forward(x, values, (indptr, indices))
    assert y[0].isnan().all()
    assert not y[1].isnan().any()


def test_examples_run() -> None:
    assert doctest.testmod(reference).failed == 0
