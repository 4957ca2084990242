import numpy as np
import pytest

from regrow.selection.baselines import BASELINES
from regrow.selection.planted import planted

DATA = planted(300, 40, informative=4, redundant=4, clusters=1, seed=0)
BLIND = {"variance", "laplacian", "chance"}


@pytest.mark.parametrize("name", sorted(BASELINES))
def test_one_finite_score_per_feature(name: str) -> None:
    scores = BASELINES[name](DATA.table, DATA.labels, 0)
    assert scores.shape == (40,)
    assert np.isfinite(scores).all()


@pytest.mark.parametrize("name", sorted(set(BASELINES) - BLIND))
def test_supervised_ones_find_what_was_planted(name: str) -> None:
    ranking = (-BASELINES[name](DATA.table, DATA.labels, 0)).argsort().argsort() + 1
    assert DATA.recall(ranking, 8) >= 0.5  # chance finds a fifth


def test_laplacian_prefers_what_follows_the_neighbourhoods() -> None:
    random = np.random.default_rng(0)
    side = np.repeat([0.0, 10.0], 30)
    grouped = np.stack([side + random.normal(size=60) for _ in range(4)], axis=1)
    table = np.hstack([grouped, random.normal(size=(60, 4))])
    scores = BASELINES["laplacian"](table, np.zeros(60), 0)
    assert scores[:4].min() > scores[4:].max()


def test_a_constant_feature_is_last_or_harmless() -> None:
    table = DATA.table.copy()
    table[:, 3] = 1.0
    for name in ("laplacian", "f-test", "variance"):
        assert BASELINES[name](table, DATA.labels, 0).argmin() == 3


def test_mutual_information_of_a_table_made_by_hand() -> None:
    labels = np.repeat([0, 1], 20)
    table = np.stack([labels, np.tile([0, 1], 20), np.ones(40)], axis=1).astype(float)
    found = BASELINES["mutual information"](table, labels, 0)
    np.testing.assert_allclose(found, [np.log(2), 0, 0], atol=1e-12)


def test_elimination_ranks_what_goes_late_above_what_goes_early_and_has_no_ties() -> None:
    scores = BASELINES["elimination"](DATA.table, DATA.labels, 0)
    assert len(np.unique(scores)) == 40
    rounds = np.floor(scores)
    assert (rounds == 0).sum() == 8  # a fifth
    assert (rounds == rounds.max()).sum() == 1


def test_laplacian_score_of_a_table_made_by_hand() -> None:
    # Two neighbours each, all the same distance: a ring of three with weights exp(-1).
    table = np.eye(3)
    scores = BASELINES["laplacian"](table, np.zeros(3), 0)
    # f = (1, 0, 0): centred (2, -1, -1) / 3; f'Lf / f'Df = 3/2 for each, less 1 from the form.
    np.testing.assert_allclose(scores, -1.5)
