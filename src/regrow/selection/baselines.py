"""What scikit-learn offers for ranking features, and the Laplacian score, behind one form."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_selection import RFE, f_classif, mutual_info_classif
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import kneighbors_graph
from sklearn.svm import LinearSVC

Scores = NDArray[np.float64]
Baseline = Callable[[NDArray[Any], NDArray[Any], int], Scores]


def variance(table: NDArray[Any], labels: NDArray[Any], seed: int) -> Scores:
    """Variance of every feature."""
    return np.asarray(table.var(axis=0, dtype=np.float64))


def mutual_information(table: NDArray[Any], labels: NDArray[Any], seed: int) -> Scores:
    """Mutual information of every feature with the class, estimated by neighbours."""
    return np.asarray(mutual_info_classif(table, labels, random_state=seed))


def f_test(table: NDArray[Any], labels: NDArray[Any], seed: int) -> Scores:
    """F statistic of every feature: variance between the classes over that within them."""
    scores = np.zeros(table.shape[1])
    varies = table.min(axis=0) < table.max(axis=0)
    with np.errstate(divide="ignore"):
        found = f_classif(table[:, varies], labels)[0]
    scores[varies] = np.nan_to_num(found, posinf=np.finfo(np.float64).max)
    return scores


def lasso(table: NDArray[Any], labels: NDArray[Any], seed: int) -> Scores:
    """Summed absolute coefficients of a linear classifier with an L1 penalty."""
    model = LogisticRegression(l1_ratio=1.0, solver="saga", C=0.1, max_iter=200, random_state=seed)
    return _summed(_fitted(model, table, labels).coef_)


def elimination(table: NDArray[Any], labels: NDArray[Any], seed: int) -> Scores:
    """Recursive elimination, a tenth at a time, by a linear support vector machine."""
    model = RFE(LinearSVC(dual="auto", max_iter=1000, random_state=seed), step=0.1)
    model.set_params(n_features_to_select=1)
    return -np.asarray(_fitted(model, table, labels).ranking_, dtype=np.float64)


def trees(table: NDArray[Any], labels: NDArray[Any], seed: int) -> Scores:
    """Importance in a forest of extremely randomised trees."""
    model = ExtraTreesClassifier(200, random_state=seed, n_jobs=1)
    return np.asarray(model.fit(table, labels).feature_importances_)


def laplacian(table: NDArray[Any], labels: NDArray[Any], seed: int) -> Scores:
    """Laplacian score, negated: how well a feature keeps neighbours together; needs no labels.

    References:
        X. He, D. Cai, P. Niyogi, "Laplacian score for feature selection", 2005.
    """
    count = min(5, len(table) - 1)
    graph = kneighbors_graph(table, count, mode="distance")
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
    return np.asarray(np.random.default_rng(seed).random(table.shape[1]))


def _fitted(model: Any, table: NDArray[Any], labels: NDArray[Any]) -> Any:
    """A model fitted as far as its iterations allow."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(table, labels)


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
