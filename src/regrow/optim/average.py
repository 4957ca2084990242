"""The average of a model whose topology changes, and of several models with different ones."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.optim import swa_utils

from regrow.layers import SparseLayer, sparse_layers
from regrow.layers.align import align
from regrow.layers.base import values_name
from regrow.topology import Topology
from regrow.topology.select import without_nearest_zero
from regrow.topology.union import transferred


class AveragedModel(swa_utils.AveragedModel):
    """``torch.optim.swa_utils.AveragedModel`` that follows the topology of its model.

    Torch's own averages the values of one model with those of the other, slot by slot; after an
    update of the topology these belong to other connections. Here ``update_parameters`` first
    brings the average onto the model's connections: those that both have keep their average, and
    one that is new starts at its value. Arguments and everything else are as in torch.

    Example:
        >>> import torch, regrow
        >>> model = nn.Sequential(regrow.SparseLinear(8, 4, density=0.5))
        >>> average = AveragedModel(model, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(0.9))
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> evolution = regrow.Evolution(model, optimizer, "set", every=1)
        >>> model(torch.ones(2, 8)).sum().backward(); optimizer.step()
        >>> _ = evolution.step()
        >>> average.update_parameters(model)
        >>> average.module[0].topology == model[0].topology
        True
    """

    def update_parameters(self, model: nn.Module) -> None:
        """Take the parameters of the model into the average."""
        align(self.module, model)
        super().update_parameters(model)


def union_average(
    models: Sequence[nn.Module], connections: Mapping[str, int] | None = None
) -> nn.Module:
    """The mean of several models of one form whose sparse layers have topologies of their own.

    A connection is there if one of the models has it; where a model does not have it, its weight
    counts as 0. There are more connections than in each of them, so that the weights nearest zero
    may be dropped again: SET's rule, the same share of either sign.

    Args:
        models: The same modules; they are not changed. Other floating parameters and buffers are
            averaged, and what are no such numbers is that of the first.
        connections: How many each sparse layer is to have at most, by path; None keeps all.

    Returns:
        A new model.

    Raises:
        ValueError: There is no model, or they do not have the same layers.

    Example:
        >>> import regrow
        >>> ends = [regrow.SparseLinear(2, 1, topology=Topology((1, 2), torch.tensor([i])))
        ...         for i in (0, 1)]
        >>> for layer in ends:
        ...     _ = layer.values.data.fill_(2.0)
        >>> union_average(ends).weight.tolist()
        [[1.0, 1.0]]
        >>> union_average(ends, {"": 1}).topology.nnz
        1

    References:
        S. Curci, D. C. Mocanu, M. Pechenizkiy, "Truly sparse neural networks at scale", 2021.
    """
    if not models:
        raise ValueError("models to average must be at least one, got none")
    layers = [sparse_layers(model) for model in models]
    shapes = [{path: tuple(m.topology.shape) for path, m in some.items()} for some in layers]
    if any(shape != shapes[0] for shape in shapes):
        raise ValueError(
            f"models to average must have the same sparse layers, "
            f"got {' and '.join(map(str, shapes))}"
        )
    average = copy.deepcopy(models[0])
    sparse = set(map(values_name, layers[0]))
    with torch.no_grad():
        for path, layer in sparse_layers(average).items():
            topology, values = _united([some[path] for some in layers])
            if connections is not None:
                keep = without_nearest_zero(values, max(0, topology.nnz - connections[path]))
                topology, values = topology.kept(keep), values[keep]
            layer.set_topology(topology, values)
        others = [_others(model, sparse) for model in models]
        for name, entry in _others(average, sparse).items():
            if entry.is_floating_point():
                entry.copy_(torch.stack([some[name] for some in others]).mean(0))
    return average


def _united(layers: Sequence[SparseLayer]) -> tuple[Topology, Tensor]:
    """All connections, and the mean of their values over all layers."""
    positions = torch.cat([layer.topology.positions for layer in layers]).unique()
    union = Topology(layers[0].topology.shape, positions)
    values = [transferred(x.values.detach(), x.topology, union) for x in layers]
    return union, torch.stack(values).sum(0) / len(layers)


def _others(model: nn.Module, sparse: set[str]) -> dict[str, Tensor]:
    """Parameters and buffers that are no sparse values."""
    entries = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {name: entry.detach() for name, entry in entries.items() if name not in sparse}
