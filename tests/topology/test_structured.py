"""Structured patterns: degrees, groups and blocks are exactly as asked."""

from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from regrow.topology import (
    Block,
    NofM,
    block_topology,
    fan_in_topology,
    fan_out_topology,
    nm_topology,
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(st.integers(1, 9), st.integers(1, 9), st.data())
def test_fan_in_and_fan_out_are_constant(rows: int, columns: int, data: st.DataObject) -> None:
    fan_in, fan_out = data.draw(st.integers(1, columns)), data.draw(st.integers(1, rows))
    inward = fan_in_topology((rows, columns), fan_in, generator=seeded())
    assert inward.degrees()[0].tolist() == [fan_in] * rows
    outward = fan_out_topology((rows, columns), fan_out, generator=seeded())
    assert outward.degrees()[1].tolist() == [fan_out] * columns


def test_the_rows_of_a_convolution_are_its_output_channels() -> None:
    topology = fan_in_topology((8, 4, 3, 3), 5, generator=seeded())
    assert topology.mask().sum((1, 2, 3)).tolist() == [5] * 8


@given(st.integers(1, 6), st.integers(1, 5), st.integers(1, 5), st.data())
def test_every_group_has_n_of_m(rows: int, groups: int, m: int, data: st.DataObject) -> None:
    n = data.draw(st.integers(1, m))
    topology = nm_topology((rows, groups * m), n, m, generator=seeded())
    assert bool((topology.mask().view(rows, groups, m).sum(-1) == n).all())
    assert topology.density == pytest.approx(NofM(n, m).density)


def test_all_six_forms_of_two_of_four_come_up() -> None:
    mask = nm_topology((100, 80), 2, 4, generator=seeded()).mask().view(-1, 4).int()
    codes = (mask * torch.tensor([8, 4, 2, 1])).sum(-1)
    seen = torch.bincount(codes, minlength=16)[[3, 5, 6, 9, 10, 12]].double()
    assert seen.sum() == 2000
    assert float(((seen - 2000 / 6) ** 2 / (2000 / 6)).sum()) < 5 + 6 * 10**0.5


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.data())
def test_blocks_are_whole(down: int, along: int, r: int, c: int, data: st.DataObject) -> None:
    blocks = data.draw(st.integers(1, down * along))
    topology = block_topology((down * r, along * c), blocks * r * c, Block(r, c))
    sums = topology.mask().view(down, r, along, c).sum((1, 3))
    assert int((sums == r * c).sum()) == blocks
    assert topology.nnz == blocks * r * c


def test_a_block_of_one_row_is_a_kernel_of_a_convolution() -> None:
    topology = block_topology((4, 3, 3, 3), 5 * 9, Block(1, 9), generator=seeded())
    kernels = topology.mask().sum((2, 3))
    assert sorted(kernels.view(-1).tolist()) == [0] * 7 + [9] * 5


def test_huge_shapes_take_no_dense_memory() -> None:
    side = 1_000_000
    assert fan_in_topology((50, side), 3, generator=seeded()).nnz == 150
    assert fan_out_topology((side, 50), 3, generator=seeded()).nnz == 150
    assert block_topology((side, side), 320, Block(4, 8), generator=seeded()).nnz == 320


REFUSED = [
    (lambda: fan_in_topology((3, 4), 0), "fan_in of a topology of shape (3, 4) must be in [1, 4]"),
    (lambda: fan_in_topology((3, 4), 5), "must be in [1, 4], got 5"),
    (
        lambda: fan_out_topology((3, 4), 4),
        "fan_out of a topology of shape (3, 4) must be in [1, 3]",
    ),
    (lambda: nm_topology((3, 6), 2, 4), "must be a multiple of 4, got 6 in shape (3, 6)"),
    (lambda: nm_topology((3, 8), 5, 4), "n of NofM must be in [1, m], got 5 of 4"),
    (lambda: NofM(0, 4), "n of NofM must be in [1, m], got 0 of 4"),
    (lambda: Block(0, 4), "rows and columns of Block must be at least 1, got 0 and 4"),
    (lambda: block_topology((4, 6), 4, Block(2, 4)), "must be a multiple of them, got 4 x 6"),
    (lambda: block_topology((4, 8), 12, Block(2, 4)), "multiple of 8 in [8, 32], got 12"),
    (lambda: block_topology((4, 8), 0, Block(2, 4)), "multiple of 8 in [8, 32], got 0"),
    (lambda: block_topology((4, 8), 40, Block(2, 4)), "multiple of 8 in [8, 32], got 40"),
]


@pytest.mark.parametrize(("make", "sentence"), REFUSED)
def test_what_cannot_be_is_refused(make, sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        make()
