"""Which neurons of a traced model belong together, and which of them always say the same.

A *space* is a set of neurons that must be removed together: the outputs of one layer, or of
several that are added up. What reads a space are layers; what passes it on are activations, norms
over single neurons, pooling and flattening. Whatever else touches a space closes it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.nn import functional

from regrow.layers.activations import AllReLU
from regrow.layers.conv import SparseConv1d, SparseConv2d, SparseConv3d
from regrow.layers.linear import SparseLinear
from regrow.layers.projection import SparseProjection

LINEAR = (nn.Linear, SparseLinear, SparseProjection)
CONV = (nn.Conv1d, nn.Conv2d, nn.Conv3d, SparseConv1d, SparseConv2d, SparseConv3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)

_ENTRYWISE = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish),
    *(nn.Sigmoid, nn.Tanh, nn.Softplus, nn.Softsign, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid),
    *(nn.LogSigmoid, nn.Tanhshrink, nn.Hardshrink, nn.Softshrink, nn.Identity, AllReLU),
    *(nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout),
)
_POOLS = (
    *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
    *(nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d),
)
_ENTRYWISE_FUNCTIONS = {
    *(torch.relu, torch.tanh, torch.sigmoid, functional.relu, functional.relu6, functional.gelu),
    *(functional.leaky_relu, functional.elu, functional.selu, functional.silu, functional.mish),
    *(functional.tanh, functional.sigmoid, functional.softplus, functional.hardtanh),
    *(functional.hardswish, functional.dropout),
}
_POOL_FUNCTIONS = {
    *(functional.max_pool1d, functional.max_pool2d, functional.max_pool3d),
    *(functional.avg_pool1d, functional.avg_pool2d, functional.avg_pool3d),
    *(functional.adaptive_avg_pool1d, functional.adaptive_avg_pool2d),
    *(functional.adaptive_avg_pool3d, functional.adaptive_max_pool2d),
}
_SUMS = {operator.add, operator.sub, operator.mul, torch.add, torch.sub, torch.mul}
_METHODS = {"relu", "tanh", "sigmoid", "contiguous"}


@dataclass(eq=False)
class Space:
    """Neurons that are removed together.

    Attributes:
        size: How many.
        open: Whether any may be removed.
        makers: Paths of the layers whose rows they are.
        readers: The nodes of layers that read them.
        norms: Paths of the norms they pass through, with the entries of each neuron there.
    """

    size: int
    open: bool = True
    makers: list[str] = field(default_factory=list)
    readers: list[fx.Node] = field(default_factory=list)
    norms: dict[str, int] = field(default_factory=dict)


@dataclass
class View:
    """How a tensor holds the neurons of a space.

    Attributes:
        space: The neurons.
        axis: The axis they are along.
        repeat: Entries along it for each of them, next to each other; more than one if flattened.
        known: Which entries are the same for every input, bool ``[size * repeat]``.
        constant: What these are; anything at other places.
    """

    space: Space
    axis: int
    repeat: int
    known: Tensor
    constant: Tensor


class Tracer(fx.Tracer):
    """Takes every layer of torch and of regrow as one step."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether not to look inside."""
        own = type(m).__module__.partition(".")[0] == "regrow"
        return own or super().is_leaf_module(m, module_qualified_name)


class Channels:
    """The neurons of a model, followed from layer to layer.

    Args:
        model: In evaluation mode.
        inputs: One example of its inputs.

    Attributes:
        spaces: All spaces.
        views: The view of each tensor that holds one.

    Raises:
        ValueError: The model cannot be traced.
    """

    def __init__(self, model: nn.Module, inputs: tuple[Any, ...]) -> None:
        self.model = model
        self.modules = dict(model.named_modules(remove_duplicate=False))
        try:
            self.graph = Tracer().trace(model)
        except (fx.proxy.TraceError, TypeError, NotImplementedError, RuntimeError) as error:
            raise ValueError(
                f"model to compact must be one that torch.fx can trace, got: {error}"
            ) from None
        with torch.no_grad():
            ShapeProp(fx.GraphModule(model, self.graph)).propagate(*inputs)
        self.spaces: list[Space] = []
        self.views: dict[fx.Node, View] = {}
        self._order = {node: i for i, node in enumerate(self.graph.nodes)}
        self._merged: dict[Space, Space] = {}
        self._several = self._used_again()
        with torch.no_grad():
            for node in self.graph.nodes:
                self._follow(node)

    def space(self, view: View) -> Space:
        """The space of a view, as it is after spaces were joined."""
        space = view.space
        while space in self._merged:
            space = self._merged[space]
        return space

    def module(self, node: fx.Node) -> Any:
        """The module that a node calls."""
        return self.modules[str(node.target)]

    def _used_again(self) -> set[nn.Module]:
        """Modules that are called, placed or tied in several places."""
        calls = [self.module(node) for node in self.graph.nodes if node.op == "call_module"]
        places = list(self.modules.values())
        several = {module for module in calls if calls.count(module) > 1}
        several |= {module for module in calls if places.count(module) > 1}
        holders: dict[int, set[nn.Module]] = {}
        for module in self.model.modules():
            for parameter in module.parameters(recurse=False):
                holders.setdefault(id(parameter), set()).add(module)
        return several.union(*(held for held in holders.values() if len(held) > 1))

    def _follow(self, node: fx.Node) -> None:
        view = None
        if node.op == "call_module":
            module = self.module(node)
            if type(module) in (*LINEAR, *CONV):
                self._layer(node, module)
                return
            if type(module) in _ENTRYWISE:
                view = self._passed(node, module)
            elif type(module) in _POOLS and not getattr(module, "return_indices", False):
                view = self._passed(node, module, channels_first=True)
            elif type(module) in NORMS:
                view = self._norm(node, module)
            elif type(module) is nn.Flatten and (module.start_dim, module.end_dim) == (1, -1):
                view = self._flattened(node)
        elif node.op == "call_function":
            function: Any = node.target
            if function in _ENTRYWISE_FUNCTIONS:
                view = self._passed(node, function)
            elif function in _POOL_FUNCTIONS and not node.kwargs.get("return_indices", False):
                view = self._passed(node, function, channels_first=True)
            elif _is_flattening(node):
                view = self._flattened(node)
            elif function in _SUMS:
                view = self._sum(node, function)
        elif node.op == "call_method":
            if node.target in _METHODS:
                view = self._passed(node, getattr(torch.Tensor, str(node.target)))
            elif _is_flattening(node):
                view = self._flattened(node)
            elif node.target in ("size", "dim"):
                return
        if view is None:
            self._close(node)
        else:
            self.views[node] = view

    def _close(self, node: fx.Node) -> None:
        for given in node.all_input_nodes:
            if given in self.views:
                self.space(self.views[given]).open = False

    def _input(self, node: fx.Node) -> View | None:
        first = node.args[0] if node.args else None
        return self.views.get(first) if isinstance(first, fx.Node) else None

    def _layer(self, node: fx.Node, module: Any) -> None:
        shape = _shape(node)
        conv = type(module) in CONV
        axis = len(shape) - (len(module.kernel_size) + 1 if conv else 1)
        fits = module not in self._several and not (conv and module.groups > 1)
        view = self._input(node)
        if view is not None:
            if fits and view.axis == axis and not (conv and view.repeat > 1):
                self.space(view).readers.append(node)
            else:
                self.space(view).open = False
                view = None
        space = Space(shape[axis], open=fits and (not conv or axis == 1), makers=[str(node.target)])
        self.spaces.append(space)
        known, constant = constant_rows(module, view)
        if isinstance(module, SparseLinear) and module.activation == "relu":
            constant = constant.relu()
        self.views[node] = View(space, axis, 1, known, constant)

    def _passed(
        self, node: fx.Node, compute: Callable[..., Tensor], channels_first: bool = False
    ) -> View | None:
        """One input, whose neurons are those of the output."""
        view = self._input(node)
        if view is None or len(node.all_input_nodes) > 1 or (channels_first and view.axis != 1):
            return None
        in_place = getattr(compute, "inplace", False) or node.kwargs.get("inplace", False)
        if in_place and self._overwrites(node):
            return None
        source = _expanded(view, _shape(node.args[0]))
        result = compute(source, *node.args[1:], **node.kwargs)
        return _viewed(view.space, view.axis, view.repeat, view.known, result)

    def _overwrites(self, node: fx.Node) -> bool:
        """Whether a step in place changes what others read; nothing is known of that then."""
        changed, source = [], node.args[0]
        while isinstance(source, fx.Node) and source in self.views:
            changed.append(source)
            if source.op == "call_module" and type(self.module(source)) not in _ENTRYWISE:
                break
            source = source.args[0]
        readers = {user for source in changed for user in source.users}
        if all(self._order[reader] <= self._order[node] for reader in readers):
            return False
        for source in changed:
            self.views[source].known.zero_()
        return True

    def _norm(self, node: fx.Node, module: Any) -> View | None:
        view = self._input(node)
        if view is None or view.axis != 1 or module in self._several:
            return None
        if not module.track_running_stats:
            return None
        self.space(view).norms[str(node.target)] = view.repeat
        return self._passed(node, module)

    def _flattened(self, node: fx.Node) -> View | None:
        view = self._input(node)
        if view is None or view.axis != 1 or view.repeat > 1:
            return None
        before, after = _shape(node.args[0]), _shape(node)
        if len(after) != 2 or after[0] != before[0]:
            return None
        repeat = after[1] // before[1]
        known = view.known.repeat_interleave(repeat)
        constant = view.constant.repeat_interleave(repeat)
        return View(view.space, 1, repeat, known, constant)

    def _sum(self, node: fx.Node, compute: Callable[..., Tensor]) -> View | None:
        if len(node.args) != 2 or node.kwargs:
            return None
        # Tracing cannot tell x += y from x + y, so what is read afterwards may be either.
        if self._overwrites(node):
            return None
        views = [self.views.get(x) if isinstance(x, fx.Node) else None for x in node.args]
        numbers = [x for x in node.args if isinstance(x, int | float)]
        found = [view for view in views if view is not None]
        if len(found) + len(numbers) < 2 or not found:
            return None
        shapes = {_shape(x) for x in node.args if isinstance(x, fx.Node)}
        if len({(v.axis, v.repeat) for v in found}) > 1 or len(shapes) > 1:
            return None
        first = found[0]
        for other in found[1:]:
            self._join(self.space(first), self.space(other))
        known = torch.stack([view.known for view in found]).all(0)
        sources = [
            x if view is None else _expanded(view, _shape(x))
            for x, view in zip(node.args, views, strict=True)
        ]
        result = compute(*sources)
        return _viewed(first.space, first.axis, first.repeat, known, result)

    def _join(self, kept: Space, other: Space) -> None:
        if kept is other:
            return
        kept.open &= other.open
        kept.makers += other.makers
        kept.readers += other.readers
        kept.norms |= other.norms
        self._merged[other] = kept
        self.spaces.remove(other)


def connections(module: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Row, column and value of every connection; in a dense layer, of every weight but zero."""
    weight = getattr(module, "weight", None)
    if hasattr(module, "topology"):
        columns = module.topology.csr()[1].long()
        return module.topology.rows, columns, module.values.detach()
    assert isinstance(weight, Tensor)
    flat = weight.detach().flatten(1)
    rows, columns = flat.nonzero(as_tuple=True)
    return rows, columns, flat[rows, columns]


def taps(module: Any) -> int:
    """Columns of the weight for each input neuron."""
    return int(torch.Size(module.kernel_size).numel()) if type(module) in CONV else 1


def padded(module: Any) -> bool:
    """Whether outputs at the border see zeros in place of inputs."""
    if type(module) not in CONV:
        return False
    padding = module.padding
    if isinstance(padding, str):
        return padding != "valid"
    return any(padding) if isinstance(padding, tuple) else bool(padding)


def constant_rows(module: Any, view: View | None) -> tuple[Tensor, Tensor]:
    """Which outputs of a layer are the same whatever comes in, and what they are.

    Args:
        module: The layer.
        view: What is known of its input; None if nothing is.
    """
    rows, columns, values = connections(module)
    count = int(module.bias.shape[0]) if module.bias is not None else _rows(module)
    constant = values.new_zeros(count) if module.bias is None else module.bias.detach().clone()
    if view is None:
        varying = torch.ones_like(rows, dtype=torch.bool)
    else:
        neurons = columns // taps(module)
        reaching = view.constant[neurons].to(values.dtype) * view.known[neurons]
        varying = ~view.known[neurons]
        if padded(module):
            varying |= reaching != 0
        constant.index_add_(0, rows, values * reaching)
    known = torch.bincount(rows[varying], minlength=count) == 0
    return known, constant


def _rows(module: Any) -> int:
    return int(module.out_channels if type(module) in CONV else module.out_features)


def _shape(node: Any) -> tuple[int, ...]:
    return tuple(node.meta["tensor_meta"].shape)


def _is_flattening(node: fx.Node) -> bool:
    """Whether a node leaves the batch and takes all other axes together."""
    if node.target in ("view", "reshape"):
        return bool(node.args[2:] == (-1,))
    if node.target not in ("flatten", torch.flatten):
        return False
    given: dict[str, Any] = dict(zip(("start_dim", "end_dim"), node.args[1:], strict=False))
    given |= node.kwargs
    return bool(given.get("start_dim", 0) == 1 and given.get("end_dim", -1) == -1)


def _expanded(view: View, shape: tuple[int, ...]) -> Tensor:
    """A tensor as the model would see it, had it the constants everywhere."""
    form = [1] * len(shape)
    form[view.axis] = -1
    sizes = [1 if axis == 0 and view.axis != 0 else size for axis, size in enumerate(shape)]
    constant = torch.where(view.known, view.constant, 0)
    return constant.view(form).expand(sizes).contiguous()


def _viewed(space: Space, axis: int, repeat: int, known: Tensor, result: Tensor) -> View:
    """What is known of a result that was computed from constants."""
    entries = result.movedim(axis, 0).flatten(1)
    same = (entries == entries[:, :1]).all(1)
    return View(space, axis, repeat, known & same, entries[:, 0].clone())
