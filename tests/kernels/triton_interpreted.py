"""Run by test_triton in a process of its own, where Triton interprets its kernels on the CPU."""

from __future__ import annotations

import torch

import regrow
from regrow.kernels import reference_structured, structured, triton_structured
from regrow.topology import Block, NofM, Topology, block_topology, nm_topology

CASES = [
    (Block(16, 16), (64, 96)),
    (Block(32, 16), (64, 32)),
    (Block(4, 8), (12, 40)),
    (Block(5, 3), (10, 9)),
    (NofM(2, 4), (40, 48)),
    (NofM(1, 4), (70, 132)),
    (NofM(4, 8), (9, 64)),
    (NofM(1, 16), (65, 144)),
    (NofM(3, 64), (5, 128)),
]


def topology_of(structure: Block | NofM, shape: tuple[int, int]) -> Topology:
    g = torch.Generator().manual_seed(0)
    if isinstance(structure, NofM):
        return nm_topology(shape, structure.n, structure.m, generator=g)
    count = max(2, shape[0] * shape[1] // structure.size // 3)
    return block_topology(shape, count * structure.size, structure, generator=g)


def check(structure: Block | NofM, shape: tuple[int, int], batch: int, dtype: torch.dtype) -> None:
    topology, g = topology_of(structure, shape), torch.Generator().manual_seed(1)
    kind = "block" if isinstance(structure, Block) else "nm"
    form = (structure.rows, structure.columns) if kind == "block" else (structure.n, structure.m)
    assert triton_structured.serves(kind, form)
    values = torch.randn(topology.nnz, generator=g)
    values = values.double() if dtype == torch.float64 else values
    x = torch.randn(batch, shape[1], generator=g).to(dtype)
    grad = torch.randn(batch, shape[0], generator=g).to(dtype)
    bias = torch.randn(shape[0], generator=g).to(values.dtype)
    given = values, topology.parts(), kind, form
    close = 2e-2 if dtype == torch.float16 else 1e-4 if dtype == torch.float32 else 1e-10
    for offsets in (bias, None):
        y = triton_structured.forward(x, *given, offsets)
        assert y.dtype == dtype
        lowered = values.to(dtype).to(values.dtype), *given[1:]
        expected = reference_structured.forward(x.to(values.dtype), *lowered, offsets)
        torch.testing.assert_close(y.to(values.dtype), expected, rtol=close, atol=4 * close)
    both = reference_structured.backward(grad.to(values.dtype), x.to(values.dtype), *lowered)
    for need in ((True, True), (True, False), (False, True)):
        found = triton_structured.backward(grad, x, *given, *need)
        for mine, theirs, needed in zip(found, both, need, strict=True):
            assert (mine is not None) == needed
            if needed:
                got = mine.to(values.dtype)
                torch.testing.assert_close(got, theirs, rtol=close, atol=4 * close)


def check_a_layer_that_takes_them() -> None:
    structured._on_gpu = lambda values: True
    topology = nm_topology((16, 32), 2, 4)
    layer = regrow.SparseLinear(32, 16, topology=topology, compute="nm").half()
    assert structured.structured_kernels(layer.values, "nm", (2, 4)) is triton_structured
    x = torch.randn(5, 32, dtype=torch.float16, requires_grad=True)
    y = layer(x)
    expected = torch.nn.functional.linear(x, layer.weight, layer.bias)
    torch.testing.assert_close(y, expected, rtol=1e-2, atol=1e-2)
    y.sum().backward()
    assert x.grad.dtype == layer.values.grad.dtype == torch.float16


def main() -> None:
    check_a_layer_that_takes_them()
    dtypes = torch.float32, torch.float64, torch.float16
    for i, (structure, shape) in enumerate(CASES):
        check(structure, shape, (70, 1)[i % 2], dtypes[i % 3])
    print(f"{len(CASES)} forms agree")


main()
