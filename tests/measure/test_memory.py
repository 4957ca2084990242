"""Bytes held, tensor by tensor."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from regrow import Evolution, SparseLinear
from regrow.evolution.scores import DropScore
from regrow.evolution.trackers import AGE
from regrow.measure import memory


def trained(optimizer: str, compute: str = "csr") -> tuple[nn.Module, torch.optim.Optimizer]:
    model = nn.Sequential(
        SparseLinear(30, 20, density=0.1, compute=compute), nn.BatchNorm1d(20), nn.Linear(20, 5)
    )
    made: torch.optim.Optimizer = {
        "sgd": lambda: torch.optim.SGD(model.parameters(), lr=0.1),
        "momentum": lambda: torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
        "adam": lambda: torch.optim.Adam(model.parameters()),
    }[optimizer]()
    model(torch.randn(4, 30)).sum().backward()
    made.step()
    return model, made


@pytest.mark.parametrize(("optimizer", "moments"), [("sgd", 0), ("momentum", 1), ("adam", 2)])
def test_by_hand(optimizer: str, moments: int) -> None:
    model, made = trained(optimizer)
    found = memory(model, made)
    sparse, norm, head = found.layers
    steps = 4 if optimizer == "adam" else 0  # for each parameter a count of steps
    assert sparse.values == sparse.gradients == 4 * (60 + 20)
    assert sparse.row_order == 4 * 60 + 8 * 21
    assert sparse.column_order == 8 * 60 + 8 * 31
    assert sparse.optimizer == moments * 4 * 80 + 2 * steps
    assert norm.buffers == 4 * 40 + 8
    assert (head.path, head.values, head.gradients) == ("2", 4 * 105, 4 * 105)
    assert (head.row_order, head.column_order) == (0, 0)
    assert found.total == sum(layer.total for layer in found.layers)
    indices = sparse.row_order + sparse.column_order
    twin = found.total - indices + (2 + moments) * 4 * (600 - 60)
    assert found.dense_twin == twin


def test_before_a_pass_there_is_no_column_order_and_no_gradient() -> None:
    layer = SparseLinear(30, 20, density=0.1, compute="csr")
    found = memory(layer).layers[0]
    assert (found.column_order, found.gradients, found.optimizer) == (0, 0, 0)
    assert memory(layer).dense_twin == 4 * (600 + 20)


def test_dense_compute_needs_no_column_order() -> None:
    model, made = trained("sgd", "dense")
    assert memory(model, made).layers[0].column_order == 0


def test_what_is_shared_counts_once() -> None:
    first = SparseLinear(8, 8, density=0.5, compute="csr")
    second = SparseLinear(8, 8, topology=first.topology, compute="csr")
    found = memory(nn.ModuleList([first, second])).layers
    assert (found[0].row_order, found[1].row_order) == (4 * 32 + 8 * 9, 0)
    second.values = first.values
    found = memory(nn.ModuleList([first, second])).layers
    assert (found[0].values, found[1].values) == (4 * 40, 4 * 8)
    assert len(memory(nn.ModuleList([first, first])).layers) == 1


def test_what_the_evolution_keeps() -> None:
    model, made = trained("sgd")
    plain = Evolution(model, made, "set", every=1)
    tracking = Evolution(model, made, every=1, drop=DropScore(lambda site: site.age, tracks=(AGE,)))
    made.step()
    base = memory(model, made, plain).evolution
    assert base == plain.state_dict()["generator"].nbytes
    assert memory(model, made, tracking).evolution == base + 4 * 60
    assert memory(model, made).evolution == 0


def test_table_and_plain_values() -> None:
    model, made = trained("adam")
    found = memory(model, made, Evolution(model, made, "set", every=1))
    lines = str(found).splitlines()
    assert lines[0].split()[:4] == ["layer", "values", "row", "order"]
    assert lines[-2].startswith("evolution")
    assert lines[-1].startswith("total")
    assert lines[-1].endswith(f"{found.total:,}")
    assert len({len(line) for line in lines}) == 1
    plain = json.loads(json.dumps(found.to_dict()))
    assert plain["total"] == found.total
    assert plain["layers"][0]["values"] == 320
