"""Scope ``gate``, and positions that are closed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import regrow
from regrow import SparseGRU, SparseLSTM


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gate_counts(model: nn.Module) -> dict[str, list[int]]:
    counts = {}
    for path, layer in regrow.sparse_layers(model).items():
        degrees = layer.topology.degrees()[0]
        rows = layer.row_groups.values() or [slice(None)]
        counts[path] = [int(degrees[gate].sum()) for gate in rows]
    return counts


def trained(model: nn.Module, steps: int, **options) -> list[dict[str, list[int]]]:
    """Gate counts before training and after each step with an update."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    options = {"method": "rigl", "every": 1, "fraction": 0.4, **options}
    evolution = regrow.Evolution(model, optimizer, **options)
    counts = [gate_counts(model)]
    for step in range(steps):
        x = torch.randn(6, 4, 5, generator=seeded(step))
        model(x)[0].square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        record = evolution.step()
        assert record is not None
        assert record.dropped == record.grown > 0
        counts.append(gate_counts(model))
    return counts


@pytest.mark.parametrize("regrow_", [True, False])
@pytest.mark.parametrize("method", ["set", "rigl"])
@pytest.mark.parametrize("kind", [SparseLSTM, SparseGRU])
def test_gates_keep_their_number(kind: type[nn.Module], method: str, regrow_: bool) -> None:
    model = kind(5, 7, density=0.3, generator=seeded())
    counts = trained(model, 8, method=method, scope="gate", regrow=regrow_)
    assert all(count == counts[0] for count in counts)


def test_gates_of_a_layer_share_its_number_otherwise() -> None:
    model = SparseLSTM(5, 7, density=0.3, generator=seeded())
    counts = trained(model, 8, scope="layer")
    sums = [{path: sum(gates) for path, gates in count.items()} for count in counts]
    assert all(total == sums[0] for total in sums)
    assert counts[-1] != counts[0]


def test_growth_in_a_gate_is_by_its_own_best_positions() -> None:
    layer = regrow.SparseLinear(6, 8, density=0.25, generator=seeded())
    layer.row_groups = {"first": slice(0, 3), "second": slice(3, 8)}
    model, before = nn.Sequential(layer), layer.topology.mask()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    evolution = regrow.Evolution(
        model, optimizer, method="rigl", every=1, fraction=0.5, scope="gate", regrow=False
    )
    x, grad = torch.randn(9, 6, generator=seeded(1)), torch.randn(9, 8, generator=seeded(2))
    model(x).backward(grad)
    optimizer.step()
    evolution.step()
    score = (grad.t() @ x).abs().masked_fill(before, -1)
    grown = layer.topology.mask() & ~before
    for rows in layer.row_groups.values():
        count = round(0.5 * int(before[rows].sum()))
        best = torch.zeros(score[rows].numel(), dtype=torch.bool)
        best[score[rows].reshape(-1).topk(count).indices] = True
        assert torch.equal(grown[rows].reshape(-1), best)


def test_layers_without_gates_are_as_under_scope_layer() -> None:
    layers = [regrow.SparseLinear(6, 8, density=0.3, generator=seeded()) for _ in range(2)]
    for layer, scope in zip(layers, ("layer", "gate"), strict=True):
        model = nn.Sequential(layer)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        evolution = regrow.Evolution(model, optimizer, method="set", every=1, scope=scope)
        for step in range(4):
            model(torch.randn(5, 6, generator=seeded(step))).square().sum().backward()
            optimizer.step()
            evolution.step()
    assert layers[0].topology == layers[1].topology
    assert torch.equal(layers[0].values, layers[1].values)


def test_a_gate_with_hardly_a_free_place_drops_what_it_can_regrow() -> None:
    full = torch.arange(11)  # all but one position of the first three rows, few of the others
    layer = regrow.SparseLinear(
        4, 6, topology=regrow.Topology((6, 4), torch.cat([full, torch.tensor([13, 20])]))
    )
    layer.row_groups = {"full": slice(0, 3), "thin": slice(3, 6)}
    model = nn.Sequential(layer)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    evolution = regrow.Evolution(
        model, optimizer, method="set", every=1, fraction=0.9, scope="gate"
    )
    model(torch.ones(2, 4)).sum().backward()
    optimizer.step()
    update = evolution.step().layers["0"]
    # One of the full gate, for which there is room, and both of the thin one.
    assert (update.dropped, update.grown, update.nnz) == (3, 3, 13)
    assert [sum(layer.topology.degrees()[0][r].tolist()) for r in layer.row_groups.values()] == [
        11,
        2,
    ]


def test_pruning_by_gate_leaves_each_a_connection() -> None:
    model = SparseLSTM(5, 7, density=0.1, generator=seeded())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    evolution = regrow.Evolution(model, optimizer, every=1, scope="gate")
    evolution.prune(0.99)
    assert all(count == [1, 1, 1, 1] for count in gate_counts(model).values())


def test_a_density_schedule_is_refused_by_gate() -> None:
    model = SparseLSTM(5, 7, density=0.1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match="density of set must be None where scope is gate"):
        regrow.Evolution(model, optimizer, every=1, scope="gate", density=lambda step, until: 0.1)
