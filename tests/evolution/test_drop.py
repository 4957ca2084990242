"""Drop scores: numbers computed by hand from each formula, and what their parameters do."""

from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from regrow import Evolution, SparseLinear, Topology
from regrow.evolution import drop
from regrow.evolution.scores import DROP_SCORES, DropScore
from regrow.evolution.site import Site
from regrow.topology.select import without_lowest


def site_of(
    values: list[float],
    gradient: list[float] | None = None,
    shape: tuple[int, int] = (3, 4),
    **more,
) -> Site:
    """A layer whose first positions have these values."""
    topology = Topology(shape, torch.arange(len(values)))
    layer = SparseLinear(shape[1], shape[0], topology=topology, dtype=torch.float64)
    with torch.no_grad():
        layer.values.copy_(torch.tensor(values))
    if gradient is not None:
        layer.values.grad = torch.tensor(gradient, dtype=torch.float64)
    return Site("body.0", layer, torch.Generator().manual_seed(0), **more)


def dropped(scores: Tensor, count: int) -> list[int]:
    return (~without_lowest(scores, count)).nonzero().view(-1).tolist()


W = [2.0, -0.5, 1.0, -4.0]
G = [0.5, 4.0, -3.0, 0.25]

BY_HAND = {
    "magnitude": [2.0, 0.5, 1.0, 4.0],
    "snip": [1.0, 2.0, 3.0, 1.0],
    "signed-snip": [-1.0, 2.0, 3.0, 1.0],
    "taylor": [1.0, 4.0, 9.0, 1.0],
    "sensitivity": [0.25, 8.0, 3.0, 0.0625],
    "reciprocal-sensitivity": [4.0, 0.125, 1 / 3, 16.0],
    "mest": [2.5, 4.5, 4.0, 4.25],
    "gradient-step": [1.5, 4.5, 4.0, 4.25],
    # Ranks of |w g| with ties by position: 1 0..., from the nearer of both ends.
    "snip-half": [0.0, 1.0, 0.0, 1.0],
    # Positive 1, 2 and negative -0.5, -4, each from zero: places 0 and 1.
    "sign-half": [1.0, 0.0, 0.0, 1.0],
    "sign-split": [0.75, 0.25, 0.25, 0.75],
    # All four inputs of the one row: importance |w|, so ranks of w |w| by sign.
    "neuron-weighted": [0.75, 0.25, 0.25, 0.75],
}


@pytest.mark.parametrize("name", BY_HAND)
def test_scores_by_hand(name: str) -> None:
    found = DROP_SCORES[name].score(site_of(W, G, (1, 4)))
    torch.testing.assert_close(found, torch.tensor(BY_HAND[name], dtype=torch.float64))


@pytest.mark.parametrize("name", sorted(DROP_SCORES))
def test_what_looks_at_gradients_is_taken_before_the_step(name: str) -> None:
    entry = DROP_SCORES[name]
    if entry.tracks or entry.before:
        return
    score = entry.score(site_of(W))  # without a gradient
    assert score.shape == (4,)


@pytest.mark.parametrize("name", sorted(DROP_SCORES))
def test_every_entry_says_what_it_does(name: str) -> None:
    entry = DROP_SCORES[name]
    assert entry.says or entry.score.__doc__


def test_sign_split_by_hand() -> None:
    # Positive: 0.1 0.2 0.4 0.8; negative: -0.3 -0.6. Half of each sign is 0.1 0.2 and -0.3.
    score = drop.sign_split(site_of([0.4, -0.6, 0.1, 0.8, -0.3, 0.2]))
    assert dropped(score, 3) == [2, 4, 5]
    assert score.tolist() == [2.5 / 4, 1.5 / 2, 0.5 / 4, 3.5 / 4, 0.5 / 2, 1.5 / 4]


@pytest.mark.parametrize("values", [[1.0], [-1.0], [0.0, 2.0], [-2.0, -1.0]])
def test_sign_split_with_one_sign_only(values: list[float]) -> None:
    score = drop.sign_split(site_of(values))
    assert score.argsort().tolist() == torch.tensor(values).abs().argsort().tolist()


@given(st.lists(st.floats(-5, 5, width=32), min_size=1, max_size=60), st.floats(0, 1))
def test_sign_split_drops_its_share_of_each_sign(values: list[float], fraction: float) -> None:
    site = site_of(values, shape=(1, 60))
    gone = torch.zeros(len(values), dtype=torch.bool)
    gone[dropped(drop.sign_split(site), round(fraction * len(values)))] = True
    for part in (site.values < 0, site.values >= 0):
        size, number = int(part.sum()), int((part & gone).sum())
        assert abs(number - fraction * size) <= 1
        if 0 < number < size:  # the nearest to zero went
            assert site.values[part & gone].abs().max() <= site.values[part & ~gone].abs().min()


@given(st.lists(st.floats(-5, 5, width=32), min_size=1, max_size=40), st.data())
def test_sign_half_takes_as_many_of_each_sign(values: list[float], data: st.DataObject) -> None:
    count = data.draw(st.integers(0, len(values)))
    site = site_of(values, shape=(1, 40))
    gone = site.values[dropped(drop.sign_half(site), count)]
    negative, positive = int((gone < 0).sum()), int((gone >= 0).sum())
    assert negative + positive == count
    all_negative = int((site.values < 0).sum())
    assert abs(negative - positive) <= 1 or (
        negative == all_negative or positive == len(values) - all_negative
    )


def test_snip_half_drops_both_ends() -> None:
    values = [float(n) for n in range(1, 11)]
    site = site_of(values, [1.0] * 10)
    assert dropped(drop.snip_half(site), 4) == [0, 1, 8, 9]
    assert len(dropped(drop.snip_half(site), 5)) == 5


def test_random_draws_from_the_evolution() -> None:
    first, again = (drop.random(site_of([0.0] * 12)) for _ in range(2))
    assert torch.equal(first, again)
    assert first.unique().numel() == 12


def test_a_missing_gradient_is_said() -> None:
    with pytest.raises(
        RuntimeError, match=r"the score in body\.0 needs the gradient of the values"
    ):
        drop.snip(site_of([1.0]))


def test_weights_of_the_gradient() -> None:
    site = site_of(W, G)
    assert drop.mest(0.0).score(site).tolist() == [2.0, 0.5, 1.0, 4.0]
    assert drop.mest(0.5).score(site).tolist() == [2.25, 2.5, 2.5, 4.125]
    assert drop.gradient_step(0.1).score(site).tolist() == pytest.approx([1.95, 0.9, 1.3, 4.025])
    assert drop.mest(1.0).before
    assert drop.gradient_step(1.0).before


def trained(drop_rule, steps: int, **overrides) -> tuple[Evolution, list[Tensor]]:
    """An evolution after some steps that gave its four values known gradients."""
    layer = SparseLinear(4, 1, False, topology=Topology((1, 4), torch.arange(4)))
    with torch.no_grad():
        layer.values.copy_(torch.tensor(W))
    optimizer = torch.optim.SGD([layer.values], lr=0.5)
    evolution = Evolution(layer, optimizer, drop=drop_rule, every=1000, **overrides)
    seen = []
    for _ in range(steps):
        layer.values.grad = torch.tensor(G)
        seen.append(layer.values.detach().clone())
        optimizer.step()
        evolution.step()
    return evolution, seen


def test_running_magnitude_by_hand() -> None:
    evolution, _ = trained("running-magnitude", 2)
    # w after one and two steps of -0.5 g: 1.75, 1.5; mean from 0 with decay 0.9.
    tracked = evolution.sites()[""].tracked["running-magnitude"]
    assert float(tracked[0]) == pytest.approx(0.9 * (0.1 * 1.75) + 0.1 * 1.5)
    assert torch.equal(DROP_SCORES["running-magnitude"].score(evolution.sites()[""]), tracked)


def test_running_snip_looks_before_the_step() -> None:
    evolution, _ = trained("running-snip", 2)
    tracked = evolution.sites()[""].tracked["running-snip"]
    # |w g| = 2 * 0.5, then 1.75 * 0.5.
    assert float(tracked[0]) == pytest.approx(0.9 * (0.1 * 1.0) + 0.1 * 0.875)


def test_a_flipped_sign_dies() -> None:
    # Values 2 -0.5 1 -4 less g / 2: 1.75 -2.5 2.5 -4.125: signs stay. Five steps: -0.5 at first.
    evolution, _ = trained("sign-flip", 1)
    assert evolution.sites()[""].tracked["sign"].tolist() == [1, -1, 1, -1]
    evolution, _ = trained("sign-flip", 9)
    site = evolution.sites()[""]
    assert site.values.tolist() == [2 - 2.25, -0.5 - 18, 1 + 13.5, -4 - 1.125]
    assert drop.sign_kept(site).tolist() == [-0.25, 18.5, 14.5, 5.125]
    assert DROP_SCORES["sign-flip"].count([site], 3) == [1]


def test_soft_magnitude_keeps_in_proportion_to_the_power() -> None:
    # One of two is kept: with power 3, a weight of 2 against 1 stays with chance 8/9.
    site, kept = site_of([2.0, -1.0]), 0
    for _ in range(3000):
        score = drop.soft_magnitude(3.0).score(site)
        kept += int(score[0] > score[1])
    assert abs(kept / 3000 - 8 / 9) < 6 * (8 / 81 / 3000) ** 0.5
    zeros = drop.soft_magnitude(3.0).score(site_of([0.0, 1e-30, 5.0]))
    assert zeros[0] == -torch.inf
    flat = drop.soft_magnitude(0.0).score(site_of([0.5, 100.0] * 6))
    assert flat.unique().numel() == 12


def test_a_threshold_counts() -> None:
    entry = drop.threshold(0.5)
    sites = [site_of([0.5, -0.2, 0.7]), site_of([3.0, 4.0])]
    assert entry.count(sites, 99) == [2, 0]
    assert entry.score(sites[0]).tolist() == pytest.approx([0.5, 0.2, 0.7])


def test_the_adaptive_threshold_doubles_and_halves() -> None:
    memory: dict[str, float] = {}
    sites = [site_of(v, memory=memory) for v in ([0.1, 0.3, 0.5], [0.7, 0.9, 1.1])]
    rule = drop.adaptive_threshold(0.2, tolerance=0.1, rounds=1)
    assert rule.count(sites, 3) == [1, 0]  # 0.2 is too low
    assert memory["threshold"] == 0.4
    assert rule.count(sites, 3) == [2, 0]
    assert memory["threshold"] == 0.8
    assert rule.count(sites, 3) == [3, 1]  # too high now
    assert memory["threshold"] == 0.4
    assert rule.count(sites, 2) == [2, 0]  # just right
    assert memory["threshold"] == 0.4


def test_the_adaptive_threshold_may_try_again_at_once() -> None:
    memory: dict[str, float] = {}
    sites = [site_of([0.1, 0.3, 0.5, 0.7, 3.0], memory=memory)]
    rule = drop.adaptive_threshold(0.01, tolerance=0.2, rounds=20)
    assert rule.count(sites, 4) == [4]
    assert memory["threshold"] == 1.28


def test_strength_is_the_sum_of_sizes() -> None:
    topology = Topology((2, 3), torch.tensor([0, 2, 4, 5]))
    layer = SparseLinear(3, 2, topology=topology)
    with torch.no_grad():
        layer.values.copy_(torch.tensor([1.0, -2.0, 4.0, -8.0]))
    site = Site("0", layer, torch.Generator())
    rows, columns = drop.strength(site)
    assert rows.tolist() == [3.0, 12.0]
    assert columns.tolist() == [1.0, 4.0, 10.0]
    assert drop.input_strength(site)[0] is None
    # w times both: 3 -60 48*4... by sign: positive 1*3*1 = 3, 4*12*4 = 192; negative 60 and 960.
    assert drop.neuron_weighted(drop.strength).score(site).tolist() == [0.25, 0.25, 0.75, 0.75]


def matrix_site() -> Site:
    """Values 1 -2 of row 0 (columns 0 and 2) and 4 -8 of row 1 (columns 1 and 2)."""
    layer = SparseLinear(3, 2, topology=Topology((2, 3), torch.tensor([0, 2, 4, 5])))
    with torch.no_grad():
        layer.values.copy_(torch.tensor([1.0, -2.0, 4.0, -8.0]))
    return Site("0", layer, torch.Generator())


@pytest.mark.parametrize(
    ("by", "of", "expected"),
    [
        ("layer", "sum", [1 / 15, 2 / 15, 4 / 15, 8 / 15]),
        ("layer", "max", [1 / 8, 2 / 8, 4 / 8, 1.0]),
        ("row", "sum", [1 / 3, 2 / 3, 1 / 3, 2 / 3]),
        ("row", "max", [0.5, 1.0, 0.5, 1.0]),
        ("column", "sum", [1.0, 0.2, 1.0, 0.8]),
        ("column", "max", [1.0, 0.25, 1.0, 1.0]),
    ],
)
def test_normalised_scores_by_hand(by: str, of: str, expected: list[float]) -> None:
    entry = drop.normalised("magnitude", by, of)
    torch.testing.assert_close(entry.score(matrix_site()), torch.tensor(expected))


def test_a_normalised_score_needs_what_the_score_needs() -> None:
    assert drop.normalised("snip", "row").before
    assert drop.normalised("running-snip", "row").tracks == DROP_SCORES["running-snip"].tracks
    assert drop.normalised("sign-split", "layer").keep is None
    assert drop.normalised(drop.magnitude, "layer").score(site_of([1.0, 3.0])).tolist() == [
        0.25,
        0.75,
    ]
    assert drop.normalised("magnitude", "row").score(site_of([0.0, 0.0])).tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("size", "row"), "drop must be one of adaptive-threshold, gradient-step"),
        (
            ("magnitude", "gate"),
            "by of a normalised score must be layer, row or column, got 'gate'",
        ),
        (("magnitude", "row", "mean"), "of a normalised score must be sum or max, got 'mean'"),
    ],
)
def test_unknown_normalisations_are_refused(arguments: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        drop.normalised(*arguments)


def test_rescaled_keeps_norms_by_hand() -> None:
    topology = Topology((2, 3), torch.tensor([0, 2, 4, 5]))
    values, keep = torch.tensor([3.0, 4.0, 6.0, 8.0]), torch.tensor([True, False, True, True])
    found = drop.rescaled(topology, values, keep, "row")
    torch.testing.assert_close(found, torch.tensor([5.0, 0.0, 6.0, 8.0]))
    # Column 2 held 4 and 8: its norm is sqrt(80); the others are alone.
    found = drop.rescaled(topology, values, keep, "column")
    torch.testing.assert_close(found, torch.tensor([3.0, 0.0, 6.0, 80**0.5]))
    found = drop.rescaled(topology, values, keep, "layer")
    assert float(found.norm()) == pytest.approx(125**0.5)
    torch.testing.assert_close(found / found[0], torch.tensor([1.0, 0.0, 2.0, 8 / 3]))
    gone = drop.rescaled(topology, values, torch.zeros(4, dtype=torch.bool), "layer")
    assert gone.tolist() == [0.0] * 4
    with pytest.raises(ValueError, match="adjust must be layer, row or column, got 'gate'"):
        drop.rescaled(topology, values, keep, "gate")


@given(st.integers(0, 2**20), st.sampled_from(["layer", "row", "column"]))
def test_rescaled_keeps_every_norm(seed: int, by: str) -> None:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(5, 6, generator=generator) < 0.6
    topology = Topology((5, 6), mask.view(-1).nonzero().view(-1))
    values = torch.randn(topology.nnz, generator=generator, dtype=torch.float64)
    keep = torch.rand(topology.nnz, generator=generator) < 0.5
    before, after = (torch.zeros(30, dtype=torch.float64) for _ in range(2))
    before[topology.positions] = values
    after[topology.positions] = drop.rescaled(topology, values, keep, by)
    stays = torch.zeros(30, dtype=torch.bool)
    stays[topology.positions] = keep
    dims = {"layer": (0, 1), "row": 1, "column": 0}[by]
    some = stays.view(5, 6).sum(dims) > 0
    old, new = (part.view(5, 6).norm(dim=dims) for part in (before, after))
    torch.testing.assert_close(new[some], old[some])
    assert not new[~some].any()


def test_entries_are_of_the_kind_that_the_engine_knows() -> None:
    assert all(isinstance(entry, DropScore) for entry in DROP_SCORES.values())
