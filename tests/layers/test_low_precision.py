"""Layers of bfloat16 and float16 on a CPU: computed by the fast kernels, near float32."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import NoReturn

import pytest
import torch
from torch import Tensor, nn

from regrow import SparseConv2d, SparseEmbedding, SparseGRU, SparseLinear, SparseLSTM
from regrow.kernels import dispatch, native, reference, reference_convolution, reference_structured
from regrow.topology import Block, block_topology, nm_topology

pytestmark = pytest.mark.skipif(not native.available(), reason=native.reason())

HALVES = [torch.bfloat16, torch.float16]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def nm() -> SparseLinear:
    topology = nm_topology((12, 16), 1, 4, generator=seeded())
    return SparseLinear(16, 12, topology=topology, compute="nm", generator=seeded())


def block() -> SparseLinear:
    topology = block_topology((12, 16), 48, Block(2, 4), generator=seeded())
    return SparseLinear(16, 12, topology=topology, compute="block", generator=seeded())


def conv(**options: object) -> SparseConv2d:
    given = {"density": 0.3, "compute": "csr", "generator": seeded(), **options}
    return SparseConv2d(4, 6, 3, padding=1, **given)


def recurrent(kind: type) -> nn.Module:
    return kind(8, 12, density=0.3, compute="csr", generator=seeded())


# A layer, and the shape of its input.
CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "nm": (nm, (20, 16)),
    "block": (block, (20, 16)),
    "conv": (conv, (3, 4, 7, 7)),
    "grouped conv": (lambda: conv(groups=2, bias=False), (3, 4, 7, 7)),
    "lstm": (lambda: recurrent(SparseLSTM), (5, 20, 8)),
    "gru": (lambda: recurrent(SparseGRU), (5, 3, 8)),
}


@pytest.fixture
def _no_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    """The products of the reference fail, but for the copies in and out of a dense weight."""

    def refused(*_: object, **__: object) -> NoReturn:
        raise AssertionError("the slow reference kernels were asked")

    for module, names in (
        (reference, ("linear_forward", "linear_backward", "pair_products")),
        (reference_convolution, ("conv_forward", "conv_backward")),
        (reference_structured, ("forward", "backward")),
    ):
        for name in names:
            monkeypatch.setattr(module, name, refused)


def step(layer: nn.Module, x: Tensor) -> list[Tensor]:
    """Output and all gradients, of a gradient that is the same whatever the dtype."""
    x = x.clone().requires_grad_()
    y = layer(x)
    y = y[0] if isinstance(y, tuple) else y
    y.backward(torch.randn(y.shape, generator=seeded(2)).to(y.dtype))
    return [y.detach(), x.grad, *(p.grad for p in layer.parameters())]


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("name", CASES)
@pytest.mark.usefixtures("_no_reference")
def test_a_step_is_near_that_of_float32(name: str, dtype: torch.dtype) -> None:
    make, shape = CASES[name]
    low = make().to(dtype)
    x = torch.randn(shape, generator=seeded(1)).to(dtype)
    got, expected = step(low, x), step(copy.deepcopy(low).float(), x.float())
    assert {part.dtype for part in got} == {dtype}
    for mine, theirs in zip(got, expected, strict=True):
        size = float(theirs.abs().max())
        torch.testing.assert_close(mine.float(), theirs, rtol=0.02, atol=0.02 * size)


@pytest.mark.parametrize("name", ["nm", "block", "conv"])
@pytest.mark.usefixtures("_no_reference")
def test_auto_decides_about_bfloat16_too(name: str) -> None:
    dispatch.forget()
    make, shape = CASES[name]
    layer = make().to(torch.bfloat16)
    layer.compute = "auto"
    got = step(layer, torch.randn(shape, generator=seeded(1)).bfloat16())
    assert {part.dtype for part in got} == {torch.bfloat16}
    (decision,) = dispatch.decisions().values()
    # What has a structure has its kernels among the candidates, of half precision as of others.
    assert set(decision["milliseconds"]) == {"csr", "dense", *({name} - {"conv"})}
    dispatch.forget()


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.usefixtures("_no_reference")
def test_gradients_of_single_positions_are_near_those_of_float32(dtype: torch.dtype) -> None:
    linear = SparseLinear(16, 12, density=0.3, generator=seeded())
    convolution = conv()
    x, grad = torch.randn(20, 16, generator=seeded(1)), torch.randn(20, 12, generator=seeded(2))
    image, into = (torch.randn(3, n, 7, 7, generator=seeded(n)) for n in (4, 6))
    rows, columns = torch.arange(30) % 6, torch.arange(30) % 16
    for layer, given in ((linear, (x, grad)), (convolution, (image, into))):
        given = [part.to(dtype) for part in given]
        single = layer.gradient_pairs(*(part.float() for part in given), rows, columns)
        got = layer.to(dtype).gradient_pairs(*given, rows, columns)
        assert got.dtype == dtype
        torch.testing.assert_close(got.float(), single, rtol=0.01, atol=0.01)


@pytest.mark.parametrize("compute", ["csr", "dense", "auto"])
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.usefixtures("_no_reference")
def test_an_embedding_looks_up_what_it_has(dtype: torch.dtype, compute: str) -> None:
    dispatch.forget()
    layer = SparseEmbedding(9, 4, density=0.5, compute=compute, generator=seeded()).to(dtype)
    ids = torch.tensor([[1, 3, 3], [8, 0, 1]])
    y = layer(ids)
    assert torch.equal(y, layer.weight[ids])
    y.sum().backward()
    counts = ids.flatten().bincount(minlength=9)[layer.topology.rows]
    assert torch.equal(layer.values.grad, counts.to(dtype))
    dispatch.forget()
