"""Making a torch model sparse, and dense again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import TypeVar

import torch
from torch import nn

from regrow.layers.base import SparseLayer
from regrow.layers.conversion import CONVERSIONS, DENSIFIERS, Start, StartValues
from regrow.topology import allocate, random_topology
from regrow.topology.allocation import Allocation, Given

Model = TypeVar("Model", bound=nn.Module)


def sparsify(
    model: Model,
    density: float | None = None,
    *,
    epsilon: float | None = None,
    allocation: str | Allocation | Given | None = None,
    include: str | Sequence[str] = "*",
    exclude: str | Sequence[str] = (),
    values: StartValues = "rescale",
    compute: str = "auto",
    generator: torch.Generator | None = None,
) -> Model:
    """Replace the layers of a model by sparse ones, in place.

    Normalisation layers and biases stay as they are. A layer to which the allocation gives every
    connection stays an ordinary dense one. Call it before the optimiser is made.

    Args:
        model: Any torch module.
        density: Kept fraction over all replaced layers together, in (0, 1].
        epsilon: Instead of a density, SET's sparsity control: ``epsilon * (n_in + n_out)``
            connections a layer.
        allocation: How the density is shared, as of ``regrow.topology.allocate``: ``erk`` if None.
        include: Path glob, or several, of the layers to replace, such as ``"encoder.*"``.
        exclude: Path glob, or several, of layers to leave dense, such as ``"head"``.
        values: What the values start from: ``rescale`` takes those of the dense layer at the kept
            positions, divided by ``sqrt(density of the layer)`` so that signals keep their size
            in a net that is to be trained from scratch; ``keep`` takes them as they are; ``init``
            draws new ones.
        compute: Of the new layers: ``auto``, ``csr`` or ``dense``.
        generator: CPU generator; torch's default one if None.

    Returns:
        The model (a new layer if the model itself is the layer to replace).

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
    start = Start(values, compute, generator)
    chosen = _chosen(model, _globs(include), _globs(exclude))
    shapes = {
        weight: shape
        for path, module in chosen.items()
        for weight, shape in _weights(path, module).items()
    }
    counts = allocate(shapes, density=density, epsilon=epsilon, allocation=allocation)
    topologies = {
        weight: random_topology(shapes[weight], count, generator=generator)
        for weight, count in counts.items()
        if count < math.prod(shapes[weight])
    }
    for path, module in chosen.items():
        own = {
            name: topologies[_join(path, name)]
            for name in CONVERSIONS[type(module)].shapes(module)
            if _join(path, name) in topologies
        }
        if own:
            sparse = CONVERSIONS[type(module)].sparse(module, own, start)
            model = _replaced(model, path, sparse.train(module.training))
    return model


def densify(model: Model) -> Model:
    """Replace the sparse layers of a model by plain torch layers, in place; same function.

    Args:
        model: A model with sparse layers.

    Returns:
        The model (a new layer if the model itself is one sparse layer).

    Example:
        >>> import regrow
        >>> layer = regrow.SparseLinear(8, 4, density=0.5)
        >>> dense, x = densify(nn.Sequential(layer)), torch.ones(2, 8)
        >>> type(dense[0]).__name__, torch.allclose(dense(x), layer(x), atol=1e-6)
        ('Linear', True)
    """
    done: dict[nn.Module, nn.Module] = {}
    inside: tuple[str, ...] = ()
    for path, layer in list(model.named_modules(remove_duplicate=False)):
        if type(layer) in DENSIFIERS and not path.startswith(inside):
            # A module may hold others that are replaced with it, as a recurrent one does.
            inside = (*inside, f"{path}." if path else "")
            if layer not in done:
                done[layer] = DENSIFIERS[type(layer)].dense(layer).train(layer.training)
            model = _replaced(model, path, done[layer])
    return model


def _weights(path: str, module: nn.Module) -> dict[str, tuple[int, ...]]:
    try:
        shapes = CONVERSIONS[type(module)].shapes(module)
    except ValueError as error:
        raise ValueError(f"layer {path or 'given'}: {error}") from None
    return {_join(path, name): shape for name, shape in shapes.items()}


def _join(path: str, name: str) -> str:
    return ".".join(part for part in (path, name) if part)


def _globs(given: str | Sequence[str]) -> Sequence[str]:
    return (given,) if isinstance(given, str) else given


def _chosen(
    model: nn.Module, include: Sequence[str], exclude: Sequence[str]
) -> dict[str, nn.Module]:
    modules = list(model.named_modules(remove_duplicate=False))
    for path, module in modules:
        if isinstance(module, SparseLayer):
            raise ValueError(f"layer {path or 'given'} is sparse already; densify the model first")
    known = {path: m for path, m in modules if type(m) in CONVERSIONS}
    for glob in (*include, *exclude):
        if not any(fnmatchcase(path, glob) for path in known):
            raise ValueError(
                f"path glob {glob!r} meets no layer that can be sparse; the model has "
                f"{', '.join(known) or 'none'}"
            )
    chosen = {
        path: layer
        for path, layer in known.items()
        if any(fnmatchcase(path, glob) for glob in include)
        and not any(fnmatchcase(path, glob) for glob in exclude)
    }
    if not chosen:
        raise ValueError("there is no layer to make sparse: all are excluded")
    _refuse_shared(model, chosen)
    return chosen


def _refuse_shared(model: nn.Module, chosen: dict[str, nn.Module]) -> None:
    owners: dict[int, str] = {}
    for path, parameter in model.named_parameters(remove_duplicate=False):
        first = owners.setdefault(id(parameter), path)
        pair = {first.rpartition(".")[0], path.rpartition(".")[0]}
        if first != path and pair & chosen.keys():
            raise ValueError(
                f"parameter {path} is tied to {first}; exclude both layers from sparsify"
            )


def _replaced(model: Model, path: str, layer: nn.Module) -> Model:
    if not path:
        return layer  # type: ignore[return-value]
    model.set_submodule(path, layer)
    return model
