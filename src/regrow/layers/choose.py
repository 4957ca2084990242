"""Which layers of a model are to become sparse: by path globs, with what they share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from torch import nn
from torch.nn.parameter import is_lazy

from regrow.layers.base import SparseLayer
from regrow.layers.conversion import Conversion, conversion_of

Globs = str | Sequence[str]


@dataclass
class Target:
    """A module that can become sparse.

    Attributes:
        paths: Where it is in the model; more than one where it is used in several places.
        module: The module.
        conversion: How it becomes sparse.
        shapes: Dense shape of each of its weights to make sparse, by name.
        tied: Other modules that share its one weight, and become sparse with it.
    """

    paths: list[str]
    module: nn.Module
    conversion: Conversion
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    tied: list[Target] = field(default_factory=list)

    @property
    def path(self) -> str:
        """The first path."""
        return self.paths[0]

    def meets(self, globs: Sequence[str], name: str = "") -> bool:
        """Whether a glob meets one of its paths, or the path of one of its weights there."""
        return any(
            fnmatchcase(path, glob)
            for place in self.paths
            for path in {place, join(place, name)}
            for glob in globs
        )


def choose(model: nn.Module, include: Globs, exclude: Globs) -> list[Target]:
    """Find the modules that globs choose, and refuse those that cannot become sparse.

    Args:
        model: Any torch module.
        include: Path glob or several; they meet paths of modules and of weights inside them.
        exclude: Likewise.

    Returns:
        The modules in the order of the model; one that shares its weight with an earlier one is in
        ``tied`` of that one.

    Raises:
        ValueError: As of ``sparsify``.
    """
    include, exclude = as_globs(include), as_globs(exclude)
    known = list(_known(model))
    unmet = {*include, *exclude}
    chosen = []
    for target in known:
        shapes = {} if target.meets(exclude) else _shapes(target, required=target.meets(include))
        for name, shape in shapes.items():
            if target.meets(include, name) and not target.meets(exclude, name):
                target.shapes[name] = shape
        if target.shapes:
            chosen.append(target)
        unmet = {glob for glob in unmet if not any(target.meets([glob], n) for n in ("", *shapes))}
    for glob in (*include, *exclude):
        if glob in unmet:
            raise ValueError(
                f"path glob {glob!r} meets no layer that can be sparse; the model has "
                f"{', '.join(target.path for target in known) or 'none'}"
            )
    if not chosen:
        raise ValueError("there is no layer to make sparse: all are excluded")
    return _with_ties(model, chosen)


def as_globs(given: Globs) -> Sequence[str]:
    """One glob as a sequence of one."""
    return (given,) if isinstance(given, str) else given


def join(path: str, name: str) -> str:
    """The path of a part of a module."""
    return ".".join(part for part in (path, name) if part)


def _known(model: nn.Module) -> Iterator[Target]:
    """Every module that can become sparse, with all its paths."""
    found: dict[nn.Module, Target] = {}
    inside: tuple[str, ...] = ()
    for path, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, SparseLayer):
            raise ValueError(f"layer {path or 'given'} is sparse already; densify the model first")
        conversion = conversion_of(module)
        if conversion is None or path.startswith(inside):
            continue
        # A module may hold others that are replaced with it, as attention does.
        inside = (*inside, f"{path}." if path else "")
        found.setdefault(module, Target([], module, conversion)).paths.append(path)
    yield from found.values()


def _shapes(target: Target, required: bool) -> dict[str, tuple[int, ...]]:
    try:
        _check_parameters(target)
        return target.conversion.shapes(target.module)
    except ValueError as error:
        if not required:
            return {}
        raise ValueError(f"layer {target.path or 'given'}: {error}") from None


def _check_parameters(target: Target) -> None:
    """Refuse weights that are computed from other parameters, or are not there yet."""
    own = dict(target.module.named_parameters(recurse=False))
    for name in target.conversion.parameters(target.module):
        if name not in own:
            raise ValueError(
                f"{name} must be a parameter of its own, got one that is computed by a "
                f"parametrization, weight norm or pruning; remove that, or exclude the layer"
            )
        if is_lazy(own[name]):
            raise ValueError(
                f"{name} must have a shape, got one that is still to be made; run the model once "
                f"before, or exclude the layer"
            )


def _with_ties(model: nn.Module, chosen: list[Target]) -> list[Target]:
    holders: dict[int, dict[nn.Module, str]] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        for name, parameter in module.named_parameters(recurse=False):
            holders.setdefault(id(parameter), {}).setdefault(module, join(path, name))
    by_module = {target.module: target for target in chosen}
    first: list[Target] = []
    seen: set[nn.Module] = set()
    for target in chosen:
        if target.module in seen:
            continue
        first.append(target)
        for name in target.conversion.parameters(target.module):
            sharing = holders[id(getattr(target.module, name))]
            for module, path in sharing.items():
                if module is target.module:
                    continue
                other = by_module.get(module)
                if other is None or not _one_weight(target, other):
                    raise ValueError(
                        f"parameter {path} is tied to {sharing[target.module]}, and they can "
                        f"only become sparse together, as weights of one kind and shape; "
                        f"include both layers in sparsify, or exclude both"
                    )
                target.tied.append(other)
                seen.add(module)
    return first


def _one_weight(a: Target, b: Target) -> bool:
    """Whether two modules can go on sharing their weight when they are sparse."""
    layout = a.conversion.layout
    return layout is not None and layout == b.conversion.layout and a.shapes == b.shapes
