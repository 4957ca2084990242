"""How good a set of features is: what simple models reach with nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

CLASSIFIERS = {
    "svm": lambda: make_pipeline(StandardScaler(), SVC()),
    "trees": lambda: ExtraTreesClassifier(50, random_state=0),
    "neighbour": lambda: make_pipeline(StandardScaler(), KNeighborsClassifier(1)),
}


def accuracy(
    train: tuple[NDArray[Any], NDArray[Any]],
    test: tuple[NDArray[Any], NDArray[Any]],
    features: NDArray[Any],
    classifier: str = "svm",
) -> float:
    """Test accuracy of a classifier that sees some features only.

    Args:
        train: Table ``[rows, features]`` and labels ``[rows]``.
        test: Likewise.
        features: Numbers of the features, or bool ``[features]``.
        classifier: ``svm`` (radial basis, standardised features), ``trees`` (50 extremely
            randomised ones) or ``neighbour`` (the nearest one).

    Returns:
        In [0, 1].
    """
    model = CLASSIFIERS[classifier]()
    model.fit(train[0][:, features], train[1])
    return float(model.score(test[0][:, features], test[1]))


def order(scores: NDArray[Any], seed: int = 0) -> NDArray[np.int64]:
    """Numbers of the features, the best first, equal ones in random order.

    Args:
        scores: One a feature, larger is better.
        seed: Of the order of equal ones.

    Example:
        >>> order(np.array([0.1, 0.7, 0.2])).tolist()
        [1, 2, 0]
    """
    # Not the draw with which a table of the same seed may have been shuffled.
    lots = np.random.default_rng([seed, 1]).permutation(len(scores))
    return np.asarray(lots[np.argsort(-np.asarray(scores)[lots], kind="stable")])


def clustering_accuracy(
    table: NDArray[Any], labels: NDArray[Any], *, runs: int = 10, seed: int = 0
) -> float:
    """Share of rows that k-means puts into the right cluster, clusters matched to classes best.

    Args:
        table: The chosen features ``[rows, chosen]``.
        labels: Classes ``[rows]``, which the clustering does not see.
        runs: How many clusterings to average.
        seed: Of the first one.

    Returns:
        In [0, 1].

    Example:
        >>> table = np.array([[0.0], [0.1], [5.0], [5.1]])
        >>> clustering_accuracy(table, np.array([1, 1, 0, 0]), runs=2)
        1.0
    """
    classes, numbers = np.unique(labels, return_inverse=True)
    scores = []
    for run in range(runs):
        found = KMeans(len(classes), n_init=1, random_state=seed + run).fit_predict(table)
        matches = np.zeros((len(classes), len(classes)), dtype=np.int64)
        np.add.at(matches, (found, numbers), 1)
        scores.append(matches[linear_sum_assignment(-matches)].sum() / len(labels))
    return float(np.mean(scores))
