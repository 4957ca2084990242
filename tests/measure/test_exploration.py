"""The exploration rate against brute force."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import nn

import regrow
from regrow import Evolution, SparseLinear, Topology
from regrow.measure import Exploration, expected_exploration


def model_of(*shapes: tuple[int, int]) -> nn.Sequential:
    generator = torch.Generator().manual_seed(0)
    return nn.Sequential(
        *(SparseLinear(b, a, density=0.2, generator=generator, compute="csr") for a, b in shapes)
    )


def test_by_hand() -> None:
    layer = SparseLinear(4, 3, topology=Topology((3, 4), torch.tensor([0, 1])))
    exploration = Exploration(layer)
    assert exploration.rates() == {"": 2 / 12}
    for positions, tried in (([0, 1], 2), ([1, 5], 3), ([7, 8, 9], 6), ([0, 1], 6)):
        count = len(positions)
        layer.set_topology(Topology((3, 4), torch.tensor(positions)), torch.ones(count))
        exploration.update()
        exploration.update()  # counting twice changes nothing
        assert exploration.total() == tried / 12


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_equals_the_union_of_all_masks(scope: str) -> None:
    model = model_of((10, 8), (6, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    evolution = Evolution(model, optimizer, "set", every=1, scope=scope)
    exploration = Exploration(model)
    union = {path: layer.topology.mask() for path, layer in regrow.sparse_layers(model).items()}
    before = exploration.total()
    for _ in range(5):
        optimizer.step()
        evolution.step()
        exploration.update()
        for path, layer in regrow.sparse_layers(model).items():
            union[path] |= layer.topology.mask()
    assert exploration.rates() == {path: int(m.sum()) / m.numel() for path, m in union.items()}
    assert exploration.total() == sum(int(m.sum()) for m in union.values()) / 140
    assert before == round(0.2 * 80) / 140 + round(0.2 * 60) / 140
    assert exploration.total() > before


def test_random_growth_explores_as_the_formula_says() -> None:
    layer = SparseLinear(100, 80, density=0.1, generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    evolution = Evolution(layer, optimizer, "set", every=1, fraction=0.3)
    exploration = Exploration(layer)
    for _ in range(20):
        optimizer.step()
        evolution.step()
        exploration.update()
    assert abs(exploration.total() - expected_exploration(0.1, [0.3] * 20)) < 0.02


def test_state_goes_on_where_it_was() -> None:
    model = model_of((10, 8))
    exploration = Exploration(model)
    state = exploration.state_dict()
    before = exploration.total()
    model[0].set_topology(Topology((10, 8), torch.arange(70)), torch.ones(70))
    exploration.update()
    assert exploration.total() > before
    resumed = Exploration(model_of((10, 8)))
    resumed.load_state_dict(state)  # what it was when it was asked for
    assert resumed.total() == before
    resumed.load_state_dict(exploration.state_dict())
    assert resumed.rates() == exploration.rates()
    resumed.update()
    assert exploration.tried("0").sum() == exploration.total() * 80


def test_state_of_another_model_is_refused() -> None:
    sentence = "exploration state must have {'0': (10, 8)}, got {'0': (6, 8)}"
    with pytest.raises(ValueError, match=re.escape(sentence)):
        Exploration(model_of((10, 8))).load_state_dict(Exploration(model_of((6, 8))).state_dict())


@pytest.mark.parametrize("shape", [(3, 5), (1, 1), (8, 8), (7, 9)])
def test_a_position_is_a_bit(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    size = shape[0] * shape[1]
    layer = SparseLinear(shape[1], shape[0], density=0.3)
    exploration = Exploration(layer)
    assert exploration.nbytes == (size + 7) // 8
    union = layer.topology.mask()
    for _ in range(6):
        count = int(torch.randint(1, size + 1, (1,), generator=generator))
        positions = torch.randperm(size, generator=generator)[:count]
        layer.set_topology(Topology(shape, positions), torch.ones(count))
        exploration.update()
        union |= layer.topology.mask()
        assert torch.equal(exploration.tried(""), union)
        assert exploration.total() == int(union.sum()) / size


def test_marks_in_tiles_that_share_a_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regrow.measure.exploration._TILE", 3)
    layer = SparseLinear(16, 2, topology=Topology((2, 16), torch.arange(0, 32, 2)))
    exploration = Exploration(layer)
    assert exploration.total() == 0.5
    assert torch.equal(exploration.tried(""), layer.topology.mask())


def test_state_survives_a_file(tmp_path: Path) -> None:
    exploration = Exploration(model_of((10, 8)))
    torch.save(exploration.state_dict(), tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    resumed = Exploration(model_of((10, 8)))
    resumed.load_state_dict(state)
    assert resumed.rates() == exploration.rates()


def test_expected_exploration() -> None:
    assert expected_exploration(0.25, []) == 0.25
    assert expected_exploration(1.0, [0.5]) == 1.0
    # Half of 2 of 4 goes; one of the 3 free positions comes: a position of the 2 untried, 2/3.
    assert expected_exploration(0.5, [0.5]) == pytest.approx(0.5 + (2 / 3) / 4)
