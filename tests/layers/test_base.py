"""What every sparse layer owes: state dict, copies, pickles, dense view, changing topology."""

from __future__ import annotations

import copy
import io
import pickle
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import regrow
from regrow import SparseLinear, Topology
from regrow.layers.base import uniform


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def layer_of(density: float = 0.4, seed: int = 0, **kw) -> SparseLinear:
    return SparseLinear(6, 4, density=density, generator=seeded(seed), compute="csr", **kw)


def model_of(density: float = 0.4, seed: int = 0) -> nn.Sequential:
    return nn.Sequential(
        layer_of(density, seed),
        nn.LayerNorm(4),
        SparseLinear(4, 3, density=density, generator=seeded(seed), compute="csr"),
    )


x = torch.randn(5, 6, generator=seeded(1))


def test_dense_view_is_differentiable() -> None:
    layer = layer_of()
    view = layer.weight
    assert view.shape == (4, 6)
    assert torch.equal(view.reshape(-1)[layer.topology.positions], layer.values)
    assert int((view != 0).sum()) == layer.topology.nnz
    coefficients = torch.arange(24.0).view(4, 6)
    (layer.weight * coefficients).sum().backward()
    assert layer.values.grad.tolist() == layer.topology.positions.tolist()


def test_state_dict_has_the_contracted_keys() -> None:
    layer = layer_of()
    state = layer.state_dict()
    assert list(state) == ["values", "bias", "shape", "indptr", "indices"]
    assert torch.equal(state["indptr"], layer.topology.csr()[0])
    assert torch.equal(state["indices"], layer.topology.csr()[1])
    assert list(layer_of(bias=False).state_dict()) == ["values", "shape", "indptr", "indices"]


@pytest.mark.parametrize(("density", "seed"), [(0.4, 0), (0.4, 7), (0.2, 7), (0.9, 7)])
def test_state_dict_brings_its_topology_through_torch_save(density: float, seed: int) -> None:
    saved, other = model_of(), model_of(density, seed)
    buffer = io.BytesIO()
    torch.save(saved.state_dict(), buffer)
    buffer.seek(0)
    result = other.load_state_dict(torch.load(buffer, weights_only=True))
    assert (result.missing_keys, result.unexpected_keys) == ([], [])
    assert other[0].topology == saved[0].topology
    assert torch.equal(other(x), saved(x))


@pytest.mark.parametrize(("density", "seed"), [(0.4, 7), (0.2, 7)])
def test_state_dict_through_safetensors(tmp_path: Path, density: float, seed: int) -> None:
    saved, other = model_of(), model_of(density, seed)
    save_file(saved.state_dict(), tmp_path / "model.safetensors")
    other.load_state_dict(load_file(tmp_path / "model.safetensors"))
    assert torch.equal(other(x), saved(x))


@pytest.mark.parametrize("density", [0.4, 0.2, 1.0])
@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.Adam])
def test_an_optimiser_made_before_loading_trains_what_was_loaded(make: type, density: float):
    saved, other = model_of(), model_of(density, 7)
    optimizer, parameters = make(other.parameters(), lr=0.1), list(other.parameters())
    other(x).sum().backward()  # a gradient of the old size is forgotten
    other.load_state_dict(saved.state_dict())
    assert all(a is b for a, b in zip(other.parameters(), parameters, strict=True))
    reference = make(saved.parameters(), lr=0.1)
    for model, of_model in ((saved, reference), (other, optimizer)):
        of_model.zero_grad()
        model(x).square().sum().backward()
        of_model.step()
    assert torch.equal(other[0].values, saved[0].values)
    assert torch.equal(other(x), saved(x))


def test_loading_assigns_where_asked() -> None:
    saved, other = model_of(), model_of(0.2, 7)
    state = {key: tensor.clone() for key, tensor in saved.state_dict().items()}
    other.load_state_dict(state, assign=True)
    assert other[0].values.data_ptr() == state["0.values"].data_ptr()
    assert torch.equal(other(x), saved(x))


def test_a_loaded_topology_is_not_the_arrays_it_came_from() -> None:
    saved, other = layer_of(), layer_of(seed=7)
    state = {key: tensor.clone() for key, tensor in saved.state_dict().items()}
    other.load_state_dict(state)
    state["indices"].zero_()  # as one does who averages checkpoints in place
    state["indptr"].zero_()
    assert other.topology == saved.topology


def test_loading_the_same_topology_keeps_the_object() -> None:
    layer = layer_of()
    topology = layer.topology
    layer.load_state_dict({key: value.clone() for key, value in layer.state_dict().items()})
    assert layer.topology is topology


def spoilt(**changes: Tensor | None) -> dict[str, Tensor]:
    state = {key: value.clone() for key, value in model_of().state_dict().items()}
    for name, tensor in changes.items():
        if tensor is None:
            del state[f"0.{name}"]
        else:
            state[f"0.{name}"] = tensor
    return state


nnz = layer_of().topology.nnz


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"indices": torch.full((nnz,), 6)},
            "0: indices of a topology of shape (4, 6) must be in [0, 6), got 6 to 6",
        ),
        (
            {"indices": torch.full((nnz,), 2**32)},
            f"0: indices of a topology of shape (4, 6) must be in [0, 6), got {2**32} to {2**32}",
        ),
        (
            {"indices": torch.zeros(nnz, dtype=torch.int32)},
            "0: indices of a topology of shape (4, 6) must rise within each row",
        ),
        (
            {"indptr": torch.tensor([0, 9, 3, 3, nnz])},
            f"0: indptr of a topology of shape (4, 6) must rise from 0 to {nnz}, got 0 to {nnz}",
        ),
        (
            {"indptr": torch.tensor([0, nnz])},
            "0: indptr of a topology of shape (4, 6) must have 5 entries, got (2,)",
        ),
        (
            {"indices": torch.zeros(nnz)},
            "0: indices of a topology must be a one-dimensional tensor of integers, got torch",
        ),
        ({"values": torch.zeros(3)}, f"0: values must have shape ({nnz},), got (3,)"),
        ({"values": None}, 'Missing key(s) in state_dict: "0.values"'),
        ({"indptr": None}, 'Missing key(s) in state_dict: "0.indptr"'),
        ({"indices": None, "indptr": None}, 'Missing key(s) in state_dict: "0.indptr", "0.indic'),
        ({"mask": torch.zeros(2)}, 'Unexpected key(s) in state_dict: "0.mask"'),
        ({"bias": torch.zeros(9)}, "size mismatch for 0.bias"),
    ],
)
def test_corrupt_state_dicts_are_refused(changes: dict, sentence: str) -> None:
    model = model_of(seed=7)
    before = copy.deepcopy(model)
    with pytest.raises(RuntimeError, match=re.escape(sentence)):
        model.load_state_dict(spoilt(**changes))
    if "values" in changes or "indices" in changes:
        assert model[0].topology == before[0].topology
        assert torch.equal(model[0].values, before[0].values)


def test_a_layer_alone_is_named_in_the_error_too() -> None:
    layer = layer_of()
    state = {**layer.state_dict(), "values": torch.zeros(1)}
    with pytest.raises(RuntimeError, match=re.escape("the layer: values must have shape")):
        layer.load_state_dict(state)


def test_values_without_their_places_are_not_taken() -> None:
    model = model_of(seed=7)
    before = model[0].values.detach().clone()
    result = model.load_state_dict(spoilt(indptr=None), strict=False)
    assert result.missing_keys == ["0.indptr"]
    assert torch.equal(model[0].values, before)


def test_deep_copies_are_independent_and_share_the_topology() -> None:
    model = model_of()
    twin = copy.deepcopy(model)
    assert twin[0].topology is model[0].topology
    assert twin[0].values is not model[0].values
    assert torch.equal(twin(x), model(x))
    with torch.no_grad():
        twin[0].values.zero_()
    twin[2].set_topology(Topology((3, 4), torch.tensor([0])), torch.ones(1))
    assert model[0].values.any()
    assert model[2].topology.nnz > 1


def test_layers_and_models_pickle() -> None:
    model = model_of()
    for again in (pickle.loads(pickle.dumps(model)), copy.copy(model)):
        assert again[0].topology == model[0].topology
        assert torch.equal(again(x), model(x))
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    assert torch.equal(torch.load(buffer, weights_only=False)(x), model(x))


def test_changing_dtype_keeps_the_topology() -> None:
    layer = layer_of()
    topology = layer.topology
    layer.double()
    assert layer.topology is topology
    assert layer(x.double()).dtype == torch.float64


def test_set_topology_writes_in_place_while_the_number_stays() -> None:
    layer = layer_of()
    values = layer.values
    topology = Topology((4, 6), torch.arange(nnz))
    layer.set_topology(topology, torch.arange(nnz).float())
    assert layer.values is values
    assert layer.topology is topology
    assert values.tolist() == list(range(nnz))
    layer.set_topology(Topology((4, 6), torch.tensor([3])), torch.ones(1, dtype=torch.float64))
    assert layer.values is not values
    assert layer.values.dtype == torch.float32
    assert isinstance(layer.values, nn.Parameter)


def test_set_topology_keeps_a_frozen_layer_frozen() -> None:
    layer = layer_of()
    layer.requires_grad_(False)
    layer.set_topology(Topology((4, 6), torch.tensor([3])), torch.ones(1))
    assert not layer.values.requires_grad


@pytest.mark.parametrize(
    ("shape", "count", "sentence"),
    [
        ((6, 4), 1, "topology of SparseLinear must have shape (4, 6), got (6, 4)"),
        ((4, 6), 2, "values of SparseLinear must have shape (1,), got (2,)"),
    ],
)
def test_set_topology_refuses_what_does_not_fit(
    shape: tuple[int, int], count: int, sentence: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        layer_of().set_topology(Topology(shape, torch.tensor([3])), torch.ones(count))


def test_sparse_layers_are_found_by_path() -> None:
    model = nn.ModuleDict({"body": model_of(), "head": nn.Linear(3, 2)})
    assert list(regrow.sparse_layers(model)) == ["body.0", "body.2"]
    assert regrow.sparse_layers(model)["body.2"] is model["body"][2]
    assert list(regrow.sparse_layers(layer_of())) == [""]
    assert regrow.sparse_layers(nn.Linear(2, 2)) == {}


def test_uniform_is_bounded_and_seeded() -> None:
    like = torch.empty(0, dtype=torch.float64)
    drawn = uniform(1000, 0.25, like, seeded())
    assert drawn.dtype == torch.float64
    assert drawn.abs().max() <= 0.25
    assert torch.equal(drawn, uniform(1000, 0.25, like, seeded()))


def test_values_of_another_shape_are_refused() -> None:
    state = SparseLinear(6, 4, density=0.5).state_dict()
    wider = SparseLinear(7, 4, density=0.5)
    with pytest.raises(RuntimeError, match=r"weight must have shape \(4, 7\), got \(4, 6\)"):
        wider.load_state_dict(state)
