"""Compaction: which neurons go, and that outputs and gradients of what stays are as before."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

import regrow
from regrow import SparseLinear, compact, sparsify
from regrow.topology import Topology


def linear(weight: list[list[float]], bias: list[float] | None, sparse: bool) -> nn.Module:
    """A layer in double precision; where a weight is zero there is no connection."""
    dense = torch.tensor(weight, dtype=torch.float64)
    options = {"bias": bias is not None, "dtype": torch.float64}
    if sparse:
        topology = Topology(dense.shape, dense.flatten().nonzero().squeeze(1))
        layer: Any = SparseLinear(
            dense.shape[1], dense.shape[0], topology=topology, compute="csr", **options
        )
        held, content = layer.values, dense.flatten()[topology.positions]
    else:
        layer = nn.Linear(dense.shape[1], dense.shape[0], **options)
        held, content = layer.weight, dense
    with torch.no_grad():
        held.copy_(content)
        if bias is not None:
            layer.bias.copy_(torch.tensor(bias, dtype=torch.float64))
    return layer


def shapes(model: nn.Module) -> list[tuple[int, ...]]:
    return [tuple(module.weight.shape) for module in model.modules() if hasattr(module, "weight")]


def randomised(model: nn.Module) -> nn.Module:
    """Double precision, and norms that do something."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean):
                nn.init.normal_(tensor)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return model.double().eval()


def same_function(model: nn.Module, *inputs: torch.Tensor) -> nn.Module:
    """Compact a copy; outputs and input gradients must not change."""
    smaller = compact(copy.deepcopy(model), inputs)
    given = [x.clone().requires_grad_(x.is_floating_point()) for x in inputs]
    again = [x.clone().requires_grad_(x.is_floating_point()) for x in inputs]
    y, z = model(*given), smaller(*again)
    torch.testing.assert_close(z, y)
    for net_y in (y, z):
        if net_y.requires_grad:
            (net_y * torch.arange(1.0, 1 + net_y.numel()).view_as(net_y)).sum().backward()
    for a, b in zip(given, again, strict=True):
        if a.grad is not None:
            torch.testing.assert_close(b.grad, a.grad)
    return smaller


@pytest.mark.parametrize("sparse", [True, False])
def test_neurons_by_hand(sparse: bool) -> None:
    # Hidden 0 works; 1 is read by nobody; 2 says sigmoid(0.5) always; 3 works.
    model = nn.Sequential(
        linear([[1, 2], [3, 0], [0, 0], [0, 4]], [0.1, 0.2, 0.5, 0.3], sparse),
        nn.Sigmoid(),
        linear([[1, 0, 2, 0], [0, 0, -3, 5]], [1, 2], sparse),
    )
    smaller = same_function(model, torch.randn(6, 2, dtype=torch.float64))
    assert smaller[0].weight.tolist() == [[1, 2], [0, 4]]
    assert smaller[0].bias.tolist() == [0.1, 0.3]
    assert smaller[2].weight.tolist() == [[1, 0], [0, 5]]
    said = torch.sigmoid(torch.tensor(0.5, dtype=torch.float64))
    torch.testing.assert_close(smaller[2].bias, torch.stack([1 + 2 * said, 2 - 3 * said]))
    assert type(smaller[0]) is type(model[0])


def test_gradients_of_what_stays_are_as_before() -> None:
    model = nn.Sequential(
        linear([[1, 2], [3, 0], [0, 0], [0, 4]], [0.1, 0.2, 0.5, 0.3], True),
        nn.Tanh(),
        linear([[1, 0, 2, 0], [0, 0, -3, 5]], [1, 2], True),
    )
    x = torch.randn(6, 2, dtype=torch.float64)
    smaller = compact(copy.deepcopy(model), x)
    for net in (model, smaller):
        net(x).square().sum().backward()
    kept_first = [0, 1, 3]  # 1.0, 2.0 and 4.0 of the values 1, 2, 3, 4
    torch.testing.assert_close(smaller[0].values.grad, model[0].values.grad[kept_first])
    torch.testing.assert_close(smaller[0].bias.grad, model[0].bias.grad[[0, 3]])
    torch.testing.assert_close(smaller[2].values.grad, model[2].values.grad[[0, 3]])
    torch.testing.assert_close(smaller[2].bias.grad, model[2].bias.grad)


def test_a_neuron_whose_readers_go_goes_too() -> None:
    # The only reader of hidden 0 is read by nobody; that of hidden 1 is.
    model = nn.Sequential(
        linear([[1], [2]], [0, 0], True),
        nn.ReLU(),
        linear([[1, 0], [0, 1]], [0, 0], True),
        nn.ReLU(),
        linear([[0, 1]], [0], True),
    )
    smaller = same_function(model, torch.randn(4, 1, dtype=torch.float64))
    assert shapes(smaller) == [(1, 1), (1, 1), (1, 1)]


def test_a_neuron_fed_by_constants_only_is_one() -> None:
    model = nn.Sequential(
        linear([[0], [2]], [3, 0], True),
        nn.ReLU(),
        linear([[2, 0], [0, 1]], [1, 0], True),
        nn.ReLU(),
        linear([[5, 1]], [0], True),
    )
    smaller = same_function(model, torch.randn(4, 1, dtype=torch.float64))
    assert shapes(smaller) == [(1, 1), (1, 1), (1, 1)]
    assert smaller[4].bias.tolist() == [35]


def test_the_activation_of_a_layer_counts_as_one_behind_it() -> None:
    # Hidden 0 says 3 always; hidden 1 says nothing, for its bias is negative; hidden 2 works.
    first = linear([[0], [0], [2]], [3, -4, 1], True)
    first.activation = "relu"
    model = nn.Sequential(first, linear([[5, 7, 1]], [0], True))
    smaller = same_function(model, torch.randn(4, 1, dtype=torch.float64))
    assert shapes(smaller) == [(1, 1), (1, 1)]
    assert smaller[1].bias.tolist() == [15]


def test_one_neuron_stays_where_all_could_go() -> None:
    model = nn.Sequential(linear([[0], [0]], [3, 4], True), nn.ReLU(), linear([[1, 1]], [0], True))
    smaller = same_function(model, torch.randn(4, 1, dtype=torch.float64))
    assert shapes(smaller) == [(1, 1), (1, 1)]


def test_a_constant_without_a_bias_to_go_to_stays() -> None:
    def model(constant: float) -> nn.Sequential:
        return nn.Sequential(
            linear([[0], [1]], [constant, 0], True), nn.ReLU(), linear([[1, 1]], None, True)
        )

    x = torch.randn(4, 1, dtype=torch.float64)
    assert shapes(same_function(model(3), x)) == [(2, 1), (1, 2)]
    assert shapes(same_function(model(-3), x)) == [(1, 1), (1, 1)]


ACTIVATIONS: list[Callable[[], nn.Module]] = [nn.ReLU, nn.Sigmoid, nn.Tanh, nn.GELU, nn.Softplus]


@given(
    sizes=st.lists(st.integers(1, 8), min_size=3, max_size=5),
    density=st.floats(0.05, 0.6),
    seed=st.integers(0, 1000),
    sparse=st.booleans(),
    norm=st.booleans(),
)
def test_any_perceptron(
    sizes: list[int], density: float, seed: int, sparse: bool, norm: bool
) -> None:
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for i, (inputs, outputs) in enumerate(pairwise(sizes)):
        layers += [nn.Linear(inputs, outputs)]
        if norm:
            layers += [nn.BatchNorm1d(outputs)]
        layers += [ACTIVATIONS[(seed + i) % len(ACTIVATIONS)](), nn.Dropout(0.5)]
    model = nn.Sequential(*layers)
    topologies = {
        name: regrow.topology.random_topology(
            module.weight.shape, max(1, round(density * module.weight.numel()))
        )
        for name, module in model.named_children()
        if isinstance(module, nn.Linear)
    }
    sparsify(model, topologies=topologies, compute="csr")
    model = model if sparse else regrow.densify(model)
    same_function(randomised(model), torch.randn(5, sizes[0], dtype=torch.float64))


class ConvNet(nn.Module):
    """Convolutions with a residual sum, pooling, and a linear head over all places."""

    def __init__(self, padding: int, ending: str) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 6, 3, padding=padding)
        self.norm = nn.BatchNorm2d(6)
        self.left = nn.Conv2d(6, 6, 1)
        self.right = nn.Conv2d(6, 6, 1, bias=False)
        self.pool = nn.MaxPool2d(2)
        self.last = nn.Conv2d(6, 5, 3, padding=padding)
        self.ending = ending
        size = {0: 1, 1: 4}[padding]
        self.head = nn.Linear(5 if ending == "mean" else 5 * size * size, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.norm(self.stem(x)))
        x = self.pool(torch.sigmoid(self.left(x) + self.right(x)))
        x = self.last(x).relu()
        if self.ending == "mean":
            x = functional.adaptive_avg_pool2d(x, 1)
        x = {
            "mean": lambda: x.flatten(1),
            "flatten": lambda: torch.flatten(x, 1),
            "view": lambda: x.view(x.size(0), -1),
        }[self.ending]()
        return self.head(x)


@pytest.mark.parametrize("ending", ["mean", "flatten", "view"])
@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("sparse", [True, False])
def test_convolutions_norms_sums_and_flattening(sparse: bool, padding: int, ending: str) -> None:
    went = 0
    for seed in range(6):
        torch.manual_seed(seed)
        model = sparsify(ConvNet(padding, ending), 0.06, allocation="uniform", compute="csr")
        model = randomised(model if sparse else regrow.densify(model))
        smaller = same_function(model, torch.randn(3, 2, 8, 8, dtype=torch.float64))
        assert smaller.left.weight.shape[0] == smaller.right.weight.shape[0]
        assert smaller.norm.num_features == smaller.stem.out_channels
        went += smaller.last.in_channels < 6
    assert went


def test_a_constant_channel_in_front_of_a_padded_border_stays() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(1, 2, 1), nn.Conv1d(2, 1, 3, padding=1)).double()
    with torch.no_grad():
        model[0].weight[0] = 0
        model[0].bias[0] = 1
    x = torch.randn(2, 1, 5, dtype=torch.float64)
    assert same_function(model, x)[0].out_channels == 2
    model[1].padding = (0,)
    assert same_function(model, x)[0].out_channels == 1


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inside = nn.Linear(4, 8)
        self.outside = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.outside(torch.relu(self.inside(x)))


def test_what_is_added_to_the_input_stays_and_what_is_inside_goes() -> None:
    torch.manual_seed(0)
    model = sparsify(nn.Sequential(Residual(), Residual()), 0.15, allocation="uniform").double()
    smaller = same_function(model, torch.randn(3, 4, dtype=torch.float64))
    assert smaller[0].inside.out_features < 8
    assert smaller[0].outside.out_features == 4


class Unknown(nn.Module):
    """What reads the hidden neurons besides layers is not followed, so these stay."""

    def __init__(self, read: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 6), nn.Linear(6, 2)
        self.norm = nn.LayerNorm(6)
        self.read = read

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.read(self.first(x)))


@pytest.mark.parametrize(
    "read",
    [
        lambda h: torch.softmax(h, -1),
        lambda h: h / h.norm(),
        lambda h: h.flip(-1),
        lambda h: functional.layer_norm(h, (6,)),
        lambda h: h + torch.arange(6.0, dtype=torch.float64),
        lambda h: torch.stack([h, h], 1)[:, 0],
    ],
)
def test_what_cannot_be_followed_is_left_alone(
    read: Callable[[torch.Tensor], torch.Tensor],
) -> None:
    torch.manual_seed(0)
    model = sparsify(Unknown(read), 0.15).double()
    smaller = same_function(model, torch.randn(3, 3, dtype=torch.float64))
    assert shapes(smaller)[0] == (6, 3)


class InPlace(nn.Module):
    """An activation that overwrites what is read once more."""

    def __init__(self, step: str) -> None:
        super().__init__()
        self.first = linear([[0], [1]], [-1, 0], True)
        self.last = linear([[1, 1]], [0], True)
        self.step = {
            "module": nn.ReLU(inplace=True),
            "function": lambda h: functional.relu(h, inplace=True),
            "sum": lambda h: operator.iadd(h, 1),
            "view": lambda h: functional.relu(torch.flatten(h, 1), inplace=True),
        }[step]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.first(x)
        y = self.step(h)
        return self.last(h) + self.last(y) if self.training else self.last(h)


@pytest.mark.parametrize("step", ["module", "function", "sum", "view"])
def test_what_is_overwritten_is_not_taken_for_known(step: str) -> None:
    with torch.no_grad():
        x = torch.randn(4, 1, dtype=torch.float64)
        model = InPlace(step).eval()
        wanted = model(x)
        torch.testing.assert_close(compact(model, x)(x), wanted)


def test_steps_in_place_are_followed_where_nobody_else_reads() -> None:
    model = nn.Sequential(
        linear([[0], [1]], [-1, 0], True), nn.ReLU(inplace=True), linear([[1, 1]], [0], True)
    )
    smaller = same_function(model, torch.randn(4, 1, dtype=torch.float64))
    assert shapes(smaller) == [(1, 1), (1, 1)]


def test_shared_layers_and_tied_weights_are_left_alone() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(6, 6)
    twice = sparsify(nn.Sequential(nn.Linear(3, 6), layer, nn.ReLU(), layer), 0.1).double()
    assert shapes(same_function(twice, torch.randn(3, 3, dtype=torch.float64)))[1] == (6, 6)
    tied = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6))
    tied[2].weight = tied[0].weight
    sparsify(tied, 0.1).double()
    assert shapes(same_function(tied, torch.randn(3, 6, dtype=torch.float64)))[0] == (6, 6)


def test_sequences_and_groups_of_channels() -> None:
    torch.manual_seed(0)
    model = sparsify(nn.Sequential(nn.Linear(3, 9), nn.GELU(), nn.Linear(9, 2)), 0.15).double()
    smaller = same_function(model, torch.randn(2, 5, 3, dtype=torch.float64))
    assert smaller[0].out_features < 9
    grouped = nn.Sequential(nn.Conv1d(2, 8, 1), nn.Conv1d(8, 8, 3, groups=4), nn.Conv1d(8, 2, 1))
    sparsify(grouped, 0.2).double()
    smaller = same_function(grouped, torch.randn(2, 2, 5, dtype=torch.float64))
    assert (smaller[1].in_channels, smaller[1].out_channels) == (8, 8)


def test_modes_hooks_frozen_values_and_parts_are_kept() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 12), nn.ReLU(), nn.Dropout(0.5), nn.Linear(12, 2))
    sparsify(model, 0.15, groups={"0": ["a", "b", "c"]}, allocation="uniform")
    model[0].values.requires_grad_(False)
    model[2].eval()
    seen = []
    model[0].register_forward_hook(lambda *_: seen.append(1))
    before = dict(model[0].row_groups)
    degrees = model[0].topology.degrees()[0]
    compact(model, torch.randn(1, 3))
    assert [module.training for module in model] == [True, True, False, True]
    assert model[0].training
    seen.clear()
    model(torch.randn(2, 3))
    assert seen == [1]
    assert not model[0].values.requires_grad
    assert model[0].bias.requires_grad
    left = {name: rows.stop - rows.start for name, rows in model[0].row_groups.items()}
    assert sum(left.values()) == model[0].out_features < 12
    assert all(left[name] <= int((degrees[before[name]] > 0).sum()) for name in left)


def test_a_compacted_model_trains_and_evolves() -> None:
    torch.manual_seed(0)
    model = sparsify(nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 2)), 0.15)
    x = torch.randn(16, 8)
    compact(model, x)
    assert model[0].out_features < 60
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    evolution = regrow.Evolution(model, optimizer, method="rigl", every=1, fraction=0.5)
    model(x).square().sum().backward()
    optimizer.step()
    assert evolution.step().grown


def test_a_model_that_cannot_be_traced_is_refused() -> None:
    class Branching(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(
        ValueError, match=r"model to compact must be one that torch\.fx can trace, got: "
    ):
        compact(Branching(), torch.ones(2))
