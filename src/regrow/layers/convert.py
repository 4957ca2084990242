"""Making a torch model sparse, and dense again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeVar

import torch
from torch import nn

from regrow.layers.base import SparseLayer, tie
from regrow.layers.choose import Globs, Target, choose, join
from regrow.layers.conversion import DENSIFIERS, Start, StartValues, succeed
from regrow.layers.description import describe
from regrow.layers.draw import Numbers, Places, drawn
from regrow.layers.fused_paths import settle_fused_paths
from regrow.layers.layout import share_layouts
from regrow.layers.row_groups import Groups, row_groups
from regrow.layers.tied_names import settle_tied_names
from regrow.topology import Topology

Model = TypeVar("Model", bound=nn.Module)


def sparsify(
    model: Model,
    density: float | None = None,
    *,
    epsilon: float | None = None,
    topologies: Mapping[str, Topology] | None = None,
    allocation: Numbers = None,
    pattern: Places = "random",
    include: Globs = "*",
    exclude: Globs = (),
    groups: Groups | None = None,
    full: Literal["dense", "sparse"] = "dense",
    values: StartValues = "rescale",
    compute: str = "auto",
    generator: torch.Generator | None = None,
    verbose: bool = False,
) -> Model:
    """Replace the layers of a model by sparse ones, in place.

    Normalisation layers and biases stay as they are. Layers that share a weight go on sharing it,
    as an embedding and an output head may; hooks, mode, dtype, device and frozen parameters are
    kept. Call it before the optimiser is made.

    Args:
        model: Any torch module.
        density: Kept fraction over all replaced layers together, in (0, 1].
        epsilon: Instead of a density, SET's sparsity control: ``epsilon * (n_in + n_out)``
            connections a layer.
        topologies: Instead of both, the connections themselves, by path of the weight (that of
            the layer, or such as ``"attention.q_proj"`` where it has several); what is missing
            stays dense.
        allocation: How the density is shared, as of ``regrow.topology.allocate``: ``erk`` if None.
            Or a criterion that judges the weights of the dense model (``"magnitude"``, ``Snip``,
            ``Grasp``, ``SynFlow``): each layer gets as many as it has among the best of all.
        pattern: Where the connections are, as a name (``random``, ``bernoulli``, ``replacement``,
            ``small-world``, ``scale-free``, ``fan-in``, ``fan-out``), ``Block(4, 4)``,
            ``NofM(2, 4)``, which says the density too, or a function of shape and connections. Or
            a criterion as above: each layer keeps its best, without an allocation as many as it
            has among the best of all.
        include: Path glob, or several, of the layers to replace, such as ``"encoder.*"``, or of
            weights inside them, such as ``"*.self_attn.out_proj"``.
        exclude: Path glob, or several, of what is to stay dense, such as ``"head"``.
        groups: By path glob, names of parts of a weight, in the order of its rows, that have
            budgets of their own: ``{"*.c_attn": ["q", "k", "v"]}``, or ``{"*.qkv": {"q": 64, "k":
            16, "v": 16}}`` where they differ in rows. Every part starts with its share of the
            connections, and keeps it in an ``Evolution`` with ``scope="gate"``.
        full: Whether a layer to which the allocation gives every connection stays an ordinary
            ``dense`` one, or becomes a ``sparse`` one that has them all and can lose some later.
        values: What the values start from: ``rescale`` takes those of the dense layer at the kept
            positions, divided by ``sqrt(density of the layer)`` so that signals keep their size
            in a net that is to be trained from scratch; ``keep`` takes them as they are; ``init``
            draws new ones.
        compute: Of the new layers: ``auto``, ``csr`` or ``dense``.
        generator: CPU generator; torch's default one if None.
        verbose: Whether to print what became of every weight (``regrow.describe``).

    Returns:
        The model (a new layer if the model itself is the layer to replace).

    Raises:
        ValueError: Nothing to replace, a glob that meets nothing, a layer that is sparse already,
            whose weight is computed from other parameters, or that shares it with one that stays
            dense, or a density that is out of reach.

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
    if full not in ("dense", "sparse"):
        raise ValueError(f"full of sparsify must be dense or sparse, got {full!r}")
    start = Start(values, compute, generator)
    targets = choose(model, include, exclude)
    shapes = {
        join(target.path, name): shape
        for target in targets
        for name, shape in target.shapes.items()
    }
    parts = row_groups(groups or {}, shapes)
    if topologies is None:
        topologies = drawn(
            model,
            targets,
            parts,
            density=density,
            epsilon=epsilon,
            allocation=allocation,
            pattern=pattern,
            generator=generator,
        )
        if full == "dense":
            topologies = {path: t for path, t in topologies.items() if t.density < 1}
    else:
        _check_topologies(topologies, shapes, density, epsilon)
    for target in targets:
        own = {
            name: topologies[join(target.path, name)]
            for name in target.shapes
            if join(target.path, name) in topologies
        }
        if own:
            model = _made_sparse(model, target, own, start)
    for path, rows in parts.items():
        layer = model.get_submodule(path)
        if isinstance(layer, SparseLayer):
            for tied in (layer, *layer.tied):
                tied.row_groups = rows
    settle_fused_paths(model)
    settle_tied_names(model)
    share_layouts(model)
    if verbose:
        print(describe(model))
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
    done: dict[nn.Module, Any] = {}
    inside: tuple[str, ...] = ()
    for path, layer in list(model.named_modules(remove_duplicate=False)):
        if type(layer) in DENSIFIERS and not path.startswith(inside):
            # A module may hold others that are replaced with it, as a recurrent one does.
            inside = (*inside, f"{path}." if path else "")
            if layer not in done:
                done[layer] = succeed(DENSIFIERS[type(layer)].dense(layer), layer)
                for tied in layer.tied if isinstance(layer, SparseLayer) else ():
                    if tied in done:
                        done[layer].weight = done[tied].weight
            model = _replaced(model, path, done[layer])
    settle_fused_paths(model)
    settle_tied_names(model)
    return model


def _check_topologies(
    topologies: Mapping[str, Topology],
    shapes: Mapping[str, tuple[int, ...]],
    density: float | None,
    epsilon: float | None,
) -> None:
    if density is not None or epsilon is not None:
        raise ValueError("give sparsify topologies, a density or an epsilon, not several of them")
    if not topologies:
        raise ValueError("topologies of sparsify must be of one weight at least, got none")
    for path, topology in topologies.items():
        if path not in shapes:
            raise ValueError(f"topologies of sparsify must be of {', '.join(shapes)}, got {path!r}")
        if tuple(topology.shape) != shapes[path]:
            raise ValueError(
                f"topology of {path} must have shape {shapes[path]}, got {tuple(topology.shape)}"
            )


def _made_sparse(
    model: Model, target: Target, topologies: Mapping[str, Topology], start: Start
) -> Model:
    # An embedding may have a row that must be empty, so it comes first among those that share.
    members = sorted([target, *target.tied], key=lambda t: not isinstance(t.module, nn.Embedding))
    made: list[Any] = []
    for member in members:
        if made:
            topologies = {"": made[0].topology}
        layer = member.conversion.sparse(member.module, topologies, start)
        made.append(succeed(layer, member.module))
        for path in member.paths:
            model = _replaced(model, path, layer)
    if len(made) > 1:
        tie(*made)
    return model


def _replaced(model: Model, path: str, layer: nn.Module) -> Model:
    if not path:
        return layer  # type: ignore[return-value]
    model.set_submodule(path, layer)
    return model
