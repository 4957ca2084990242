"""The C++ kernels against the oracle, on every instruction set that this machine has."""

from __future__ import annotations

import copy
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from regrow import SparseLinear, Topology
from regrow.kernels import native, reference, strips
from regrow.topology.order import column_order, sorted_columns

pytestmark = pytest.mark.skipif(not native.available(), reason=native.reason())

BATCHES = [0, 1, 2, 3, 5, 8, 15, 31, 33, 64, 100, 130]
ISAS = native._native.supported_isas() if native.available() else []


# Threads of our own, and those of torch where they can be had.
TEAMS = ["", *map(str, Path(torch.__file__).parent.glob("lib/libgomp*"))]


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    """Leave the instruction set and the threads as they were."""
    threads, isa = torch.get_num_threads(), native.isa()
    yield
    torch.set_num_threads(threads)
    native._native.use_isa(isa)
    native._native.use_team(TEAMS[-1])


class Layer:
    """A random sparse weight with activations and output gradients."""

    def __init__(
        self, mask: Tensor, batch: int, dtype: torch.dtype = torch.float64, seed: int = 0
    ) -> None:
        g = torch.Generator().manual_seed(seed)
        self.n_out, self.n_in = mask.shape
        self.indptr = torch.zeros(self.n_out + 1, dtype=torch.int64)
        self.indptr[1:] = mask.sum(1).cumsum(0)
        self.indices = mask.nonzero()[:, 1].int()
        self.values = torch.randn(len(self.indices), generator=g, dtype=dtype)
        self.bias = torch.randn(self.n_out, generator=g, dtype=dtype)
        self.x = torch.randn(batch, self.n_in, generator=g, dtype=dtype)
        self.grad = torch.randn(batch, self.n_out, generator=g, dtype=dtype)
        columns = sorted_columns(self.indptr, self.indices, self.n_in)
        self.operands = (self.indptr, self.indices, *columns)

    def forward(self, kernels, bias: bool = True, relu: bool = False) -> Tensor:
        offsets = self.bias if bias else None
        return kernels.linear_forward(self.x, self.values, self.operands, offsets, relu)

    def backward(self, kernels, need_x: bool = True, need_values: bool = True, **more):
        return kernels.linear_backward(
            self.grad, self.x, self.values, self.operands, need_x, need_values, **more
        )

    def rectified(self, kernels) -> tuple[Tensor, ...]:
        """Positive part of the product, and the gradients of that, with the bias's."""
        y, dbias = self.forward(kernels, relu=True), torch.full_like(self.bias, math.nan)
        gradients = self.backward(kernels, y=y, dbias=dbias)
        return y, *gradients, dbias

    def check(self) -> None:
        """All products, with and without what is optional, equal those of the oracle."""
        for bias in (True, False):
            close(self.forward(native, bias), self.forward(reference, bias))
        dx, dvalues = self.backward(reference)
        for need_x, need_values in product((True, False), repeat=2):
            got = self.backward(native, need_x, need_values)
            assert (got[0] is not None, got[1] is not None) == (need_x, need_values)
            if need_x:
                close(got[0], dx)
            if need_values:
                close(got[1], dvalues)
        if self.n_in:  # else nothing stands beside the gradient of the bias
            got = self.rectified(native)
            for mine, theirs in zip(got, self.rectified(reference), strict=True):
                close(mine, theirs)


def close(got: Tensor, expected: Tensor) -> None:
    double = expected.dtype == torch.float64
    tolerance = {"rtol": 1e-12, "atol": 1e-12} if double else {"rtol": 1e-4, "atol": 1e-4}
    torch.testing.assert_close(got, expected, equal_nan=True, **tolerance)


def random_mask(n_out: int, n_in: int, density: float, seed: int = 0) -> Tensor:
    return torch.rand(n_out, n_in, generator=torch.Generator().manual_seed(seed)) < density


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("isa", ISAS)
def test_products_equal_the_reference(isa: str, dtype: torch.dtype, batch: int) -> None:
    native._native.use_isa(isa)
    assert native.isa() == isa
    one = torch.zeros(9, 21, dtype=torch.bool)
    one[5, 20] = True
    for mask in (one, random_mask(33, 50, 0.2), random_mask(17, 19, 1.1), random_mask(70, 7, 0.4)):
        Layer(mask, batch, dtype).check()


def lying(x: Tensor, by_features: bool) -> Tensor:
    return x.t().contiguous().t() if by_features else x


@pytest.mark.parametrize("batch", [32, 48, 80, 144, 272])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("isa", ISAS)
def test_layouts_of_activations_change_nothing(isa: str, dtype: torch.dtype, batch: int) -> None:
    native._native.use_isa(isa)
    for mask in (random_mask(33, 50, 0.2), random_mask(70, 7, 0.4)):
        layer = Layer(mask, batch, dtype)
        x, grad = layer.x, layer.grad
        y, *gradients = layer.rectified(reference)
        plain = layer.backward(reference)
        for of_x, of_y, of_grad, wanted in product((False, True), repeat=4):
            layer.x, layer.grad = lying(x, of_x), lying(grad, of_grad)
            weight = layer.values, layer.operands, layer.bias
            found = native.linear_forward(layer.x, *weight, True, wanted)
            assert found.stride() == ((1, batch) if wanted else (layer.n_out, 1))
            close(found, y)
            dbias = torch.full_like(layer.bias, math.nan)
            got = layer.backward(native, y=lying(found, of_y), dbias=dbias)
            assert got[0].stride() == layer.x.stride()
            for mine, theirs in zip((*got, dbias), gradients, strict=True):
                close(mine, theirs)
            for mine, theirs in zip(layer.backward(native), plain, strict=True):
                close(mine, theirs)
        layer.x, layer.grad = x, grad


def test_only_whole_aligned_vectors_lie_feature_major() -> None:
    assert native.by_features(torch.ones(5, 32).t())
    many = torch.ones(5, 40).t()
    unfit = [torch.ones(5, 16).t(), many, many[:32], torch.ones(5 * 32 + 1)[1:].view(5, 32).t()]
    unfit += [torch.ones(32, 5), torch.ones(1, 32).t(), torch.ones(5, 32).bfloat16().t()]
    assert not any(map(native.by_features, unfit))
    layer = Layer(random_mask(9, 5, 0.5), 40, torch.float32)
    expected = layer.forward(reference)
    weight = layer.values, layer.operands, layer.bias
    found = native.linear_forward(lying(layer.x, True), *weight, feature_major=True)
    assert found.is_contiguous()
    close(found, expected)


@given(
    n_out=st.integers(1, 70),
    n_in=st.integers(1, 70),
    density=st.sampled_from([0.0, 0.01, 0.1, 0.5, 1.1]),
    batch=st.sampled_from(BATCHES),
    isa=st.sampled_from(ISAS or ["none"]),
    seed=st.integers(0, 2**31),
)
def test_any_shape_equals_the_reference(
    n_out: int, n_in: int, density: float, batch: int, isa: str, seed: int
) -> None:
    native._native.use_isa(isa)
    Layer(random_mask(n_out, n_in, density, seed), batch, seed=seed).check()


@pytest.mark.parametrize("isa", ISAS)
def test_rows_and_columns_of_any_length(isa: str) -> None:
    native._native.use_isa(isa)
    mask = torch.zeros(200, 300, dtype=torch.bool)
    mask[7] = True  # longer than a run of products
    mask[:, 11] = True
    mask[150, 3:90] = True
    Layer(mask, 37).check()


def test_batches_longer_than_what_is_packed_at_a_time() -> None:
    # 64 MiB are packed at a time: 8 million samples of one feature in double precision.
    layer = Layer(torch.ones(1, 1, dtype=torch.bool), (1 << 23) + 40)
    close(layer.forward(native), layer.x * layer.values + layer.bias)
    dx, dvalues = layer.backward(native)
    assert torch.equal(dx, layer.grad * layer.values)
    torch.testing.assert_close(dvalues, (layer.grad * layer.x).sum(0), rtol=1e-9, atol=1e-6)


@pytest.mark.parametrize(("n_out", "n_in", "batch"), [(0, 5, 3), (5, 0, 3), (0, 0, 3), (5, 4, 0)])
def test_sizes_of_zero(n_out: int, n_in: int, batch: int) -> None:
    layer = Layer(torch.ones(n_out, n_in, dtype=torch.bool), batch)
    layer.check()
    t_indptr, t_indices, t_perm = column_order(layer.indptr, layer.indices, n_in)
    assert t_indptr.tolist() == layer.operands[2].tolist()
    assert t_indices.shape == t_perm.shape == (n_out * n_in,)


def test_a_layer_without_connections_gives_its_bias() -> None:
    layer = Layer(torch.zeros(6, 4, dtype=torch.bool), 5)
    assert torch.equal(layer.forward(native), layer.bias.expand(5, 6))
    dx, dvalues = layer.backward(native)
    assert torch.equal(dx, torch.zeros(5, 4, dtype=torch.float64))
    assert dvalues.shape == (0,)


@pytest.mark.parametrize("batch", [1, 3, 40])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("isa", ISAS)
def test_nan_and_infinity_reach_what_they_must_and_no_more(
    isa: str, bad: float, batch: int
) -> None:
    native._native.use_isa(isa)
    for name in ("x", "values", "grad", "bias"):
        layer = Layer(random_mask(20, 30, 0.3), batch)
        getattr(layer, name).view(-1)[5 % getattr(layer, name).numel()] = bad
        layer.check()


@pytest.mark.parametrize("team", TEAMS, ids=["own", "torch"][: len(TEAMS)])
def test_results_do_not_depend_on_the_number_of_threads(team: str) -> None:
    assert native._native.use_team(team) == bool(team)
    uneven = random_mask(300, 400, 0.05)
    uneven[17] = True
    uneven[:, 5] = True
    for mask, batch in ((random_mask(1000, 784, 0.05), 150), (uneven, 150), (uneven, 15)):
        layer = Layer(mask, batch, torch.float32)
        pairs = torch.arange(9999) % layer.n_out, torch.arange(9999) % layer.n_in
        results = []
        for threads in (1, 2, 3, 8):
            torch.set_num_threads(threads)
            products = native.pair_products(layer.grad, layer.x, *pairs)
            only = layer.backward(native, True, False)[0], layer.backward(native, False, True)[1]
            only += *layer.backward(native), *layer.rectified(native)
            results.append((layer.forward(native), *layer.backward(native), *only, products))
        for result in results[1:]:
            assert all(torch.equal(a, b) for a, b in zip(result, results[0], strict=True))


@pytest.mark.parametrize("team", TEAMS, ids=["own", "torch"][: len(TEAMS)])
def test_calls_from_several_threads_at_once(team: str) -> None:
    assert native._native.use_team(team) == bool(team)
    torch.set_num_threads(2)
    layer = Layer(random_mask(300, 200, 0.2), 64)
    expected = layer.forward(native), *layer.backward(native)
    with ThreadPoolExecutor(4) as pool:
        calls = [
            pool.submit(lambda: (layer.forward(native), *layer.backward(native))) for _ in range(40)
        ]
        for call in calls:
            assert all(torch.equal(a, b) for a, b in zip(call.result(), expected, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("density", [0.0, 0.1, 1.1])
def test_structure_functions_equal_the_reference(density: float, dtype: torch.dtype) -> None:
    layer = Layer(random_mask(400, 300, density), 1, dtype)
    arrays = layer.indptr, layer.indices
    got = column_order(*arrays, 300)
    for a, b in zip(got, layer.operands[2:], strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)
    dense = native.scatter(layer.values, *arrays, 300)
    assert torch.equal(dense, reference.scatter(layer.values, *arrays, 300))
    assert torch.equal(native.gather(dense, *arrays), layer.values)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("columns", [1, 15, 16, 17, 300])
@pytest.mark.parametrize("density", [0.0, 0.3, 0.9, 1.1])
def test_a_strip_is_made_and_taken_without_indices(
    isa: str, dtype: torch.dtype, columns: int, density: float
) -> None:
    native._native.use_isa(isa)
    layer = Layer(random_mask(50, columns, density), 1, dtype)
    dense = reference.scatter(layer.values, layer.indptr, layer.indices, columns)
    marks = native.mark(layer.indptr, layer.indices, columns)
    got = torch.full((50, columns), torch.nan, dtype=dtype)
    for rows in (slice(0, 7), slice(7, 50)):
        starts = layer.indptr[rows.start : rows.stop + 1]
        native.expand(layer.values, starts, marks[rows], got[rows])
    assert torch.equal(got, dense)
    for rows in (slice(7, 50), slice(0, 7)):
        starts = layer.indptr[rows.start : rows.stop + 1]
        taken = torch.full_like(layer.values, torch.nan)
        native.compress(dense[rows], starts, marks[rows], taken)
        own = slice(int(starts[0]), int(starts[-1]))
        assert torch.equal(taken[own], layer.values[own])
        assert taken[: own.start].isnan().all()
        assert taken[own.stop :].isnan().all()


@pytest.mark.parametrize("density", [0.1, 0.9])
@pytest.mark.parametrize("height", [1, 7, 64])
def test_dense_products_by_strips_equal_the_reference(
    density: float, height: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strips, "_LEAST_ROWS", height)
    monkeypatch.setattr(strips, "_STRIP_BYTES", 0)
    layer = Layer(random_mask(20, 30, density), 5, torch.float64)
    arrays = layer.indptr, layer.indices
    y = strips.forward(layer.x, layer.values, layer.bias, *arrays)
    dx, dvalues = strips.backward(layer.grad, layer.x, layer.values, *arrays, True, True)
    expected = (layer.forward(reference), *layer.backward(reference))
    for got, wanted in zip((y, dx, dvalues), expected, strict=True):
        close(got, wanted)
    assert strips.backward(layer.grad, layer.x, layer.values, *arrays, False, False) == (None, None)
    for wanted in ((True, False), (False, True)):
        one = strips.backward(layer.grad, layer.x, layer.values, *arrays, *wanted)
        assert torch.equal(one[wanted.index(True)], (dx, dvalues)[wanted.index(True)])


def test_marks_are_formed_once_for_a_topology(monkeypatch: pytest.MonkeyPatch) -> None:
    formed = []
    mark = native.mark
    monkeypatch.setattr(native, "mark", lambda *given: formed.append(1) or mark(*given))
    layer = SparseLinear(40, 30, density=0.8, compute="dense")
    for _ in range(3):
        layer(torch.ones(2, 40)).sum().backward()
    assert len(formed) == 1


@pytest.mark.parametrize("isa", ISAS)
def test_pair_products_equal_the_reference(isa: str) -> None:
    native._native.use_isa(isa)
    for dtype in (torch.float32, torch.float64):
        for batch in (0, 1, 4, 31, 100):
            layer = Layer(random_mask(30, 40, 0.1), batch, dtype)
            for count in (0, 1, 5, 5000):
                rows, columns = torch.arange(count) * 7 % 30, torch.arange(count) * 11 % 40
                got = native.pair_products(layer.grad, layer.x, rows, columns)
                close(got, reference.pair_products(layer.grad, layer.x, rows, columns))


def test_views_that_are_not_contiguous_are_copied() -> None:
    layer = Layer(random_mask(20, 30, 0.3), 16)
    expected = layer.forward(native), *layer.backward(native)
    layer.x = layer.x.T.contiguous().T
    layer.grad = torch.stack([layer.grad, layer.grad], -1)[..., 0]
    layer.values = layer.values.repeat_interleave(2)[::2]
    assert not layer.x.is_contiguous()
    assert not layer.values.is_contiguous()
    got = layer.forward(native), *layer.backward(native)
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


@pytest.mark.parametrize(
    ("change", "error", "sentence"),
    [
        ({"x": torch.ones(3, 5)}, ValueError, r"x must have 2 dimensions, got shape \[4, 3, 5\]"),
        ({"x": torch.ones(5, dtype=torch.float64)}, TypeError, "x must be float32, got float64"),
        ({"x": torch.ones(4)}, ValueError, r"x must have shape \[4, 5\], got \[4, 4\]"),
        ({"values": torch.ones(6)}, ValueError, r"values must have shape \[7\], got \[6\]"),
        (
            {"values": torch.ones(7, dtype=torch.float16)},
            TypeError,
            "values must be float32 or float64, got float16",
        ),
        (
            {"indptr": torch.zeros(1, 4).long()},
            ValueError,
            r"indptr must have 1 dimension, got shape \[1, 4\]",
        ),
        (
            {"t_perm": torch.zeros(6).int()},
            ValueError,
            r"t_perm must have shape \[7\], got \[6\]",
        ),
        ({"indptr": torch.zeros(4).int()}, TypeError, "indptr must be int64, got int32"),
        ({"indices": torch.zeros(7).long()}, TypeError, "indices must be int32, got int64"),
        ({"bias": torch.zeros(4)}, ValueError, r"bias must have shape \[3\], got \[4\]"),
        (
            {"x": torch.ones(5, device="meta")},
            ValueError,
            "x must be on the CPU, got a tensor on meta",
        ),
    ],
)
def test_wrong_arguments_are_named(change: dict, error: type[Exception], sentence: str) -> None:
    arguments = {
        "x": torch.ones(5),
        "values": torch.ones(7),
        "indptr": torch.tensor([0, 2, 4, 7]),
        "indices": torch.tensor([0, 1, 2, 3, 0, 2, 4], dtype=torch.int32),
        "t_indptr": torch.tensor([0, 2, 3, 5, 6, 7]),
        "t_indices": torch.tensor([0, 2, 0, 1, 2, 1, 2], dtype=torch.int32),
        "t_perm": torch.tensor([0, 4, 1, 2, 5, 3, 6], dtype=torch.int32),
        "bias": torch.zeros(3),
    } | change
    x, values, *operands, bias = arguments.values()
    with pytest.raises(error, match=f"^{sentence}$"):
        native.linear_forward(x.expand(4, *x.shape), values, operands, bias)


def test_operands_of_a_topology_are_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    topology = Topology((3, 5), torch.tensor([1, 9, 13]))
    x, values = torch.ones(2, 5), torch.ones(3)
    y = native.linear_forward(x, values, topology.operands())

    def refuse(*_: object) -> None:
        raise AssertionError("looked at again")

    with monkeypatch.context() as patched:
        patched.setattr(native._Index, "__init__", refuse)
        assert torch.equal(native.linear_forward(x, values, topology.operands()), y)
        topology.forget_columns()
        with pytest.raises(AssertionError, match="looked at again"):
            native.linear_forward(x, values, topology.operands())


def test_operands_may_move_to_shared_memory() -> None:
    topology = Topology((3, 5), torch.tensor([1, 9, 13]))
    x, values, grad = torch.ones(2, 5), torch.ones(3), torch.ones(2, 3)
    before = native.linear_backward(grad, x, values, topology.operands())
    old = topology.csc()[0].data_ptr()
    for part in topology.operands():
        part.share_memory_()  # as when a model is sent to another process
    index = native._index(topology.operands())
    assert index.columns()[0] == topology.csc()[0].data_ptr() != old
    after = native.linear_backward(grad, x, values, topology.operands())
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_a_gradient_of_another_batch_is_refused() -> None:
    layer = Layer(random_mask(5, 6, 0.5), 4)
    layer.x = layer.x[:3]
    with pytest.raises(ValueError, match=r"^x must have shape \[4, 6\], got \[3, 6\]$"):
        layer.backward(native)


def test_positions_out_of_range_are_refused() -> None:
    grad, x, zero = torch.ones(2, 3), torch.ones(2, 4), torch.tensor([0, 0])
    with pytest.raises(IndexError, match=r"^rows\[1\] must be in \[0, 3\), got 3$"):
        native.pair_products(grad, x, torch.tensor([0, 3]), zero)
    with pytest.raises(IndexError, match=r"^columns\[0\] must be in \[0, 4\), got -1$"):
        native.pair_products(grad, x, zero, torch.tensor([-1, 0]))


def test_the_extension_checks_sizes_and_addresses_itself() -> None:
    run = native._native.linear_forward
    with pytest.raises(ValueError, match=r"^n_in must be in .* got -1$"):
        run(4, False, 0, 0, 0, 0, 0, 0, False, False, False, 1, -1, 1, 0, 1)
    with pytest.raises(ValueError, match=r"^nnz must be in .* got 2147483648$"):
        run(4, False, 1, 1, 1, 1, 0, 1, False, False, False, 1, 1, 1, 2**31, 1)
    with pytest.raises(ValueError, match=r"^batch must be in "):
        run(4, False, 1, 1, 1, 1, 0, 1, False, False, False, 2**62, 1, 1, 1, 1)
    with pytest.raises(ValueError, match=r"^x must have an address, got 0 for 12 elements$"):
        run(4, False, 0, 1, 1, 1, 0, 1, False, False, False, 3, 4, 1, 1, 1)
    with pytest.raises(ValueError, match=r"^itemsize must be 4 or 8, got 2$"):
        run(2, False, 0, 0, 0, 0, 0, 0, False, False, False, 0, 0, 0, 0, 1)
    with pytest.raises(ValueError, match=r"^itemsize must be 4 beside bfloat16, got 8$"):
        run(8, True, 0, 0, 0, 0, 0, 0, False, False, False, 0, 0, 0, 0, 1)


@pytest.mark.parametrize(
    ("indptr", "indices", "sentence"),
    [
        ([1, 2], [0, 1], r"indptr\[0\] must be 0, got 1"),
        ([0, 2, 1, 3], [0, 1, 2], r"indptr\[2\] must not be below the one before it, 2, got 1"),
        ([0, 2], [0, 1, 2], r"indptr\[1\] must be the number of indices, 3, got 2"),
        (
            [0, 1 << 62],
            [0],
            r"indptr\[1\] must be the number of indices, 1, got 4611686018427387904",
        ),
        ([0, 1, 2], [0, 5], r"indices\[1\] of row 1 must be in \[0, 5\), got 5"),
        ([0, 2], [1, -1], r"indices\[1\] of row 0 must be in \[0, 5\), got -1"),
        ([0, 2], [3, 3], r"indices\[1\] of row 0 must be above the one before it, 3, got 3"),
        ([0, 1, 3], [4, 2, 1], r"indices\[2\] of row 1 must be above the one before it, 2, got 1"),
    ],
)
def test_bad_structures_are_named(indptr: list, indices: list, sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        native.check_structure(torch.tensor(indptr), torch.tensor(indices, dtype=torch.int32), 5)


def test_good_structures_pass() -> None:
    for density in (0.0, 0.3, 1.1):
        layer = Layer(random_mask(20, 30, density), 1)
        native.check_structure(layer.indptr, layer.indices, 30)
    native.check_structure(torch.zeros(1, dtype=torch.int64), layer.indices[:0], 0)


SCRIPT = """
import os, torch
from regrow import Topology
from regrow.kernels import native
torch.set_num_threads(2)
indptr = torch.arange(0, 40001, 100)
indices = torch.arange(40000, dtype=torch.int32) % 100
x, values = torch.ones(64, 100), torch.ones(40000)
operands = Topology.from_csr((400, 100), indptr, indices).operands()
forward = lambda: native.linear_forward(x, values, operands)
"""


def run_script(body: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SCRIPT + body],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_library_that_is_not_loaded_makes_no_team() -> None:
    assert not native._native.use_team("/no/such/libgomp.so.1")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_forked_child_has_working_threads() -> None:
    body = """
expected = forward()
for _ in range(5):
    child = os.fork()
    if child == 0:
        os._exit(0 if all(torch.equal(forward(), expected) for _ in range(20)) else 1)
    assert torch.equal(forward(), expected)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
print("done")
"""
    result = run_script(body)
    assert (result.returncode, result.stdout, result.stderr) == (0, "done\n", "")


def test_the_instruction_set_can_be_named_in_the_environment() -> None:
    result = run_script("forward(); print(native.isa())", REGROW_ISA="portable")
    assert (result.returncode, result.stdout) == (0, "portable\n")
    result = run_script("forward()", REGROW_ISA="sse9")
    assert result.returncode == 1
    names = ", ".join(ISAS)
    last = result.stderr.strip().splitlines()[-1]
    assert last == f"ValueError: REGROW_ISA must be one of {names} on this processor, got 'sse9'"


def test_without_the_extension_there_is_a_reason() -> None:
    body = """
import importlib, regrow, sys
sys.modules["regrow._native"] = None
del regrow._native
importlib.reload(native)
print(native.available(), native.reason())
"""
    result = run_script(body)
    assert result.stdout.startswith("False the C++ extension regrow._native could not be loaded: ")


@pytest.mark.parametrize("isa", ISAS)
def test_denormals_count_as_zero_and_only_inside(isa: str) -> None:
    native._native.use_isa(isa)
    tiny = 1e-40
    layer = Layer(torch.ones(3, 20, dtype=torch.bool), 40, torch.float32)
    layer.values.fill_(tiny)
    assert torch.equal(layer.forward(native, bias=False), torch.zeros(40, 3))
    dx, _ = layer.backward(native)
    assert torch.equal(dx, torch.zeros(40, 20))
    assert float(torch.tensor(tiny) * 2) > 0


# ---- Activations of bfloat16


def lowered(layer: Layer) -> tuple[Layer, Layer]:
    """Two layers with the same numbers, which bfloat16 holds: activations in it, and in float32."""
    layer.x, layer.grad = layer.x.bfloat16(), layer.grad.bfloat16()
    raised = copy.copy(layer)
    raised.x, raised.grad = layer.x.float(), layer.grad.float()
    return layer, raised


def nearly(got: Tensor, expected: Tensor) -> None:
    """What is stored in bfloat16 may be the neighbour of the float32 number that is rounded."""
    if got.dtype == torch.bfloat16:
        near = {"rtol": 2.0**-7, "atol": 1e-5, "equal_nan": True}
        torch.testing.assert_close(got, expected.bfloat16(), **near)
    else:
        close(got, expected)


def check_low(layer: Layer) -> None:
    """As `Layer.check`, with activations of bfloat16 and an oracle in float32."""
    low, raised = lowered(layer)
    for bias in (True, False):
        nearly(low.forward(native, bias), raised.forward(reference, bias))
    expected = raised.backward(reference)
    for needs in product((True, False), repeat=2):
        got = low.backward(native, *needs)
        assert tuple(part is not None for part in got) == needs
        for mine, theirs in zip(got, expected, strict=True):
            if mine is not None:
                nearly(mine, theirs)
    y = low.forward(native, relu=True)
    nearly(y, raised.forward(reference, relu=True))
    found = []
    for side, kernels, gate in ((low, native, y), (raised, reference, y.float())):
        dbias = torch.full_like(side.bias, math.nan)
        found.append((*side.backward(kernels, y=gate, dbias=dbias), dbias))
    for mine, theirs in zip(*found, strict=True):
        nearly(mine, theirs)
    assert low.x.dtype == y.dtype == found[0][0].dtype == torch.bfloat16
    assert found[0][1].dtype == found[0][2].dtype == torch.float32


@pytest.mark.parametrize("batch", [0, 1, 17, 32, 33, 64, 100, 130, 300])
@pytest.mark.parametrize("isa", ISAS)
def test_products_of_bfloat16_equal_the_reference(isa: str, batch: int) -> None:
    native._native.use_isa(isa)
    one = torch.zeros(9, 21, dtype=torch.bool)
    one[5, 20] = True
    masks = one, random_mask(33, 50, 0.2), random_mask(17, 19, 1.1), random_mask(70, 7, 0.4)
    for mask in (*masks, random_mask(1, 1, 1.1), random_mask(20, 31, 0.0)):
        check_low(Layer(mask, batch, torch.float32))


@given(
    n_out=st.integers(1, 70),
    n_in=st.integers(1, 70),
    density=st.sampled_from([0.0, 0.01, 0.1, 0.5, 1.1]),
    batch=st.sampled_from([1, 16, 17, 31, 63, 65, 97, 129, 200]),
    isa=st.sampled_from(ISAS or ["none"]),
    seed=st.integers(0, 2**31),
)
def test_any_shape_in_bfloat16_equals_the_reference(
    n_out: int, n_in: int, density: float, batch: int, isa: str, seed: int
) -> None:
    native._native.use_isa(isa)
    check_low(Layer(random_mask(n_out, n_in, density, seed), batch, torch.float32, seed))


@pytest.mark.parametrize("isa", ISAS)
def test_every_number_of_bfloat16_is_read_and_written_as_it_is(isa: str) -> None:
    # By a weight that is the identity: what is not a number stays that, its payload may differ.
    native._native.use_isa(isa)
    bits = torch.arange(1 << 16, dtype=torch.int32).to(torch.int16).view(1024, 64)
    layer = Layer(torch.eye(64, dtype=torch.bool), 1024, torch.float32)
    layer.values.fill_(1)
    layer.x = layer.grad = bits.view(torch.bfloat16)
    denormal = (layer.x != 0) & (layer.x.abs() < 2.0**-126)
    expected = torch.where(denormal, torch.zeros_like(layer.x), layer.x)
    for got in (layer.forward(native, bias=False), layer.backward(native)[0]):
        torch.testing.assert_close(got, expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("isa", ISAS)
def test_sums_are_rounded_to_the_nearest_number_of_bfloat16(isa: str) -> None:
    native._native.use_isa(isa)
    layer = Layer(torch.ones(40, 1, dtype=torch.bool), 40, torch.float32)
    step = 2.0**-7  # from 1 to the next number of bfloat16
    eighths = torch.arange(40) / 8
    layer.values = 1 + step * eighths  # ties among them, which go to the even one
    layer.x = torch.ones(40, 1, dtype=torch.bfloat16)
    expected = layer.values.bfloat16().expand(40, 40)
    assert torch.equal(layer.forward(native, bias=False), expected)
    layer.values.neg_()
    assert torch.equal(layer.forward(native, bias=False), -expected)
    layer.values = torch.full((40,), torch.finfo(torch.float32).max)
    assert layer.forward(native, bias=False).isposinf().all()


@pytest.mark.parametrize("batch", [1, 40, 150])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("isa", ISAS)
def test_nan_and_infinity_of_bfloat16_reach_what_they_must(
    isa: str, bad: float, batch: int
) -> None:
    native._native.use_isa(isa)
    for name in ("x", "values", "grad", "bias"):
        layer = Layer(random_mask(20, 30, 0.3), batch, torch.float32)
        getattr(layer, name).view(-1)[5 % getattr(layer, name).numel()] = bad
        check_low(layer)


@pytest.mark.parametrize("batch", [1, 40])
@pytest.mark.parametrize("isa", ISAS)
def test_a_gate_of_bfloat16_lets_through_what_is_positive_or_no_number(
    isa: str, batch: int
) -> None:
    native._native.use_isa(isa)
    # 0, -0, least numbers, 1, -1, infinities, and what is not a number of either sign.
    bits = [0, 0x8000, 1, 0x8001, 0x3F80, 0xBF80, 0x7F80, 0xFF80, 0x7F81, 0xFF81, 0x7FFF, 0xFFFF]
    opens = [0, 0, 1, 0, 1, 0, 1, 0, 1, 1, 1, 1]
    y = torch.tensor(bits, dtype=torch.int32).to(torch.int16).view(torch.bfloat16).expand(batch, 12)
    layer = Layer(torch.eye(12, dtype=torch.bool), batch, torch.float32)
    layer.values.fill_(1)
    layer.x, layer.grad = torch.ones_like(y), torch.ones_like(y)
    dbias = torch.empty(12)
    dx, dvalues = layer.backward(native, y=y, dbias=dbias)
    assert dx.tolist() == [[float(one) for one in opens]] * batch
    assert dvalues.tolist() == dbias.tolist() == [float(batch * one) for one in opens]


@pytest.mark.parametrize("team", TEAMS, ids=["own", "torch"][: len(TEAMS)])
def test_results_in_bfloat16_do_not_depend_on_the_number_of_threads(team: str) -> None:
    assert native._native.use_team(team) == bool(team)
    uneven = random_mask(300, 400, 0.05)
    uneven[17] = True
    uneven[:, 5] = True
    for mask, batch in ((random_mask(1000, 784, 0.05), 150), (uneven, 333), (uneven, 40)):
        layer, _ = lowered(Layer(mask, batch, torch.float32))
        results = []
        for threads in (1, 2, 3, 8):
            torch.set_num_threads(threads)
            only = layer.backward(native, True, False)[0], layer.backward(native, False, True)[1]
            results.append((layer.forward(native), *layer.backward(native), *only))
            results[-1] += layer.rectified(native)
        for result in results[1:]:
            assert all(torch.equal(a, b) for a, b in zip(result, results[0], strict=True))


def test_other_mixtures_with_bfloat16_are_refused() -> None:
    def layer(dtype: torch.dtype = torch.float32) -> Layer:
        return Layer(random_mask(5, 6, 0.5), 4, dtype)

    wide, mixed, other = layer(torch.float64), layer(), layer()
    wide.x = wide.x.bfloat16()
    with pytest.raises(TypeError, match=r"^x must be float64, got bfloat16$"):
        wide.forward(native)
    mixed.x = mixed.x.bfloat16()
    with pytest.raises(TypeError, match=r"^grad must be bfloat16, got float32$"):
        mixed.backward(native)
    mixed.bias = mixed.bias.bfloat16()
    with pytest.raises(TypeError, match=r"^bias must be float32, got bfloat16$"):
        mixed.forward(native)
    other.grad = other.grad.bfloat16()
    with pytest.raises(TypeError, match=r"^grad must be float32, got bfloat16$"):
        other.backward(native)
    low, _ = lowered(layer())
    with pytest.raises(TypeError, match=r"^y must be bfloat16, got float32$"):
        low.backward(native, y=torch.ones(4, 5))
    with pytest.raises(TypeError, match=r"^dbias must be float32, got bfloat16$"):
        low.backward(native, dbias=torch.ones(5, dtype=torch.bfloat16))
    low.values = low.values.bfloat16()
    with pytest.raises(TypeError, match=r"^values must be float32 or float64, got bfloat16$"):
        low.forward(native)
