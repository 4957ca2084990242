"""sparsify and densify: what is replaced, with which values, and what is refused."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

import regrow
from regrow import SparseLinear, densify, sparsify
from regrow.topology import NofM


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.LayerNorm(30), nn.Linear(30, 5))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16, bias=False))
        self.norm = nn.BatchNorm1d(16)
        self.head = nn.Linear(16, 4)


def test_linear_layers_are_replaced_in_place() -> None:
    model = mlp()
    norm = model[2]
    assert sparsify(model, 0.1, generator=seeded()) is model
    assert [type(m).__name__ for m in model] == [
        "SparseLinear",
        "ReLU",
        "LayerNorm",
        "SparseLinear",
    ]
    assert model[2] is norm
    assert sum(m.topology.nnz for m in regrow.sparse_layers(model).values()) == 75
    assert model(torch.ones(3, 20)).shape == (3, 5)


def test_epsilon_and_uniform_reach_the_allocation() -> None:
    model = sparsify(mlp(), epsilon=2, generator=seeded())
    assert [m.topology.nnz for m in regrow.sparse_layers(model).values()] == [100, 70]
    model = sparsify(mlp(), 0.2, allocation="uniform", generator=seeded())
    assert [m.topology.nnz for m in regrow.sparse_layers(model).values()] == [120, 30]


@pytest.mark.parametrize(
    ("include", "exclude", "paths"),
    [
        (("*",), (), ["encoder.0", "encoder.2", "head"]),
        (("encoder.*",), (), ["encoder.0", "encoder.2"]),
        (("*",), ("head",), ["encoder.0", "encoder.2"]),
        (("*.[02]", "head"), ("encoder.0",), ["encoder.2", "head"]),
        (["head"], [], ["head"]),
    ],
)
def test_globs_choose(include: tuple, exclude: tuple, paths: list[str]) -> None:
    model = sparsify(Net(), 0.3, include=include, exclude=exclude)
    assert list(regrow.sparse_layers(model)) == paths
    assert isinstance(model.norm, nn.BatchNorm1d)


def test_a_layer_that_is_given_every_connection_stays_dense() -> None:
    model = sparsify(mlp(), epsilon=5)
    assert list(regrow.sparse_layers(model)) == ["0"]  # 5 * (30 + 5) exceeds the 150 of the last
    assert list(regrow.sparse_layers(sparsify(mlp(), 1.0))) == []


@pytest.mark.parametrize("bias", [True, False])
def test_the_model_may_be_one_layer(bias: bool) -> None:
    layer = sparsify(nn.Linear(20, 30, bias=bias), 0.1)
    assert isinstance(layer, SparseLinear)
    assert (layer.bias is not None) == bias
    dense = densify(layer)
    assert type(dense) is nn.Linear
    assert torch.equal(dense.weight, layer.weight)


@pytest.mark.parametrize("values", ["rescale", "keep"])
def test_values_are_taken_from_the_dense_layer(values: str) -> None:
    dense = mlp()
    weights = [dense[0].weight.detach().clone(), dense[3].weight.detach().clone()]
    biases = [dense[0].bias.detach().clone(), dense[3].bias.detach().clone()]
    model = sparsify(dense, 0.2, values=values)
    for layer, weight, bias in zip(
        regrow.sparse_layers(model).values(), weights, biases, strict=True
    ):
        scale = layer.density**0.5 if values == "rescale" else 1.0
        kept = weight.reshape(-1)[layer.topology.positions] / scale
        torch.testing.assert_close(layer.values.detach(), kept)
        assert torch.equal(layer.bias, bias)


def test_values_may_be_drawn_anew() -> None:
    dense = nn.Linear(20, 30)
    with torch.no_grad():
        dense.weight.zero_()
    layer = sparsify(dense, 0.2, values="init", generator=seeded())
    assert layer.values.abs().min() > 0
    assert layer.values.abs().max() <= 1 / layer.fan_in**0.5


def test_the_generator_decides_and_is_all_that_decides() -> None:
    first, again, other = (sparsify(mlp(), 0.2, generator=seeded(i)) for i in (1, 1, 2))
    assert first[0].topology == again[0].topology
    assert first[0].topology != other[0].topology
    state = torch.get_rng_state()
    model = mlp()
    torch.set_rng_state(state)
    sparsify(model, 0.2, values="init", generator=seeded())
    assert torch.equal(torch.get_rng_state(), state)


def test_dtype_mode_compute_and_frozen_parameters_are_kept() -> None:
    model = mlp().double().eval()
    model[0].requires_grad_(False)
    model[3].bias.requires_grad_(False)
    sparsify(model, 0.2, compute="csr")
    assert model[0].values.dtype == model[0].bias.dtype == torch.float64
    assert not model[0].training
    assert model[0].compute == "csr"
    frozen = {name: not p.requires_grad for name, p in model.named_parameters()}
    wanted = {"0.values": True, "0.bias": True, "3.values": False, "3.bias": True}
    assert {name: frozen[name] for name in wanted} == wanted
    densify(model)
    assert not model[0].weight.requires_grad
    assert not model[0].bias.requires_grad
    assert model[3].weight.requires_grad
    assert not model[0].training


def test_hooks_stay_and_their_handles_still_remove_them() -> None:
    model, seen = mlp(), []
    before = model[0].register_forward_pre_hook(lambda *_: seen.append("before"))
    after = model[0].register_forward_hook(lambda *_: seen.append("after"))
    back = model[0].register_full_backward_hook(lambda *_: seen.append("back"))
    x = torch.ones(3, 20, requires_grad=True)
    for change in (lambda: sparsify(model, 0.2), lambda: densify(model)):
        change()
        model(x).sum().backward()
        assert seen == ["before", "after", "back"]
        seen.clear()
    for handle in (before, after, back):
        handle.remove()
    model(x).sum().backward()
    assert seen == []


def test_the_bias_itself_moves_so_what_shares_it_still_does() -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6))
    model[1].bias = model[0].bias
    bias = model[0].bias
    sparsify(model, 0.5)
    assert model[0].bias is model[1].bias is bias
    densify(model)
    assert model[0].bias is model[1].bias is bias


class Plain(nn.Linear):
    """Computes as a linear layer does."""


class Doubled(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


def test_a_subclass_is_replaced_unless_it_computes_in_a_way_of_its_own() -> None:
    model = sparsify(nn.Sequential(Plain(6, 6), Doubled(6, 6)), 0.5)
    assert list(regrow.sparse_layers(model)) == ["0"]
    assert type(model[1]) is Doubled


def test_globs_meet_weights_inside_a_layer() -> None:
    model = sparsify(nn.ModuleDict({"rnn": nn.GRU(4, 8)}), 0.3, exclude="*.hidden")
    assert list(regrow.sparse_layers(model)) == ["rnn.cells.0.input"]
    model = sparsify(nn.ModuleDict({"rnn": nn.GRU(4, 8)}), 0.3, include="rnn.cells.0.hidden")
    assert list(regrow.sparse_layers(model)) == ["rnn.cells.0.hidden"]


def test_topologies_may_be_given() -> None:
    topology = regrow.Topology((30, 20), torch.arange(7))
    model = sparsify(mlp(), topologies={"0": topology}, values="keep")
    assert model[0].topology == topology
    assert type(model[3]) is nn.Linear


def test_patterns_reach_every_layer() -> None:
    model = sparsify(mlp(), 0.2, pattern="fan-in", generator=seeded())
    for layer in regrow.sparse_layers(model).values():
        assert layer.topology.degrees()[0].unique().numel() == 1
    model = sparsify(mlp(), pattern=NofM(2, 5), generator=seeded())
    for layer in regrow.sparse_layers(model).values():
        assert (layer.topology.mask().unflatten(1, (-1, 5)).sum(-1) == 2).all()


def test_a_full_layer_may_be_sparse_too() -> None:
    dense = mlp()
    weight = dense[0].weight.detach().clone()
    model = sparsify(dense, 1.0, full="sparse")
    assert list(regrow.sparse_layers(model)) == ["0", "3"]
    assert torch.equal(model[0].weight, weight)


def test_on_the_meta_device_places_are_real() -> None:
    with torch.device("meta"):
        model = mlp()
    sparsify(model, 0.2, generator=seeded())
    assert model[0].values.device.type == model[0].bias.device.type == "meta"
    assert model[0].topology == sparsify(mlp(), 0.2, generator=seeded())[0].topology
    model.to_empty(device="cpu")
    trained = sparsify(mlp(), 0.3)  # another topology, taken over with the values
    model.load_state_dict(trained.state_dict())
    x = torch.randn(3, 20)
    assert torch.equal(model(x), trained(x))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"density": 0.1, "exclude": ["tail"]},
            "path glob 'tail' meets no layer that can be sparse; the model has encoder.0, enc",
        ),
        (
            {"density": 0.1, "include": ["norm"]},
            "path glob 'norm' meets no layer that can be sparse; the model has encoder.0, enc",
        ),
        (
            {"density": 0.1, "exclude": ["*"]},
            "there is no layer to make sparse: all are excluded",
        ),
        ({"density": 1.2}, "density of the allocation must be in (0, 1], got 1.2"),
        ({"density": 1e-9}, "density must leave every layer a connection"),
        ({}, "give either a density or an epsilon to allocate, not both or neither"),
        (
            {"density": 0.1, "values": "zeros"},
            "values of sparsify must be rescale, keep or init, got 'zeros'",
        ),
        ({"density": 0.1, "allocation": "best"}, "allocation must be one of uniform,"),
        (
            {"density": 0.1, "compute": "gpu"},
            "compute of SparseLinear must be one of auto, csr, dense, block, nm, got 'gpu'",
        ),
    ],
)
def test_bad_requests_are_refused_and_change_nothing(options: dict, sentence: str) -> None:
    model = Net()
    with pytest.raises(ValueError, match=re.escape(sentence)):
        sparsify(model, **options)
    assert regrow.sparse_layers(model) == {}


def test_a_model_without_such_layers_is_refused() -> None:
    sentence = "path glob '*' meets no layer that can be sparse; the model has none"
    with pytest.raises(ValueError, match=re.escape(sentence)):
        sparsify(nn.Sequential(nn.ReLU()), 0.5)


def test_a_weight_that_is_not_a_parameter_of_its_own_is_refused() -> None:
    normed = nn.utils.parametrizations.weight_norm(nn.Linear(6, 6))
    pruned = prune.l1_unstructured(nn.Linear(6, 6), "weight", 0.5)
    with pytest.warns(FutureWarning, match="weight_norm"):
        old = nn.utils.weight_norm(nn.Linear(6, 6))
    for layer in (normed, pruned, old):
        model = nn.Sequential(nn.Linear(6, 6), layer)
        sentence = "layer 1: weight must be a parameter of its own, got one that is computed by a"
        with pytest.raises(ValueError, match=sentence):
            sparsify(model, 0.5)
        assert list(regrow.sparse_layers(sparsify(model, 0.5, exclude="1"))) == ["0"]


def test_a_lazy_layer_is_refused_until_it_has_a_shape() -> None:
    model = nn.Sequential(nn.LazyLinear(6))
    with pytest.raises(
        ValueError, match="layer 0: weight must have a shape, got one that is still"
    ):
        sparsify(model, 0.5)
    model(torch.ones(1, 4))
    assert list(regrow.sparse_layers(sparsify(model, 0.5))) == ["0"]


def test_verbose_prints_what_became_of_each_weight(capsys: pytest.CaptureFixture[str]) -> None:
    model = sparsify(Net(), 0.3, exclude="head", verbose=True)
    assert capsys.readouterr().out == f"{regrow.layers.describe(model)}\n"
    sparsify(Net(), 0.3)
    assert capsys.readouterr().out == ""


def test_a_sparse_model_is_refused() -> None:
    model = sparsify(mlp(), 0.1, exclude=["3"])
    with pytest.raises(ValueError, match="layer 0 is sparse already; densify the model first"):
        sparsify(model, 0.1)
    with pytest.raises(ValueError, match="layer given is sparse already; densify the model first"):
        sparsify(SparseLinear(3, 3, density=0.5), 0.1)


def test_densify_is_the_same_function() -> None:
    model = sparsify(mlp(), 0.2, compute="csr")
    x = torch.randn(3, 20)
    expected = model(x)
    assert densify(model) is model
    assert [type(m).__name__ for m in model] == ["Linear", "ReLU", "LayerNorm", "Linear"]
    torch.testing.assert_close(model(x), expected)
    assert densify(model) is model  # nothing left to do


def test_densify_replaces_a_shared_layer_at_both_its_paths() -> None:
    layer = SparseLinear(6, 6, density=0.5)
    model = densify(nn.Sequential(layer, nn.ReLU(), layer))
    assert type(model[0]) is nn.Linear
    assert model[2] is model[0]


def test_there_and_back_keeps_the_values() -> None:
    model = sparsify(mlp(), 0.2)
    weight = model[0].weight.detach()
    again = sparsify(densify(model), 1.0)
    assert torch.equal(again[0].weight, weight)


def test_sparse_layers_in_a_row_share_their_layout() -> None:
    model = Net()
    model.more = nn.Sequential(
        *(nn.Linear(8, 8), nn.Tanh(), nn.Dropout(0.1), nn.Linear(8, 8)),
        *(nn.LayerNorm(8), nn.Linear(8, 8), nn.Flatten(), nn.Linear(8, 8)),
        *(nn.ReLU(), nn.Sequential(nn.Linear(8, 8))),
    )
    sparsify(model, 0.5, exclude="more.7", generator=seeded())
    found = {path for path, m in model.named_modules() if getattr(m, "feature_major", False)}
    assert found == {"encoder.0", "more.0"}


def test_a_shared_layout_changes_no_result() -> None:
    model = nn.Sequential(nn.Linear(50, 40), nn.ReLU(), nn.Linear(40, 30), nn.Linear(30, 4))
    sparsify(model, 0.3, allocation="uniform", compute="csr", generator=seeded())
    assert [m.feature_major for m in regrow.sparse_layers(model).values()] == [True, True, False]
    x = torch.randn(48, 50, generator=seeded())
    outcomes = []
    for wanted in (True, False):
        model[0].feature_major = model[2].feature_major = wanted
        model.zero_grad()
        y = model(x)
        y.square().sum().backward()
        outcomes.append([y, *(p.grad.clone() for p in model.parameters())])
    for one, other in zip(*outcomes, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
