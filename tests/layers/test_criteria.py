"""Criteria by hand and against plain torch; as numbers of connections and as positions."""

from __future__ import annotations

import copy
import re
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import regrow
from regrow.layers.criteria import Grasp, Magnitude, Snip, SynFlow, highest, scores_of


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def mlp(dtype: torch.dtype = torch.float64) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).to(dtype)


def batch(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    return torch.randn(6, 5, generator=seeded(), dtype=dtype), torch.tensor([0, 1, 2, 0, 1, 2])


def linear_weights(model: nn.Module) -> dict[str, Tensor]:
    return {
        path: module.weight.detach()
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear)
    }


def test_snip_by_hand() -> None:
    # y = w x, loss y^2 / 2, so g = y x.
    model = nn.Sequential(nn.Linear(2, 1, bias=False))
    model[0].weight.data = torch.tensor([[2.0, -3.0]])
    half_square = lambda y, _: 0.5 * y.square().sum()  # noqa: E731
    pairs = [(torch.tensor([[1.0, 3.0]]), torch.zeros(1))]
    # y = 2 - 9 = -7; g = y x = (-7, -21); |w g| = (14, 63).
    found = scores_of(Snip(half_square, pairs), model, linear_weights, 0.5)
    assert found["0"].tolist() == [[14.0, 63.0]]
    # Gradients of batches are summed before the size is taken: y = 7 at (2, -1), g = (14, -7).
    pairs.append((torch.tensor([[2.0, -1.0]]), torch.zeros(1)))
    found = scores_of(Snip(half_square, pairs), model, linear_weights, 0.5)
    assert found["0"].tolist() == [[14.0, 84.0]]


def test_grasp_by_hand() -> None:
    # One weight pair, loss y^2 / 2 with y = w x: H = x x^T, g = y x, H g = y |x|^2 x.
    model = nn.Sequential(nn.Linear(2, 1, bias=False))
    model[0].weight.data = torch.tensor([[2.0, -3.0]])
    grasp = Grasp(
        lambda y, _: 0.5 * y.square().sum(), [(torch.tensor([[1.0, 3.0]]), torch.zeros(1))], 1.0
    )
    # y = -7, |x|^2 = 10, H g = -70 (1, 3); w H g = (-140, 630).
    assert scores_of(grasp, model, linear_weights, 0.5)["0"].tolist() == [[-140.0, 630.0]]


def test_grasp_is_the_hessian_of_plain_torch() -> None:
    model, (x, y) = mlp(), batch()
    halves = [(x[:3], y[:3]), (x[3:], y[3:])]
    names = [name for name, _ in model.named_parameters()]

    def loss(*parameters: Tensor) -> Tensor:
        held = dict(zip(names, parameters, strict=True))
        return sum(
            F.cross_entropy(torch.func.functional_call(model, held, (a,)) / 200, b)
            for a, b in halves
        )

    parameters = tuple(p.detach() for p in model.parameters())
    gradient = torch.autograd.functional.jacobian(loss, parameters)
    _, product = torch.autograd.functional.vhp(loss, parameters, gradient)
    found = scores_of(Grasp(F.cross_entropy, halves), model, linear_weights, 0.5)
    torch.testing.assert_close(found["0"], parameters[0] * product[0])
    torch.testing.assert_close(found["2"], parameters[2] * product[2])


def test_synflow_by_hand() -> None:
    # R = sum over paths of the products; of layer a (2x2) and b (1x2), inputs 1.
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 1, bias=False))
    model[0].weight.data = torch.tensor([[1.0, -2.0], [3.0, 0.5]])
    model[1].weight.data = torch.tensor([[-2.0, 1.0]])
    found = scores_of(SynFlow(torch.ones(1, 2), rounds=1), model, linear_weights, 1.0)
    assert found["0"].tolist() == [[2.0, 4.0], [3.0, 0.5]]
    assert found["1"].tolist() == [[6.0, 3.5]]


def test_synflow_in_rounds_is_a_plain_loop() -> None:
    model, rounds, density = mlp(), 7, 0.3
    weights = [model[0].weight.detach().abs(), model[2].weight.detach().abs()]
    biases = [model[0].bias.detach().abs(), model[2].bias.detach().abs()]
    masks = [torch.ones_like(w) for w in weights]
    for i in range(1, rounds + 1):
        a, b = (w.clone().requires_grad_() for w in weights)
        out = torch.tanh(torch.ones(1, 5, dtype=torch.float64) @ (a * masks[0]).t() + biases[0])
        (out @ (b * masks[1]).t() + biases[1]).sum().backward()
        scores = [(w * w.grad).detach().abs() for w in (a, b)]
        level = torch.cat([s.view(-1) for s in scores]).sort(descending=True).values
        level = level[round(density ** (i / rounds) * 32) - 1]
        masks = [(s >= level).double() for s in scores]
    synflow = SynFlow(torch.ones(1, 5), rounds)
    sparse = regrow.sparsify(copy.deepcopy(model), density, allocation=synflow, pattern=synflow)
    for path, mask in zip(("0", "2"), masks, strict=True):
        assert torch.equal(sparse.get_submodule(path).topology.mask(), mask.bool())


def test_synflow_leaves_no_layer_empty_where_one_shot_does() -> None:
    torch.manual_seed(0)
    widths = [40, 200, 4, 200, 10]
    layers = [nn.Linear(a, b) for a, b in pairwise(widths)]
    model = nn.Sequential(*layers)
    synflow = SynFlow(torch.ones(1, 40))
    sparse = regrow.sparsify(model, 0.01, allocation=synflow, pattern=synflow)
    rows, columns = zip(*(m.topology.degrees() for m in sparse), strict=True)
    # Every neuron that hears something is heard, but for the rounding of single layers.
    for heard, hears in zip(columns[1:], rows[:-1], strict=True):
        assert int(((hears > 0) != (heard > 0)).sum()) <= 2


CRITERIA = {
    "magnitude": Magnitude(),
    "snip": Snip(F.cross_entropy, [batch()]),
    "grasp": Grasp(F.cross_entropy, [batch()]),
    "synflow": SynFlow(torch.ones(1, 5), rounds=5),
}


@pytest.mark.parametrize("name", CRITERIA)
def test_numbers_and_positions_are_those_of_the_highest_scores(name: str) -> None:
    model, criterion = mlp(), CRITERIA[name]
    before = copy.deepcopy(model.state_dict())
    scores = scores_of(criterion, model, linear_weights, 0.4)
    assert all(torch.equal(before[key], entry) for key, entry in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    flat = torch.cat([score.view(-1) for score in scores.values()])
    level = flat.sort(descending=True).values[round(0.4 * 32) - 1]
    masks = {path: score >= level for path, score in scores.items()}
    both = regrow.sparsify(mlp(), 0.4, allocation=criterion, pattern=criterion)
    numbers = regrow.sparsify(mlp(), 0.4, allocation=criterion, generator=seeded(1))
    positions = regrow.sparsify(mlp(), 0.4, allocation="uniform", pattern=criterion)
    alone = regrow.sparsify(mlp(), 0.4, pattern=criterion)
    for path, mask in masks.items():
        assert torch.equal(both.get_submodule(path).topology.mask(), mask), path
        assert both.get_submodule(path).topology == alone.get_submodule(path).topology
        drawn = numbers.get_submodule(path).topology
        assert drawn.nnz == int(mask.sum())
        own = positions.get_submodule(path).topology
        assert own.nnz == round(0.4 * mask.numel())
        assert own == highest(scores[path], own.nnz)
    assert any(
        numbers.get_submodule(path).topology != both.get_submodule(path).topology for path in masks
    )


def test_an_epsilon_may_have_its_positions_from_a_criterion() -> None:
    model = mlp()
    sparse = regrow.sparsify(mlp(), epsilon=1.0, pattern="magnitude", values="keep")
    assert sparse[0].topology.nnz == 9
    largest = model[0].weight.detach().abs().view(-1).topk(9).indices.sort().values
    assert torch.equal(sparse[0].topology.positions, largest)
    with pytest.raises(ValueError, match="an epsilon is shared as er or erk does"):
        regrow.sparsify(mlp(), epsilon=1.0, allocation="magnitude")


def kinds() -> dict[str, tuple[nn.Module, Tensor]]:
    torch.manual_seed(0)
    ids = torch.randint(9, (4, 3), generator=seeded())
    return {
        "convolution": (
            nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3)),
            torch.randn(4, 3, 7, 7, generator=seeded()),
        ),
        "embedding": (nn.Sequential(nn.Embedding(9, 6), nn.Linear(6, 4)), ids),
        "lstm": (Last(nn.LSTM(5, 4, batch_first=True)), torch.randn(4, 3, 5, generator=seeded())),
        "attention": (Attention(), torch.randn(4, 3, 8, generator=seeded())),
    }


class Last(nn.Module):
    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)[0]


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x, x, x)[0]


@pytest.mark.parametrize("kind", kinds())
@pytest.mark.parametrize("name", ["magnitude", "snip"])
def test_every_kind_of_layer_is_judged_by_its_own_weights(kind: str, name: str) -> None:
    model, x = kinds()[kind]
    statistics = copy.deepcopy(dict(model.named_buffers()))
    criteria = {"magnitude": Magnitude(), "snip": Snip(lambda y, _: y.square().sum(), [(x, x)])}
    sparse = regrow.sparsify(
        copy.deepcopy(model),
        0.3,
        allocation=criteria[name],
        pattern=criteria[name],
        values="keep",
    )
    for buffer, entry in model.named_buffers():
        assert torch.equal(entry, statistics[buffer])
    layers = regrow.sparse_layers(sparse)
    assert sum(layer.topology.nnz for layer in layers.values()) == round(
        0.3 * sum(layer.topology.shape.numel() for layer in layers.values())
    )
    if name == "magnitude":  # what is kept is larger than all that is not, over all layers
        shared = [layer for layer in layers.values() if layer.topology.nnz > 1]
        smallest = min(float(layer.values.detach().abs().min()) for layer in shared)
        again = regrow.densify(copy.deepcopy(sparse)).state_dict()
        for key, dense in model.state_dict().items():
            if key in again and dense.dim() > 1:
                gone = dense[(again[key] == 0)]
                assert gone.numel() == 0 or float(gone.abs().max()) <= smallest


def test_scores_that_are_no_numbers_are_refused() -> None:
    model = mlp()
    with torch.no_grad():
        model[0].weight[0, 0] = torch.nan
    sentence = "scores of Magnitude in 0 must be finite, got 1 others"
    with pytest.raises(ValueError, match=re.escape(sentence)):
        regrow.sparsify(model, 0.4, pattern="magnitude")
