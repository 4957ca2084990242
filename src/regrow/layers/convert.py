"""Making a torch model sparse, and dense again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

from regrow.layers.base import SparseLayer
from regrow.layers.linear import SparseLinear
from regrow.topology import allocate, random_topology

Model = TypeVar("Model", bound=nn.Module)
StartValues = Literal["rescale", "keep", "init"]


def sparsify(
    model: Model,
    density: float | None = None,
    *,
    epsilon: float | None = None,
    allocation: str = "erk",
    include: Sequence[str] = ("*",),
    exclude: Sequence[str] = (),
    values: StartValues = "rescale",
    compute: str = "auto",
    generator: torch.Generator | None = None,
) -> Model:
    """Replace the linear layers of a model by sparse ones, in place.

    Normalisation layers and biases stay as they are. A layer to which the allocation gives every
    connection stays an ordinary dense one. Call it before the optimiser is made.

    Args:
        model: Any torch module.
        density: Kept fraction over all replaced layers together, in (0, 1].
        epsilon: Instead of a density, SET's sparsity control: ``epsilon * (n_in + n_out)``
            connections a layer.
        allocation: How the density is shared: ``uniform``, ``er`` or ``erk``.
        include: Path globs of the layers to replace, such as ``"encoder.*"``.
        exclude: Path globs of layers to leave dense, such as ``"head"``.
        values: What the values start from: ``rescale`` takes those of the dense layer at the kept
            positions, divided by ``sqrt(density of the layer)`` so that signals keep their size
            in a net that is to be trained from scratch; ``keep`` takes them as they are; ``init``
            draws new ones.
        compute: Of the new layers: ``auto``, ``csr`` or ``dense``.
        generator: CPU generator; torch's default one if None.

    Returns:
        The model (a new layer if the model itself is one linear layer).

    Raises:
        ValueError: Nothing to replace, a glob that meets nothing, a layer that is sparse already,
            shared between two paths, or a density that is out of reach.

    Example:
        >>> model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
        >>> sparsify(model, density=0.1, exclude=["2"])
        Sequential(
          (0): SparseLinear(64 -> 32, density=0.1001, connections=205, bias=True, compute=auto)
          (1): ReLU()
          (2): Linear(in_features=32, out_features=10, bias=True)
        )
    """
    if values not in ("rescale", "keep", "init"):
        raise ValueError(f"values of sparsify must be rescale, keep or init, got {values!r}")
    chosen = _chosen(model, include, exclude)
    shapes = {path: tuple(layer.weight.shape) for path, layer in chosen.items()}
    counts = allocate(shapes, density=density, epsilon=epsilon, allocation=allocation)
    for path, layer in chosen.items():
        if counts[path] == math.prod(shapes[path]):
            continue
        topology = random_topology(shapes[path], counts[path], generator=generator)
        sparse = SparseLinear(
            layer.in_features,
            layer.out_features,
            layer.bias is not None,
            topology=topology,
            compute=compute,
            generator=generator,
            device=layer.weight.device,
            dtype=layer.weight.dtype,
        )
        if values != "init":
            kept = layer.weight.detach().reshape(-1)[sparse.topology.positions]
            scale = math.sqrt(topology.density) if values == "rescale" else 1.0
            _copy(sparse, kept / scale, layer.bias)
        sparse.train(layer.training)
        model = _replaced(model, path, sparse)
    return model


def densify(model: Model) -> Model:
    """Replace the sparse layers of a model by plain torch layers, in place; same function.

    Args:
        model: A model with sparse layers.

    Returns:
        The model (a new layer if the model itself is one sparse layer).

    Example:
        >>> layer = SparseLinear(8, 4, density=0.5)
        >>> dense, x = densify(nn.Sequential(layer)), torch.ones(2, 8)
        >>> type(dense[0]).__name__, torch.allclose(dense(x), layer(x), atol=1e-6)
        ('Linear', True)
    """
    for path, layer in list(model.named_modules()):
        if not isinstance(layer, SparseLinear):
            continue
        dense = nn.Linear(
            layer.in_features,
            layer.out_features,
            layer.bias is not None,
            device=layer.values.device,
            dtype=layer.values.dtype,
        )
        with torch.no_grad():
            dense.weight.copy_(layer.weight)
            if layer.bias is not None:
                dense.bias.copy_(layer.bias)
        dense.train(layer.training)
        model = _replaced(model, path, dense)
    return model


def _chosen(
    model: nn.Module, include: Sequence[str], exclude: Sequence[str]
) -> dict[str, nn.Linear]:
    modules = list(model.named_modules(remove_duplicate=False))
    for path, module in modules:
        if isinstance(module, SparseLayer):
            raise ValueError(f"layer {path or 'given'} is sparse already; densify the model first")
    linear = {path: m for path, m in modules if type(m) is nn.Linear}
    for glob in (*include, *exclude):
        if not any(fnmatchcase(path, glob) for path in linear):
            raise ValueError(
                f"path glob {glob!r} meets no linear layer; the model has "
                f"{', '.join(linear) or 'none'}"
            )
    chosen = {
        path: layer
        for path, layer in linear.items()
        if any(fnmatchcase(path, glob) for glob in include)
        and not any(fnmatchcase(path, glob) for glob in exclude)
    }
    if not chosen:
        raise ValueError("there is no linear layer to make sparse: all are excluded")
    _refuse_shared(model, chosen)
    return chosen


def _refuse_shared(model: nn.Module, chosen: dict[str, nn.Linear]) -> None:
    owners: dict[int, str] = {}
    for path, parameter in model.named_parameters(remove_duplicate=False):
        first = owners.setdefault(id(parameter), path)
        pair = {first.rpartition(".")[0], path.rpartition(".")[0]}
        if first != path and pair & chosen.keys():
            raise ValueError(
                f"parameter {path} is tied to {first}; exclude both layers from sparsify"
            )


def _copy(sparse: SparseLinear, values: Tensor, bias: Tensor | None) -> None:
    with torch.no_grad():
        sparse.values.copy_(values)
        if bias is not None and sparse.bias is not None:
            sparse.bias.copy_(bias)


def _replaced(model: Model, path: str, layer: nn.Module) -> Model:
    if not path:
        return layer  # type: ignore[return-value]
    model.set_submodule(path, layer)
    return model
