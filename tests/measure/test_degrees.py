"""Degrees and the power law: against brute force, and on samples whose law is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from regrow import SparseLinear, Topology
from regrow.measure import degree_law, neuron_degrees
from regrow.topology import random_topology

scipy_special = pytest.importorskip("scipy.special")
zeta = scipy_special.zeta


def zipf(exponent: float, minimum: int, count: int, seed: int = 0) -> np.ndarray:
    """A sample of a power law from a table of its probabilities."""
    rng = np.random.default_rng(seed)
    degrees = np.arange(minimum, 200_000)
    weights = degrees.astype(float) ** -exponent
    return rng.choice(degrees, count, p=weights / weights.sum())


@pytest.mark.parametrize("exponent", [1.8, 2.5, 3.2])
@pytest.mark.parametrize("minimum", [1, 6])
def test_the_exponent_of_a_known_law(exponent: float, minimum: int) -> None:
    degrees = zipf(exponent, minimum, 8000)
    law = degree_law(degrees, minimum=minimum)
    assert law.exponent == pytest.approx(exponent, abs=4 * law.error)
    assert law.error == pytest.approx(0.025, abs=0.02)
    assert (law.tail, law.neurons) == (8000, 8000)
    assert law.exponential.ratio > 2
    assert law.exponential.p < 0.05


def test_likelihood_and_distance_by_brute_force() -> None:
    degrees = np.array([2, 2, 2, 2, 3, 3, 4, 4, 5, 7, 9, 20])
    law = degree_law(degrees, minimum=2)
    grid = np.arange(1.01, 8, 0.0005)
    likelihoods = [-a * np.log(degrees).sum() - 12 * np.log(zeta(a, 2)) for a in grid]
    assert law.exponent == pytest.approx(grid[int(np.argmax(likelihoods))], abs=1e-3)
    every = np.arange(2, 100)
    own = np.array([(degrees <= k).mean() for k in every])
    model = np.array([sum(j**-law.exponent for j in range(2, k + 1)) for k in every])
    assert law.distance == pytest.approx(np.abs(own - model / zeta(law.exponent, 2)).max(), 1e-6)
    # Exponential tail: p(k) = (1 - q) q^(k - 2), its mean fitted.
    q = 1 - 1 / (1 + degrees.mean() - 2)
    exponential = np.log(1 - q) + (degrees - 2) * np.log(q)
    differences = -law.exponent * np.log(degrees) - np.log(zeta(law.exponent, 2)) - exponential
    ratio = differences.sum() / (differences.std() * np.sqrt(12))
    assert law.exponential.ratio == pytest.approx(ratio)
    # Poisson cut off below 2: the best mean on a grid.
    from scipy.stats import poisson

    means = np.arange(0.01, 8, 0.001)
    fits = [poisson.logpmf(degrees, m) - poisson.logsf(1, m) for m in means]
    best = fits[int(np.argmax([fit.sum() for fit in fits]))]
    differences += exponential - best
    ratio = differences.sum() / (differences.std() * np.sqrt(12))
    assert law.poisson.ratio == pytest.approx(ratio, rel=1e-3)


def test_the_distance_is_also_that_before_a_jump() -> None:
    degrees = np.array([1] * 5 + [100] * 6)
    law = degree_law(degrees, minimum=1)
    below = 1 - zeta(law.exponent, 100) / zeta(law.exponent, 1)  # of the law, at degree 99
    assert law.distance == pytest.approx(below - 5 / 11)


def test_the_minimum_is_found() -> None:
    # Uniform below 8, a power law from there on.
    rng = np.random.default_rng(1)
    degrees = np.concatenate([rng.integers(1, 8, 4000), zipf(2.5, 8, 6000, 2)])
    law = degree_law(degrees)
    assert 7 <= law.minimum <= 12
    assert law.exponent == pytest.approx(2.5, abs=0.15)


def test_a_random_topology_has_no_power_law() -> None:
    topology = random_topology((2000, 500), 40_000, generator=torch.Generator().manual_seed(0))
    law = degree_law(topology.degrees()[0].numpy(), minimum=1)
    assert law.poisson.ratio < -10
    assert law.poisson.p < 1e-6
    assert law.exponential.ratio < -10


def test_share_of_samples_that_are_farther() -> None:
    true = degree_law(zipf(2.5, 1, 500), samples=60)
    false = degree_law(np.random.default_rng(0).geometric(0.1, 500), minimum=1, samples=60)
    assert true.p > 0.1
    assert false.p == 0
    assert degree_law(zipf(2.5, 1, 500), samples=60) == true  # the seed decides


def test_survival() -> None:
    law = degree_law(zipf(2.5, 1, 4000), minimum=1)
    assert law.survival([1]) == 1
    assert law.survival([3])[0] == pytest.approx((zipf(2.5, 1, 4000) >= 3).mean(), abs=0.02)


def test_neurons_without_connections_do_not_count() -> None:
    degrees = zipf(2.5, 1, 400)
    assert degree_law([*degrees, 0, 0]) == degree_law(degrees)


@pytest.mark.parametrize("degrees", [[], [3] * 50, [1, 2, 3], [0] * 20])
def test_nothing_to_fit(degrees: list[int]) -> None:
    with pytest.raises(ValueError, match="degrees to fit must be of 10 neurons"):
        degree_law(degrees)


def test_degrees_of_neurons_count_both_sides() -> None:
    first, second = (SparseLinear(a, b, density=0.3) for a, b in ((20, 30), (30, 10)))
    model = torch.nn.Sequential(first, second)
    inputs, hidden, outputs = neuron_degrees(model)
    masks = first.topology.mask(), second.topology.mask()
    assert inputs.tolist() == masks[0].sum(0).tolist()
    assert hidden.tolist() == (masks[0].sum(1) + masks[1].sum(0)).tolist()
    assert outputs.tolist() == masks[1].sum(1).tolist()
    assert neuron_degrees(Topology((2, 2), torch.tensor([0])))[0].tolist() == [1, 0]
