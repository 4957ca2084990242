"""Initial patterns: exact counts, fair draws, free positions against brute force."""

from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from regrow import Topology
from regrow.topology import random_topology
from regrow.topology.patterns import free_positions, sample_distinct


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(st.integers(1, 12), st.integers(1, 12), st.data())
def test_exact_counts_from_one_connection_to_dense(
    rows: int, columns: int, data: st.DataObject
) -> None:
    connections = data.draw(st.integers(1, rows * columns))
    topology = random_topology((rows, columns), connections, generator=seeded())
    assert topology.nnz == connections
    assert topology.shape == (rows, columns)


def test_a_huge_shape_takes_no_dense_memory() -> None:
    topology = random_topology((100_000, 100_000), 1000, generator=seeded())
    assert topology.nnz == 1000
    # The mean of 1000 uniform rows lies within 6 standard errors of the middle.
    assert abs(topology.rows.double().mean() / 100_000 - 0.5) < 6 / (12 * 1000) ** 0.5


@pytest.mark.parametrize("connections", [0, -1, 13])
def test_counts_out_of_range_are_refused(connections: int) -> None:
    sentence = f"connections of a topology of shape (3, 4) must be in [1, 12], got {connections}"
    with pytest.raises(ValueError, match=re.escape(sentence)):
        random_topology((3, 4), connections)


def test_unknown_sampling_is_refused() -> None:
    sentence = "sampling of a topology must be exact, bernoulli or replacement, got 'poisson'"
    with pytest.raises(ValueError, match=sentence):
        random_topology((3, 4), 2, sampling="poisson")


def test_three_samplings_have_their_means() -> None:
    shape, connections, draws = (20, 30), 240, 200
    total, p = 600, 0.4
    counts = {
        sampling: torch.tensor(
            [
                random_topology(shape, connections, sampling=sampling, generator=seeded(i)).nnz
                for i in range(draws)
            ],
            dtype=torch.float64,
        )
        for sampling in ("exact", "bernoulli", "replacement")
    }
    assert bool((counts["exact"] == connections).all())
    # Bernoulli: binomial(600, 0.4), sd 12; the mean of 200 has standard error 0.85.
    assert abs(counts["bernoulli"].mean() - connections) < 6 * (total * p * (1 - p) / draws) ** 0.5
    assert 8 < counts["bernoulli"].std() < 16
    # With replacement: 600 * (1 - (1 - 1/600)^240) distinct, sd below sqrt(240 * 0.33 * 0.67)
    expected = total * (1 - (1 - 1 / total) ** connections)
    assert abs(counts["replacement"].mean() - expected) < 6 * 7.3 / draws**0.5
    assert bool((counts["replacement"] < connections).all())


def test_replacement_counts_of_the_published_code() -> None:
    # SET's specification: 23,192 draws in 784 x 1000 leave about 22,852; 13,130 in 1000 x 10 7,310.
    first = random_topology((1000, 784), 23_192, sampling="replacement", generator=seeded())
    last = random_topology((1000, 10), 9_999, sampling="replacement", generator=seeded())
    assert abs(first.nnz - 22_852) < 6 * 18.5  # sd of the distinct count, about sqrt(340)
    assert abs(last.nnz - 10_000 * (1 - (1 - 1e-4) ** 9_999)) < 6 * 31  # about sqrt(n/e(1-2/e))


def test_bernoulli_may_be_empty_and_is_a_topology_then_too() -> None:
    empty = [
        topology
        for i in range(20)
        if (topology := random_topology((2, 2), 1, sampling="bernoulli", generator=seeded(i))).nnz
        == 0
    ]
    assert empty  # each has chance (3/4)^4 = 0.32
    assert empty[0].positions.tolist() == []


@pytest.mark.parametrize(("total", "count"), [(12, 2), (12, 3), (12, 7), (40, 3), (5, 5), (1, 1)])
def test_sample_distinct_is_uniform(total: int, count: int) -> None:
    draws, generator = 4000, seeded(1)
    seen = torch.zeros(total)
    for _ in range(draws):
        drawn = sample_distinct(total, count, generator)
        assert drawn.unique().numel() == count
        seen[drawn] += 1
    assert seen.sum() == draws * count
    expected = draws * count / total
    if count == total:
        assert bool((seen == draws).all())
        return
    # Each cell is binomial; draws without replacement shrink the statistic by (1 - count/total) and
    # then it is chi-square with total - 1 degrees; mean + 6 sd is passed with chance about 1e-5.
    statistic = float(((seen - expected) ** 2 / expected).sum()) / (1 - count / total)
    statistic *= (total - 1) / total
    assert statistic < (total - 1) + 6 * (2 * (total - 1)) ** 0.5


def test_sample_distinct_pairs_are_uniform_too() -> None:
    # All 15 pairs of 6 by rejection and all by permutation.
    for total, count in ((9, 2), (6, 2)):
        draws, generator, seen = 4000, seeded(2), {}
        for _ in range(draws):
            pair = tuple(sorted(sample_distinct(total, count, generator).tolist()))
            seen[pair] = seen.get(pair, 0) + 1
        cells = total * (total - 1) // 2
        expected = draws / cells
        assert len(seen) == cells
        statistic = sum((n - expected) ** 2 / expected for n in seen.values())
        assert statistic < (cells - 1) + 6 * (2 * (cells - 1)) ** 0.5


@pytest.mark.parametrize(("total", "count"), [(0, 0), (5, 0), (10**12, 0)])
def test_none_can_be_drawn(total: int, count: int) -> None:
    assert sample_distinct(total, count, seeded()).tolist() == []


def test_the_generator_decides() -> None:
    first, again, other = (random_topology((50, 50), 40, generator=seeded(i)) for i in (3, 3, 4))
    assert first == again
    assert first != other
    before = torch.get_rng_state()
    random_topology((50, 50), 40, generator=seeded())
    assert torch.equal(torch.get_rng_state(), before)


@given(st.integers(1, 8), st.integers(1, 8), st.data())
def test_free_positions_equal_brute_force(rows: int, columns: int, data: st.DataObject) -> None:
    total = rows * columns
    taken = data.draw(st.sets(st.integers(0, total - 1)))
    free = [position for position in range(total) if position not in taken]
    topology = Topology((rows, columns), torch.tensor(sorted(taken), dtype=torch.int64))
    assert free_positions(topology, torch.arange(len(free))).tolist() == free
    if free:
        ranks = data.draw(st.lists(st.integers(0, len(free) - 1)))
        found = free_positions(topology, torch.tensor(ranks, dtype=torch.int64))
        assert found.tolist() == [free[rank] for rank in ranks]


def test_free_positions_of_a_huge_shape() -> None:
    side = 100_000
    topology = Topology((side, side), torch.tensor([0, side * side - 1]))
    ranks = torch.tensor([0, side * side - 3])
    assert free_positions(topology, ranks).tolist() == [1, side * side - 2]
