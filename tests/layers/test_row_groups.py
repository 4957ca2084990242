"""Parts of a fused weight: their rows, their share of the connections, their budgets."""

from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import regrow
from regrow.layers.row_groups import drawn_by_part, row_groups
from regrow.topology import random_topology


def counts(layer: regrow.SparseLinear) -> list[int]:
    degrees = layer.topology.degrees()[0]
    return [int(degrees[rows].sum()) for rows in layer.row_groups.values()]


@given(
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    columns=st.integers(1, 6),
    share=st.floats(0.05, 1),
)
def test_every_part_has_its_share(sizes: list[int], columns: int, share: float) -> None:
    total = sum(sizes)
    connections = max(1, round(share * total * columns))
    parts = {str(i): size for i, size in enumerate(sizes)}
    rows = row_groups({"w": parts}, {"w": (total, columns)})["w"]
    topology = drawn_by_part((total, columns), connections, rows, random_topology, None)
    degrees = topology.degrees()[0]
    assert topology.nnz == connections
    for part, size in zip(rows.values(), sizes, strict=True):
        assert abs(int(degrees[part].sum()) - connections * size / total) <= 1


@pytest.mark.parametrize(
    ("parts", "got"),
    [
        (["q", "k"], "q 4, k 4"),
        (["q", "q", "q"], "q 3"),
        ([], "none"),
        ({"q": 6, "k": 2}, "q 6, k 2"),
        ({"q": 9, "k": 0}, "q 9, k 0"),
    ],
)
def test_rows_that_cannot_be_divided_so_are_refused(parts: object, got: str) -> None:
    sentence = f"groups of w must divide its 9 rows into parts with names of their own, got {got}"
    with pytest.raises(ValueError, match=re.escape(sentence)):
        row_groups({"*": parts}, {"w": (9, 2)})


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.c_attn = nn.Linear(12, 36)
        self.c_proj = nn.Linear(36, 12)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c_proj(torch.tanh(self.c_attn(x)))


@pytest.mark.parametrize("method", ["set", "rigl"])
def test_gates_that_were_declared_keep_their_budgets(method: str) -> None:
    torch.manual_seed(0)
    model = regrow.sparsify(
        Block(), 0.25, allocation="uniform", groups={"*attn": {"q": 12, "kv": 24}}
    )
    assert list(model.c_attn.row_groups) == ["q", "kv"]
    assert not model.c_proj.row_groups
    assert counts(model.c_attn) == [36, 72]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    evolution = regrow.Evolution(model, optimizer, method=method, every=1, scope="gate")
    before = model.c_attn.topology
    for _ in range(4):
        model(torch.randn(8, 12)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        evolution.step()
    assert model.c_attn.topology != before
    assert counts(model.c_attn) == [36, 72]
