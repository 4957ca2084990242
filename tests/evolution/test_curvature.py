"""The gradient flow against the Hessian of plain torch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import regrow
from regrow.evolution.curvature import gradient_flow
from regrow.evolution.site import Site


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sparse_model() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    return regrow.sparsify(model, 0.5, compute="csr", generator=seeded())


def test_it_is_the_product_of_weight_and_hessian() -> None:
    model, x = sparse_model(), torch.randn(20, 6, generator=seeded(1), dtype=torch.float64)
    layers = regrow.sparse_layers(model)
    sites = [Site(path, layer, seeded(), fraction=0.3) for path, layer in layers.items()]
    places = [layer.topology for layer in layers.values()]
    biases = [layer.bias.detach() for layer in layers.values()]

    def loss(*values: Tensor) -> Tensor:
        weights = [
            torch.zeros(t.shape.numel(), dtype=torch.float64)
            .index_put((t.positions,), v)
            .view(t.shape)
            for t, v in zip(places, values, strict=True)
        ]
        hidden = torch.tanh(x @ weights[0].t() + biases[0])
        return (hidden @ weights[1].t() + biases[1]).square().sum()

    values = tuple(layer.values.detach().clone() for layer in layers.values())
    gradient = torch.autograd.functional.jacobian(loss, values)
    _, product = torch.autograd.functional.vhp(loss, values, gradient)
    rule = gradient_flow(lambda: model(x).square().sum(), step=1e-4)
    assert rule.count is not None
    assert rule.count(sites, 99) == [round(0.3 * site.topology.nnz) for site in sites]
    for site, value, expected in zip(sites, values, product, strict=True):
        assert torch.equal(site.values, value)
        torch.testing.assert_close(rule.score(site), value * expected, rtol=1e-5, atol=1e-6)


def test_it_drops_beside_gradient_growth_without_disturbing_it() -> None:
    x = torch.randn(20, 6, generator=seeded(1), dtype=torch.float64)
    model = sparse_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    passes = {}

    def watched(site: Site, candidates) -> Tensor:
        passes[site.path] = [len(kept.x) for kept in site.captured]
        return site.gradient(candidates).abs()

    rule = gradient_flow(lambda: (model(x[:7]) / 200).square().sum())
    evolution = regrow.Evolution(
        model, optimizer, drop=rule, grow=watched, fraction=0.3, every=1, regrow=False
    )
    for _ in range(3):
        optimizer.zero_grad()
        model(x).square().sum().backward()
        optimizer.step()
        record = evolution.step()
        assert record is not None
        assert record.dropped == record.grown > 0
        assert passes == {"0": [20], "2": [20]}
