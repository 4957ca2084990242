"""Building the network of an arm."""

import pytest
import torch
from torch import nn

from regrow import SparseLinear
from regrow.layers import sparse_layers
from regrow.training import TrainOptions
from regrow.training.model import build_model, decide_compute, fix_compute


def names(model: nn.Module) -> list[str]:
    return [name for name, _ in model.named_children()]


def test_layers_and_connections() -> None:
    options = TrainOptions(hidden=(20, 30), density=0.2, dropout=0.1)
    model = build_model(options, "set", 50, 4, seed=0)
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
    model = build_model(TrainOptions(hidden=(100,), epsilon=5), "set", 64, 3, seed=0)
    assert list(sparse_layers(model)) == ["hidden1"]
    assert isinstance(model.output, nn.Linear)
    assert sparse_layers(model)["hidden1"].topology.nnz == 5 * 164


def test_dense_arm_has_torch_start() -> None:
    model = build_model(TrainOptions(hidden=(50,)), "dense", 64, 3, seed=0)
    assert not sparse_layers(model)
    weight = model.hidden1.weight.detach()
    assert weight.abs().max() <= 1 / 8
    assert weight.std().item() == pytest.approx(1 / 8 / 3**0.5, rel=0.05)


def test_same_seed_same_network_whatever_torch_has_drawn() -> None:
    options = TrainOptions(hidden=(20,), density=0.3)
    first = build_model(options, "set", 30, 4, seed=7)
    torch.rand(5)
    second = build_model(options, "rigl", 30, 4, seed=7)
    other = build_model(options, "set", 30, 4, seed=8)
    a, b, c = (model.state_dict() for model in (first, second, other))
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert not torch.equal(a["hidden1.values"], c["hidden1.values"])


def test_compute_is_decided_once_and_fixed() -> None:
    options = TrainOptions(hidden=(40,), density=0.3)
    model = build_model(options, "set", 30, 4, seed=0)
    decided = decide_compute(model, torch.randn(16, 30), "auto")
    layers = sparse_layers(model)
    assert decided.keys() == layers.keys()
    fix_compute(model, decided)
    for path, layer in layers.items():
        assert layer.compute == decided[path]["compute"]
        assert layer.compute in ("csr", "dense")
    asked = decide_compute(model, torch.randn(16, 30), "csr")
    assert asked["hidden1"] == {"compute": "csr", "reason": "asked for", "milliseconds": {}}
