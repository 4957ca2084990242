"""Many processes that train one model together, with one topology on all of them.

Every rank sees other data, so every rank would drop and grow other connections. In an update here
gradients at free positions are averaged over the ranks, rank 0 decides, and the others are told
its drop scores, its decision and its start values. One process alone sends nothing.
"""

from __future__ import annotations

import gc
import math
import weakref
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from regrow.layers import SparseLayer, sparse_layers

# Layers whose gradients are averaged by `average_gradients`.
_averaged: weakref.WeakSet[SparseLayer] = weakref.WeakSet()
# Wrappers that have been met, in the order in which they were.
_met: list[weakref.ref[DistributedDataParallel]] = []


@dataclass(frozen=True)
class Ranks:
    """The processes that train one model together.

    Attributes:
        size: How many.
        group: Their process group; None is that of all processes.
    """

    size: int = 1
    group: Any = None

    @classmethod
    def of(cls, model: nn.Module) -> Ranks:
        """Those of a model: of its ``DistributedDataParallel``, or all that there are."""
        if not (dist.is_available() and dist.is_initialized()):
            return cls()
        wrappers = (m for m in model.modules() if isinstance(m, DistributedDataParallel))
        group = next((wrapper.process_group for wrapper in wrappers), None)
        return cls(dist.get_world_size(group), group)

    def mean(self, tensor: Tensor) -> Tensor:
        """The mean over all ranks of a real tensor, of one shape on all."""
        if self.size == 1:
            return tensor
        total = self._carrier(tensor)
        dist.all_reduce(total, group=self.group)
        return total.div_(self.size).to(tensor.device)

    def first(self, tensor: Tensor) -> Tensor:
        """What rank 0 has, of one shape and dtype on all."""
        if self.size == 1:
            return tensor
        # Not every backend sends truth values.
        carrier = self._carrier(tensor.to(torch.uint8) if tensor.dtype == torch.bool else tensor)
        dist.broadcast(carrier, group=self.group, group_src=0)
        return carrier.to(tensor.device, tensor.dtype)

    def first_of_any_shape(self, tensor: Tensor) -> Tensor:
        """What rank 0 has, of one number of axes and one dtype on all."""
        if self.size == 1:
            return tensor
        shape = self.first(torch.tensor(tensor.shape, dtype=torch.int64))
        if tuple(shape.tolist()) != tuple(tensor.shape):
            tensor = tensor.new_empty(shape.tolist())
        return self.first(tensor)

    def check_change(self, path: str, layer: SparseLayer) -> None:
        """Refuse another number of connections where whoever averages gradients cannot know of it.

        Raises:
            RuntimeError: There are several ranks, and nobody known to average the gradient.
        """
        if self.size == 1 or layer in _averaged or _wrappers_of([layer]):
            return
        raise RuntimeError(
            f"number of connections of {path} can change on {self.size} ranks only where it is "
            f"known who averages its gradient: train it in DistributedDataParallel, or call "
            f"average_gradients(model) before each optimiser step"
        )

    def check_same(self, path: str, layer: SparseLayer) -> None:
        """Refuse topologies that differ between ranks.

        Raises:
            ValueError: They do.
        """
        places = [(self.first_of_any_shape(place), place) for place in layer.topology.csr()]
        same = all(torch.equal(*pair) for pair in places)
        if float(self.mean(torch.tensor([float(same)]))) < 1:
            raise ValueError(
                f"topology of {path} must be the same on all ranks where its values are sharded, "
                f"got different ones: call synchronize before fully_shard"
            )

    def rewrap(self, layers: Collection[SparseLayer]) -> None:
        """Tell the wrappers of some layers that their parameters have been replaced by others."""
        if self.size > 1 and layers:
            for wrapper in _wrappers_of(layers):
                _rewrap(wrapper)

    def _carrier(self, tensor: Tensor) -> Tensor:
        """A copy to communicate with, on a device that the backend takes."""
        device = tensor.device
        if device.type == "cpu" and dist.get_backend(self.group) == "nccl":
            device = torch.device("cuda", torch.cuda.current_device())
        return tensor.detach().to(device, copy=True).contiguous()


ALONE = Ranks()


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside ``DistributedDataParallel`` or ``torch.compile``, or the model itself."""
    while True:
        inner = getattr(model, "_orig_mod", model)
        if isinstance(inner, DistributedDataParallel):
            inner = inner.module
        if inner is model:
            return model
        model = inner


def synchronize(model: nn.Module, group: Any = None) -> None:
    """Give every rank the model of rank 0: topologies, values, other parameters and buffers.

    ``Evolution`` does this when it is made. Where there is none, call it before the optimiser and
    ``DistributedDataParallel`` or ``fully_shard`` are: the former sends values but no topologies.
    Sharded parameters are left alone.

    Args:
        model: The same modules on all ranks; topologies may differ.
        group: Of the processes that train together; all if None.

    Raises:
        ValueError: Values are sharded, and the ranks have different topologies.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size(group) == 1:
        return
    ranks = Ranks(dist.get_world_size(group), group)
    for path, layer in sparse_layers(model).items():
        if is_sharded(layer):
            ranks.check_same(path, layer)
    whole = {
        name: ranks.first_of_any_shape(tensor)
        for name, tensor in model.state_dict().items()
        if isinstance(tensor, Tensor) and not _in_shards(tensor)
    }
    model.load_state_dict(whole, strict=False)


def average_gradients(model: nn.Module, group: Any = None) -> None:
    """Replace every gradient by its mean over all ranks; call it before the optimiser's step.

    It stands in for ``DistributedDataParallel``, for models whose number of connections changes
    freely, and for parameters that ``fully_shard`` was told to ignore. Parameters that are in
    shards have their mean already and are left alone.

    Args:
        model: The same modules with the same topologies on all ranks.
        group: Of the processes that train together; all if None.

    Example:
        >>> layer = nn.Linear(2, 1)
        >>> layer(torch.ones(1, 2)).sum().backward()
        >>> average_gradients(layer)  # one process: nothing to do
    """
    for layer in sparse_layers(model).values():
        _averaged.add(layer)
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size(group) == 1:
        return
    ranks = Ranks(dist.get_world_size(group), group)
    parameters = [p for p in model.parameters() if p.requires_grad and not _in_shards(p)]
    # A parameter that took no part on one rank may have had one on another.
    found = ranks.mean(torch.tensor([float(p.grad is not None) for p in parameters]))
    for part in _alike([p for p, share in zip(parameters, found.tolist(), strict=True) if share]):
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in part]
        means = ranks.mean(torch.cat([grad.reshape(-1) for grad in grads]))
        for parameter, grad, mean in zip(
            part, grads, means.split([p.numel() for p in part]), strict=True
        ):
            grad.copy_(mean.view_as(grad))
            parameter.grad = grad


def is_sharded(layer: SparseLayer) -> bool:
    """Whether ``fully_shard`` has divided the values of a layer among the ranks."""
    return _in_shards(layer.values)


def _in_shards(tensor: Tensor) -> bool:
    return hasattr(tensor, "placements")


def _alike(parameters: list[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """Groups of one dtype and device."""
    kinds: dict[tuple[torch.dtype, torch.device], list[nn.Parameter]] = {}
    for parameter in parameters:
        kinds.setdefault((parameter.dtype, parameter.device), []).append(parameter)
    yield from kinds.values()


def _wrappers_of(layers: Collection[SparseLayer]) -> list[DistributedDataParallel]:
    """The wrappers that average gradients of some layers.

    A trainer wraps the model and keeps the wrapper to itself, so they are looked for among all
    objects there are; only where an update is the first to change a number of connections.
    """

    def found() -> list[DistributedDataParallel]:
        wrappers = [wrapper for ref in _met if (wrapper := ref()) is not None]
        wanted = set(layers)
        return [w for w in wrappers if not wanted.isdisjoint(w.modules())]

    if not found():
        known = {id(ref()) for ref in _met}
        _met.extend(
            weakref.ref(thing)
            for thing in gc.get_objects()
            if issubclass(type(thing), DistributedDataParallel) and id(thing) not in known
        )
    return found()


def _rewrap(wrapper: DistributedDataParallel) -> None:
    """Construct a wrapper anew in its place, so that it holds the parameters that there are now.

    ``DistributedDataParallel`` hooks into each parameter when it is made, and has no way to be told
    of others. Its options, hooks and mode stay.
    """
    names = ["device_ids", "output_device", "dim", "process_group", "find_unused_parameters"]
    names += ["gradient_as_bucket_view", "static_graph", "mixed_precision"]
    # What torch before 2.13 calls broadcast_buffers.
    names.append(_SYNC if hasattr(wrapper, _SYNC) else "broadcast_buffers")
    options = {name: getattr(wrapper, name) for name in names}
    if not getattr(wrapper, "bucket_bytes_cap_default", False):
        options["bucket_cap_mb"] = math.ceil(wrapper.bucket_bytes_cap / 2**20)
    hooks = {name: hook for name, hook in vars(wrapper).items() if name in _HOOKS}
    communication, training = list(wrapper._comm_hooks), wrapper.training
    DistributedDataParallel.__init__(wrapper, wrapper.module, init_sync=False, **options)
    vars(wrapper).update(hooks)
    wrapper.training = training
    for hook, state in communication:
        wrapper.register_comm_hook(state, hook)


_SYNC = "forward_sync_buffers"
_HOOKS = frozenset(
    {
        "_forward_hooks",
        "_forward_hooks_always_called",
        "_forward_hooks_with_kwargs",
        "_forward_pre_hooks",
        "_forward_pre_hooks_with_kwargs",
        "_backward_hooks",
        "_backward_pre_hooks",
        "_state_dict_hooks",
        "_state_dict_pre_hooks",
        "_load_state_dict_pre_hooks",
        "_load_state_dict_post_hooks",
        "forward",
    }
)
