"""Units: a layer as a matrix of blocks that stand and fall together."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from regrow import SparseConv2d, SparseLinear, Topology
from regrow.evolution.units import Units, block_of
from regrow.topology import Block, block_topology


def layer_at(rows: int, columns: int, positions: list[int]) -> SparseLinear:
    topology = Topology((rows, columns), torch.tensor(positions))
    return SparseLinear(columns, rows, topology=topology)


def test_blocks_by_hand() -> None:
    # Blocks of 2 x 2 in a 4 x 4 weight: top right and bottom left.
    layer = layer_at(4, 4, [2, 3, 6, 7, 8, 9, 12, 13])
    units = Units(layer, Block(2, 2))
    assert units.shape == (2, 2)
    assert units.topology.positions.tolist() == [1, 2]
    scores = torch.tensor([1.0, 2.0, 3.0, 4.0, 10.0, 20.0, 30.0, 40.0])
    assert units.pooled(scores).tolist() == [2.5, 25.0]
    assert units.spread(torch.tensor([True, False])).tolist() == [True] * 4 + [False] * 4
    assert sorted(units.positions(torch.tensor([0, 3])).tolist()) == [0, 1, 4, 5, 10, 11, 14, 15]
    assert units.free == 2


@pytest.mark.parametrize(
    ("unit", "block"),
    [
        ("element", Block(1, 1)),
        ("kernel", Block(1, 6)),
        ("neuron", Block(1, 18)),
        (Block(2, 3), Block(2, 3)),
    ],
)
def test_names_of_units(unit: str | Block, block: Block) -> None:
    layer = SparseConv2d(3, 4, (2, 3), density=0.5)
    assert block_of(unit, layer) == block


def test_an_unknown_unit_is_refused() -> None:
    with pytest.raises(ValueError, match="unit must be one of element, kernel, neuron or a Block"):
        block_of("atom", layer_at(2, 2, [0]))


def test_a_kernel_of_a_linear_layer_is_one_connection() -> None:
    assert block_of("kernel", layer_at(2, 2, [0])) == Block(1, 1)


def test_what_is_not_made_of_whole_units_is_refused() -> None:
    with pytest.raises(ValueError, match="unit of 0 must divide its 3 rows and 4 columns"):
        Units(layer_at(3, 4, [0]), Block(2, 2), "0")
    sentence = "topology of 0 must be made of whole units of 2 x 2, got 4 connections in 2 units"
    with pytest.raises(ValueError, match=sentence):
        Units(layer_at(4, 4, [0, 1, 4, 6]), Block(2, 2), "0")


@given(st.data())
def test_units_equal_a_dense_oracle(data: st.DataObject) -> None:
    block = Block(data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3)))
    rows = block.rows * data.draw(st.integers(1, 4))
    columns = block.columns * data.draw(st.integers(1, 4))
    wide, high = columns // block.columns, rows // block.rows
    count = data.draw(st.integers(1, wide * high))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    topology = block_topology((rows, columns), count * block.size, block, generator=generator)
    layer = SparseLinear(columns, rows, topology=topology)
    units = Units(layer, block)
    dense = torch.rand(rows, columns, generator=generator)
    means = dense.view(high, block.rows, wide, block.columns).mean((1, 3)).view(-1)
    torch.testing.assert_close(
        units.pooled(dense.view(-1)[topology.positions]), means[units.topology.positions]
    )
    torch.testing.assert_close(units.pooled_rows(dense.view(-1)), means)
    keep = torch.rand(units.topology.nnz, generator=generator) < 0.5
    mask = torch.zeros(wide * high, dtype=torch.bool)
    mask[units.topology.positions[keep]] = True
    full = mask.view(high, 1, wide, 1).expand(-1, block.rows, -1, block.columns).reshape(-1)
    assert torch.equal(units.spread(keep), full[topology.positions])
    assert torch.equal(
        units.positions(mask.nonzero().view(-1)).sort().values, full.nonzero().view(-1)
    )
    assert units.units_of(topology) == units.topology
