"""The operator: torch's own checks, shapes without computing, FLOPs, choice of kernels."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from regrow import Topology
from regrow.kernels import dispatch, native, ops, reference

needs_native = pytest.mark.skipif(not native.available(), reason=native.reason())

HAND = Topology((4, 7), torch.tensor([1, 9, 20, 22, 23]))


def operands(topology: Topology = HAND) -> list[Tensor]:
    return list(topology.operands())


def inputs(bias: bool = True, **options: object) -> tuple:
    generator = torch.Generator().manual_seed(0)
    options = {"dtype": torch.float64, "requires_grad": True, **options}
    return (
        torch.randn(5, 7, generator=generator, **options),
        torch.randn(5, generator=generator, **options),
        torch.randn(4, generator=generator, **options) if bias else None,
    )


@pytest.mark.parametrize("compute", ["csr", "dense"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("relu", [True, False])
def test_opcheck(compute: str, bias: bool, relu: bool) -> None:
    torch.library.opcheck(
        torch.ops.regrow.linear.default, (*inputs(bias), operands(), compute, True, relu)
    )


@pytest.mark.parametrize("need", [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("compute", ["csr", "dense"])
def test_opcheck_of_the_backward_operator(compute: str, need: tuple[bool, bool]) -> None:
    x, values, _ = inputs(requires_grad=False)
    grad = torch.ones(5, 4, dtype=torch.float64)
    torch.library.opcheck(
        torch.ops.regrow.linear_backward.default, (grad, x, values, operands(), compute, *need)
    )


@pytest.mark.parametrize("compute", ["csr", "dense", "auto"])
@pytest.mark.parametrize("function", [ops.linear, torch.ops.regrow.linear])
def test_operator_and_eager_path_agree_with_the_dense_map(function, compute: str) -> None:
    x, values, bias = inputs()
    dense = torch.zeros(28, dtype=torch.float64).index_put((HAND.positions,), values).view(4, 7)
    y = function(x, values, bias, operands(), compute, True)
    expected = functional.linear(x, dense, bias)
    torch.testing.assert_close(y, expected)
    weights = torch.arange(20.0, dtype=torch.float64).view(5, 4)
    mine = torch.autograd.grad((y * weights).sum(), (x, values, bias))
    theirs = torch.autograd.grad((expected * weights).sum(), (x, values, bias))
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("function", [ops.linear, torch.ops.regrow.linear])
@pytest.mark.parametrize("compute", ["csr", "dense"])
def test_gradcheck(function, compute: str) -> None:
    fixed = (operands(), compute, True)
    assert torch.autograd.gradcheck(lambda *given: function(*given, *fixed), inputs())


def test_shapes_are_known_without_computing() -> None:
    x, values, bias = inputs(device="meta")
    on_meta = [part.to("meta") for part in operands()]
    y = torch.ops.regrow.linear(x, values, bias, on_meta, "csr", True)
    assert (y.shape, y.dtype, y.device.type) == ((5, 4), torch.float64, "meta")


def test_the_fast_kernels_serve_what_they_can() -> None:
    fast = native if native.available() else reference
    assert ops.sparse_kernels(torch.ones(1)) is fast
    assert ops.sparse_kernels(torch.ones(1, dtype=torch.float64)) is fast
    assert ops.sparse_kernels(torch.ones(1, dtype=torch.bfloat16)) is reference
    assert ops.sparse_kernels(torch.ones(1, device="meta")) is reference


def test_missing_fast_kernels_are_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "available", lambda: False)
    monkeypatch.setattr(native, "reason", lambda: "it was not built")
    monkeypatch.setattr(ops, "_said", False)
    sentence = "regrow computes with its slow reference kernels: it was not built"
    with pytest.warns(RuntimeWarning, match=sentence):
        assert ops.sparse_kernels(torch.ones(1)) is reference
    assert ops.sparse_kernels(torch.ones(1)) is reference  # a second warning would be an error
    monkeypatch.setattr(ops, "_said", False)


def test_auto_draws_no_random_numbers_and_keeps_no_gradient() -> None:
    dispatch.forget()
    x, values, bias = inputs()
    before = torch.get_rng_state()
    y = ops.linear(x, values, bias, operands(), "auto", True)
    assert torch.equal(torch.get_rng_state(), before)
    assert len(dispatch.decisions()) == 1
    y.sum().backward()
    assert len(dispatch.decisions()) == 1
    dispatch.forget()


def test_backward_takes_the_way_that_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    monkeypatch.setattr(
        dispatch, "choose", lambda situation, trials: taken.append(situation) or "csr"
    )
    x, values, bias = inputs()
    ops.linear(x, values, bias, operands(), "auto", True).sum().backward()
    assert taken[0] == taken[1]
    assert (taken[0].n_out, taken[0].n_in, taken[0].nnz, taken[0].batch) == (4, 7, 5, 8)


@pytest.mark.parametrize("training", [True, False])
def test_trials_do_the_work_of_one_step(training: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    x, values, _ = inputs(requires_grad=False)
    done = []
    for name in ("csr_forward", "csr_backward", "dense_forward", "dense_backward"):
        monkeypatch.setattr(ops, f"_{name}", lambda *_, name=name: (done.append(name), None))
    trials = ops._trials(x, values, operands(), 4, 7, training)
    assert set(trials) == {"csr", "dense"}
    for work in trials.values():
        work()
    backward = ["csr_backward", "dense_backward"] if training else []
    assert sorted(done) == sorted(["csr_forward", "dense_forward", *backward])


HALVES = [torch.bfloat16, torch.float16]


@needs_native
@pytest.mark.parametrize("dtype", HALVES)
def test_values_of_half_precision_are_raised_for_the_fast_kernels(dtype: torch.dtype) -> None:
    half, single, double = (torch.ones(3, dtype=d) for d in (dtype, torch.float32, torch.float64))
    assert torch.equal(ops.raised(half), single)
    assert ops.raised(half).dtype == torch.float32
    assert ops.raised(single) is single
    assert ops.raised(double) is double
    elsewhere = half.to("meta")
    assert ops.raised(elsewhere) is elsewhere


def test_nothing_is_raised_for_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "available", lambda: False)
    half = torch.ones(3, dtype=torch.bfloat16)
    assert ops.raised(half) is half
    kernels, values, stored = ops._kernels_for(torch.ones(40, 7, dtype=torch.bfloat16), half)
    assert kernels is reference
    assert values is half
    assert stored == torch.bfloat16


@needs_native
@pytest.mark.parametrize(
    ("given", "values", "batch", "expected"),
    [
        (torch.bfloat16, torch.float32, 17, (torch.bfloat16, torch.float32)),
        (torch.bfloat16, torch.bfloat16, 17, (torch.bfloat16, torch.float32)),
        (torch.bfloat16, torch.bfloat16, 16, (torch.float32, torch.float32)),
        (torch.bfloat16, torch.float32, 16, (torch.float32, torch.float32)),
        (torch.bfloat16, torch.float64, 40, (torch.float64, torch.float64)),
        (torch.float16, torch.float16, 40, (torch.float32, torch.float32)),
        (torch.float16, torch.float32, 40, (torch.float32, torch.float32)),
        (torch.float32, torch.float32, 40, (torch.float32, torch.float32)),
    ],
)
def test_activations_of_large_batches_stay_in_bfloat16(
    given: torch.dtype, values: torch.dtype, batch: int, expected: tuple
) -> None:
    kernels, raised, stored = ops._kernels_for(
        torch.ones(batch, 7, dtype=given), torch.ones(5, dtype=values)
    )
    assert kernels is native
    assert (stored, raised.dtype) == expected


@pytest.mark.parametrize("batch", [5, 40])
@pytest.mark.parametrize("compute", ["csr", "dense", "auto"])
@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("dtype", HALVES)
def test_products_of_half_precision_are_near_those_of_float32(
    dtype: torch.dtype, relu: bool, compute: str, batch: int
) -> None:
    dispatch.forget()
    generator = torch.Generator().manual_seed(0)
    found = []
    given = [torch.randn(*size, generator=generator).to(dtype) for size in ((batch, 7), (5,), (4,))]
    grad = torch.randn(batch, 4, generator=generator).to(dtype)
    for own in (dtype, torch.float32):
        x, values, bias = (part.detach().to(own).requires_grad_() for part in given)
        y = ops.linear(x, values, bias, operands(), compute, True, relu)
        y.backward(grad.to(own))
        found.append((y, x.grad, values.grad, bias.grad))
        assert {part.dtype for part in found[-1]} == {own}
    assert 0 < (found[1][0] > 0).float().mean() < 1
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine.float(), theirs, rtol=0.01, atol=0.01)
    assert len(dispatch.decisions()) == 2 * (compute == "auto")
    dispatch.forget()
