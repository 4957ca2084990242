"""What server and workers say to each other, and how it becomes bytes."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from regrow.layers import sparse_layers
from regrow.layers.base import values_name
from regrow.topology import Topology

Topologies = dict[str, Topology]


@dataclass
class Message:
    """A few plain values, and tensors.

    Attributes:
        kind: ``gradient`` or ``local``, for a job and for its outcome; ``wait``, which is sent
            back; ``end``.
        head: Plain values that JSON can hold.
        tensors: By name.
        topologies: By path of the layer.
    """

    kind: str
    head: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    topologies: Topologies = field(default_factory=dict)


def packed(message: Message) -> tuple[bytes, Tensor]:
    """A head that names the tensors, and all their bytes, uint8.

    Example:
        >>> message = Message("gradient", {"shard": 1}, {"0.bias": torch.ones(2)})
        >>> unpacked(*packed(message)).head, unpacked(*packed(message)).tensors["0.bias"]
        ({'shard': 1}, tensor([1., 1.]))
    """
    tensors = dict(message.tensors)
    for path, topology in message.topologies.items():
        tensors |= {f"{path}|{i}": part for i, part in enumerate(topology.csr())}
    names = [
        (name, str(entry.dtype).removeprefix("torch."), list(entry.shape))
        for name, entry in tensors.items()
    ]
    shapes = {path: list(topology.shape) for path, topology in message.topologies.items()}
    head = {"kind": message.kind, "head": message.head, "names": names, "topologies": shapes}
    parts = [entry.detach().contiguous().view(-1).view(torch.uint8) for entry in tensors.values()]
    return json.dumps(head).encode(), torch.cat([torch.empty(0, dtype=torch.uint8), *parts])


def unpacked(head: bytes, payload: Tensor) -> Message:
    """The message again."""
    given, tensors, at = json.loads(head), {}, 0
    for name, kind, shape in given["names"]:
        dtype = getattr(torch, kind)
        size = dtype.itemsize * torch.Size(shape).numel()
        tensors[name] = payload[at : at + size].clone().view(dtype).view(shape)
        at += size
    topologies = {
        path: Topology.from_csr(shape, tensors.pop(f"{path}|0"), tensors.pop(f"{path}|1"))
        for path, shape in given["topologies"].items()
    }
    return Message(given["kind"], given["head"], tensors, topologies)


def parameters_of(model: nn.Module) -> dict[str, Tensor]:
    """Copies of all parameters by name."""
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def topologies_of(model: nn.Module) -> Topologies:
    """Topologies of all sparse layers by path."""
    return {path: layer.topology for path, layer in sparse_layers(model).items()}


@torch.no_grad()
def take_over(model: nn.Module, parameters: dict[str, Tensor], topologies: Topologies) -> None:
    """Give a model these topologies, where there are any, and then these parameters."""
    for path, layer in sparse_layers(model).items():
        if path in topologies:
            layer.set_topology(topologies[path], parameters[values_name(path)])
    for name, parameter in model.named_parameters():
        parameter.copy_(parameters[name])


def saved(state: Any) -> Tensor:
    """A state of tensors and plain values as bytes, uint8."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8)


def restored(state: Tensor) -> Any:
    """The state again."""
    return torch.load(io.BytesIO(state.numpy().tobytes()), weights_only=True)
