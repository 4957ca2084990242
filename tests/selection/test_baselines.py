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
