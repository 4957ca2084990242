"""The sparse convolution: kernels against the oracle, the oracle against torch, the operator."""

from __future__ import annotations

import doctest
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from regrow import Topology
from regrow.kernels import (
    convolution,
    dense_convolution,
    dispatch,
    geometry,
    native,
    native_convolution,
    ops,
    reference,
    reference_convolution,
)
from regrow.kernels.geometry import Geometry
from regrow.topology import random_topology

needs_native = pytest.mark.skipif(not native.available(), reason="the extension was not built")


@st.composite
def cases(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor | None, Topology, Geometry]:
    """An input, values, a bias or none, a topology and a geometry that fit together."""
    axes, groups = draw(st.integers(1, 3)), draw(st.sampled_from([1, 1, 2, 3]))

    def each(low: int, high: int, count: int = axes) -> tuple[int, ...]:
        return tuple(draw(st.integers(low, high)) for _ in range(count))

    kernel, stride = each(1, 4), each(1, 3)
    padding, dilation = each(0, 3, 2 * axes), each(1, 2)
    shape = Geometry(kernel, stride, padding, dilation, groups)
    out = each(1, {1: 30, 2: 9, 3: 4}[axes])
    size = tuple(
        max(1, (out[i] - 1) * stride[i] + dilation[i] * (kernel[i] - 1) + 1
            - padding[2 * i] - padding[2 * i + 1] + draw(st.integers(0, stride[i] - 1)))
        for i in range(axes)
    )  # fmt: skip
    inputs, outputs = (groups * n for n in each(1, 3, 2))
    weight = (outputs, inputs // groups, *kernel)
    seed = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    nnz = draw(st.one_of(st.just(1), st.integers(0, math.prod(weight)), st.just(math.prod(weight))))
    places = torch.randperm(math.prod(weight), generator=seed)[:nnz]
    topology = Topology(weight, places)
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    batch = draw(st.sampled_from([0, 1, 3, 4, 8, 33]))
    x = torch.randn(batch, inputs, *size, dtype=dtype, generator=seed)
    bias = torch.randn(outputs, dtype=dtype, generator=seed) if draw(st.booleans()) else None
    return x, torch.randn(nnz, dtype=dtype, generator=seed), bias, topology, shape


def torch_convolution(x: Tensor, weight: Tensor, bias: Tensor | None, shape: Geometry) -> Tensor:
    name = f"conv{shape.axes}d"
    function: Callable[..., Tensor] = getattr(functional, name)
    padded = functional.pad(x, shape.pad)
    return function(padded, weight, bias, shape.stride, 0, shape.dilation, shape.groups)


def assert_near(actual: Tensor | None, expected: Tensor | None) -> None:
    assert actual is not None
    tolerance = {torch.float32: 2e-4, torch.float64: 1e-10}[actual.dtype]
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)
    assert actual.is_contiguous()


@pytest.mark.parametrize(
    "kernels",
    [
        reference_convolution,
        dense_convolution,
        pytest.param(native_convolution, marks=needs_native),
    ],
    ids=lambda module: module.__name__.rpartition(".")[2],
)
@settings(max_examples=60)
@given(case=cases())
def test_every_kernel_equals_torch(kernels, case) -> None:
    x, values, bias, topology, shape = case
    dense = torch.zeros(topology.shape.numel(), dtype=x.dtype)
    dense[topology.positions] = values
    weight = dense.view(topology.shape).requires_grad_()
    same = x.clone().requires_grad_()
    expected = torch_convolution(same, weight, bias, shape)
    grad = torch.randn_like(expected)
    expected.backward(grad)
    csr = topology.csr()
    assert_near(kernels.conv_forward(x, values, *csr, shape, bias), expected.detach())
    dx, dvalues = kernels.conv_backward(grad, x, values, *csr, shape)
    assert_near(dx, same.grad)
    assert_near(dvalues, weight.grad.reshape(-1)[topology.positions])
    only_x = kernels.conv_backward(grad, x, values, *csr, shape, True, False)
    only_values = kernels.conv_backward(grad, x, values, *csr, shape, False, True)
    assert only_x[1] is None
    assert only_values[0] is None
    assert_near(only_x[0], dx)
    assert_near(only_values[1], dvalues)


@needs_native
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("batch", [3, 33])
def test_no_bit_depends_on_the_number_of_threads(batch: int, stride: int) -> None:
    shape = Geometry((3, 3), (stride, stride), (1, 1, 1, 1), (1, 1), 1)
    topology = random_topology((24, 20, 3, 3), 800, generator=torch.Generator().manual_seed(0))
    x, values = torch.randn(batch, 20, 15, 13), torch.randn(800)
    grad = torch.randn(batch, 24, *shape.out_size((15, 13)))
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            y = native_convolution.conv_forward(x, values, *topology.csr(), shape)
            found.append((y, *native_convolution.conv_backward(
                grad, x, values, *topology.csr(), shape)))  # fmt: skip
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


@needs_native
@pytest.mark.parametrize("size", [(3000,), (1, 2000), (700, 3)])
def test_long_lines_and_many_lines(size: tuple[int, ...]) -> None:
    axes = len(size)
    shape = Geometry((3,) * axes, (1,) * axes, (1, 1) * axes, (1,) * axes, 1)
    topology = random_topology((8, 300, *shape.kernel), 500)
    x, values = torch.randn(9, 300, *size), torch.randn(500)
    y = native_convolution.conv_forward(x, values, *topology.csr(), shape)
    assert_near(y, dense_convolution.conv_forward(x, values, *topology.csr(), shape))
    grad = torch.randn_like(y)
    found = native_convolution.conv_backward(grad, x, values, *topology.csr(), shape)
    oracle = dense_convolution.conv_backward(grad, x, values, *topology.csr(), shape)
    assert_near(found[0], oracle[0])
    torch.testing.assert_close(found[1], oracle[1], rtol=1e-3, atol=1e-3 * len(values) ** 0.5)


@needs_native
def test_instruction_sets_agree() -> None:
    from regrow import _native

    shape = Geometry((3, 2), (2, 1), (1, 0, 1, 2), (1, 2), 2)
    topology = random_topology((6, 2, 3, 2), 30)
    x, values = torch.randn(17, 4, 9, 11), torch.randn(30)
    grad = torch.randn(17, 6, *shape.out_size((9, 11)))
    expected = (
        reference_convolution.conv_forward(x, values, *topology.csr(), shape),
        *reference_convolution.conv_backward(grad, x, values, *topology.csr(), shape),
    )
    chosen = _native.isa()
    try:
        for name in _native.supported_isas():
            _native.use_isa(name)
            y = native_convolution.conv_forward(x, values, *topology.csr(), shape)
            both = native_convolution.conv_backward(grad, x, values, *topology.csr(), shape)
            for found, wanted in zip((y, *both), expected, strict=True):
                assert_near(found, wanted)
    finally:
        _native.use_isa(chosen)


@needs_native
def test_what_native_kernels_cannot_read_is_refused() -> None:
    shape = Geometry((3,), (1,), (0, 0), (1,), 1)
    topology = random_topology((2, 2, 3), 5)
    x, values = torch.randn(1, 2, 6), torch.randn(5)
    with pytest.raises(TypeError, match=r"^x must be float32, got float64$"):
        native_convolution.conv_forward(x.double(), values, *topology.csr(), shape)
    indptr, indices = topology.csr()
    with pytest.raises(ValueError, match=r"^indptr\[2\] must be nnz, 5, got 4$"):
        native_convolution.conv_forward(x, values, indptr.clamp(max=4), indices, shape)
    grad = torch.ones(1, 2, 5)
    with pytest.raises(ValueError, match=r"^grad must have shape \[1, 2, 4\], got \[1, 2, 5\]$"):
        native_convolution.conv_backward(grad, x, values, *topology.csr(), shape)


@needs_native
def test_more_padded_pixels_than_an_offset_can_name_are_refused() -> None:
    shape = Geometry((2,) * 3, (10**6,) * 3, (10**6, 0) * 3, (1,) * 3, 1)
    topology, x = Topology((1, 1, 2, 2, 2), torch.tensor([0])), torch.ones(1, 1, 2, 2, 2)
    with pytest.raises(
        ValueError, match=r"at most 2147483647 padded pixels, got 2000008000008000000$"
    ):
        native_convolution.conv_forward(x, torch.ones(1), *topology.csr(), shape)


def operands(nnz: int = 20) -> tuple[Tensor, ...]:
    topology = random_topology((4, 3, 3, 2), nnz, generator=torch.Generator().manual_seed(0))
    values = torch.randn(nnz, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return values, *topology.csr()


OPTIONS = ([3, 2], [2, 1], [1, 1, 0, 1], [1, 2], 1)


@pytest.mark.parametrize("compute", ["csr", "dense"])
@pytest.mark.parametrize("bias", [False, True])
def test_operator_passes_opcheck(bias: bool, compute: str) -> None:
    values, *csr = operands()
    x = torch.randn(2, 3, 5, 6, dtype=torch.float64, requires_grad=True)
    offsets = torch.randn(4, dtype=torch.float64, requires_grad=True) if bias else None
    arguments = (x, values.requires_grad_(), offsets, *csr, *OPTIONS, compute, True)
    torch.library.opcheck(torch.ops.regrow.conv.default, arguments)
    grad = torch.randn(torch.ops.regrow.conv(*arguments).shape, dtype=torch.float64)
    for need in ((True, True), (not bias, bias)):
        torch.library.opcheck(
            torch.ops.regrow.conv_backward.default,
            (grad, x.detach(), values.detach(), *csr, *OPTIONS, compute, *need),
        )


@pytest.mark.parametrize("compute", ["csr", "dense"])
def test_gradients_pass_gradcheck(compute: str) -> None:
    values, *csr = operands()
    x = torch.randn(2, 3, 5, 4, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(4, dtype=torch.float64, requires_grad=True)

    def apply(x: Tensor, values: Tensor, bias: Tensor) -> Tensor:
        return convolution.conv(x, values, bias, *csr, *OPTIONS, compute, True)

    assert torch.autograd.gradcheck(apply, (x, values.requires_grad_(), bias))


def test_flops_are_those_of_the_connections() -> None:
    values, *csr = operands()
    x = torch.randn(2, 3, 5, 6, dtype=torch.float64, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        y = convolution.conv(x, values.requires_grad_(), None, *csr, *OPTIONS, "csr", True)
        assert counter.get_total_flops() == 2 * 20 * 2 * math.prod(y.shape[2:])
        y.sum().backward()
    assert counter.get_total_flops() == 3 * 2 * 20 * 2 * math.prod(y.shape[2:])


def test_auto_measures_once_for_each_geometry() -> None:
    kept = dispatch.decisions()
    dispatch.forget()
    try:
        values, *csr = operands()
        x = torch.randn(2, 3, 5, 6, dtype=torch.float64)
        for stride in ([2, 1], [2, 1], [1, 1]):
            options = (OPTIONS[0], stride, *OPTIONS[2:])
            convolution.conv(x, values, None, *csr, *options, "auto", False)
        assert [key.partition("inference ")[2] for key in dispatch.decisions()] == [
            "convolution 3x2 stride=2,1 padding=1,1,0,1 dilation=1,2 on 5x6",
            "convolution 3x2 padding=1,1,0,1 dilation=1,2 on 5x6",
        ]
    finally:
        dispatch.forget()
        dispatch.load_decisions(kept)


@settings(max_examples=25)
@given(case=cases(), data=st.data())
def test_gradient_of_any_position(case, data: st.DataObject) -> None:
    x, _, _, topology, shape = case
    x = x.double()
    rows, columns = topology.matrix_shape
    weight = torch.zeros(topology.shape, dtype=x.dtype, requires_grad=True)
    y = torch_convolution(x, weight, None, shape)
    grad = torch.randn_like(y)
    y.backward(grad)
    expected = weight.grad.reshape(rows, columns)
    first = data.draw(st.integers(0, rows - 1))
    block = slice(first, data.draw(st.integers(first + 1, rows)))
    torch.testing.assert_close(
        dense_convolution.weight_rows(grad, x, block, shape), expected[block]
    )
    picked = torch.randint(0, rows * columns, (7,))
    pairs = picked // columns, picked % columns
    torch.testing.assert_close(convolution.pair_products(grad, x, *pairs, shape), expected[pairs])


def test_which_kernels_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.ones(1)
    monkeypatch.setattr(ops, "sparse_kernels", lambda _: native)
    assert convolution.conv_kernels(values) is native_convolution
    monkeypatch.setattr(ops, "sparse_kernels", lambda _: reference)
    assert convolution.conv_kernels(values) is reference_convolution


@pytest.mark.parametrize("module", [geometry, reference_convolution])
def test_examples(module) -> None:
    assert doctest.testmod(module).failed == 0
