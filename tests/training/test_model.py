"""Building the network of an arm."""

from typing import Any

import pytest
import torch
from torch import nn

from regrow import SparseLinear
from regrow.layers import sparse_layers
from regrow.training import OptionError, TrainOptions
from regrow.training.compute import decide_compute, decision_for, fix_compute
from regrow.training.model import Beginning, build_model, check_model

from .conftest import pictures, table, words


def names(model: nn.Module) -> list[str]:
    return [name for name, _ in model.named_children()]


def test_layers_and_connections() -> None:
    options = TrainOptions(hidden=(20, 30), density=0.2, dropout=0.1)
    model = build_model(options, "set", table(50, 4), seed=0)
    assert names(model) == [
        "hidden1", "relu1", "dropout1", "hidden2", "relu2", "dropout2", "output",
    ]  # fmt: skip
    layers = sparse_layers(model)
    total = sum(
        layer.topology.nnz if isinstance(layer, SparseLinear) else layer.weight.numel()
        for layer in model
        if isinstance(layer, (SparseLinear, nn.Linear))
    )
    assert total == round(0.2 * (50 * 20 + 20 * 30 + 30 * 4))
    assert "hidden1" in layers


def test_epsilon_makes_a_small_output_layer_dense() -> None:
    model = build_model(TrainOptions(hidden=(100,), epsilon=5), "set", table(64, 3), seed=0)
    assert list(sparse_layers(model)) == ["hidden1"]
    assert isinstance(model.output, nn.Linear)
    assert sparse_layers(model)["hidden1"].topology.nnz == 5 * 164


def test_dense_arm_has_torch_start() -> None:
    model = build_model(TrainOptions(hidden=(50,)), "dense", table(64, 3), seed=0)
    assert not sparse_layers(model)
    weight = model.hidden1.weight.detach()
    assert weight.abs().max() <= 1 / 8
    assert weight.std().item() == pytest.approx(1 / 8 / 3**0.5, rel=0.05)


def test_same_seed_same_network_whatever_torch_has_drawn() -> None:
    options = TrainOptions(hidden=(20,), density=0.3)
    first = build_model(options, "set", table(30, 4), seed=7)
    torch.rand(5)
    second = build_model(options, "rigl", table(30, 4), seed=7)
    other = build_model(options, "set", table(30, 4), seed=8)
    a, b, c = (model.state_dict() for model in (first, second, other))
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert not torch.equal(a["hidden1.values"], c["hidden1.values"])


def test_compute_is_decided_once_and_fixed() -> None:
    options = TrainOptions(hidden=(40,), density=0.3)
    model = build_model(options, "set", table(30, 4), seed=0)
    decided = decide_compute(model, torch.randn(16, 30), "auto")
    layers = sparse_layers(model)
    assert decided.keys() == layers.keys()
    fix_compute(model, decided)
    for path, layer in layers.items():
        assert layer.compute == decided[path][0]["compute"]
        assert layer.compute in ("csr", "dense")
    asked = decide_compute(model, torch.randn(16, 30), "csr")
    assert asked["hidden1"] == [
        {
            "connections": layers["hidden1"].topology.nnz,
            "compute": "csr",
            "reason": "asked for",
            "milliseconds": {},
        }
    ]


def test_the_decision_is_the_one_for_the_connections_there_are() -> None:
    entries = [{"connections": n, "compute": f"for {n}"} for n in (1000, 300, 100)]
    found = [decision_for(entries, n)["compute"] for n in (2000, 800, 540, 180, 170, 3)]
    assert found == ["for 1000", "for 1000", "for 300", "for 300", "for 100", "for 100"]


def test_a_density_to_fall_from_leaves_no_layer_dense() -> None:
    options = TrainOptions(hidden=(20,), density=0.1)
    model = build_model(options, "set", table(30, 4), seed=0, beginning=Beginning(1.0))
    assert list(sparse_layers(model)) == ["hidden1", "output"]
    assert all(layer.density == 1 for layer in sparse_layers(model).values())


@pytest.mark.parametrize("name", ["convnet", "resnet-20", "transformer", "lstm"])
def test_networks(name: str) -> None:
    options = TrainOptions(model=name, density=0.3, width=8, depth=2)
    text = name in ("transformer", "lstm")
    dataset = words(12, 9) if text else pictures((3, 9, 11), 4)
    model, dense = (build_model(options, arm, dataset, seed=0) for arm in ("set", "dense"))
    same = build_model(options, "rigl", dataset, seed=0).state_dict()
    assert all(torch.equal(value, same[key]) for key, value in model.state_dict().items())
    x = torch.zeros(2, 12, dtype=torch.int64) if text else torch.randn(2, 3 * 9 * 11)
    wanted = (2, 12, 9) if text else (2, 4)
    assert model(x).shape == dense(x).shape == wanted
    assert sparse_layers(model)
    kept, whole = (
        sum(
            parameter.numel()
            for path, parameter in network.named_parameters()
            if (parameter.dim() > 1 or path.endswith("values"))
            and not (text and path.startswith(("characters", "positions", "output")))
        )
        for network in (model, dense)
    )
    assert kept == round(0.3 * whole)


def test_a_resnet_of_twenty_layers() -> None:
    model = build_model(TrainOptions(model="resnet-20"), "dense", pictures((3, 32, 32), 10), 0)
    layers = [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    assert len(layers) == 20
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert round(parameters / 1e6, 2) == 0.27


def test_characters_do_not_see_what_comes() -> None:
    torch.manual_seed(0)
    for name in ("transformer", "lstm"):
        model = build_model(TrainOptions(model=name, width=8, depth=1), "dense", words(6, 5), 0)
        one, other = torch.tensor([[1, 2, 3, 4, 0, 1]]), torch.tensor([[1, 2, 3, 2, 2, 2]])
        assert torch.allclose(model(one)[:, :3], model(other)[:, :3], atol=1e-6)
        assert not torch.allclose(model(one)[:, 3:], model(other)[:, 3:], atol=1e-3)


@pytest.mark.parametrize(
    ("values", "dataset", "sentence"),
    [
        ({"model": "lstm"}, "table", "model must be another for toy, no text, got lstm"),
        ({"model": "convnet"}, "table", "model must be mlp for toy, no images, got convnet"),
        ({}, "words", "model must be transformer or lstm where text is learned, got mlp"),
        ({"augment": True}, "table", "augment must be left out for toy, no images, got true"),
    ],
)
def test_networks_that_do_not_fit(values: dict[str, Any], dataset: str, sentence: str) -> None:
    data = words(6, 5) if dataset == "words" else table(6, 5)
    with pytest.raises(OptionError) as caught:
        check_model(TrainOptions(**values), data)
    assert str(caught.value) == sentence
