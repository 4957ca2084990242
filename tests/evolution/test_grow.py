"""Grow scores: against dense gradients and dense loops, and the positions that rules name."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import regrow
from regrow import Evolution, SparseLinear, Topology
from regrow.evolution import grow
from regrow.evolution.scores import GROW_SCORES, GrowScore
from regrow.evolution.site import Candidates, Site
from regrow.kernels.capture import Pass

ROWS, COLUMNS = 5, 6


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def site_of(positions: list[int], seed: int = 0, steps: int = 1, **more) -> Site:
    """A layer with these connections, and passes of some steps."""
    generator = seeded(seed)
    topology = Topology((ROWS, COLUMNS), torch.tensor(positions))
    layer = SparseLinear(COLUMNS, ROWS, topology=topology, generator=generator).double()
    passes = [
        Pass(
            torch.randn(4, COLUMNS, generator=generator, dtype=torch.float64),
            torch.randn(4, ROWS, generator=generator, dtype=torch.float64),
            ago,
        )
        for ago in range(steps)
    ]
    return Site("body.0", layer, generator, passes, **more)


def dense_gradient(site: Site, decay: float = 1.0) -> Tensor:
    return sum(decay**ago * grad.t() @ x for x, grad, ago in site.captured)


def everything(site: Site) -> Candidates:
    return Candidates(COLUMNS, block=slice(0, ROWS))


def scored(name: str, site: Site, candidates: Candidates | None = None) -> Tensor:
    score = GROW_SCORES[name].score
    assert score is not None
    return score(site, candidates or everything(site))


def placed(entry: GrowScore, site: Site, count: int, taken: Topology | None = None) -> list[int]:
    taken = taken or site.topology
    assert entry.place is not None
    found = entry.place(site, taken, count)
    assert found.unique().numel() == found.numel() == count
    assert not torch.isin(found, taken.positions).any()
    return sorted(found.tolist())


def best_of(score: Tensor, taken: Topology, count: int) -> list[int]:
    free = score.reshape(-1).clone()
    free[taken.positions] = -torch.inf
    return sorted(free.topk(count).indices.tolist())


START = [0, 3, 7, 8, 14, 20, 29]


@pytest.mark.parametrize("name", sorted(GROW_SCORES))
def test_every_entry_says_what_it_does(name: str) -> None:
    entry = GROW_SCORES[name]
    told = entry.score or entry.place
    assert entry.says or (told is not None and told.__doc__)


def test_gradient_is_the_dense_gradient() -> None:
    site = site_of(START)
    torch.testing.assert_close(scored("gradient", site), dense_gradient(site).abs().view(-1))
    some = Candidates(COLUMNS, positions=torch.tensor([1, 13, 28]))
    expected = dense_gradient(site).abs().view(-1)[[1, 13, 28]]
    torch.testing.assert_close(scored("gradient", site, some), expected)


def test_momentum_is_the_decayed_sum_of_dense_gradients() -> None:
    site = site_of(START, steps=3)
    expected = dense_gradient(site, 0.9).abs().view(-1)
    torch.testing.assert_close(scored("momentum", site), expected)
    assert GROW_SCORES["momentum"].history == 20
    flat = grow.momentum(0.0, history=3).score(site, everything(site))
    torch.testing.assert_close(flat, (site.captured[0][1].t() @ site.captured[0][0]).abs().view(-1))


def test_momentum_at_free_positions_is_that_of_sgd() -> None:
    """A dense layer trained with momentum holds what the rule forms from its passes."""
    torch.manual_seed(0)
    dense = nn.Linear(COLUMNS, ROWS).double()
    topology = Topology((ROWS, COLUMNS), torch.arange(0, 30, 2))
    sparse = SparseLinear(COLUMNS, ROWS, topology=topology).double()
    with torch.no_grad():
        dense.weight.mul_(topology.mask())
        sparse.values.copy_(dense.weight.view(-1)[topology.positions])
        sparse.bias.copy_(dense.bias)
    found = {}

    def look(site: Site, candidates: Candidates) -> Tensor:
        found["momentum"] = site.gradient(candidates, 0.9)
        return found["momentum"].abs()

    entry = GrowScore(look, gradient=True, history=6)
    options = {"lr": 0.1, "momentum": 0.9}
    dense_sgd = torch.optim.SGD(dense.parameters(), **options)
    sparse_sgd = torch.optim.SGD(sparse.parameters(), **options)
    evolution = Evolution(sparse, sparse_sgd, grow=entry, every=6, fraction=0.3)
    for step in range(6):
        x = torch.randn(3, COLUMNS, generator=seeded(step), dtype=torch.float64)
        for model, optimizer in ((dense, dense_sgd), (sparse, sparse_sgd)):
            optimizer.zero_grad()
            model(x).square().sum().backward()
            optimizer.step()
        with torch.no_grad():
            dense.weight.mul_(topology.mask())
        evolution.step()
    buffer = dense_sgd.state[dense.weight]["momentum_buffer"]
    torch.testing.assert_close(found["momentum"], buffer.view(-1))


def test_momentum_by_neuron_by_hand() -> None:
    # Rows 0 and 1 have one connection each, of gradient 3 and 1; rows of 4 columns.
    topology = Topology((3, 4), torch.tensor([0, 4]))
    layer = SparseLinear(4, 3, topology=topology)
    x = torch.tensor([[1.0, 0.9, 0.8, 0.7]])
    grad = torch.tensor([[3.0, 1.0, 10.0]])
    site = Site("0", layer, seeded(), [Pass(x, grad, 0)])
    rule = grow.momentum_by_neuron(0.9, history=1, least=1)
    # Of four: 3/4 and 1/4 of them, so three of row 0 and one of row 1; none of row 2, the largest.
    assert placed_in(rule, site, topology, 4) == [1, 2, 3, 5]
    # Shares below the least go to the best of all, which is row 2.
    strict = grow.momentum_by_neuron(0.9, history=1, least=2)
    assert placed_in(strict, site, topology, 4) == [1, 2, 3, 8]
    strict = grow.momentum_by_neuron(0.9, history=1, least=10)
    assert placed_in(strict, site, topology, 4) == [8, 9, 10, 11]


def placed_in(entry: GrowScore, site: Site, taken: Topology, count: int) -> list[int]:
    assert entry.place is not None
    return sorted(entry.place(site, taken, count).tolist())


def test_mix_takes_its_share_by_score() -> None:
    site = site_of(START)
    best = best_of(dense_gradient(site).abs(), site.topology, 4)
    entry = grow.mix(0.5, grow.gradient)
    found = placed(entry, site, 8)
    assert set(best) <= set(found)
    others = [placed(entry, site, 8) for _ in range(10)]
    assert any(other != found for other in others)
    assert placed(grow.mix(1.0, grow.gradient), site, 8) == best_of(
        dense_gradient(site).abs(), site.topology, 8
    )
    assert len(placed(grow.mix(0.0, grow.gradient), site, 23)) == 23


def test_a_sample_as_large_as_all_is_rigl() -> None:
    site = site_of(START)
    best = best_of(dense_gradient(site).abs(), site.topology, 6)
    assert placed(grow.sampled(100.0, guided=False), site, 6) == best


@pytest.mark.parametrize("guided", [False, True])
def test_a_sample_has_its_best(guided: bool) -> None:
    site = site_of(START)
    gradient = dense_gradient(site).abs().view(-1)
    for _ in range(20):
        found = placed(grow.sampled(1.0, guided), site, 4)
        assert len(found) == 4
    # The largest of 23 is among 7 drawn with chance 7/23; guided draws like it better.
    hits = sum(
        int(gradient[grow.sampled(1.0, guided).place(site, site.topology, 1)])
        == int(gradient[best_of(gradient, site.topology, 1)])
        for _ in range(200)
    )
    assert hits >= 200 * 7 / 23 - 6 * (200 * 0.3 * 0.7) ** 0.5
    # Where nothing else is free, all of it grows.
    assert placed(grow.sampled(0.01, guided), site, 23) == sorted(set(range(30)) - set(START))


def test_guided_draws_follow_what_goes_through() -> None:
    topology = Topology((4, 4), torch.tensor([0]))
    layer = SparseLinear(4, 4, topology=topology)
    x, grad = torch.tensor([[0.0, 1.0, 3.0, 0.0]]), torch.tensor([[0.0, 0.0, 2.0, 2.0]])
    site = Site("0", layer, seeded(), [Pass(x, grad, 0)])
    seen = torch.zeros(16)
    for _ in range(400):
        seen[grow._guided(site, topology, 1)] += 1
    assert seen.nonzero().view(-1).tolist() == [9, 10, 13, 14]
    # Column 2 three times as often as column 1.
    assert abs(float(seen[[10, 14]].sum()) / 400 - 0.75) < 6 * (0.75 * 0.25 / 400) ** 0.5


def test_exploring_adds_to_what_was_never_active() -> None:
    ever = Topology((ROWS, COLUMNS), torch.tensor([*START, 1, 2]))
    site = site_of(START, step=100, ever=ever)
    found = grow.exploring(0.5).score(site, everything(site))
    bonus = torch.full((30,), 0.5, dtype=torch.float64) * torch.tensor(100.0).double().log()
    bonus[ever.positions] = 0
    expected = dense_gradient(site).abs().view(-1) + bonus
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def activations(seed: int = 0) -> tuple[Tensor, Tensor]:
    x = torch.randn(50, COLUMNS, generator=seeded(seed), dtype=torch.float64)
    y = torch.randn(50, ROWS, generator=seeded(seed + 1), dtype=torch.float64).relu()
    x[:, 2] = 0
    y[:, 3] = 0
    return x, y


def test_cosine_is_a_plain_loop() -> None:
    x, y = activations()
    site = site_of(START, samples=(x, y))
    expected = torch.zeros(ROWS, COLUMNS, dtype=torch.float64)
    for row in range(ROWS):
        for column in range(COLUMNS):
            norms = x[:, column].norm() * y[:, row].norm()
            if norms > 0:
                expected[row, column] = (x[:, column] @ y[:, row]).abs() / norms
    torch.testing.assert_close(scored("cosine", site), expected.view(-1))
    some = Candidates(COLUMNS, positions=torch.tensor([1, 13, 28]))
    torch.testing.assert_close(scored("cosine", site, some), expected.view(-1)[[1, 13, 28]])
    assert expected[:, 2].sum() == expected[3].sum() == 0


def test_cosine_until_the_loss_stops_to_fall() -> None:
    site = site_of(START, samples=activations())
    rule = grow.cosine_until_plateau(3)
    similar = scored("cosine", site)
    site.memory["reports_since_best"] = 2.0
    torch.testing.assert_close(rule.score(site, everything(site)), similar)
    site.memory["reports_since_best"] = 3.0
    assert not torch.equal(rule.score(site, everything(site)).double(), similar)
    site.memory["reports_since_best"] = 0.0  # better again, but it is at random for good
    first, second = (rule.score(site, everything(site)) for _ in range(2))
    assert not torch.equal(first, second)


def test_outer_importance_by_hand() -> None:
    site = site_of(START)
    rows, columns = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]), torch.arange(6).double()
    rule = grow.outer(lambda _: (rows.double(), columns))
    expected = rows.double()[:, None] * columns
    torch.testing.assert_close(rule.score(site, everything(site)).view(ROWS, COLUMNS), expected)
    rule = grow.outer(lambda _: (None, columns))
    torch.testing.assert_close(
        rule.score(site, everything(site)).view(ROWS, COLUMNS), columns.expand(ROWS, COLUMNS)
    )


def test_growth_by_input_stays_with_inputs_that_are_used() -> None:
    site = site_of([0, 1, 6])  # columns 0 and 1
    gradient = dense_gradient(site).abs()
    used = placed(grow.by_input(0.0), site, 5)
    assert used == best_of(
        gradient[:, :2].new_zeros(5, 6).index_copy_(1, torch.tensor([0, 1]), gradient[:, :2]),
        site.topology,
        5,
    )
    # A quarter of four unused inputs comes back: the one with the largest gradient.
    again = 2 + int(gradient[:, 2:].amax(0).argmax())
    allowed = torch.full_like(gradient, -1.0)
    allowed[:, [0, 1, again]] = gradient[:, [0, 1, again]]
    assert placed(grow.by_input(0.25), site, 5) == best_of(allowed, site.topology, 5)
    # Where there is no room elsewhere, the count still holds.
    assert len(placed(grow.by_input(0.0), site, 20)) == 20


PLACING = sorted(
    name
    for name, entry in GROW_SCORES.items()
    if entry.place is not None and name != "random-alive"  # which needs its drop rule beside it
)


@pytest.mark.parametrize("name", PLACING)
@given(st.sets(st.integers(0, 29), min_size=1, max_size=30), st.data())
def test_rules_that_place_name_free_positions(
    name: str, taken: set[int], data: st.DataObject
) -> None:
    held = sorted(data.draw(st.sets(st.sampled_from(sorted(taken)), min_size=1)))
    count = data.draw(st.integers(0, 30 - len(taken)))
    busy = Topology((ROWS, COLUMNS), torch.tensor(sorted(taken)))
    ever = Topology((ROWS, COLUMNS), torch.tensor(sorted(taken)))
    placed(GROW_SCORES[name], site_of(held, ever=ever), count, busy)


@pytest.mark.parametrize("name", sorted(set(GROW_SCORES) - {"random-alive"}))
def test_every_rule_trains(name: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3)
    )
    model = regrow.sparsify(model, 0.3, generator=seeded())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    evolution = Evolution(model, optimizer, "set", grow=name, every=2, regrow=False)
    before = {path: layer.topology for path, layer in regrow.sparse_layers(model).items()}
    for step in range(8):
        model(torch.randn(8, 12, generator=seeded(step))).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        evolution.step()
    for path, layer in regrow.sparse_layers(model).items():
        assert layer.topology != before[path]
        if GROW_SCORES[name].exact:
            assert layer.topology.nnz == before[path].nnz
