import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits

from regrow.estimators import SparseAutoencoder

IMAGES = (load_digits().data[:300] / 16).astype(np.float32)
SMALL = SparseAutoencoder(
    (40, 16), density=0.4, max_iter=100, learning_rate_init=0.01, random_state=0
)


def test_it_reconstructs_better_than_the_mean() -> None:
    model = clone(SMALL).fit(IMAGES)
    codes = model.transform(IMAGES)
    assert codes.shape == (300, 16)
    assert codes.dtype == np.float32
    back = model.inverse_transform(codes)
    error = ((back - IMAGES) ** 2).mean()
    assert error < 0.7 * IMAGES.var(axis=0).mean()
    assert model.score(IMAGES) == pytest.approx(-error, rel=1e-4)
    assert [weights.shape for weights in model.coefs_] == [(64, 40), (40, 16), (16, 40), (40, 64)]


def test_noise_is_drawn_for_training_alone_and_from_its_seed() -> None:
    noisy = clone(SMALL).set_params(noise=0.5, max_iter=5)
    first, second = clone(noisy).fit(IMAGES), clone(noisy).fit(IMAGES)
    assert np.array_equal(first.transform(IMAGES), second.transform(IMAGES))
    quiet = clone(noisy).set_params(noise=0.0).fit(IMAGES)
    assert not np.array_equal(first.transform(IMAGES), quiet.transform(IMAGES))
    assert -first.score(IMAGES) < first.loss_curve_[0]


def test_names_of_codes() -> None:
    model = clone(SMALL).set_params(hidden_layer_sizes=3, max_iter=1).fit(IMAGES)
    names = ["sparseautoencoder0", "sparseautoencoder1", "sparseautoencoder2"]
    assert model.get_feature_names_out().tolist() == names


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="must name one layer at least, the code; got none"):
        clone(SMALL).set_params(hidden_layer_sizes=()).fit(IMAGES)
    with pytest.raises(ValueError, match=r"noise must be a number in \[0, inf\), got -1"):
        clone(SMALL).set_params(noise=-1).fit(IMAGES)
    with pytest.raises(ValueError, match=r"must have shape \(rows, 16\), got \(2, 5\)"):
        clone(SMALL).set_params(max_iter=1).fit(IMAGES).inverse_transform(np.ones((2, 5)))
