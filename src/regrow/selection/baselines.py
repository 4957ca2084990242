"""Rankings of features that are simple, or that scikit-learn offers, behind one form."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_selection import f_classif
from sklearn.linear_model import RidgeClassifier
from sklearn.neighbors import kneighbors_graph
from sklearn.svm import LinearSVC

Scores = NDArray[np.float64]
Baseline = Callable[[NDArray[Any], NDArray[Any], int], Scores]

_BINS = 10


def variance(table: NDArray[Any], labels: NDArray[Any], seed: int) -> Scores:
    """Variance of every feature."""
    return np.asarray(table.var(axis=0, dtype=np.float64))


def mutual_information(table: NDArray[Any], labels: NDArray[Any], seed: int) -> Scores:
    """Mutual information of every feature, cut into ten bins of equal count, with the class."""
    edges = np.quantile(table, np.linspace(0, 1, _BINS + 1)[1:-1], axis=0)
    binned = sum((table > edge).astype(np.int8) for edge in edges)
    classes = np.equal.outer(labels, np.unique(labels)).astype(np.float64)
    joint = np.stack([(binned == b).T @ classes for b in range(_BINS)]) / len(table)
    apart = joint.sum(0, keepdims=True) * joint.sum(2, keepdims=True)
    ratio = joint / np.where(joint > 0, apart, 1.0)
    return np.asarray((joint * np.log(np.where(joint > 0, ratio, 1.0))).sum((0, 2)))


def f_test(table: NDArray[Any], labels: NDArray[Any], seed: int) -> Scores:
    """F statistic of every feature: variance between the classes over that within them."""
    scores = np.zeros(table.shape[1])
    varies = table.min(axis=0) < table.max(axis=0)
    with np.errstate(divide="ignore"):
        found = f_classif(table[:, varies], labels)[0]
    scores[varies] = np.nan_to_num(found, posinf=np.finfo(np.float64).max)
    return scores


def lasso(table: NDArray[Any], labels: NDArray[Any], seed: int) -> Scores:
    """Summed absolute coefficients of linear classifiers with an L1 penalty, one a class."""
    model = LinearSVC(penalty="l1", dual=False, C=0.1, max_iter=200, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return _summed(model.fit(table, labels).coef_)


def elimination(table: NDArray[Any], labels: NDArray[Any], seed: int) -> Scores:
    """Elimination by a linear classifier (ridge): the weakest fifth goes, again and again.

    Features that go in the same round are ranked by their coefficients in it.

    References:
        I. Guyon, J. Weston, S. Barnhill, V. Vapnik, "Gene selection for cancer classification
        using support vector machines", 2002.
    """
    left = np.arange(table.shape[1])
    scores = np.zeros(len(left))
    for done in count():
        model = RidgeClassifier(len(table)).fit(table[:, left], labels)
        size = _summed(np.atleast_2d(model.coef_))
        scores[left] = done + size / (1.01 * max(float(size.max()), 1e-300))
        if len(left) == 1:
            break
        left = left[np.argsort(-size, kind="stable")[: max(1, 4 * len(left) // 5)]]
    return scores


def trees(table: NDArray[Any], labels: NDArray[Any], seed: int) -> Scores:
    """Importance in a forest of extremely randomised trees."""
    model = ExtraTreesClassifier(200, random_state=seed, n_jobs=1)
    return np.asarray(model.fit(table, labels).feature_importances_)


def laplacian(table: NDArray[Any], labels: NDArray[Any], seed: int) -> Scores:
    """Laplacian score, negated: how well a feature keeps neighbours together; needs no labels.

    References:
        X. He, D. Cai, P. Niyogi, "Laplacian score for feature selection", 2005.
    """
    neighbours = min(5, len(table) - 1)
    graph = kneighbors_graph(table, neighbours, mode="distance")
    graph = graph.maximum(graph.T)
    graph.data = np.exp(-(graph.data**2) / max(float(np.mean(graph.data**2)), 1e-12))
    degree = np.asarray(graph.sum(axis=1)).ravel()
    centred = table.astype(np.float64) - np.average(table, axis=0, weights=degree)
    spread = np.einsum("nf,n,nf->f", centred, degree, centred)
    kept = np.einsum("nf,nf->f", centred, graph @ centred)
    # Scores are between -2 and 0; a constant feature keeps nothing together.
    varies = table.min(axis=0) < table.max(axis=0)
    scores = kept / np.where(varies, spread, 1.0) - 1.0
    return np.asarray(np.where(varies, scores, -3.0))


def chance(table: NDArray[Any], labels: NDArray[Any], seed: int) -> Scores:
    """Random numbers: what any ranking must beat."""
    return np.asarray(np.random.default_rng([seed, 1]).random(table.shape[1]))


def _summed(coefficients: NDArray[Any]) -> Scores:
    return np.asarray(np.abs(coefficients).sum(axis=0), dtype=np.float64)


BASELINES: dict[str, Baseline] = {
    "variance": variance,
    "laplacian": laplacian,
    "f-test": f_test,
    "mutual information": mutual_information,
    "lasso": lasso,
    "elimination": elimination,
    "trees": trees,
    "chance": chance,
}
"""Rankings by name; each maps a dense table ``[rows, features]``, labels ``[rows]`` and a seed to
one score per feature, larger being better. Unsupervised ones ignore the labels."""
