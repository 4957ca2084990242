"""Small worlds and scale-free topologies: exact counts, degrees, and what makes them so."""

from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from regrow import Topology
from regrow.topology.networks import (
    power_law_degrees,
    scale_free_topology,
    small_world_topology,
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


MAKERS = {
    "lattice": lambda shape, n: small_world_topology(shape, n, rewired=0, generator=seeded(n)),
    "small world": lambda shape, n: small_world_topology(shape, n, generator=seeded(n)),
    "moved all": lambda shape, n: small_world_topology(shape, n, rewired=1, generator=seeded(n)),
    "scale-free": lambda shape, n: scale_free_topology(shape, n, generator=seeded(n)),
}


@pytest.mark.parametrize("name", MAKERS)
@given(st.integers(1, 9), st.integers(1, 9), st.data())
def test_counts_are_exact(name: str, rows: int, columns: int, data: st.DataObject) -> None:
    connections = data.draw(st.integers(1, rows * columns))
    topology = MAKERS[name]((rows, columns), connections)
    assert topology.nnz == connections
    assert Topology((rows, columns), topology.positions) == topology
    if name != "scale-free":  # nearly a constant fan-in
        degrees = topology.degrees()[0]
        assert int(degrees.max() - degrees.min()) <= 1


def test_a_lattice_by_hand() -> None:
    # Rows at 1/4 and 3/4 of the ring of four columns, three connections each: around 1, around 3.
    lattice = small_world_topology((2, 4), 6, rewired=0.0)
    assert lattice.mask().int().tolist() == [[1, 1, 1, 0], [1, 0, 1, 1]]


def test_the_chance_says_how_many_move_and_where_to() -> None:
    shape, connections = (200, 500), 4000
    lattice = small_world_topology(shape, connections, rewired=0.0)
    small = small_world_topology(shape, connections, rewired=0.25, generator=seeded())
    stayed = int((lattice.mask() & small.mask()).sum())
    assert abs(stayed / connections - 0.75) < 6 * (0.25 * 0.75 / connections) ** 0.5
    # What moved lies anywhere in its row: as often in the half round the row as in the other.
    moved = (small.mask() & ~lattice.mask()).nonzero()
    distance = (moved[:, 1] - (2 * moved[:, 0] + 1) * 500 // 400).abs()
    near = (distance.minimum(500 - distance) < 125).double().mean()
    assert abs(near - (0.5 - 0.04 / 2) / 0.96) < 6 * 0.5 / len(moved) ** 0.5 + 0.01


def test_degrees_of_a_power_law_by_hand() -> None:
    # Exponent 2: in proportion to 1, 1/2, 1/3, 1/4; of 25 in all, 12, 6, 4, 3.
    assert sorted(power_law_degrees(4, 25, 100, 2.0, seeded()).tolist()) == [3, 4, 6, 12]
    # None above 8: the first gives 4 away, and the others share 17 as 6 : 4 : 3.
    cut = sorted(power_law_degrees(4, 25, 8, 2.0, seeded()).tolist())
    assert (cut[3], sum(cut)) == (8, 25)
    assert cut[:3] == [4, 5, 8]


@given(st.integers(1, 30), st.integers(1, 30), st.floats(1.05, 6), st.data())
def test_degrees_are_in_range(count: int, most: int, exponent: float, data: st.DataObject) -> None:
    total = data.draw(st.integers(0, count * most))
    degrees = power_law_degrees(count, total, most, exponent, seeded())
    assert int(degrees.sum()) == total
    assert int(degrees.max()) <= most
    assert int(degrees.min()) >= (1 if total >= count else 0)


def test_both_sides_have_the_degrees_that_were_drawn() -> None:
    shape, connections = (300, 400), 3000
    topology = scale_free_topology(shape, connections, exponent=2.5, generator=seeded())
    for degrees, most in zip(topology.degrees(), shape[::-1], strict=True):
        wanted = power_law_degrees(len(degrees), connections, most, 2.5, seeded())
        gap = degrees.sort().values - wanted.sort().values
        assert int(gap.abs().sum()) <= 0.01 * connections  # but for pairs that were met too often
        # A power law: far above the largest degree of a random topology with this mean.
        mean = connections / len(degrees)
        assert degrees.max() > mean + 12 * mean**0.5


def test_the_slope_is_the_exponent() -> None:
    for exponent in (2.2, 3.0):
        degrees = power_law_degrees(20_000, 200_000, 10**6, exponent, seeded()).double()
        tail = degrees[degrees >= 30]
        # Maximum likelihood of a power law from 30 on; relative error 1/sqrt(n) and the rounding.
        fit = 1 + len(tail) / (tail / 29.5).log().sum()
        assert abs(fit - exponent) < 0.15


def test_huge_shapes_take_no_dense_memory() -> None:
    shape = (100_000, 1_000_000)
    assert small_world_topology(shape, 200_000, generator=seeded()).nnz == 200_000
    assert scale_free_topology(shape, 200_000, generator=seeded()).nnz == 200_000


REFUSED = [
    (lambda: small_world_topology((3, 4), 0), "of shape (3, 4) must be in [1, 12], got 0"),
    (lambda: scale_free_topology((3, 4), 13), "of shape (3, 4) must be in [1, 12], got 13"),
    (
        lambda: small_world_topology((3, 4), 2, rewired=1.5),
        "rewired of a small world must be in [0, 1], got 1.5",
    ),
    (
        lambda: scale_free_topology((3, 4), 2, exponent=1.0),
        "exponent of a scale-free topology must be above 1, got 1.0",
    ),
]


@pytest.mark.parametrize(("make", "sentence"), REFUSED)
def test_what_cannot_be_is_refused(make, sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        make()
