import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import make_regression

from regrow.estimators import SparseMLPRegressor

TABLE, TARGET = make_regression(200, 10, n_informative=5, random_state=0)
TARGET = TARGET / TARGET.std()
SMALL = SparseMLPRegressor(
    (30,), density=0.4, max_iter=100, learning_rate_init=0.01, random_state=0
)


def test_it_learns_and_coefficients_say_what_it_predicts() -> None:
    model = clone(SMALL).fit(TABLE, TARGET)
    assert model.score(TABLE, TARGET) > 0.8
    hidden = np.maximum(TABLE @ model.coefs_[0] + model.intercepts_[0], 0)
    by_hand = (hidden @ model.coefs_[1] + model.intercepts_[1])[:, 0]
    np.testing.assert_allclose(model.predict(TABLE), by_hand, rtol=1e-3, atol=1e-4)
    assert model.out_activation_ == "identity"


def test_several_targets_at_once() -> None:
    both = np.stack([TARGET, TABLE[:, 0]], axis=1)
    model = clone(SMALL).fit(TABLE, both)
    assert model.predict(TABLE).shape == (200, 2)
    assert model.score(TABLE, both) > 0.8
    assert model.n_outputs_ == 2


def test_predictions_do_not_depend_on_the_rows_beside() -> None:
    model = clone(SMALL).fit(TABLE, TARGET)
    alone = np.concatenate([model.predict(row[None]) for row in TABLE[:50]])
    np.testing.assert_allclose(model.predict(TABLE)[:50], alone, rtol=1e-10)


def test_precision_is_that_of_the_targets() -> None:
    single = clone(SMALL).fit(TABLE, TARGET.astype(np.float32))
    assert single.predict(TABLE).dtype == np.float32
    assert clone(SMALL).fit(TABLE, TARGET).predict(TABLE).dtype == np.float64


def test_the_loss_is_half_the_squared_error() -> None:
    model = SparseMLPRegressor((), method="dense", max_iter=1, learning_rate_init=1e-20)
    model.fit(TABLE, TARGET)
    error = (model.predict(TABLE) - TARGET) ** 2
    assert model.loss_ == pytest.approx(error.mean() / 2, rel=1e-4)


def test_a_weight_of_two_counts_as_two_rows_do() -> None:
    counts = np.arange(len(TABLE)) % 3
    weighted = clone(SMALL).fit(TABLE, TARGET, sample_weight=counts)
    repeated = clone(SMALL).set_params(batch_size=1000)
    repeated.fit(TABLE.repeat(counts, axis=0), TARGET.repeat(counts))
    np.testing.assert_allclose(weighted.predict(TABLE), repeated.predict(TABLE), atol=0.02)
