"""What all sparse layers share: values, topology, state, conversion to a dense view."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from regrow.kernels import dispatch
from regrow.kernels.ops import COMPUTES
from regrow.topology import Topology, random_topology
from regrow.topology.allocation import check_density

# Entries of a state dict beside the values: dense shape, and the connections in row order.
_PLACES = ("shape", "indptr", "indices")


class SparseLayer(nn.Module, ABC):
    """A layer with one sparse weight: ``values`` ``[nnz]`` at the positions of ``topology``.

    The values are an ordinary strided parameter, so optimisers, deep copies, pickling, averaging
    and compilation treat them as any other. The state dict holds ``values``, ``shape``,
    ``indptr`` and ``indices`` (compressed rows); loading one takes over its topology.

    Attributes:
        row_groups: Consecutive rows with a name, together all rows, that may have a budget of
            their own, as the gates of a recurrent weight; none in most layers.
        computes: What ``compute`` may be.
    """

    values: nn.Parameter
    topology: Topology
    row_groups: Mapping[str, slice] = MappingProxyType({})
    computes: tuple[str, ...] = COMPUTES
    _tied: tuple[SparseLayer, ...] = ()
    _compute: str = "auto"

    def __init__(self, topology: Topology, values: Tensor, compute: str) -> None:
        super().__init__()
        self.values = nn.Parameter(values)
        self._place(topology)
        self.compute = compute

    @property
    def compute(self) -> str:
        """How the layer computes: one of ``computes``."""
        return self._compute

    @compute.setter
    def compute(self, compute: str) -> None:
        if compute not in self.computes:
            raise ValueError(
                f"compute of {type(self).__name__} must be one of {', '.join(self.computes)}, "
                f"got {compute!r}"
            )
        self._check_compute(compute, self.topology)
        self._compute = compute
        self._place(self.topology)

    @property
    def density(self) -> float:
        """Kept fraction of the weight's positions."""
        return self.topology.density

    @property
    def weight(self) -> Tensor:
        """The dense weight, made anew at each access and differentiable with respect to values."""
        dense = self.values.new_zeros(self.topology.shape.numel())
        return dense.index_put((self.topology.positions,), self.values).view(self.topology.shape)

    @property
    def fan_in(self) -> float:
        """Mean number of connections of a row."""
        return self.topology.nnz / self.topology.matrix_shape[0]

    @property
    def closed(self) -> Tensor | None:
        """Flat positions at which there must never be a connection, rising; None if all may."""
        parts = [layer._closed() for layer in (self, *self._tied)]
        found = [part for part in parts if part is not None]
        return torch.cat(found).unique() if found else None

    @property
    def tied(self) -> tuple[SparseLayer, ...]:
        """Other layers that share ``values`` and ``topology`` with this one; see ``tie``."""
        return self._tied

    def situation(self, x: Tensor) -> dispatch.Situation:
        """Where ``auto`` files its decision on training steps with inputs like this one."""
        rows, columns = self.topology.matrix_shape
        return dispatch.Situation.of(x.reshape(-1, columns), rows, self.topology.nnz, True)

    def set_topology(self, topology: Topology, values: Tensor) -> None:
        """Replace the connections and their values.

        The parameter is kept, and written in place, where the number of connections stays; else
        it is replaced by a new one, which an optimiser must then be told about (``Evolution``
        does). Tied layers change along.

        Args:
            topology: Same shape as now.
            values: One value per connection ``[nnz]``.

        Raises:
            ValueError: The shapes do not fit.
        """
        if topology.shape != self.topology.shape:
            raise ValueError(
                f"topology of {type(self).__name__} must have shape {tuple(self.topology.shape)}, "
                f"got {tuple(topology.shape)}"
            )
        if values.shape != (topology.nnz,):
            raise ValueError(
                f"values of {type(self).__name__} must have shape ({topology.nnz},), "
                f"got {tuple(values.shape)}"
            )
        topology = self._inheriting(topology)
        for layer in (self, *self._tied):
            layer._check_topology(topology)
        self._place(topology)
        if values.shape == self.values.shape:
            with torch.no_grad():
                self.values.copy_(values)
        else:
            values = values.detach().to(self.values)
            self.values = nn.Parameter(values, requires_grad=self.values.requires_grad)
        self._share()

    def operands(self) -> tuple[Tensor, ...]:
        """Index tensors of the operator; without the column order where it is not used."""
        if self._compute != "dense":
            # A compiler knows plain tuples only, and looks at nothing but their tensors.
            compiled = torch.compiler.is_compiling()
            topology = self.topology
            return (*topology.csr(), *topology.csc()) if compiled else topology.operands()
        indptr, indices = self.topology.csr()
        empty = indices.new_empty(0)
        return indptr, indices, indptr.new_empty(0), empty, empty

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw values, and the bias if there is one, anew; the connections stay."""
        bias = getattr(self, "bias", None)
        with torch.no_grad():
            self.values.copy_(self.start_values(self.topology.nnz, generator))
            if bias is not None:
                bound = 1 / math.sqrt(max(1.0, self.fan_in))
                bias.copy_(uniform(bias.numel(), bound, bias, generator))

    def start_values(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw values as this layer draws its first ones: uniform, scaled to the mean fan-in."""
        bound = 1 / math.sqrt(max(1.0, self.fan_in))
        return uniform(count, bound, self.values, generator)

    def _add_bias(self, wanted: bool) -> None:
        bias = self.values.new_empty(self.topology.matrix_shape[0]) if wanted else None
        self.bias = None if bias is None else nn.Parameter(bias)

    def _ready(self, x: Tensor, values: Tensor) -> Tensor:
        """The input as the operator takes it: lowered by autocast, else of the values' dtype."""
        device = x.device.type
        if torch.is_autocast_enabled(device) and x.is_floating_point() and x.dtype != torch.float64:
            return x.to(torch.get_autocast_dtype(device))  # as torch's own lowers its inputs
        if x.dtype != values.dtype:
            raise TypeError(
                f"input of {type(self).__name__} must be {values.dtype} as its values are, "
                f"got {x.dtype}"
            )
        return x

    @abstractmethod
    def gradient_block(self, x: Tensor, grad: Tensor, rows: slice) -> Tensor:
        """Gradient of whole rows of the weight, positions without a value included.

        Args:
            x: Input of one forward pass, as the layer's operator saw it.
            grad: Gradient of its output, likewise.
            rows: Which rows.

        Returns:
            ``[rows, columns]`` in the dtype of the values.
        """

    @abstractmethod
    def gradient_pairs(self, x: Tensor, grad: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """Gradient of the weight at single positions; arguments as of ``gradient_block``.

        Args:
            x: Input of one forward pass.
            grad: Gradient of its output.
            rows: Row of each position, int64 ``[k]``.
            columns: Column of each position, int64 ``[k]``.

        Returns:
            ``[k]`` in the dtype of the values.
        """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> SparseLayer:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._place(self.topology)
        self._share()
        return self

    def _place(self, topology: Topology) -> None:
        """Take over a topology, on the device of the values; on the CPU where that is none."""
        device = self.values.device
        self.topology = topology.to("cpu" if device.type == "meta" else device)

    def _inheriting(self, topology: Topology) -> Topology:
        """A topology that takes over the structure of the present one, if it has it too."""
        structure = self.topology.structure
        if structure is None or topology.structure is not None:
            return topology
        return topology.inheriting(structure)

    def _share(self) -> None:
        """Give tied layers what this one has now."""
        for layer in self._tied:
            layer.topology, layer.values = self.topology, self.values

    def _closed(self) -> Tensor | None:
        """What this layer itself adds to ``closed``."""
        return None

    def _check_topology(self, topology: Topology) -> None:
        """Refuse a topology of the right shape that this layer cannot have."""
        self._check_compute(self._compute, topology)

    def _check_compute(self, compute: str, topology: Topology) -> None:
        """Refuse a compute for which a topology lacks the structure."""

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        indptr, indices = self.topology.csr()
        shape = torch.tensor(self.topology.shape)
        for name, tensor in zip(_PLACES, (shape, indptr, indices), strict=True):
            destination[prefix + name] = tensor

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: Mapping[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        names = [prefix + name for name in _PLACES]
        missing = [name for name in names if name not in state_dict]
        values = state_dict.get(prefix + "values")
        if values is not None and not missing:
            try:
                shape, indptr, indices = (state_dict[name] for name in names)
                self._take_topology(shape, indptr, indices, values)
            except (TypeError, ValueError) as error:
                error_msgs.append(f"{prefix.removesuffix('.') or 'the layer'}: {error}")
                return
        rest = {key: value for key, value in state_dict.items() if key not in names}
        missing_keys.extend(missing)
        if missing:
            # Values mean nothing without their places: leave those of the layer alone.
            rest[prefix + "values"] = self.values.detach()
        super()._load_from_state_dict(
            rest, prefix, dict(local_metadata), strict, missing_keys, unexpected_keys, error_msgs
        )
        self._place(self.topology)  # where values were not copied but assigned, their device counts
        self._share()

    def _take_topology(
        self, shape: Tensor, indptr: Tensor, indices: Tensor, values: Tensor
    ) -> None:
        if tuple(shape.tolist()) != tuple(self.topology.shape):
            raise ValueError(
                f"weight must have shape {tuple(self.topology.shape)}, got {tuple(shape.tolist())}"
            )
        # The arrays are the caller's; a topology never changes.
        topology = Topology.from_csr(self.topology.shape, indptr.clone(), indices.clone())
        topology = self._inheriting(topology)
        if values.shape != (topology.nnz,):
            raise ValueError(f"values must have shape ({topology.nnz},), got {tuple(values.shape)}")
        for layer in (self, *self._tied):
            layer._check_topology(topology)
        if topology.nnz != self.topology.nnz:
            # Loading keeps the parameter's identity, so that an optimiser made before still holds
            # it; no graph is alive at that time that could see its size change.
            self.values.data = self.values.new_empty(topology.nnz)
            self.values.grad = None
        if topology != self.topology:
            self._place(topology)


def given_topology(
    name: str,
    shape: tuple[int, ...],
    density: float | None,
    topology: Topology | None,
    generator: torch.Generator | None,
) -> Topology:
    """The topology that a layer was given, or a random one of the density that it was given.

    Raises:
        ValueError: Both or neither are given, the density is out of range, or the shape differs.
    """
    if (density is None) == (topology is None):
        raise ValueError(f"{name} needs a density or a topology, not both or neither")
    if density is not None:
        check_density(density, name)
        connections = max(1, round(density * math.prod(shape)))
        return random_topology(shape, connections, generator=generator)
    assert topology is not None
    if tuple(topology.shape) != shape:
        raise ValueError(f"topology of {name} must have shape {shape}, got {tuple(topology.shape)}")
    return topology


def tie(first: SparseLayer, *others: SparseLayer) -> None:
    """Make layers share one weight from now on, as an embedding and an output head may.

    They have the values and topology of the first, now and after every change of either; an
    optimiser sees one parameter, ``sparse_layers`` and ``Evolution`` see one layer, and deep
    copies are tied to each other.

    Args:
        first: Layer whose values and topology all have from now on.
        *others: Layers with a weight of the same shape.

    Raises:
        ValueError: The shapes differ, or a layer cannot have the topology of the first.

    Example:
        >>> import regrow
        >>> table = regrow.SparseEmbedding(100, 16, density=0.1)
        >>> head = regrow.SparseLinear(16, 100, bias=False, density=0.1)
        >>> tie(table, head)
        >>> head.values is table.values, head.topology is table.topology
        (True, True)
    """
    together = dict.fromkeys((first, *first._tied))
    for layer in others:
        if layer.topology.shape != first.topology.shape:
            raise ValueError(
                f"weights of tied layers must have one shape, got {tuple(first.topology.shape)} "
                f"and {tuple(layer.topology.shape)}"
            )
        layer._check_topology(first.topology)
        together |= dict.fromkeys((layer, *layer._tied))
    for layer in together:
        layer._tied = tuple(other for other in together if other is not layer)
    first._share()


def sparse_layers(model: nn.Module) -> dict[str, SparseLayer]:
    """All sparse layers of a model by path, in the order of ``named_modules``.

    Layers that are tied, and so share one weight, are there once, at the first path.

    Example:
        >>> import regrow
        >>> model = torch.nn.Sequential(regrow.SparseLinear(8, 4, density=0.5), torch.nn.ReLU())
        >>> list(sparse_layers(model))
        ['0']
    """
    found: dict[int, tuple[str, SparseLayer]] = {}
    for path, module in model.named_modules():
        if isinstance(module, SparseLayer):
            found.setdefault(id(module.values), (path, module))
    return dict(found.values())


def values_name(path: str) -> str:
    """Name of the values of a layer among the parameters of its model."""
    return f"{path}.values" if path else "values"


def uniform(
    count: int, bound: float, like: Tensor, generator: torch.Generator | None = None
) -> Tensor:
    """Draw ``[count]`` numbers of ``[-bound, bound)``, with the dtype and device of ``like``."""
    drawn = torch.empty(count, dtype=like.dtype).uniform_(-bound, bound, generator=generator)
    return drawn.to(like.device)
