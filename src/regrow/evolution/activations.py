"""Activations: what went into a layer and came out of it before an update, a sample of rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

from regrow.layers import SparseConv1d, SparseConv2d, SparseLayer, SparseLinear
from regrow.layers.cells import SparseRecurrence

# Rows kept of each layer.
ROWS = 1024
# Optimiser steps before an update from which rows are taken.
STEPS = 32

# Modules through which the output of a layer passes on its way to the next one.
_PASSING = (
    "torch.nn.modules.activation",
    "torch.nn.modules.batchnorm",
    "torch.nn.modules.dropout",
    "torch.nn.modules.normalization",
)


class Activations:
    """The last rows that went through each layer in training.

    Outputs are taken after the modules of activation, normalisation and dropout that follow the
    layer directly; what a model does in functions of its own is not seen.

    Args:
        model: The model.
        layers: Its sparse layers, by path.

    Raises:
        ValueError: A layer is of a kind whose input has no columns to compare with outputs.
    """

    def __init__(self, model: nn.Module, layers: Mapping[str, SparseLayer]) -> None:
        for path, layer in layers.items():
            if _unsuited(layer):
                raise ValueError(
                    f"growth by activations must be of linear layers or convolutions of one or two "
                    f"dimensions without groups, got {type(layer).__name__} at {path}"
                )
        self._model = model
        self._layers = dict(layers)
        self._rows: dict[str, tuple[Tensor, Tensor]] = {}
        self._looked: dict[str, tuple[Tensor, Tensor]] = {}
        self._pending: dict[str, tuple[Tensor, Tensor]] = {}
        self._handles: list[RemovableHandle] = []

    def listen(self) -> None:
        """Keep what goes through from now on."""
        if self._handles:
            return
        for path, layer in self._layers.items():
            self._handles.append(layer.register_forward_hook(_Hook(self, path)))
        for module in self._model.modules():
            if type(module).__module__ in _PASSING and not list(module.children()):
                self._handles.append(module.register_forward_hook(_Hook(self, None)))

    def stop(self) -> None:
        """Keep nothing any more, and forget the rows."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._rows.clear()
        self._pending.clear()

    def settle(self) -> None:
        """An optimiser step is over: outputs go no further."""
        for path in list(self._pending):
            self._settle(path)

    @torch.no_grad()
    def look(self, forward: Callable[[], object]) -> None:
        """Keep all rows of some passes in evaluation, in place of those of training.

        Args:
            forward: Runs the passes. A module of activation that follows the model counts too.
        """
        rows: dict[str, list[tuple[Tensor, Tensor]]] = {path: [] for path in self._layers}
        paths = {id(layer): path for path, layer in self._layers.items()}
        open_: dict[str, tuple[Tensor, Tensor]] = {}

        def passed(module: nn.Module, given: tuple[Any, ...], output: Any) -> None:
            if not given or not isinstance(output, Tensor):
                return
            if id(module) in paths:
                path = paths[id(module)]
                close(path)
                open_[path] = given[0], output
            elif type(module).__module__ in _PASSING:
                for path, (x, y) in open_.items():
                    if y is given[0] and output.shape == y.shape:
                        open_[path] = x, output

        def close(path: str) -> None:
            if path in open_:
                rows[path].append(_as_rows(self._layers[path], *open_.pop(path)))

        modes = {module: module.training for module in self._model.modules()}
        self._model.eval()
        handle = nn.modules.module.register_module_forward_hook(passed)
        try:
            forward()
        finally:
            handle.remove()
            for module, mode in modes.items():
                module.training = mode
        for path in rows:
            close(path)
        self._looked = {
            path: (torch.cat([x for x, _ in found]), torch.cat([y for _, y in found]))
            for path, found in rows.items()
            if found
        }

    def forget(self) -> None:
        """What was looked at is of the past."""
        self._looked.clear()

    def of(self, path: str) -> tuple[Tensor, Tensor] | None:
        """Inputs ``[samples, columns]`` and outputs ``[samples, rows]`` of a layer."""
        self._settle(path)
        return self._looked.get(path) or self._rows.get(path)

    def state_dict(self) -> dict[str, Any]:
        """Rows by path."""
        self.settle()
        return {
            "rows": {path: list(rows) for path, rows in self._rows.items()},
            "looked": {path: list(rows) for path, rows in self._looked.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up saved rows."""
        self._rows, self._looked = (
            {path: (rows[0].clone(), rows[1].clone()) for path, rows in state[name].items()}
            for name in ("rows", "looked")
        )

    def went_through(self, path: str, x: Tensor, y: Tensor) -> None:
        """Take in one forward pass of a layer."""
        self._settle(path)
        # A copy, for a loop may refill its input tensor.
        self._pending[path] = (x.detach().clone(), y)

    def went_on(self, x: Tensor, y: Tensor) -> None:
        """Take in that a module has changed the output of a layer."""
        for path, (inputs, output) in self._pending.items():
            if output is x and y.shape == x.shape:
                self._pending[path] = (inputs, y)

    def _settle(self, path: str) -> None:
        if path not in self._pending:
            return
        x, y = _as_rows(self._layers[path], *self._pending.pop(path))
        before = self._rows.get(path)
        rows = [x[-ROWS:], y[-ROWS:]]
        if before is not None:
            rows = [torch.cat(pair)[-ROWS:] for pair in zip(before, rows, strict=True)]
        self._rows[path] = (rows[0].clone(), rows[1].clone())


class _Hook:
    """A forward hook that stays behind where its module is copied or pickled."""

    def __init__(self, activations: Activations, path: str | None) -> None:
        self._activations = activations
        self._path = path

    def __call__(self, module: nn.Module, given: tuple[Any, ...], output: Any) -> None:
        if not module.training or not given or not isinstance(output, Tensor):
            return
        if self._path is None:
            self._activations.went_on(given[0], output)
        else:
            self._activations.went_through(self._path, given[0], output)

    def __reduce__(self) -> tuple[Any, ...]:
        return _Nothing, ()


class _Nothing:
    """The hook of a copy."""

    def __call__(self, module: nn.Module, given: tuple[Any, ...], output: Any) -> None:
        """Keep nothing."""


def _unsuited(layer: SparseLayer) -> bool:
    if isinstance(layer, (SparseConv1d, SparseConv2d)):
        return layer.groups != 1
    return not isinstance(layer, SparseLinear) or isinstance(layer, SparseRecurrence)


@torch.no_grad()
def _as_rows(layer: SparseLayer, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Input and output as the columns and rows of the weight see them, one row a sample."""
    rows, columns = layer.topology.matrix_shape
    x, y = x.detach(), y.detach()
    if isinstance(layer, (SparseConv1d, SparseConv2d)):
        geometry = layer.geometry
        flat = (1,) * (2 - len(geometry.kernel))
        x = x.reshape(-1, *x.shape[-1 - len(geometry.kernel) :])
        y = y.reshape(-1, *y.shape[-1 - len(geometry.kernel) :])
        x = functional.pad(x, geometry.pad)
        patches = functional.unfold(
            x.unsqueeze(2) if flat else x,
            (*flat, *geometry.kernel),
            (*flat, *geometry.dilation),
            stride=(*flat, *geometry.stride),
        )
        x, y = patches.transpose(1, 2), y.flatten(2).transpose(1, 2)
    return x.reshape(-1, columns), y.reshape(-1, rows)
