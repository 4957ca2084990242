"""Growing: fair draws, and the best free positions found tile by tile."""

from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from regrow import SparseLinear, Topology
from regrow.evolution import Candidates, Site, growth
from regrow.evolution.growth import best_free, best_together, random_together


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def site_at(shape: tuple[int, int], positions: list[int]) -> Site:
    topology = Topology(shape, torch.tensor(positions, dtype=torch.int64))
    return Site("0", SparseLinear(shape[1], shape[0], topology=topology), seeded())


def given_scores(table: torch.Tensor):
    """A grow score that looks up a dense table, asking only for what it is asked."""

    def score(site: Site, candidates: Candidates) -> torch.Tensor:
        return table.reshape(-1)[candidates.positions]

    return score


@pytest.mark.parametrize("tile", [1, 5, 7, 10**6])
@given(st.data())
def test_best_free_equals_brute_force(tile: int, data: st.DataObject) -> None:
    rows, columns = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 6))
    total = rows * columns
    taken = data.draw(st.sets(st.integers(0, total - 1)))
    free = [position for position in range(total) if position not in taken]
    count = data.draw(st.integers(0, len(free)))
    table = torch.randperm(total, generator=seeded(data.draw(st.integers(0, 99)))).float()
    site = site_at((rows, columns), sorted(taken))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(growth, "TILE", tile)
        values, positions = best_free(site, site.topology, count, given_scores(table))
    wanted = sorted(free, key=lambda position: -table[position])[:count]
    assert sorted(positions.tolist()) == sorted(wanted)
    assert values.tolist() == table[positions].tolist()


@pytest.mark.parametrize("bad", [float("nan"), -float("inf")])
def test_the_worst_scores_are_free_positions_all_the_same(bad: float) -> None:
    table = torch.full((3, 4), bad)
    table[2, 3] = -1e30
    table[0, 1] = float("inf")
    site = site_at((3, 4), [0, 5])
    _, best = best_free(site, site.topology, 2, given_scores(table))
    assert best.tolist() == [1, 11]
    _, every = best_free(site, site.topology, 10, given_scores(table))
    assert sorted(every.tolist()) == [p for p in range(12) if p not in (0, 5)]


def test_scores_are_compared_in_their_own_precision() -> None:
    table = torch.tensor([[1.0, 1.0 + 1e-12, 1.0, 1.0]], dtype=torch.float64)
    site = site_at((1, 4), [])
    _, best = best_free(site, site.topology, 1, given_scores(table))
    assert best.tolist() == [1]


def test_whole_numbers_may_be_scores() -> None:
    site = site_at((1, 4), [3])
    _, best = best_free(site, site.topology, 1, given_scores(torch.tensor([[5, 7, 6, 9]])))
    assert best.tolist() == [1]


@pytest.mark.parametrize("size", [3, 13])
def test_a_score_must_have_one_number_a_candidate(size: int) -> None:
    site = site_at((3, 4), [0])
    sentence = f"grow score in 0 must have one number for each of 12 candidates, got ({size},)"
    with pytest.raises(ValueError, match=re.escape(sentence)):
        best_free(site, site.topology, 2, lambda *_: torch.zeros(size))


@given(st.data())
def test_best_over_all_layers_equals_brute_force(data: st.DataObject) -> None:
    sites, tables = [], []
    for index in range(data.draw(st.integers(1, 3))):
        shape = (data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4)))
        total = shape[0] * shape[1]
        taken = sorted(data.draw(st.sets(st.integers(0, total - 1))))
        site = site_at(shape, taken)
        sites.append(Site(str(index), site.layer, site.generator))
        tables.append(torch.randperm(total, generator=seeded(index)) * 3.0 + index)
    free = [
        (float(table[p]), i, p)
        for i, (site, table) in enumerate(zip(sites, tables, strict=True))
        for p in range(table.numel())
        if not site.topology.mask().view(-1)[p]
    ]
    count = data.draw(st.integers(0, len(free)))

    def score(site: Site, candidates: Candidates) -> torch.Tensor:
        return tables[int(site.path)][candidates.positions]

    grown = best_together(sites, [site.topology for site in sites], count, score)
    found = {(i, int(p)) for i, positions in enumerate(grown) for p in positions}
    assert found == {(i, p) for _, i, p in sorted(free, reverse=True)[:count]}


def test_random_growth_of_one_layer_and_of_several() -> None:
    sites = [site_at((3, 4), [0, 1]), site_at((2, 2), [3]), site_at((5, 5), [])]
    taken = [site.topology for site in sites]
    (alone,) = random_together(taken[:1], 10, seeded())
    assert sorted(alone.tolist()) == list(range(2, 12))
    together = random_together(taken, 20, seeded())
    assert sum(len(grown) for grown in together) == 20
    for grown, topology in zip(together, taken, strict=True):
        assert grown.unique().numel() == grown.numel()
        assert not topology.mask().view(-1)[grown].any()
    everything = random_together(taken, 10 + 3 + 25, seeded())
    assert [len(grown) for grown in everything] == [10, 3, 25]
    assert [len(grown) for grown in random_together(taken, 0, seeded())] == [0, 0, 0]


@pytest.mark.parametrize("layers", [1, 2])
def test_random_growth_is_uniform(layers: int) -> None:
    taken = [Topology((2, 3), torch.tensor([1, 4])), Topology((2, 2), torch.tensor([0]))][:layers]
    draws, generator, seen = 3000, seeded(3), torch.zeros(2, 6)
    for _ in range(draws):
        for layer, grown in enumerate(random_together(taken, 2, generator)):
            seen[layer, grown] += 1
    free = torch.tensor([[1, 0, 1, 1, 0, 1], [0, layers == 2, layers == 2, layers == 2, 0, 0]])
    chance = 2 / int(free.sum())
    assert not seen[~free.bool()].any()
    # Each is binomial; the largest of at most 7 passes 5 standard deviations once in 10^5.
    error = (draws * chance * (1 - chance)) ** 0.5
    assert bool(((seen[free.bool()] - draws * chance).abs() < 5 * error).all())


def test_growth_asks_for_tiles_not_for_the_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "TILE", 64)
    asked = []

    def score(site: Site, candidates: Candidates) -> torch.Tensor:
        asked.append(candidates.positions.numel())
        return torch.zeros(candidates.positions.numel())

    site = site_at((40, 20), [0, 5])
    best_free(site, site.topology, 3, score)
    assert max(asked) <= 64
    assert sum(asked) == 800
