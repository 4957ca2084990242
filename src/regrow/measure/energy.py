"""A proxy for energy: so much for each operation, so much for each byte that is moved."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from regrow.layers import SparseLayer
from regrow.measure.memory import memory
from regrow.measure.summary import summary


@dataclass(frozen=True)
class EnergyCosts:
    """What operations and memory cost, in picojoules.

    The defaults are for a 45 nm process at 0.9 V: a multiplication and an addition in float32, and
    a byte of DRAM (640 pJ for 32 bits). They tell how networks compare, not what a meter would
    show: today's processes need less, and caches save most of the way to DRAM. ``ENERGY_COSTS``
    has others.

    Attributes:
        multiply: One multiplication.
        add: One addition.
        byte: One byte read or written.

    Example:
        >>> round(1e6 * EnergyCosts().of(flops=2_000_000, bytes_moved=1000), 2)  # microjoules
        4.76

    References:
        M. Horowitz, "Computing's energy problem (and what we can do about it)", 2014.
        S. Han, J. Pool, J. Tran, W. J. Dally, "Learning both weights and connections for efficient
        neural networks", 2015, for the table with DRAM.
    """

    multiply: float = 3.7
    add: float = 0.9
    byte: float = 160.0

    def of(self, flops: int, bytes_moved: int) -> float:
        """Joules of FLOPs, one half multiplications and one half additions, and of bytes."""
        return 1e-12 * (flops / 2 * (self.multiply + self.add) + bytes_moved * self.byte)


ENERGY_COSTS = {
    "float32, DRAM": EnergyCosts(),
    "float32, 8 KiB cache": EnergyCosts(byte=1.25),
    "float16, DRAM": EnergyCosts(multiply=1.1, add=0.4),
    "float16, 8 KiB cache": EnergyCosts(multiply=1.1, add=0.4, byte=1.25),
}
"""Costs at 45 nm by number format and by the memory that bytes come from (10 pJ for 64 bits of a
cache of 8 KiB)."""


@dataclass(frozen=True)
class Energy:
    """Energy of one training step, in joules, and what it is made of.

    Attributes:
        flops: Forward and backward, as they are carried out.
        bytes_moved: Read and written.
        arithmetic: Joules of the FLOPs.
        traffic: Joules of the bytes.
    """

    flops: int
    bytes_moved: int
    arithmetic: float
    traffic: float

    @property
    def total(self) -> float:
        """Joules."""
        return self.arithmetic + self.traffic


def step_energy(
    model: nn.Module,
    example_input: Tensor,
    optimizer: torch.optim.Optimizer | None = None,
    *,
    costs: EnergyCosts | None = None,
) -> Energy:
    """Estimate the energy of a training step.

    FLOPs are those of ``summary`` as they are carried out. Bytes are counted as if nothing stayed
    in a cache from one pass to the next:

    - forward, each layer reads its parameters, row order and input, and writes its output;
    - backward, it reads its parameters, column order, input and the gradient of its output, and
      writes the gradients of parameters and input;
    - the optimiser reads gradients, parameters and state, and writes parameters and state.

    A sparse layer that computes with a dense weight writes and reads that too, forward and
    backward, and its gradient.

    Args:
        model: Any torch module, after a first step if the optimiser's state is to count.
        example_input: One batch.
        optimizer: Whose state is moved; none if None.
        costs: Picojoules of each operation; ``EnergyCosts()`` if None.

    Returns:
        Joules and their parts.

    Example:
        >>> import regrow
        >>> sparse = regrow.SparseLinear(256, 256, bias=False, density=0.05, compute="csr")
        >>> dense = nn.Linear(256, 256, bias=False)
        >>> x = torch.ones(32, 256)
        >>> round(step_energy(dense, x).total / step_energy(sparse, x).total, 1)
        6.4
    """
    costs = costs or EnergyCosts()
    modules = dict(model.named_modules())
    with _sizes(modules) as sizes:
        rows = summary(model, example_input).layers
    held = {layer.path: layer for layer in memory(model, optimizer).layers}
    flops = moved = 0
    for row in rows:
        flops += row.flops_executed
        layer = held.get(row.path)
        into, out = sizes.get(row.path, (0, 0))
        moved += 3 * into + 2 * out
        if layer is None:
            continue
        passes = 3 * layer.values + layer.row_order + layer.column_order
        update = 3 * layer.values + 2 * layer.optimizer
        moved += passes + update + 6 * _dense_weight(modules[row.path], row.compute)
    return Energy(flops, moved, costs.of(flops, 0), costs.of(0, moved))


def _dense_weight(module: nn.Module, compute: str) -> int:
    """Bytes of the dense weight of a sparse layer that makes one."""
    if compute != "dense" or not isinstance(module, SparseLayer):
        return 0
    return module.topology.shape.numel() * module.values.itemsize


@contextmanager
def _sizes(modules: dict[str, nn.Module]) -> Iterator[dict[str, tuple[int, int]]]:
    """Bytes of input and output of every module, filled by the forward pass within."""
    found: dict[str, tuple[int, int]] = {}

    def remember(path: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], output: object) -> None:
            found[path] = (_first_bytes(args), _first_bytes(output))

        return hook

    handles = [m.register_forward_hook(remember(path)) for path, m in modules.items()]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _first_bytes(given: object) -> int:
    first = given[0] if isinstance(given, tuple) and given else given
    return first.nbytes if isinstance(first, Tensor) else 0
