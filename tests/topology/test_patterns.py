"""Initial patterns: exact counts, fair draws, free positions against brute force."""

from __future__ import annotations

import math
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from regrow import Topology
from regrow.topology import extension, random_topology
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


def test_sparse_draws_of_many_buckets_are_uniform() -> None:
    # 20,000 of 400,000: so many that the range is drawn from in parts, with repeated draws in each.
    total, count, draws = 400_000, 20_000, 40
    seen, gaps = torch.zeros(total), []
    for i in range(draws):
        drawn = sample_distinct(total, count, seeded(i))
        assert drawn.numel() == count
        assert bool((drawn.diff() > 0).all())
        assert 0 <= int(drawn[0])
        assert int(drawn[-1]) < total
        seen[drawn] += 1
        gaps.append(drawn.diff())
    # In every cell of 1000 neighbours, as in test_sample_distinct_is_uniform.
    for cells in (seen.view(-1, 1000).sum(1), seen.view(1000, -1).sum(0)):
        expected = draws * count / cells.numel()
        statistic = float(((cells - expected) ** 2 / expected).sum()) / (1 - count / total)
        assert abs(statistic - (cells.numel() - 1)) < 6 * (2 * (cells.numel() - 1)) ** 0.5
    # Neighbours are drawn together with chance (count - 1) / (total - 1), whatever the bucket.
    together = sum(int((gap == 1).sum()) for gap in gaps)
    expected = draws * count * (count - 1) / total
    assert abs(together - expected) < 6 * expected**0.5


@given(st.integers(1, 40), st.integers(1, 40), st.data())
def test_a_drawn_topology_is_what_its_positions_say(
    rows: int, columns: int, data: st.DataObject
) -> None:
    connections = data.draw(st.integers(1, rows * columns))
    topology = random_topology((rows, columns), connections, generator=seeded(connections))
    assert Topology.from_csr((rows, columns), *topology.csr()) == topology
    drawn = sample_distinct(rows * columns, connections, seeded(connections))
    assert topology.positions.tolist() == drawn.tolist()


@pytest.mark.parametrize("rows", [1, 3, 1000, 333_333, 10**6])
@pytest.mark.parametrize("connections", [1, 1023, 5000, 60_000, 260_000, 900_000])
def test_rows_of_every_length(rows: int, connections: int) -> None:
    shape = rows, 10**6 // rows
    connections = min(connections, math.prod(shape))
    topology = random_topology(shape, connections, generator=seeded())
    assert topology.nnz == connections
    assert Topology.from_csr(shape, *topology.csr()) == topology


@pytest.mark.skipif(extension.native is None, reason="the extension is not built")
def test_no_draw_depends_on_the_number_of_threads() -> None:
    made = [torch.empty(50_000, dtype=torch.int64) for _ in range(2)]
    for threads, numbers in zip((1, 3), made, strict=True):
        extension.native.draw(10**9, 50_000, 7, numbers.data_ptr(), threads)
    assert torch.equal(*made)


@pytest.mark.skipif(extension.native is None, reason="the extension is not built")
@pytest.mark.parametrize(
    ("total", "count", "first", "residues"),
    [
        (10**9, 50_000, [28788, 56270, 71513], 25_295_297),
        (2**62, 3000, [3186333298333029, 4126519008679347, 6227999623152451], 1_514_411),
        (10**5, 20_000, [7, 14, 18], 10_058_036),
        (1000, 400, [4, 6, 11], 196_872),
    ],
)
def test_a_seed_stands_for_the_same_draw_in_every_version(
    total: int, count: int, first: list[int], residues: int
) -> None:
    numbers = torch.empty(count, dtype=torch.int64)
    extension.native.draw(total, count, 7, numbers.data_ptr(), 2)
    assert numbers[:3].tolist() == first
    assert int(numbers.remainder(1009).sum()) == residues


@pytest.mark.skipif(extension.native is None, reason="the extension is not built")
@pytest.mark.parametrize("shape", [(400, 1500), (1, 600_000), (600_000, 1), (200_000, 3)])
def test_many_free_positions_are_the_same_on_all_threads(shape: tuple[int, int]) -> None:
    topology = random_topology(shape, 400_000, generator=seeded())
    indptr, indices = topology.csr()
    free = (~topology.mask()).view(-1).nonzero().view(-1)
    for ranks in (
        torch.arange(200_000),
        torch.arange(0, 200_000, 5),
        torch.tensor([7, 7, 199_999]),
    ):
        for threads in (1, 2, 7):
            found = ranks.clone()
            given_ = indptr.data_ptr(), indices.data_ptr(), *shape, topology.nnz
            extension.native.free_positions(*given_, found.data_ptr(), found.numel(), threads)
            assert torch.equal(found, free[ranks])


@pytest.mark.parametrize("step", [1, 2])
def test_the_memory_of_ranks_is_taken_only_where_it_may_be(step: int) -> None:
    topology = Topology((2, 3), torch.tensor([0, 2, 3]))
    ranks, expected = torch.tensor([0, 0, 2, 2])[::step], [1, 1, 5, 5][::step]
    assert free_positions(topology, ranks).tolist() == expected
    assert ranks.tolist() == [0, 0, 2, 2][::step]
    assert free_positions(topology, ranks, reuse=True).tolist() == expected


def test_without_the_extension_draws_are_exact_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extension, "native", None)
    for total, count in ((10**12, 50), (10, 10), (100, 60), (1000, 100), (5, 0)):
        drawn = sample_distinct(total, count, seeded())
        assert drawn.unique().tolist() == drawn.tolist()
        assert drawn.numel() == count
    assert random_topology((30, 40), 77, generator=seeded()).nnz == 77
    ranks = torch.tensor([0, 2])
    assert free_positions(Topology((2, 2), torch.tensor([1])), ranks).tolist() == [0, 3]


@pytest.mark.skipif(extension.native is None, reason="the extension is not built")
def test_bad_arguments_of_native_draws_are_refused() -> None:
    out = torch.empty(8, dtype=torch.int64).data_ptr()
    with pytest.raises(ValueError, match=re.escape("count must be in [0, 5], got 6")):
        extension.native.draw(5, 6, 0, out, 1)
    with pytest.raises(ValueError, match="total must be in"):
        extension.native.draw(-5, 0, 0, out, 1)
    with pytest.raises(ValueError, match="numbers must have an address, got 0 for 2 elements"):
        extension.native.draw(5, 2, 0, 0, 1)
    with pytest.raises(ValueError, match="rows must be in"):
        extension.native.draw_matrix(2**31, 2, 1, 0, out, out, 1)
