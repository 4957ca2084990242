"""Scikit-learn's own checks, and what its users expect of an estimator."""

import io
import pickle

import joblib
import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from regrow.estimators import SparseAutoencoder, SparseMLPClassifier, SparseMLPRegressor

QUICK = {"density": 0.5, "max_iter": 20, "learning_rate_init": 0.05, "random_state": 0}
SMALL = [
    SparseMLPClassifier((10,), **QUICK),
    SparseMLPRegressor((10,), **QUICK),
    SparseAutoencoder((6, 4), **QUICK),
]
IMAGES, LABELS = load_digits(return_X_y=True)
IMAGES, LABELS = (IMAGES[:300] / 16).astype(np.float32), LABELS[:300]

every_estimator = pytest.mark.parametrize("estimator", SMALL, ids=lambda e: type(e).__name__)


def expected_to_fail(estimator) -> dict[str, str]:
    """Networks learn in single precision, and this is asked for in double."""
    if isinstance(estimator, SparseAutoencoder):
        return {}
    reason = "a weight of 2 counts as two rows do, to seven digits and not to sixteen"
    forms = ("dense", "sparse")
    return {f"check_sample_weight_equivalence_on_{form}_data": reason for form in forms}


@parametrize_with_checks(SMALL, expected_failed_checks=expected_to_fail)
def test_scikit_learn_checks(estimator, check) -> None:
    check(estimator)


def quick(estimator, **parameters):
    return clone(estimator).set_params(**{"max_iter": 3, **parameters})


def one_epoch(estimator):
    classes = {"classes": np.unique(LABELS)} if isinstance(estimator, SparseMLPClassifier) else {}
    return estimator.partial_fit(IMAGES, LABELS, **classes)


def coefficients(estimator) -> np.ndarray:
    return np.concatenate([weights.toarray().ravel() for weights in estimator.coefs_])


@every_estimator
@pytest.mark.parametrize("method", ["set", "static", "dense", "rigl"])
def test_a_seed_repeats_a_fit_and_leaves_the_generators_of_others_alone(estimator, method) -> None:
    estimator = quick(estimator, method=method)
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    first = clone(estimator).fit(IMAGES, LABELS)
    assert torch.equal(torch.rand(1), expected)
    second = clone(estimator).fit(IMAGES, LABELS)
    other = clone(estimator).set_params(random_state=1).fit(IMAGES, LABELS)
    assert np.array_equal(coefficients(first), coefficients(second))
    assert first.loss_curve_ == second.loss_curve_
    assert not np.array_equal(coefficients(first), coefficients(other))


@every_estimator
def test_the_order_of_the_rows_is_kept_without_shuffling(estimator) -> None:
    estimator = quick(estimator, batch_size=50, method="static")
    order = np.concatenate([np.arange(50)[::-1], np.arange(50, len(IMAGES))])
    for shuffle in (False, True):
        fits = [
            clone(estimator).set_params(shuffle=shuffle).fit(IMAGES[rows], LABELS[rows])
            for rows in (slice(None), order)
        ]
        # What a batch holds is the same, in another order; and not the same when shuffled.
        near = np.allclose(*(coefficients(each) for each in fits), atol=1e-4)
        assert near != shuffle


@every_estimator
@pytest.mark.parametrize("form", [sparse.csr_array, sparse.csc_array, sparse.csr_matrix])
def test_sparse_tables_are_as_good_as_dense_ones(estimator, form) -> None:
    dense, stored = quick(estimator).fit(IMAGES, LABELS), quick(estimator).fit(form(IMAGES), LABELS)
    assert np.array_equal(coefficients(dense), coefficients(stored))
    assert dense.score(IMAGES, LABELS) == stored.score(form(IMAGES), LABELS)


@every_estimator
@pytest.mark.parametrize("method", ["rigl", "mest", "ctre", "top-kast"])
@pytest.mark.parametrize("store", ["pickle", "joblib"])
def test_a_stored_estimator_is_the_same_and_goes_on_the_same(estimator, store, method) -> None:
    estimator = quick(estimator, method=method, every=2, hidden_layer_sizes=(20, 20))
    one_epoch(estimator.set_params(solver="sgd"))  # an update is due, and comes before the next
    if store == "pickle":
        copied = pickle.loads(pickle.dumps(estimator))
    else:
        file = io.BytesIO()
        joblib.dump(estimator, file)
        copied = joblib.load(file)
    assert estimator.score(IMAGES, LABELS) == copied.score(IMAGES, LABELS)
    for each in (estimator, copied):
        one_epoch(one_epoch(each))
        # One listener a module at most, however often it was stored.
        assert max(len(module._forward_hooks) for module in each._network.modules()) <= 1
    assert np.array_equal(coefficients(estimator), coefficients(copied))


@every_estimator
def test_partial_fits_make_a_fit(estimator) -> None:
    whole = quick(estimator).fit(IMAGES, LABELS)
    parts = quick(estimator)
    for _ in range(3):
        one_epoch(parts)
    assert np.array_equal(coefficients(whole), coefficients(parts))
    assert whole.loss_curve_ == parts.loss_curve_
    with pytest.raises(ValueError, match="features"):
        parts.partial_fit(IMAGES[:, :10], LABELS)
    with pytest.raises(ValueError, match="takes no early_stopping"):
        parts.set_params(early_stopping=True).partial_fit(IMAGES, LABELS)


@every_estimator
def test_a_warm_start_goes_on_and_a_cold_one_does_not(estimator) -> None:
    warm = quick(estimator, warm_start=True).fit(IMAGES, LABELS)
    first = list(warm.loss_curve_)
    warm.fit(IMAGES, LABELS)
    assert warm.loss_curve_[:3] == first
    assert len(warm.loss_curve_) == 6
    assert warm.loss_curve_[3] < first[0]
    assert warm.n_iter_ == 3
    cold = quick(estimator).fit(IMAGES, LABELS).fit(IMAGES, LABELS)
    assert cold.loss_curve_ == first
    with pytest.raises(ValueError, match="set warm_start to False"):
        warm.set_params(hidden_layer_sizes=(7,)).fit(IMAGES, LABELS)


@every_estimator
def test_early_stopping_keeps_the_network_of_the_best_epoch(estimator) -> None:
    options = {"early_stopping": True, "n_iter_no_change": 3, "validation_fraction": 0.3}
    estimator = quick(estimator, max_iter=40, learning_rate_init=0.1, **options)
    fitted = clone(estimator).fit(IMAGES, LABELS)
    scores = fitted.validation_scores_
    assert len(scores) == fitted.n_iter_ == len(fitted.loss_curve_)
    assert fitted.best_validation_score_ == max(scores)
    best = int(np.argmax(scores)) + 1
    assert best < fitted.n_iter_ < 40
    short = clone(estimator).set_params(max_iter=best).fit(IMAGES, LABELS)
    assert np.array_equal(coefficients(short), coefficients(fitted))
    assert fitted.set_params(early_stopping=False).partial_fit(IMAGES, LABELS).n_iter_ == 1


@every_estimator
def test_training_ends_when_it_no_longer_gets_better(estimator) -> None:
    fitted = quick(estimator, max_iter=30, tol=1e6, n_iter_no_change=4).fit(IMAGES, LABELS)
    assert fitted.n_iter_ == 6  # the first epoch is better than none
    assert quick(estimator, tol=1e6, n_iter_no_change=np.inf).fit(IMAGES, LABELS).n_iter_ == 3


@every_estimator
def test_topologies_have_the_density_and_hold_the_coefficients(estimator) -> None:
    fitted = quick(estimator, hidden_layer_sizes=(30,), density=0.1).fit(IMAGES, LABELS)
    positions = sum(np.prod(weights.shape) for weights in fitted.coefs_)
    assert sum(topology.nnz for topology in fitted.topologies_) == round(0.1 * positions)
    for weights, topology in zip(fitted.coefs_, fitted.topologies_, strict=True):
        assert sparse.issparse(weights)
        assert weights.shape == topology.shape[::-1]
        assert np.array_equal(weights.T.toarray() != 0, topology.mask().numpy())
    whole = quick(estimator, method="dense").fit(IMAGES, LABELS)
    assert [topology.density for topology in whole.topologies_] == [1.0] * len(whole.coefs_)


@every_estimator
def test_by_epsilon(estimator) -> None:
    fitted = quick(estimator, hidden_layer_sizes=(30,), density=None, epsilon=3)
    first = fitted.fit(IMAGES, LABELS).topologies_[0]
    assert first.nnz == 3 * (64 + 30)


@every_estimator
def test_it_prints_epochs_when_asked(estimator, capsys: pytest.CaptureFixture[str]) -> None:
    quick(estimator, verbose=True, early_stopping=True).fit(IMAGES, LABELS)
    printed = capsys.readouterr().out
    assert printed.count("Iteration") == printed.count("Validation score") == 3


def test_works_in_a_pipeline_a_search_and_a_cross_validation() -> None:
    model = make_pipeline(
        MinMaxScaler(),
        SparseMLPClassifier((50,), max_iter=30, learning_rate_init=0.01, random_state=0),
    )
    search = GridSearchCV(model, {"sparsemlpclassifier__density": [0.02, 0.5]}, cv=2)
    search.fit(IMAGES, LABELS)
    assert search.best_params_ == {"sparsemlpclassifier__density": 0.5}
    assert cross_val_score(search.best_estimator_, IMAGES, LABELS, cv=2).min() > 0.5
    coder = make_pipeline(
        SparseAutoencoder((20,), max_iter=5, random_state=0), LogisticRegression(max_iter=200)
    )
    assert coder.fit(IMAGES, LABELS).score(IMAGES, LABELS) > 0.5


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("hidden_layer_sizes", (10, 0), "hidden_layer_sizes must be a whole number of at least 1"),
        ("hidden_layer_sizes", "ten", "hidden_layer_sizes must be a whole number"),
        ("activation", "gelu", "activation must be one of identity, .*, got 'gelu'"),
        ("solver", "lbfgs", "solver must be one of adam, sgd, got 'lbfgs'"),
        ("alpha", -1, r"alpha must be a number in \[0, inf\), got -1"),
        ("batch_size", 0, "batch_size must be a whole number of at least 1, got 0"),
        ("learning_rate_init", 0, r"learning_rate_init must be a number in \(0, inf\), got 0"),
        ("max_iter", 1.5, r"max_iter must be a whole number of at least 1, got 1\.5"),
        ("momentum", 2, r"momentum must be a number in \[0, 1\), got 2"),
        ("validation_fraction", 1, r"validation_fraction must be a number in \(0, 1\), got 1"),
        ("density", 0, r"density must be a number in \(0, 1\], got 0"),
        ("allocation", "even", "allocation must be one of .*, got 'even'"),
        ("method", "sett", "method must be dense or one of .*, got 'sett'"),
        ("fraction", 1, r"fraction must be a number in \[0, 1\), got 1"),
        ("every", "week", "every must be a whole number of at least 1, got 'week'"),
        ("compute", "block", "compute must be one of auto, csr, dense, got 'block'"),
    ],
)
@every_estimator
def test_bad_parameters_are_refused(estimator, name, value, sentence) -> None:
    with pytest.raises(ValueError, match=sentence):
        quick(estimator, **{name: value}).fit(IMAGES, LABELS)


@every_estimator
def test_attributes_before_a_fit_are_refused(estimator) -> None:
    with pytest.raises(AttributeError, match="only after fit"):
        estimator.coefs_  # noqa: B018
    with pytest.raises(ValueError, match="density and epsilon both say"):
        quick(estimator, epsilon=3).fit(IMAGES, LABELS)


@every_estimator
def test_a_training_that_diverges_says_so(estimator) -> None:
    wild = quick(estimator, solver="sgd", learning_rate_init=1e20)
    with pytest.raises(ValueError, match=r"diverged in epoch .* lower learning_rate_init"):
        wild.fit(IMAGES * 1e10, LABELS)
