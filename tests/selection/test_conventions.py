"""Scikit-learn's own checks, and what its users expect of a selector."""

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC
from sklearn.utils.estimator_checks import parametrize_with_checks

from regrow.selection import WAST, NeuroFS, NeuronAttribution, QuickSelection

SMALL = [
    QuickSelection(hidden=20, epochs=2, random_state=0),
    WAST(hidden=20, epochs=2, random_state=0),
    NeuroFS(hidden=20, epochs=4, random_state=0),
    NeuronAttribution(hidden=(20, 10), epochs=2, random_state=0),
]
ONLINE = SMALL[:2]
IMAGES, LABELS = load_digits(return_X_y=True)
IMAGES, LABELS = IMAGES[:200], LABELS[:200]

every_selector = pytest.mark.parametrize("selector", SMALL, ids=lambda s: type(s).__name__)


@parametrize_with_checks(SMALL)
def test_scikit_learn_checks(estimator, check) -> None:
    check(estimator)


@every_selector
def test_a_seed_repeats_a_fit_and_leaves_the_generators_of_others_alone(selector) -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    first = clone(selector).fit(IMAGES, LABELS)
    assert torch.equal(torch.rand(1), expected)
    second = clone(selector).fit(IMAGES, LABELS)
    other = clone(selector).set_params(random_state=1).fit(IMAGES, LABELS)
    assert np.array_equal(first.feature_importances_, second.feature_importances_)
    assert not np.array_equal(first.feature_importances_, other.feature_importances_)


@every_selector
def test_the_ranking_orders_by_importance_and_the_best_are_kept(selector) -> None:
    fitted = clone(selector).set_params(n_features_to_select=5).fit(IMAGES, LABELS)
    assert sorted(fitted.ranking_) == list(range(1, 65))
    assert (np.diff(fitted.feature_importances_[fitted.ranking_.argsort()]) <= 0).all()
    assert np.array_equal(fitted.get_support(), fitted.ranking_ <= 5)
    assert np.array_equal(fitted.transform(IMAGES), IMAGES[:, fitted.ranking_ <= 5])


@every_selector
def test_sparse_tables_rank_as_dense_ones(selector) -> None:
    dense = clone(selector).fit(IMAGES, LABELS)
    stored = clone(selector).fit(sparse.csr_matrix(IMAGES), LABELS)
    if isinstance(selector, QuickSelection):  # draws noise anew for sparse tables
        assert stored.ranking_.shape == dense.ranking_.shape
    else:
        np.testing.assert_allclose(
            stored.feature_importances_, dense.feature_importances_, rtol=1e-3, atol=1e-5
        )


@every_selector
def test_constant_features_come_last(selector) -> None:
    fitted = clone(selector).fit(IMAGES, LABELS)
    constant = IMAGES.min(axis=0) == IMAGES.max(axis=0)
    assert constant.any()
    assert (fitted.feature_importances_[constant] == 0).all()


@every_selector
def test_works_in_a_pipeline_and_a_search(selector) -> None:
    pipeline = make_pipeline(clone(selector), SVC())
    step = pipeline.steps[0][0]
    search = GridSearchCV(pipeline, {f"{step}__n_features_to_select": [2, 40]}, cv=2)
    search.fit(IMAGES / 16, LABELS)
    assert search.best_params_[f"{step}__n_features_to_select"] == 40


@every_selector
@pytest.mark.parametrize("wanted", [0, 65, 1.5, -0.1, "ten", True])
def test_a_number_of_features_that_cannot_be_is_refused(selector, wanted) -> None:
    with pytest.raises(ValueError, match=r"n_features_to_select must be .*\[1, 64\]"):
        clone(selector).set_params(n_features_to_select=wanted).fit(IMAGES, LABELS)


@every_selector
def test_unknown_scale_is_refused(selector) -> None:
    with pytest.raises(ValueError, match="scale must be one of"):
        clone(selector).set_params(scale="robust").fit(IMAGES, LABELS)


@pytest.mark.parametrize("selector", SMALL[2:], ids=lambda s: type(s).__name__)
def test_one_class_is_refused(selector) -> None:
    with pytest.raises(ValueError, match="y must have at least two classes, got one class: 3"):
        clone(selector).fit(IMAGES, np.full(len(IMAGES), 3))


@pytest.mark.parametrize("selector", ONLINE, ids=lambda s: type(s).__name__)
def test_partial_fits_go_on_where_they_stopped(selector) -> None:
    streamed = clone(selector)
    importances = [streamed.partial_fit(IMAGES).feature_importances_ for _ in range(3)]
    assert not np.array_equal(importances[0], importances[1])
    assert not np.array_equal(importances[1], importances[2])
    with pytest.raises(ValueError, match="features"):
        streamed.partial_fit(IMAGES[:, :10])
