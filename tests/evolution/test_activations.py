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


def test_a_look_sees_whole_passes_in_evaluation_until_the_next_update() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        regrow.SparseLinear(5, 4, density=0.5),
        nn.ReLU(),
        nn.Dropout(0.5),
        regrow.SparseLinear(4, 3, density=0.5),
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    evolution = regrow.Evolution(model, optimizer, "ctre", every=1)
    x = torch.randn(3 * ROWS, 5)
    model(torch.zeros(8, 5)).sum().backward()
    optimizer.step()
    softmax = nn.Softmax(1)
    evolution.look(lambda: [softmax(model(part)) for part in x.split(1000)])
    assert all(module.training for module in model.modules() if module is not softmax)
    hidden = torch.relu(model[0](x)).detach()
    seen = evolution._activations
    assert seen is not None
    torch.testing.assert_close(seen.of("0"), (x, hidden))
    torch.testing.assert_close(seen.of("3"), (hidden, model[3](hidden).detach().softmax(1)))
    torch.testing.assert_close(seen.state_dict()["looked"]["0"], [x, hidden])
    again = regrow.Evolution(model, optimizer, "ctre", every=1)
    again.load_state_dict(evolution.state_dict())
    assert again._activations is not None
    torch.testing.assert_close(again._activations.of("0"), (x, hidden))
    assert evolution.step() is not None
    assert seen.of("0")[0].shape[0] == ROWS  # those of training again
    for method in ("set", "rigl"):
        regrow.Evolution(model, optimizer, method, every=None).look(
            lambda: 1 / 0
        )  # is not even called


def test_a_look_decides_what_grows() -> None:
    layer = regrow.SparseLinear(3, 2, topology=regrow.Topology((2, 3), torch.tensor([0, 4])))
    with torch.no_grad():
        layer.values.copy_(torch.tensor([0.1, 1.0]))
        layer.bias.zero_()
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    evolution = regrow.Evolution(layer, optimizer, "cte", every=None, fraction=0.5)
    # Outputs are 0.1 of input 0 and 1 of input 1; input 2 is input 0 turned round.
    column = torch.tensor([1.0, -2.0, 3.0])
    x = torch.stack([column, torch.tensor([5.0, 1.0, -1.0]), -column], dim=1)
    evolution.look(lambda: layer(x))
    evolution.update()
    # The weakest, at 0, is as similar as 2 is, and comes first; with its value.
    assert layer.topology.positions.tolist() in ([0, 4], [2, 4])


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
