"""The table of weights: what is listed, once each, with parts and ties."""

from __future__ import annotations

import torch
from torch import nn

import regrow
from regrow import SparseEmbedding, SparseLinear, describe, sparsify, tie
from regrow.topology import Topology


def test_a_table_by_hand() -> None:
    model = nn.Sequential(
        SparseLinear(3, 4, topology=Topology((4, 3), torch.tensor([0, 4, 5, 11]))),
        nn.LayerNorm(4),
        nn.Linear(4, 2, bias=False),
    )
    model[0].row_groups = {"a": slice(0, 1), "b": slice(1, 4)}
    assert str(describe(model)).splitlines() == [
        "weight    kind          shape  connections  density",
        "0         SparseLinear  4x3    4            0.3333   a 1, b 3",
        "2.weight  Linear        2x4    8            1",
        "total                          12           0.6",
    ]


def test_what_is_shared_is_there_once() -> None:
    table, head = SparseEmbedding(6, 4, density=0.5), SparseLinear(4, 6, density=0.5)
    tie(table, head)
    dense = nn.Linear(4, 4)
    again = nn.Linear(4, 4)
    again.weight = dense.weight
    model = nn.ModuleDict({"table": table, "head": head, "dense": dense, "again": again})
    rows = {weight.path: weight.note for weight in describe(model).weights}
    assert rows == {"table": "tied to head", "dense.weight": "tied to again.weight"}


def test_every_kind_of_weight_has_a_row() -> None:
    model = nn.ModuleDict(
        {
            "attention": nn.MultiheadAttention(4, 2),
            "rnn": nn.GRU(4, 4),
            "conv": nn.Conv1d(4, 4, 3),
            "lazy": nn.LazyLinear(3),
        }
    )
    before = {weight.path: weight.shape for weight in describe(model).weights}
    assert before == {
        "attention.in_proj_weight": (12, 4),
        "attention.out_proj.weight": (4, 4),
        "rnn.weight_ih_l0": (12, 4),
        "rnn.weight_hh_l0": (12, 4),
        "conv.weight": (4, 4, 3),
    }
    sparsify(model, 0.5, exclude="lazy")
    weights = describe(model).weights
    assert [weight.path for weight in weights] == list(regrow.sparse_layers(model))
    assert all(0 < weight.density < 1 for weight in weights)


def test_one_layer_and_none() -> None:
    assert "given   SparseLinear  2x4" in str(describe(SparseLinear(4, 2, density=0.5)))
    assert str(describe(nn.ReLU())).splitlines()[1].split() == ["total", "0", "1"]
