import numpy as np

from regrow.selection.planted import planted

DATA = planted(400, 60, informative=4, redundant=6, clusters=2, seed=3)


def test_features_cannot_be_told_by_their_spread() -> None:
    np.testing.assert_allclose(DATA.table.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(DATA.table.std(axis=0), 1, atol=1e-5)


def test_redundant_features_are_mixtures_of_the_informative_and_noise_is_not() -> None:
    def explained(feature: int) -> float:
        known = DATA.table[:, DATA.informative]
        _, residual, *_ = np.linalg.lstsq(known, DATA.table[:, feature])
        return 1 - float(residual[0]) / len(known)

    noise = np.setdiff1d(np.arange(60), DATA.relevant)
    assert min(explained(f) for f in DATA.redundant) > 0.999
    assert max(explained(f) for f in noise) < 0.2


def test_recall_of_a_ranking_made_by_hand() -> None:
    ranking = np.empty(60, dtype=int)
    order = [*DATA.relevant[:5], *np.setdiff1d(np.arange(60), DATA.relevant), *DATA.relevant[5:]]
    ranking[order] = np.arange(1, 61)
    assert DATA.recall(ranking, 5) == 1.0
    assert DATA.recall(ranking, 10) == 0.5
    assert DATA.recall(ranking, 60) == 1.0


def test_the_seed_decides() -> None:
    again = planted(400, 60, informative=4, redundant=6, clusters=2, seed=3)
    other = planted(400, 60, informative=4, redundant=6, clusters=2, seed=4)
    assert np.array_equal(again.table, DATA.table)
    assert not np.array_equal(other.informative, DATA.informative)
