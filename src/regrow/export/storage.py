"""One safetensors file with the values, the topology and the rest of a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypeVar

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from regrow.files import write_atomically
from regrow.layers import sparse_layers, sparsify
from regrow.layers.choose import choose, join
from regrow.topology import Topology

Model = TypeVar("Model", bound=nn.Module)

_FORMAT = "1"


def save_safetensors(model: nn.Module, path: Path | str) -> None:
    """Write a model into one safetensors file, which any reader of the format can open.

    The file holds the state dict: for a sparse layer ``values``, ``shape``, ``indptr`` and
    ``indices`` (compressed rows). What layers share is there once; the header says under
    ``tied`` which name stands for which. The file is whole, or is not there.

    Args:
        model: With sparse layers or without.
        path: Of the file; its folder must exist.

    Raises:
        TypeError: The state dict has an entry that is no tensor.

    Example:
        >>> import regrow, tempfile
        >>> def plain():
        ...     return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
        >>> model = regrow.sparsify(plain(), density=0.1)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_safetensors(model, f"{folder}/model.safetensors")
        ...     loaded = load_safetensors(plain(), f"{folder}/model.safetensors")
        >>> loaded[0].topology == model[0].topology
        True
    """
    tensors: dict[str, Tensor] = {}
    tied: dict[str, str] = {}
    first: dict[tuple[object, ...], str] = {}
    for name, tensor in model.state_dict().items():
        if not isinstance(tensor, Tensor):
            raise TypeError(
                f"{name} of a model to store as safetensors must be a tensor, "
                f"got {type(tensor).__name__}"
            )
        place = (tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride())
        if tensor.numel() and place in first:
            tied[name] = first[place]
            continue
        first[place] = name
        tensors[name] = tensor
    # The format has neither views nor two names for one piece of memory.
    storages = [tensor.untyped_storage().data_ptr() for tensor in tensors.values()]
    tensors = {
        name: (tensor.clone() if storages.count(at) > 1 else tensor).contiguous()
        for (name, tensor), at in zip(tensors.items(), storages, strict=True)
    }
    groups = {
        at: {name: [rows.start, rows.stop] for name, rows in layer.row_groups.items()}
        for at, layer in sparse_layers(model).items()
        if layer.row_groups
    }
    header = {
        "format": "pt",
        "regrow": _FORMAT,
        "tied": json.dumps(tied),
        "row_groups": json.dumps(groups),
    }
    write_atomically(Path(path), lambda file: save_file(tensors, file.name, header))


def load_safetensors(model: Model, path: Path | str) -> Model:
    """Load what ``save_safetensors`` wrote into a model of the same structure, in place.

    The layers of the model may be dense, and become sparse where those of the file are, or be
    sparse already, with whatever topology: that of the file is taken over.

    Args:
        model: The model to load into.
        path: Of the file.

    Returns:
        The model (a new layer if the model itself is one that becomes sparse).

    Raises:
        ValueError: The file is not one of these, or holds a sparse layer where the model has none
            that can be sparse.
        RuntimeError: Names or shapes of the model and the file differ.
    """
    state, groups = _read(Path(path))
    places = [name.removesuffix("indptr").removesuffix(".") for name in state if _is_places(name)]
    if places and not sparse_layers(model):
        model = _made_sparse(model, places, state, Path(path))
    model.load_state_dict(state)
    for at, layer in sparse_layers(model).items():
        if at in groups:
            rows = {name: slice(*ends) for name, ends in groups[at].items()}
            for tied in (layer, *layer.tied):
                tied.row_groups = rows
    return model


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, dict[str, list[int]]]]:
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} must be a whole safetensors file: {error}") from None
    if header.get("regrow") != _FORMAT:
        raise ValueError(
            f"{path} must be written by save_safetensors in format {_FORMAT}, "
            f"got {header.get('regrow', 'none')}"
        )
    for name, source in json.loads(header["tied"]).items():
        state[name] = state[source]
    return state, json.loads(header["row_groups"])


def _is_places(name: str) -> bool:
    return name.rpartition(".")[2] == "indptr"


def _made_sparse(model: Model, places: list[str], state: dict[str, Tensor], path: Path) -> Model:
    try:
        targets = choose(model, places, ())
    except ValueError as error:
        raise ValueError(f"the model cannot take the sparse layers of {path}: {error}") from None
    leads = {join(target.path, name) for target in targets for name in target.shapes}
    topologies = {}
    for place in places:
        if place in leads:
            shape, indptr, indices = (
                state[join(place, part)] for part in ("shape", "indptr", "indices")
            )
            topologies[place] = Topology.from_csr(shape.tolist(), indptr, indices)
    return sparsify(model, topologies=topologies, include=places, values="keep")
