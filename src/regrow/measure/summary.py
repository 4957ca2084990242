"""What each layer of a model holds, does and how it computes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from regrow.kernels import dispatch
from regrow.layers import SparseLayer
from regrow.topology import Topology


@dataclass(frozen=True)
class LayerSummary:
    """One layer with parameters, or with FLOPs of its own as attention has.

    Attributes:
        path: Path in the model.
        kind: Class name.
        shape: Dense shape of the weight; of no entry where there is none.
        density: Kept fraction of its positions.
        nnz: Connections (weights, without bias).
        flops_forward: Of the example input; a multiply-add counts as two.
        flops_backward: Of both gradients; of one where the input needs none or weights are frozen.
        bytes: Parameters and indices; of what several layers share, the first one's only.
        compute: ``csr`` or ``dense``, or another one that a layer offers.
        reason: Why.
        milliseconds: Measured time of a step with each candidate, where measured.
        tied_to: Path of the layer before that has the same weight; None in most.
    """

    path: str
    kind: str
    shape: tuple[int, ...]
    density: float
    nnz: int
    flops_forward: int
    flops_backward: int
    bytes: int
    compute: str
    reason: str
    milliseconds: dict[str, float]
    tied_to: str | None = None

    @property
    def flops_executed(self) -> int:
        """Forward and backward as they are carried out: a dense product multiplies zeros too."""
        products = self.flops_forward + self.flops_backward
        dense = self.compute == "dense" and self.nnz
        return round(products / self.density) if dense else products


@dataclass(frozen=True)
class Summary:
    """All layers of a model; ``str()`` gives the table."""

    layers: list[LayerSummary]

    @property
    def total(self) -> LayerSummary:
        """All layers together."""
        own = [layer for layer in self.layers if layer.tied_to is None]
        positions = sum(_size(layer.shape) for layer in own)
        nnz = sum(layer.nnz for layer in own)
        return LayerSummary(
            path="total",
            kind="",
            shape=(positions,),
            density=nnz / positions if positions else 1.0,
            nnz=nnz,
            flops_forward=sum(layer.flops_forward for layer in self.layers),
            flops_backward=sum(layer.flops_backward for layer in self.layers),
            bytes=sum(layer.bytes for layer in self.layers),
            compute="",
            reason="",
            milliseconds={},
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {"layers": [asdict(layer) for layer in self.layers], "total": asdict(self.total)}

    def __str__(self) -> str:
        """A table, one row a layer."""
        head = ("layer", "shape", "density", "nnz", "FLOPs fwd", "FLOPs bwd", "bytes", "compute")
        rows = [
            (
                layer.path,
                "x".join(str(n) for n in layer.shape),
                f"{layer.density:.4g}",
                f"{layer.nnz:,}",
                f"{layer.flops_forward:,}",
                f"{layer.flops_backward:,}",
                f"{layer.bytes:,}",
                f"{layer.compute}: {layer.reason}" if layer.reason else layer.compute,
            )
            for layer in [*self.layers, self.total]
        ]
        widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in [head, *rows]
        ]
        return "\n".join(lines)


def summary(model: nn.Module, example_input: Tensor) -> Summary:
    """Run a model once and say per layer what it holds, does and how it computes.

    ``auto`` layers are decided by this run for inputs of this batch size, if they were not yet.

    Args:
        model: Any torch module; it is left in the mode it was in.
        example_input: One input batch.

    Returns:
        One entry for each module that holds parameters of its own, or multiplies what others gave
        it. Backward, attention counts its products twice; kernels that form them anew do more.

    Example:
        >>> import regrow
        >>> model = nn.Sequential(regrow.SparseLinear(64, 32, density=0.1), nn.Linear(32, 10))
        >>> result = summary(model, torch.ones(8, 64))
        >>> [(layer.path, layer.nnz, layer.flops_forward) for layer in result.layers]
        [('0', 205, 3280), ('1', 320, 5120)]
    """
    modules = dict(model.named_modules())
    inputs: dict[str, Tensor] = {}
    with _hooks(modules, inputs), _evaluating(model), torch.enable_grad():
        counter = FlopCounterMode(display=False)
        with counter:
            model(example_input)
    root = type(model).__name__
    counts = {
        name.removeprefix(root).removeprefix("."): sum(by_operator.values())
        for name, by_operator in counter.get_flop_counts().items()
    }
    layers: list[LayerSummary] = []
    owners: dict[int, str] = {}
    for path, module in modules.items():
        inner = sum(_counted(child, path, name, counts) for name, child in module.named_children())
        flops = max(0, counts.get(path, 0) - inner)
        if flops or any(True for _ in module.parameters(recurse=False)):
            layers.append(_layer(path, module, inputs.get(path), flops, owners))
    return Summary(layers)


def _counted(module: nn.Module, above: str, name: str, counts: dict[str, int]) -> int:
    """FLOPs within a module; a container that is itself never called has those of its parts."""
    path = f"{above}.{name}" if above else name
    if path in counts:
        return counts[path]
    return sum(_counted(child, path, part, counts) for part, child in module.named_children())


def _layer(
    path: str, module: nn.Module, x: Tensor | None, flops: int, owners: dict[int, str]
) -> LayerSummary:
    """The row of a module; ``owners`` knows whose each tensor is, by identity."""
    own = list(module.parameters(recurse=False))
    weight: object
    if isinstance(module, SparseLayer):
        shape, nnz = tuple(module.topology.shape), module.topology.nnz
        held = _new(module.topology, path, owners)
        compute, reason, times = _decision(module, x)
        weight = module.values
    else:
        weight = getattr(module, "weight", None)
        shape = tuple(weight.shape) if isinstance(weight, Tensor) else (_count(own),)
        nnz, held = _size(shape), 0
        compute, reason, times = "dense", "", {}
    tied_to = owners.get(id(weight)) if isinstance(weight, Tensor) else None
    held += sum(_new(parameter, path, owners) for parameter in own)
    # The gradient of the weight, and that of the input; of both factors where there is no weight.
    trained = any(parameter.requires_grad for parameter in own) or not own
    passed = (x is not None and x.requires_grad) or not own
    factor = int(trained) + int(passed)
    return LayerSummary(
        path=path,
        kind=type(module).__name__,
        shape=shape,
        density=nnz / _size(shape) if _size(shape) else 1.0,
        nnz=nnz,
        flops_forward=flops,
        flops_backward=factor * flops,
        bytes=held,
        compute=compute,
        reason=reason,
        milliseconds=times,
        tied_to=tied_to,
    )


def _new(held: Tensor | Topology, path: str, owners: dict[int, str]) -> int:
    """Bytes of what no layer before holds, which is this layer's from now on."""
    return held.nbytes if owners.setdefault(id(held), path) == path else 0


def _decision(layer: SparseLayer, x: Tensor | None) -> tuple[str, str, dict[str, float]]:
    if layer.compute != "auto":
        return layer.compute, "set by the user", {}
    if x is None:
        return "auto", "not reached by the example input", {}
    decision = dispatch.lookup(layer.situation(x))
    if decision is None:
        return "auto", "not decided", {}
    return decision.compute, decision.reason, decision.milliseconds


def _size(shape: tuple[int, ...]) -> int:
    return torch.Size(shape).numel()


def _count(parameters: list[nn.Parameter]) -> int:
    return sum(parameter.numel() for parameter in parameters)


@contextmanager
def _hooks(named: dict[str, nn.Module], inputs: dict[str, Tensor]) -> Iterator[None]:
    def remember(path: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
            if args and isinstance(args[0], Tensor):
                inputs[path] = args[0]

        return hook

    handles = [m.register_forward_pre_hook(remember(path)) for path, m in named.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
