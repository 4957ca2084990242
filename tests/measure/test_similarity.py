"""The probe of drop rules: it is right, and it leaves no trace."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from regrow import Evolution, SparseLinear, Topology
from regrow.evolution.scores import DROP_SCORES, DropScore
from regrow.evolution.trackers import AGE
from regrow.measure import drop_similarity


def network() -> nn.Sequential:
    generator = torch.Generator().manual_seed(0)
    return nn.Sequential(
        SparseLinear(20, 30, density=0.3, generator=generator, compute="csr"),
        nn.Tanh(),
        SparseLinear(30, 5, density=0.4, generator=generator, compute="csr"),
    )


def prepared(**options: object) -> tuple[nn.Sequential, Evolution, object]:
    model = network()
    optimizer = torch.optim.Adam(model.parameters())
    evolution = Evolution(model, optimizer, "rigl", every=3, until=100, **options)
    x, y = torch.randn(16, 20, generator=torch.Generator().manual_seed(1)), torch.arange(16) % 5

    def backward() -> None:
        functional.cross_entropy(model(x), y).backward()

    for _ in range(4):
        optimizer.zero_grad()
        backward()
        optimizer.step()
        evolution.step()
    return model, evolution, backward


def test_by_hand() -> None:
    layer = SparseLinear(4, 2, topology=Topology((2, 4), torch.arange(6)))
    with torch.no_grad():
        layer.values.copy_(torch.tensor([0.1, 0.2, 0.3, -0.4, -0.5, -0.6]))
    evolution = Evolution(layer, torch.optim.SGD(layer.parameters(), lr=0.1), every=None)
    rules = {
        "small": DropScore(lambda site: site.values.abs()),
        "large": DropScore(lambda site: -site.values.abs()),
        "low": DropScore(lambda site: site.values),
        "none": DropScore(lambda site: torch.full_like(site.values, torch.nan)),
    }
    found = drop_similarity(evolution, rules=rules, fraction=0.5)
    assert found.names == ("small", "large", "low", "none")
    # {0 1 2}, {3 4 5}, {3 4 5}, and the first three where all are equal.
    expected = np.eye(4)
    expected[1, 2] = expected[2, 1] = expected[0, 3] = expected[3, 0] = 1
    assert found.mean.tolist() == expected.tolist()
    assert found.of("small", "large") == 0
    a_third = drop_similarity(evolution, rules={
        "first": DropScore(lambda site: torch.arange(6.0)),
        "second": DropScore(lambda site: torch.tensor([9.0, 0, 1, 9, 9, 9])),
    }, fraction=1 / 3)  # fmt: skip
    assert a_third.of("first", "second") == pytest.approx(1 / 3)


def test_every_registered_rule_on_one_state() -> None:
    _, evolution, backward = prepared()
    found = drop_similarity(evolution, backward, fraction=0.3)
    assert {"magnitude", "sign-split", "random", "taylor"} <= set(found.names)
    assert set(found.names) | set(found.left_out) == set(DROP_SCORES)
    assert all(found.left_out.values())
    assert set(found.layers) == {"0", "2"}
    for matrix in found.layers.values():
        assert (np.diag(matrix) == 1).all()
        assert (matrix == matrix.T).all()
        assert ((matrix >= 0) & (matrix <= 1)).all()
    assert found.of("magnitude", "sign-split") > found.of("magnitude", "random")


def test_it_drops_what_an_update_drops() -> None:
    model, evolution, _ = prepared(fraction=0.25)
    clone = copy.deepcopy(model)
    optimizer = torch.optim.SGD(clone.parameters(), lr=0.1)
    parts = {"drop": "magnitude", "fraction": 0.25, "regrow": False, "every": None}
    twin = Evolution(clone, optimizer, **parts)
    twin.update()
    after = {path: site.topology.positions for path, site in twin.sites().items()}
    stayed = DropScore(lambda site: torch.isin(site.topology.positions, after[site.path]).float())
    rules = {"stayed": stayed, "magnitude": DROP_SCORES["magnitude"]}
    assert drop_similarity(evolution, rules=rules, fraction=0.25).of(*rules) == 1


def test_it_leaves_no_trace() -> None:
    model, evolution, backward = prepared()
    untouched, other, again = prepared()
    drop_similarity(evolution, backward, fraction=0.3)
    for (name, a), (_, b) in zip(
        model.named_parameters(), untouched.named_parameters(), strict=True
    ):
        assert torch.equal(a, b), name
        assert (a.grad is None) == (b.grad is None)
        assert a.grad is None or torch.equal(a.grad, b.grad)
    for run, evolve, own in ((backward, evolution, model), (again, other, untouched)):
        for _ in range(5):
            evolve.optimizer.zero_grad()
            run()
            evolve.optimizer.step()
            evolve.step()
        assert own
    for a, b in zip(model.parameters(), untouched.parameters(), strict=True):
        assert torch.equal(a, b)
    mine, theirs = evolution.state_dict(), other.state_dict()
    assert torch.equal(mine.pop("generator"), theirs.pop("generator"))
    assert mine["steps"] == theirs["steps"]


def test_chance_agrees_as_much_as_chance_does() -> None:
    layer = SparseLinear(200, 200, density=0.5)
    evolution = Evolution(layer, torch.optim.SGD(layer.parameters(), lr=0.1), every=None)
    rules = {
        "magnitude": DROP_SCORES["magnitude"],
        "order": DropScore(lambda site: torch.arange(site.topology.nnz).float()),
    }
    found = drop_similarity(evolution, rules=rules, fraction=0.4)
    assert found.of("magnitude", "order") == pytest.approx(0.4 / 1.6, abs=0.02)


def test_rules_that_cannot_be_asked() -> None:
    model = network()
    evolution = Evolution(model, torch.optim.SGD(model.parameters(), lr=0.1), every=None)
    found = drop_similarity(evolution, fraction=0.3)  # without gradients
    assert "needs the gradient" in found.left_out["taylor"]
    with pytest.raises(RuntimeError, match="needs the gradient"):
        drop_similarity(evolution, rules=["taylor"], fraction=0.3)
    with pytest.raises(ValueError, match=r"drop rule must be one of .*, got 'mask'"):
        drop_similarity(evolution, rules=["mask"])
    with pytest.raises(ValueError, match=r"fraction to drop must be in \(0, 1\), got 1.5"):
        drop_similarity(evolution, fraction=1.5)
    aged = {"old": DropScore(lambda site: site.age, tracks=(AGE,))}
    with pytest.raises(ValueError, match="does not track: age"):
        drop_similarity(evolution, rules=aged, fraction=0.3)
    with pytest.raises(ValueError, match="at least must be asked"):
        drop_similarity(evolution, rules={}, fraction=0.3)
