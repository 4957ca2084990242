"""What went into a layer and came out of it."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

import regrow
from regrow.evolution.activations import ROWS, Activations


def listening(model: nn.Module) -> Activations:
    activations = Activations(model, regrow.sparse_layers(model))
    activations.listen()
    return activations


def test_outputs_are_those_after_the_activation() -> None:
    model = nn.Sequential(
        regrow.SparseLinear(5, 4, density=0.5),
        nn.ReLU(),
        regrow.SparseLinear(4, 3, density=0.5),
    )
    activations = listening(model)
    x = torch.randn(6, 2, 5)
    y = model(x)
    hidden = torch.relu(model[0](x))
    found = activations.of("0")
    assert torch.equal(found[0], torch.cat([x.view(-1, 5)] * 2))
    assert torch.equal(found[1][:12], hidden.detach().view(-1, 4))
    assert torch.equal(activations.of("2")[0], hidden.detach().view(-1, 4))
    assert torch.equal(activations.of("2")[1], y.detach().view(-1, 3))


def test_only_training_is_seen_and_only_the_last_rows() -> None:
    layer = regrow.SparseLinear(3, 2, density=0.5)
    activations = listening(layer)
    layer.eval()
    layer(torch.zeros(4, 3))
    assert activations.of("") is None
    layer.train()
    buffer = torch.zeros(ROWS, 3)
    layer(buffer)
    buffer.fill_(9.0)  # a loop may refill its input
    layer(torch.ones(10, 3))
    inputs, outputs = activations.of("")
    assert (len(inputs), len(outputs)) == (ROWS, ROWS)
    assert inputs[:-10].max() == 0
    assert inputs[-10:].min() == 1
    activations.stop()
    assert activations.of("") is None
    layer(torch.ones(4, 3))
    assert activations.of("") is None


@pytest.mark.parametrize("axes", [1, 2])
def test_a_convolution_sees_patches(axes: int) -> None:
    kind = regrow.layers.SparseConv1d if axes == 1 else regrow.layers.SparseConv2d
    layer = kind(2, 3, 3, stride=2, padding=1, density=0.5)
    activations = listening(layer)
    y = layer(torch.randn(2, 2, *[7] * axes))
    inputs, outputs = activations.of("")
    assert torch.equal(outputs, y.detach().flatten(2).transpose(1, 2).reshape(-1, 3))
    product = inputs @ layer.weight.detach().view(3, -1).t() + layer.bias.detach()
    torch.testing.assert_close(product, outputs)


def test_copies_keep_nothing() -> None:
    layer = regrow.SparseLinear(3, 2, density=0.5)
    activations = listening(layer)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        twin(torch.ones(2, 3))
    assert activations.of("") is None


def test_other_kinds_of_layers_are_refused() -> None:
    for layer in (
        regrow.layers.SparseEmbedding(4, 3, density=0.5),
        regrow.layers.SparseConv2d(4, 4, 3, groups=2, density=0.5),
    ):
        with pytest.raises(ValueError, match=f"without groups, got {type(layer).__name__} at "):
            Activations(layer, regrow.sparse_layers(layer))
