"""The operator for structures: torch's own checks, agreement with dense, choice of the compute."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from regrow import Topology
from regrow.kernels import dispatch, native, structured
from regrow.topology import Block, FanIn, NofM, block_topology, nm_topology

CASES = [
    block_topology((8, 12), 36, Block(2, 3), generator=torch.Generator().manual_seed(1)),
    nm_topology((5, 12), 2, 4, generator=torch.Generator().manual_seed(2)),
]


def kind(topology: Topology) -> str:
    return structured.form_of(topology.structure).kind


def operands(topology: Topology) -> tuple:
    return list(topology.operands()), list(topology.parts())


def inputs(topology: Topology, bias: bool = True, **options: object) -> tuple:
    rows, columns = topology.shape
    g = torch.Generator().manual_seed(0)
    options = {"dtype": torch.float64, "requires_grad": True, **options}
    return (
        torch.randn(5, columns, generator=g, **options),
        torch.randn(topology.nnz, generator=g, **options),
        torch.randn(rows, generator=g, **options) if bias else None,
    )


def fixed(topology: Topology, compute: str) -> tuple:
    return (*operands(topology), *structured.form_of(topology.structure), compute, True)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("topology", CASES, ids=kind)
def test_opcheck(topology: Topology, bias: bool) -> None:
    name = kind(topology)
    given = (*inputs(topology, bias), *fixed(topology, name))
    torch.library.opcheck(torch.ops.regrow.structured.default, given)


@pytest.mark.parametrize("need", [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("topology", CASES, ids=kind)
def test_opcheck_of_the_backward_operator(topology: Topology, need: tuple[bool, bool]) -> None:
    x, values, _ = inputs(topology, requires_grad=False)
    grad = torch.ones(5, topology.shape[0], dtype=torch.float64)
    given = (grad, x, values, *fixed(topology, kind(topology))[:-1], *need)
    torch.library.opcheck(torch.ops.regrow.structured_backward.default, given)


@pytest.mark.parametrize("function", [structured.structured, torch.ops.regrow.structured])
@pytest.mark.parametrize("topology", CASES, ids=kind)
def test_gradcheck(function, topology: Topology) -> None:
    rest = fixed(topology, kind(topology))
    assert torch.autograd.gradcheck(lambda *given: function(*given, *rest), inputs(topology))


@pytest.mark.parametrize("auto", [True, False])
@pytest.mark.parametrize("topology", CASES, ids=kind)
def test_it_agrees_with_the_dense_map(topology: Topology, auto: bool) -> None:
    dispatch.forget()
    x, values, bias = inputs(topology)
    y = structured.structured(x, values, bias, *fixed(topology, "auto" if auto else kind(topology)))
    size = topology.shape.numel()
    dense = torch.zeros(size, dtype=torch.float64).index_put((topology.positions,), values)
    expected = functional.linear(x, dense.view(topology.shape), bias)
    torch.testing.assert_close(y, expected)
    mine = torch.autograd.grad(y.square().sum(), (x, values, bias))
    theirs = torch.autograd.grad(expected.square().sum(), (x, values, bias))
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other)
    dispatch.forget()


@pytest.mark.skipif(not native.available(), reason=native.reason())
@pytest.mark.parametrize("topology", CASES, ids=kind)
def test_auto_times_the_structure_beside_the_others(topology: Topology) -> None:
    dispatch.forget()
    x, values, bias = inputs(topology)
    structured.structured(x, values, bias, *fixed(topology, "auto"))
    (entry,) = dispatch.decisions().values()
    assert set(entry["milliseconds"]) == {"csr", "dense", kind(topology)}
    (key,) = dispatch.decisions()
    assert key.endswith(f"training {'block 2x3' if kind(topology) == 'block' else 'nm 2x4'}")
    dispatch.load_decisions(dispatch.decisions())
    dispatch.forget()


@pytest.mark.skipif(not native.available(), reason=native.reason())
def test_a_very_sparse_dense_product_is_not_tried() -> None:
    dispatch.forget()
    topology = block_topology((64, 64), 16, Block(4, 4))
    x, values, bias = inputs(topology)
    structured.structured(x, values, bias, *fixed(topology, "auto"))
    (entry,) = dispatch.decisions().values()
    assert set(entry["milliseconds"]) == {"csr", "block"}
    dispatch.forget()


def test_flops_count_connections() -> None:
    topology = CASES[0]
    x, values, bias = inputs(topology)
    with FlopCounterMode(display=False) as counter:
        y = structured.structured(x, values, bias, *fixed(topology, "block"))
        y.sum().backward()
    assert counter.get_total_flops() == 3 * 2 * 5 * topology.nnz


def test_forms_of_structures_with_kernels() -> None:
    assert structured.form_of(Block(2, 8)) == ("block", (2, 8))
    assert structured.form_of(NofM(2, 4)) == ("nm", (2, 4))
    assert structured.form_of(NofM(2, 400)) is None
    assert structured.form_of(FanIn(3)) is None
    assert structured.form_of(None) is None
