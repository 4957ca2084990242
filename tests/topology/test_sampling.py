"""Draws in groups: exact counts, fair draws, full ranges."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from regrow.topology.sampling import sample_in_groups


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(st.lists(st.integers(0, 9).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n)))))
def test_counts_are_exact_in_every_group(groups: list[tuple[int, int]]) -> None:
    sizes, counts = (
        torch.tensor([g[i] for g in groups], dtype=torch.int64).reshape(-1) for i in (0, 1)
    )
    drawn = sample_in_groups(sizes, counts, seeded())
    assert bool((drawn.diff() > 0).all())
    ends = sizes.cumsum(0)
    for start, end, count in zip(ends - sizes, ends, counts, strict=True):
        assert int(((drawn >= start) & (drawn < end)).sum()) == count
    assert drawn.numel() == counts.sum()


@pytest.mark.parametrize("count", [1, 2, 4, 5])
def test_every_number_of_a_group_is_as_likely(count: int) -> None:
    groups, size = 4000, 6
    sizes = torch.full((groups,), size)
    drawn = sample_in_groups(sizes, torch.full_like(sizes, count), seeded(count))
    seen = torch.bincount(drawn % size, minlength=size)
    expected = groups * count / size
    # Draws without replacement shrink the statistic by (1 - count/size); then it is chi-square
    # with 5 degrees, whose mean + 6 sd is passed with chance below 1e-4.
    statistic = float(((seen - expected) ** 2 / expected).sum()) / (1 - count / size)
    assert statistic * (size - 1) / size < 5 + 6 * 10**0.5


def test_pairs_are_uniform_too() -> None:
    groups = 4000
    drawn = sample_in_groups(torch.full((groups,), 5), torch.full((groups,), 2), seeded(1))
    pairs = (drawn % 5).view(groups, 2)
    seen = torch.bincount(pairs[:, 0] * 5 + pairs[:, 1], minlength=25)
    seen = seen[seen > 0]
    assert seen.numel() == 10
    statistic = float(((seen - 400) ** 2 / 400).sum())
    assert statistic < 9 + 6 * 18**0.5


def test_full_ranges_beside_huge_ones_take_no_dense_memory() -> None:
    sizes, counts = torch.tensor([3, 10**12, 1]), torch.tensor([3, 50, 1])
    drawn = sample_in_groups(sizes, counts, seeded())
    assert drawn[:3].tolist() == [0, 1, 2]
    assert int(drawn[-1]) == 3 + 10**12
    assert drawn.numel() == 54


@pytest.mark.parametrize("count", [-1, 3])
def test_impossible_counts_are_refused(count: int) -> None:
    with pytest.raises(ValueError, match=rf"count of group 1 must be in \[0, 2\], got {count}"):
        sample_in_groups(torch.tensor([4, 2]), torch.tensor([1, count]))
