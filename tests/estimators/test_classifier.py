import numpy as np
import pytest
from scipy.special import expit, softmax
from sklearn.base import clone
from sklearn.datasets import load_digits, make_multilabel_classification
from sklearn.neural_network import MLPClassifier

import regrow
from regrow.estimators import SparseMLPClassifier

IMAGES, LABELS = load_digits(return_X_y=True)
IMAGES, LABELS = (IMAGES[:300] / 16).astype(np.float32), LABELS[:300]
SMALL = SparseMLPClassifier((20,), max_iter=10, learning_rate_init=0.02, random_state=0)


def by_hand(model: SparseMLPClassifier, table: np.ndarray) -> np.ndarray:
    *hidden, last = zip(model.coefs_, model.intercepts_, strict=True)
    for weights, bias in hidden:
        table = np.maximum(table @ weights + bias, 0)
    return table @ last[0] + last[1]


def test_coefficients_say_what_the_probabilities_are() -> None:
    model = clone(SMALL).set_params(hidden_layer_sizes=(20, 15)).fit(IMAGES, LABELS)
    outputs = by_hand(model, IMAGES)
    expected = softmax(outputs, axis=1)
    np.testing.assert_allclose(model.predict_proba(IMAGES), expected, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(
        model.predict_log_proba(IMAGES), np.log(expected), rtol=1e-3, atol=1e-5
    )
    assert np.array_equal(model.predict(IMAGES), model.classes_[outputs.argmax(1)])
    assert (model.n_layers_, model.n_outputs_, model.out_activation_) == (4, 10, "softmax")


def test_two_classes_have_one_output() -> None:
    names = np.array(["even", "odd"])[LABELS % 2]
    model = clone(SMALL).set_params(density=0.4, max_iter=30).fit(IMAGES, names)
    odd = expit(by_hand(model, IMAGES)[:, 0])
    assert (model.n_outputs_, model.out_activation_) == (1, "logistic")
    np.testing.assert_allclose(model.predict_proba(IMAGES)[:, 1], odd, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(np.exp(model.predict_log_proba(IMAGES)).sum(1), 1, rtol=1e-5)
    assert set(model.predict(IMAGES)) == {"even", "odd"}
    assert model.score(IMAGES, names) > 0.8


def test_several_labels_at_once() -> None:
    x, y = make_multilabel_classification(200, 10, n_classes=4, random_state=0)
    model = clone(SMALL).set_params(max_iter=60, density=0.5)
    model.fit(x / 10, y)
    assert model.predict_proba(x / 10).shape == y.shape
    assert (model.predict(x / 10) == y).mean() > 0.7
    assert model.out_activation_ == "logistic"
    again = clone(SMALL).partial_fit(x / 10, y, classes=np.arange(4))
    assert np.array_equal(again.classes_, np.arange(4))


def test_a_dense_one_learns_as_that_of_scikit_learn() -> None:
    parameters = {"hidden_layer_sizes": (20,), "max_iter": 30, "learning_rate_init": 0.02}
    ours = SparseMLPClassifier(**parameters, method="dense", random_state=0)
    theirs = MLPClassifier(**parameters, random_state=0, n_iter_no_change=1000)
    with pytest.warns(match="converged"):
        theirs.fit(IMAGES, LABELS)
    assert ours.fit(IMAGES, LABELS).score(IMAGES, LABELS) == pytest.approx(
        theirs.score(IMAGES, LABELS), abs=0.05
    )
    np.testing.assert_allclose(ours.loss_curve_[0], theirs.loss_curve_[0], rtol=0.2)


@pytest.mark.parametrize("solver", ["adam", "sgd"])
def test_the_penalty_is_that_of_scikit_learn(solver: str) -> None:
    model = SparseMLPClassifier(
        (5,), density=0.5, solver=solver, alpha=30.0, max_iter=1, shuffle=False, momentum=0
    )
    free = clone(model).set_params(alpha=0.0, random_state=1).fit(IMAGES[:200], LABELS[:200])
    bound = clone(model).set_params(random_state=1).fit(IMAGES[:200], LABELS[:200])
    start = clone(free).set_params(learning_rate_init=1e-20).fit(IMAGES[:200], LABELS[:200])
    difference = (bound.coefs_[0] - free.coefs_[0]).toarray()
    if solver == "sgd":
        shrunk = -0.001 * 30.0 / 200 * start.coefs_[0].toarray()
        np.testing.assert_allclose(difference, shrunk, rtol=0.05, atol=1e-6)
    assert np.abs(difference).max() > 0
    np.testing.assert_array_equal(bound.intercepts_[0], free.intercepts_[0])


def test_a_weight_of_two_counts_as_two_rows_do() -> None:
    model = clone(SMALL).set_params(batch_size=1000)
    counts = np.arange(len(IMAGES)) % 3
    weighted = clone(model).fit(IMAGES, LABELS, sample_weight=counts)
    repeated = clone(model).fit(IMAGES.repeat(counts, axis=0), LABELS.repeat(counts))
    np.testing.assert_allclose(
        weighted.predict_proba(IMAGES), repeated.predict_proba(IMAGES), rtol=1e-2, atol=1e-4
    )
    nothing = clone(SMALL).set_params(batch_size=10).fit(IMAGES, LABELS, sample_weight=counts > 1)
    assert np.isfinite(nothing.loss_curve_).all()
    with pytest.raises(ValueError, match="Negative values in data passed to `sample_weight`"):
        clone(model).fit(IMAGES, LABELS, sample_weight=-np.ones(len(IMAGES)))


def test_classes_come_with_the_first_partial_fit() -> None:
    model = clone(SMALL)
    with pytest.raises(ValueError, match="classes must be given in the first call"):
        model.partial_fit(IMAGES, LABELS)
    model.partial_fit(IMAGES[:50], LABELS[:50], classes=np.arange(12))
    assert model.predict_proba(IMAGES).shape == (300, 12)
    model.partial_fit(IMAGES, LABELS)
    with pytest.raises(ValueError, match=r"y must have classes of \[0, .*\], got \[99\] as well"):
        model.partial_fit(IMAGES, np.where(LABELS == 3, 99, LABELS))
    with pytest.raises(ValueError, match="classes must be those of the first call"):
        model.partial_fit(IMAGES, LABELS, classes=np.arange(10))


def test_one_class_is_refused() -> None:
    with pytest.raises(ValueError, match="y must have at least two classes, got one class: 3"):
        clone(SMALL).fit(IMAGES, np.full(len(IMAGES), 3))


@pytest.mark.parametrize("method", sorted(regrow.methods()))
def test_every_method_trains_and_ends_with_the_density(method: str) -> None:
    model = clone(SMALL).set_params(
        hidden_layer_sizes=(64, 32), method=method, density=0.25, batch_size=20, max_iter=12
    )
    model.fit(IMAGES, LABELS)
    assert model.score(IMAGES, LABELS) > 0.5
    kept = sum(topology.nnz for topology in model.topologies_)
    positions = 64 * 64 + 64 * 32 + 32 * 10
    if method in ("pals", "set-neuron-pruning"):  # they find a number on the way
        assert 0 < kept < positions
    else:
        assert kept == pytest.approx(0.25 * positions, rel=0.05)


def test_epsilon_is_refused_where_the_density_changes() -> None:
    with pytest.raises(ValueError, match="epsilon must be left out for gmp"):
        clone(SMALL).set_params(method="gmp", epsilon=5).fit(IMAGES, LABELS)


@pytest.mark.parametrize("method", ["gmp", "granet", "ac-dc", "mest-soft", "pals", "rigl"])
def test_what_was_pruned_stays_so_in_a_warm_start(method: str) -> None:
    model = clone(SMALL).set_params(method=method, density=0.25, warm_start=True, batch_size=50)
    before = [topology.nnz for topology in model.fit(IMAGES, LABELS).topologies_]
    after = [topology.nnz for topology in model.fit(IMAGES, LABELS).topologies_]
    assert before == after
    assert len(model.loss_curve_) == 20


@pytest.mark.parametrize("method", ["gmp", "granet"])
def test_early_stopping_waits_for_the_density(method: str) -> None:
    model = clone(SMALL).set_params(
        method=method, density=0.2, early_stopping=True, n_iter_no_change=1
    )
    model.fit(IMAGES, LABELS)
    kept = sum(topology.nnz for topology in model.topologies_)
    assert kept == round(0.2 * (64 * 20 + 20 * 10))


def test_every_activation() -> None:
    for activation in ("identity", "logistic", "tanh", "relu", "srelu", "all-relu"):
        model = clone(SMALL).set_params(activation=activation, max_iter=40, density=0.3)
        assert model.fit(IMAGES, LABELS).score(IMAGES, LABELS) > 0.5
