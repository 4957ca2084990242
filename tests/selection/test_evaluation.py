import numpy as np
import pytest

from regrow.selection.evaluation import CLASSIFIERS, accuracy, clustering_accuracy, order
from regrow.selection.planted import planted

RANDOM = np.random.default_rng(0)
LABELS = np.arange(80) % 2
TABLE = np.stack([LABELS * 4 + RANDOM.normal(size=80), RANDOM.normal(size=80)], axis=1)
PARTS = (TABLE[:40], LABELS[:40]), (TABLE[40:], LABELS[40:])


@pytest.mark.parametrize("classifier", sorted(CLASSIFIERS))
def test_only_the_chosen_features_are_seen(classifier: str) -> None:
    good = accuracy(*PARTS, np.array([0]), classifier)
    bad = accuracy(*PARTS, np.array([False, True]), classifier)
    assert good > 0.9
    assert bad < 0.8


def test_clusters_are_matched_to_classes_whatever_their_numbers() -> None:
    assert clustering_accuracy(TABLE[:, :1], LABELS) > 0.9
    assert clustering_accuracy(TABLE[:, :1], 1 - LABELS) > 0.9
    assert clustering_accuracy(TABLE[:, 1:], LABELS) < 0.75


def test_equal_scores_come_in_an_order_that_the_seed_decides() -> None:
    scores = np.array([0.0, 0.0, 5.0, 0.0, 7.0, 0.0])
    orders = [order(scores, seed).tolist() for seed in range(20)]
    assert all(first[:2] == [4, 2] for first in orders)
    assert len({tuple(found) for found in orders}) > 10
    assert orders[3] == order(scores, 3).tolist()


def test_the_order_of_equal_ones_knows_nothing_of_where_features_were_planted() -> None:
    data = [planted(30, 200, informative=5, redundant=15, clusters=1, seed=s) for s in range(10)]
    found = [d.recall(order(np.zeros(200), s).argsort() + 1, 20) for s, d in enumerate(data)]
    assert np.mean(found) < 0.2  # chance finds a tenth, the shuffle of the table all
