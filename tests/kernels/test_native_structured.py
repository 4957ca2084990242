"""The C++ kernels of structures against the oracle, on every instruction set of this machine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from regrow.kernels import native, native_structured, reference_structured, structured
from regrow.topology import Block, NofM, Topology, block_topology, nm_topology

pytestmark = pytest.mark.skipif(not native.available(), reason=native.reason())

BATCHES = [0, 1, 2, 3, 5, 16, 17, 31, 48, 50, 100, 128, 130]
ISAS = native._native.supported_isas() if native.available() else []
GROUPS = [
    (NofM(2, 4), (64, 96)),
    (NofM(1, 4), (33, 24)),
    (NofM(4, 8), (20, 128)),
    (NofM(1, 16), (65, 64)),
    (NofM(3, 5), (15, 40)),
    (NofM(1, 1), (7, 48)),
    (NofM(7, 100), (30, 200)),
    (NofM(1, 256), (9, 512)),
    (NofM(200, 256), (3, 256)),
]
SHAPES = [
    (Block(16, 16), (64, 96)),
    (Block(32, 32), (64, 128)),
    (Block(8, 8), (64, 64)),
    (Block(4, 4), (40, 24)),
    (Block(3, 5), (15, 40)),
    (Block(1, 16), (7, 48)),
    (Block(2, 1), (6, 7)),
    (Block(80, 2), (160, 30)),
    (Block(12, 70), (24, 140)),
]


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    """Leave the instruction set and the threads as they were."""
    threads, isa = torch.get_num_threads(), native.isa()
    yield
    torch.set_num_threads(threads)
    native._native.use_isa(isa)


class Layer:
    """A random weight of a structure with activations and output gradients."""

    def __init__(
        self,
        structure: Block | NofM,
        shape: tuple[int, int],
        batch: int,
        dtype: torch.dtype = torch.float64,
        seed: int = 0,
    ) -> None:
        g = torch.Generator().manual_seed(seed)
        if isinstance(structure, Block):
            count = max(1, shape[0] * shape[1] // structure.size // 3)
            self.topology = block_topology(shape, count * structure.size, structure, generator=g)
        else:
            self.topology = nm_topology(shape, structure.n, structure.m, generator=g)
        self.kind, self.form = structured.form_of(structure)
        self.values = torch.randn(self.topology.nnz, generator=g, dtype=dtype)
        self.bias = torch.randn(shape[0], generator=g, dtype=dtype)
        self.x = torch.randn(batch, shape[1], generator=g, dtype=dtype)
        self.grad = torch.randn(batch, shape[0], generator=g, dtype=dtype)

    def forward(self, bias: bool = True) -> Tensor:
        given_ = self.x, self.values, self.topology.parts(), self.form
        product = getattr(native_structured, f"{self.kind}_forward")
        return product(*given_, self.bias if bias else None)

    def backward(self, need_x: bool = True, need_values: bool = True):
        given_ = self.grad, self.x, self.values, self.topology.parts(), self.form
        product = getattr(native_structured, f"{self.kind}_backward")
        return product(*given_, need_x, need_values)

    def check(self) -> None:
        """All products, with and without what is optional, equal those of the oracle."""
        given_ = self.values, self.topology.parts(), self.kind, self.form
        for bias in (self.bias, None):
            expected = reference_structured.forward(self.x, *given_, bias)
            close(self.forward(bias is not None), expected)
        both = reference_structured.backward(self.grad, self.x, *given_)
        for wanted in ((True, True), (True, False), (False, True)):
            for got, expected, want in zip(self.backward(*wanted), both, wanted, strict=True):
                assert (got is not None) == want
                if want:
                    close(got, expected)


def close(got: Tensor, expected: Tensor) -> None:
    double = expected.dtype == torch.float64
    tolerance = {"rtol": 1e-12, "atol": 1e-12} if double else {"rtol": 1e-4, "atol": 1e-4}
    torch.testing.assert_close(got, expected, **tolerance)


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("isa", ISAS)
def test_products_equal_the_reference(isa: str, dtype: torch.dtype, batch: int) -> None:
    native._native.use_isa(isa)
    for structure, shape in SHAPES + GROUPS:
        Layer(structure, shape, batch, dtype).check()


@given(
    st.integers(1, 20),
    st.integers(1, 20),
    st.integers(1, 4),
    st.integers(1, 4),
    st.sampled_from(BATCHES),
    st.sampled_from(ISAS or ["none"]),
    st.integers(0, 2**31),
)
def test_any_form_equals_the_reference(
    height: int, width: int, down: int, along: int, batch: int, isa: str, seed: int
) -> None:
    native._native.use_isa(isa)
    Layer(Block(height, width), (height * down, width * along), batch, seed=seed).check()


@given(
    st.integers(1, 40),
    st.integers(1, 12),
    st.integers(1, 6),
    st.integers(1, 40),
    st.sampled_from(BATCHES),
    st.sampled_from(ISAS or ["none"]),
    st.integers(0, 2**31),
)
def test_any_groups_equal_the_reference(
    m: int, groups: int, n: int, rows: int, batch: int, isa: str, seed: int
) -> None:
    native._native.use_isa(isa)
    Layer(NofM(min(n, m), m), (rows, groups * m), batch, seed=seed).check()


@pytest.mark.parametrize("isa", ISAS)
def test_results_do_not_depend_on_the_number_of_threads(isa: str) -> None:
    native._native.use_isa(isa)
    cases = [(Block(16, 8), 64), (Block(16, 8), 700), (NofM(1, 4), 64), (NofM(2, 16), 700)]
    for structure, batch in cases:
        layer = Layer(structure, (512, 256), batch, torch.float32)
        results = []
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append((layer.forward(), *layer.backward()))
        for other in results[1:]:
            assert all(torch.equal(*pair) for pair in zip(results[0], other, strict=True))


def test_a_weight_without_blocks() -> None:
    topology = Topology((8, 4), torch.empty(0, dtype=torch.int64)).declare(Block(2, 2))
    x, values, bias = torch.ones(3, 4), torch.empty(0), torch.arange(8.0)
    y = native_structured.block_forward(x, values, topology.parts(), (2, 2), bias)
    assert torch.equal(y, bias.expand(3, 8))
    dx, dvalues = native_structured.block_backward(
        torch.ones(3, 8), x, values, topology.parts(), (2, 2)
    )
    assert torch.equal(dx, torch.zeros(3, 4))
    assert dvalues.numel() == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"form": (2, 4)}, r"^indices must have shape \[1\], got \[2\]$"),
        ({"form": (0, 2)}, "^form of a block must be at least 1 x 1, got 0 x 2$"),
        ({"x": torch.ones(3, 5)}, "^n_in must be a multiple of columns of a block, got 5 and 2$"),
        ({"values": torch.ones(7)}, r"^(nnz|indices) must "),
    ],
)
def test_what_does_not_fit_is_refused(change: dict, message: str) -> None:
    parts = block_topology((4, 4), 8, Block(2, 2)).parts()
    given_ = {"x": torch.ones(3, 4), "values": torch.ones(8), "form": (2, 2), **change}
    with pytest.raises(ValueError, match=message):
        native_structured.block_forward(given_["x"], given_["values"], parts, given_["form"])


@pytest.mark.parametrize(
    ("form", "columns", "count"),
    [((2, 4), 8, 13), ((2, 4), 6, 12), ((0, 4), 8, 12), ((2, 0), 8, 12), ((3, 2), 8, 24)],
)
def test_groups_that_do_not_fit_are_refused(form: tuple, columns: int, count: int) -> None:
    places = torch.zeros(count, dtype=torch.uint8)
    with pytest.raises(ValueError, match="must be"):
        native_structured.nm_forward(torch.ones(3, columns), torch.ones(count), (places,), form)
