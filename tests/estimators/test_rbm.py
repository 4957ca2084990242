import pickle

import numpy as np
import pytest
import torch
from scipy import sparse
from scipy.special import expit
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

import regrow
from regrow.estimators import SparseRBM
from regrow.estimators.rbm import Machine
from regrow.topology import random_topology

SMALL = SparseRBM(20, n_iter=2, random_state=0)
IMAGES, LABELS = load_digits(return_X_y=True)
IMAGES, LABELS = (IMAGES[:300] / 16).astype(np.float32), LABELS[:300]


def machine(compute: str = "csr", connections: int = 9) -> Machine:
    generator = torch.Generator().manual_seed(0)
    topology = random_topology((3, 5), connections, generator=generator)
    made = Machine(topology, 1.0, compute, generator)
    with torch.no_grad():
        made.bias.copy_(torch.tensor([0.5, -0.5, 0.1, 0.0, -1.0]))
        made.layer.bias.copy_(torch.tensor([0.2, -0.3, 0.0]))
    return made


@parametrize_with_checks([SMALL])
def test_scikit_learn_checks(estimator, check) -> None:
    check(estimator)


@pytest.mark.parametrize("compute", ["csr", "dense", "auto"])
def test_both_ways_are_those_of_the_dense_weight(compute: str) -> None:
    made = machine(compute)
    weight = made.layer.weight.detach()
    v, h = torch.rand(4, 5), torch.rand(4, 3)
    torch.testing.assert_close(made.hidden(v), torch.sigmoid(v @ weight.T + made.layer.bias))
    torch.testing.assert_close(made.visible(h), torch.sigmoid(h @ weight + made.bias))


@pytest.mark.parametrize("compute", ["csr", "dense"])
@pytest.mark.parametrize("steps", [1, 3])
def test_the_gradient_is_that_of_contrastive_divergence_at_the_connections(
    compute: str, steps: int
) -> None:
    made = machine(compute)
    v = torch.rand(6, 5, generator=torch.Generator().manual_seed(1))
    error = made.diverge(v, steps, torch.Generator().manual_seed(2))
    draws = torch.Generator().manual_seed(2)
    first = h = torch.bernoulli(made.hidden(v), generator=draws)
    for _ in range(steps):
        back = made.visible(h)
        h = torch.bernoulli(made.hidden(back), generator=draws)
    dense = (h.T @ back - first.T @ v) / len(v)
    where = made.layer.topology.mask()
    torch.testing.assert_close(made.layer.values.grad, dense[where])
    torch.testing.assert_close(made.layer.bias.grad, (h - first).mean(0))
    torch.testing.assert_close(made.bias.grad, (back - v).mean(0))
    assert error == pytest.approx(float((back - v).square().mean()), rel=1e-5)


def test_the_pseudo_likelihood_is_that_of_all_states_of_each_unit() -> None:
    made = machine()
    v = torch.bernoulli(torch.full((7, 5), 0.5), generator=torch.Generator().manual_seed(1))

    def energy(x: torch.Tensor) -> torch.Tensor:
        up = x @ made.layer.weight.detach().T + made.layer.bias.detach()
        return -(x @ made.bias.detach()) - torch.nn.functional.softplus(up).sum(1)

    expected = torch.zeros(7)
    for unit in range(5):
        turned = v.clone()
        turned[:, unit] = 1 - turned[:, unit]
        expected += torch.nn.functional.logsigmoid(energy(turned) - energy(v))
    torch.testing.assert_close(made.pseudo_likelihood(v), expected)


@pytest.mark.parametrize("method", ["set", "static", "dense", "rigl"])
def test_a_seed_repeats_a_fit_and_leaves_the_generators_of_others_alone(method: str) -> None:
    rbm = clone(SMALL).set_params(method=method)
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    first = clone(rbm).fit(IMAGES)
    assert torch.equal(torch.rand(1), expected)
    second = clone(rbm).fit(IMAGES)
    other = clone(rbm).set_params(random_state=1).fit(IMAGES)
    assert (first.components_ != second.components_).nnz == 0
    assert np.array_equal(first.gibbs(IMAGES), second.gibbs(IMAGES))
    assert (first.components_ != other.components_).nnz > 0


def test_it_learns_to_reconstruct_and_what_was_learnt_is_likelier() -> None:
    rbm = SparseRBM(50, n_iter=10, learning_rate=0.3, random_state=0).fit(IMAGES)
    back = rbm.inverse_transform(rbm.transform(IMAGES))
    assert ((back - IMAGES) ** 2).mean() < 0.8 * IMAGES.var(axis=0).mean()
    noise = np.random.default_rng(0).uniform(size=IMAGES.shape)
    assert rbm.score(IMAGES) > rbm.score(noise)
    assert len(rbm.loss_curve_) == rbm.n_iter_ == 10
    assert rbm.loss_curve_[-1] < rbm.loss_curve_[0]


def test_attributes_say_what_transform_computes() -> None:
    rbm = clone(SMALL).fit(IMAGES)
    assert sparse.issparse(rbm.components_)
    assert rbm.components_.shape == rbm.topology_.shape == (20, 64)
    by_hand = expit(IMAGES @ rbm.components_.T + rbm.intercept_hidden_)
    np.testing.assert_allclose(rbm.transform(IMAGES), by_hand, rtol=1e-4, atol=1e-6)
    codes = rbm.transform(IMAGES)
    by_hand = expit(codes @ rbm.components_ + rbm.intercept_visible_)
    np.testing.assert_allclose(rbm.inverse_transform(codes), by_hand, rtol=1e-4, atol=1e-6)


def test_updates_come_between_epochs_and_a_removal_at_the_end() -> None:
    whole = 11 * (64 + 20)
    kept = clone(SMALL).set_params(density=0.5, n_iter=1, final_removal=False)
    once, removed = clone(kept).fit(IMAGES), clone(kept).set_params(final_removal=True).fit(IMAGES)
    assert once.topology_.nnz == 640
    assert removed.topology_.nnz == 640 - round(0.3 * 640)
    twice = clone(kept).set_params(n_iter=2).fit(IMAGES)
    assert twice.topology_.nnz == 640
    moved = len(np.setdiff1d(once.topology_.positions, twice.topology_.positions))
    assert 0 < moved <= round(0.3 * 640)
    static = clone(SMALL).set_params(method="static").fit(IMAGES)
    assert static.topology_.nnz == min(whole, 1280)
    assert clone(SMALL).set_params(method="dense").fit(IMAGES).topology_.density == 1


@pytest.mark.parametrize("method", ["set", "rigl"])
def test_partial_fits_make_a_fit_even_through_a_pickle(method: str) -> None:
    rbm = SparseRBM(20, density=0.3, n_iter=4, method=method, momentum=0.5, random_state=0)
    whole = clone(rbm).set_params(final_removal=False).fit(IMAGES)
    parts = clone(rbm)
    for _ in range(4):
        parts = pickle.loads(pickle.dumps(parts.partial_fit(IMAGES)))
    assert (parts.components_ != whole.components_).nnz == 0
    assert parts.n_iter_ == 4
    assert parts.prune().topology_.nnz == clone(rbm).fit(IMAGES).topology_.nnz


def test_sparse_tables_are_as_good_as_dense_ones() -> None:
    dense, stored = clone(SMALL).fit(IMAGES), clone(SMALL).fit(sparse.csr_array(IMAGES))
    assert (dense.components_ != stored.components_).nnz == 0
    np.testing.assert_array_equal(
        dense.score_samples(IMAGES), stored.score_samples(sparse.csr_matrix(IMAGES))
    )


def test_works_in_a_pipeline_and_a_search() -> None:
    pipeline = make_pipeline(clone(SMALL), LogisticRegression(max_iter=500))
    search = GridSearchCV(pipeline, {"sparserbm__density": [0.01, 0.5]}, cv=2).fit(IMAGES, LABELS)
    assert search.best_params_ == {"sparserbm__density": 0.5}


def test_it_prints_epochs_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    clone(SMALL).set_params(verbose=True).fit(IMAGES)
    assert capsys.readouterr().out.count("reconstruction error") == 2


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("n_components", 0, "n_components must be a whole number of at least 1, got 0"),
        ("batch_size", 2.5, "batch_size must be a whole number of at least 1, got 2.5"),
        ("density", 1.5, r"density must be a number in \(0, 1\], got 1.5"),
        ("epsilon", -1, r"epsilon must be a number in \(0, inf\), got -1"),
        ("learning_rate", "auto", r"learning_rate must be a number in \(0, inf\), got 'auto'"),
        ("momentum", 1, r"momentum must be a number in \[0, 1\), got 1"),
        ("fraction", 1.0, r"fraction must be a number in \[0, 1\), got 1.0"),
        ("method", "sett", "method must be dense or one of .*, got 'sett'"),
        ("compute", "block", "compute must be one of csr, dense, auto, got 'block'"),
    ],
)
def test_bad_parameters_are_refused(name: str, value: object, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        clone(SMALL).set_params(**{name: value}).fit(IMAGES)


def test_density_and_epsilon_together_are_refused() -> None:
    with pytest.raises(ValueError, match=r"give one of them, got density=0\.1 and epsilon=3"):
        SparseRBM(density=0.1, epsilon=3).fit(IMAGES)


def test_codes_of_another_width_are_refused() -> None:
    with pytest.raises(ValueError, match=r"must have shape \(rows, 20\), got \(2, 3\)"):
        clone(SMALL).fit(IMAGES).inverse_transform(np.ones((2, 3)))


@pytest.mark.parametrize("method", sorted(regrow.methods()))
def test_every_method_trains_and_ends_with_the_density(method: str) -> None:
    rbm = SparseRBM(32, density=0.25, method=method, n_iter=5, random_state=0)
    rbm.set_params(final_removal=False).fit(IMAGES)
    assert rbm.loss_curve_[-1] < rbm.loss_curve_[0]
    if method not in ("pals", "set-neuron-pruning"):  # they find a number on the way
        assert rbm.topology_.density == pytest.approx(0.25, abs=0.01)


def test_a_method_of_ones_own() -> None:
    method = regrow.Method("mine", every=10, fraction=0.5)
    rbm = SparseRBM(20, density=0.2, method=method, random_state=0, n_iter=2).fit(IMAGES)
    assert rbm.topology_.nnz == 128
