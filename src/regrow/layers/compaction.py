"""Removing neurons that do nothing, for good."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from regrow.layers.base import SparseLayer
from regrow.layers.channels import (
    CONV,
    Channels,
    Space,
    View,
    connections,
    padded,
    taps,
)
from regrow.layers.conversion import succeed
from regrow.layers.linear import SparseLinear
from regrow.topology import Topology

Model = TypeVar("Model", bound=nn.Module)


def compact(model: Model, example_input: Tensor | tuple[Any, ...]) -> Model:
    """Remove neurons that do nothing from a model, in place; its function stays the same.

    A neuron (a channel of a convolution) goes if nothing reads it, or if it says the same whatever
    comes in: what it says moves into the biases of the layers that read it. In a sparse layer that
    is decided by connections, in a dense one by weights that are zero. Neurons are followed
    through activations, dropout, batch norm, pooling, flattening and sums of layers; neurons that
    something else reads stay, and so do those whose constant has no bias to go to or would differ
    at the padded border of a convolution.

    The function is the one in evaluation, where batch norm uses its running statistics and dropout
    does nothing. Layers that lose neurons are new ones: make the optimiser afterwards.

    Args:
        model: That torch.fx can trace: without branches on the data.
        example_input: Input, or a tuple of inputs, to see its shapes.

    Returns:
        The model.

    Raises:
        ValueError: The model cannot be traced.

    Example:
        >>> import regrow
        >>> first = regrow.SparseLinear(3, 4, topology=Topology((4, 3), torch.tensor([0, 5])))
        >>> last = regrow.SparseLinear(4, 2, topology=Topology((2, 4), torch.tensor([0, 2, 5])))
        >>> model = nn.Sequential(first, nn.ReLU(), last)
        >>> x = torch.randn(5, 3)
        >>> before = model(x)
        >>> [layer.topology.shape for layer in compact(model, x) if layer is not model[1]]
        [torch.Size([2, 3]), torch.Size([2, 2])]
        >>> torch.allclose(model(x), before)
        True

    References:
        The neurons that such training leaves behind: S. Liu, D. C. Mocanu, M. Pechenizkiy, "On
        improving deep learning generalization with adaptive sparse connectivity", 2019.
    """
    inputs = example_input if isinstance(example_input, tuple) else (example_input,)
    modes = {path: module.training for path, module in model.named_modules()}
    model.eval()
    try:
        while _compact_once(model, Channels(model, inputs)):
            pass  # a neuron that goes may leave others without anyone who reads them
    finally:
        for path, module in model.named_modules():
            module.training = modes[path]
    return model


def _compact_once(model: nn.Module, channels: Channels) -> bool:
    keep_rows: dict[str, Tensor] = {}
    keep_columns: dict[str, Tensor] = {}
    added: dict[str, Tensor] = {}
    keep_norms: dict[str, Tensor] = {}
    for space in channels.spaces:
        if not space.open or not space.readers:
            continue
        gone, silent = _removable(channels, space)
        if not gone.any():
            continue
        for path in space.makers:
            keep_rows[path] = ~gone
        for path, repeat in space.norms.items():
            keep_norms[path] = ~gone.repeat_interleave(repeat)
        for reader in space.readers:
            module, view = channels.module(reader), _view(channels, reader)
            path = str(reader.target)
            columns = gone.repeat_interleave(view.repeat)
            keep_columns[path] = ~columns.repeat_interleave(taps(module))
            speaking = (gone & ~silent).repeat_interleave(view.repeat)
            if module.bias is not None:
                added[path] = _folded(module, view, speaking)
    for path in {**keep_rows, **keep_columns}:
        old = model.get_submodule(path)
        new = _cut(old, keep_rows.get(path), keep_columns.get(path), added.get(path))
        model.set_submodule(path, succeed(new, old))
    for path, keep in keep_norms.items():
        old = model.get_submodule(path)
        model.set_submodule(path, succeed(_cut_norm(old, keep), old))
    return bool(keep_rows)


def _removable(channels: Channels, space: Space) -> tuple[Tensor, Tensor]:
    """Which neurons can go, and which are read by nobody."""
    silent = constant = None
    for reader in space.readers:
        module, view = channels.module(reader), _view(channels, reader)
        neurons = connections(module)[1] // (taps(module) * view.repeat)
        unread = torch.bincount(neurons, minlength=space.size) == 0
        entries = view.known
        if module.bias is None or padded(module):
            entries = entries & (view.constant == 0)
        foldable = unread | entries.view(space.size, view.repeat).all(1)
        silent = unread if silent is None else silent & unread
        constant = foldable if constant is None else constant & foldable
    assert silent is not None
    assert constant is not None
    gone = silent | constant
    if gone.all():
        gone[0] = False  # a layer has one neuron at least
    return gone, silent


def _view(channels: Channels, reader: Any) -> View:
    return channels.views[reader.args[0]]


def _folded(module: Any, view: View, speaking: Tensor) -> Tensor:
    """What constants of neurons that go add to the outputs of a layer."""
    rows, columns, values = connections(module)
    neurons = columns // taps(module)
    reaching = torch.where(speaking, view.constant, 0).to(values.dtype)[neurons]
    total = values.new_zeros(module.bias.shape[0])
    return total.index_add_(0, rows, values * reaching)


def _cut(
    module: Any, keep_rows: Tensor | None, keep_columns: Tensor | None, added: Tensor | None
) -> nn.Module:
    """A layer of some rows and columns of another one."""
    held = module.values if isinstance(module, SparseLayer) else module.weight
    shape = module.topology.shape if isinstance(module, SparseLayer) else held.shape
    rows = _all_of(keep_rows, shape[0], held)
    columns = _all_of(keep_columns, shape[1:].numel(), held)
    sizes = int(rows.sum()), int(columns.sum())
    options: dict[str, Any] = {"bias": module.bias is not None}
    options |= {"device": held.device, "dtype": held.dtype}
    if isinstance(module, SparseLayer):
        kept = rows[module.topology.rows] & columns[module.topology.csr()[1].long()]
        # A structure does not outlive the loss of single rows and columns.
        options["compute"] = module.compute if module.compute in ("csr", "dense") else "auto"
        options["topology"] = _cut_topology(module.topology, rows, columns, kept)
    if isinstance(module, SparseLinear):
        options["activation"] = module.activation
        options["feature_major"] = module.feature_major
    if type(module) in CONV:
        names = ("kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")
        options |= {name: getattr(module, name) for name in names}
        sizes = sizes[0], sizes[1] // taps(module)
    new = type(module)(sizes[1], sizes[0], **options)
    with torch.no_grad():
        if isinstance(module, SparseLayer):
            new.values.copy_(module.values[kept])
            new.values.requires_grad_(held.requires_grad)
            new.row_groups = _cut_groups(module, rows)
        else:
            new.weight.copy_(held.flatten(1)[rows][:, columns].view_as(new.weight))
            new.weight.requires_grad_(held.requires_grad)
        if module.bias is not None:
            bias = module.bias if added is None else module.bias + added
            new.bias.copy_(bias[rows])
            new.bias.requires_grad_(module.bias.requires_grad)
    made: nn.Module = new
    return made


def _cut_topology(topology: Topology, rows: Tensor, columns: Tensor, kept: Tensor) -> Topology:
    row = (rows.cumsum(0) - 1)[topology.rows[kept]]
    column = (columns.cumsum(0) - 1)[topology.csr()[1].long()[kept]]
    width = int(columns.sum())
    taps_shape = topology.shape[2:]
    shape = (int(rows.sum()), width // max(1, taps_shape.numel()), *taps_shape)
    return Topology(shape, row * width + column)


def _cut_groups(layer: SparseLayer, rows: Tensor) -> dict[str, slice]:
    groups, start = {}, 0
    for name, part in layer.row_groups.items():
        size = int(rows[part].sum())
        if size:
            groups[name] = slice(start, start + size)
        start += size
    return groups


def _cut_norm(module: Any, keep: Tensor) -> nn.Module:
    held = module.running_mean
    new = type(module)(
        int(keep.sum()),
        module.eps,
        module.momentum,
        module.affine,
        device=held.device,
        dtype=held.dtype,
    )
    with torch.no_grad():
        for name in ("weight", "bias", "running_mean", "running_var"):
            old = getattr(module, name)
            if old is not None:
                getattr(new, name).copy_(old[keep]).requires_grad_(old.requires_grad)
        new.num_batches_tracked.copy_(module.num_batches_tracked)
    made: nn.Module = new
    return made


def _all_of(keep: Tensor | None, size: int, like: Tensor) -> Tensor:
    if keep is None:
        return torch.ones(size, dtype=torch.bool, device=like.device)
    return keep.to(like.device)
