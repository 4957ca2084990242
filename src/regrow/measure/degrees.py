"""How many connections neurons have, and whether a power law describes it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from regrow.measure._chain import Network, sources, topologies
from regrow.measure._extra import require

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

# Exponents are sought between these; steeper laws are no longer told from an exponential one.
_LOWEST, _HIGHEST = 1.0001, 20.0
# The tail that a law is fitted to has at least so many neurons.
_LEAST_TAIL = 10


def neuron_degrees(network: Network) -> list[Integers]:
    """Connections of every neuron, those that come in and those that go out together.

    Args:
        network: A model with sparse layers, a topology, or several that follow each other.

    Returns:
        One array for the inputs, one for each layer: ``[neurons]`` each.

    Example:
        >>> import torch
        >>> from regrow import Topology
        >>> chain = [Topology((2, 3), torch.tensor([0, 1, 5])), Topology((1, 2), torch.tensor([0]))]
        >>> [degrees.tolist() for degrees in neuron_degrees(chain)]
        [[1, 1, 1], [3, 1], [1]]
    """
    chain = topologies(network)
    found = [np.zeros(chain[0].shape[1], dtype=np.int64)]
    for topology, source in zip(chain, sources(chain), strict=True):
        found[-1] = found[-1] + np.bincount(source.numpy(), minlength=len(found[-1]))
        found.append(topology.degrees()[0].cpu().numpy())
    return found


@dataclass(frozen=True)
class Comparison:
    """A likelihood ratio test between the power law and another distribution of the same tail.

    Attributes:
        ratio: Logarithm of the likelihood ratio over its standard deviation; positive where the
            power law fits better, negative where the other one does.
        p: How likely a ratio of this size is where both fit equally well; above about 0.1 the sign
            says nothing.
    """

    ratio: float
    p: float


@dataclass(frozen=True)
class DegreeLaw:
    """A power law ``p(k) ~ k^-exponent`` for ``k >= minimum``, and how well it fits.

    Attributes:
        exponent: Of greatest likelihood.
        error: Its standard error.
        minimum: Degree from which on the law is fitted.
        tail: Neurons of at least this degree.
        neurons: All neurons with a connection.
        distance: Kolmogorov-Smirnov distance of the tail to the law.
        exponential: Against an exponential tail.
        poisson: Against a Poisson distribution cut off below the minimum.
        p: Share of samples of the law that are farther from their own fit than the degrees are;
            below about 0.1 the law is to be rejected. None where it was not asked for.
    """

    exponent: float
    error: float
    minimum: int
    tail: int
    neurons: int
    distance: float
    exponential: Comparison
    poisson: Comparison
    p: float | None = None

    def survival(self, degrees: ArrayLike) -> Floats:
        """Share of the tail that has at least these degrees, by the law."""
        from scipy.special import zeta

        given = np.asarray(degrees, dtype=np.float64)
        share: Floats = zeta(self.exponent, given) / zeta(self.exponent, self.minimum)
        return share


def degree_law(
    degrees: ArrayLike, *, minimum: int | None = None, samples: int = 0, seed: int = 0
) -> DegreeLaw:
    """Fit a discrete power law to degrees by greatest likelihood.

    The degree from which on the law holds is the one that brings law and tail closest together.
    Two rivals are fitted to the same tail: where both ratios are well above zero the law is worth
    its name.

    Needs SciPy (``pip install regrow[analysis]``).

    Args:
        degrees: Connections of each neuron, whole numbers >= 0; neurons without one are left out.
        minimum: Degree from which on to fit, >= 1; sought if None.
        samples: How many samples of the fitted law to draw and fit for ``p``; some hundreds tell.
        seed: Of the samples.

    Returns:
        The law and its fit.

    Raises:
        ValueError: Fewer than 10 neurons, or fewer than two different degrees, are in the tail.

    Example:
        >>> rng = np.random.default_rng(1)
        >>> law = degree_law(rng.zipf(3.0, 5000), minimum=1)
        >>> round(law.exponent, 1), law.exponential.ratio > 3, law.poisson.ratio > 3
        (3.0, True, True)
        >>> random = degree_law(rng.poisson(20, 5000))
        >>> random.poisson.ratio < 0
        True

    References:
        A. Clauset, C. R. Shalizi, M. E. J. Newman, "Power-law distributions in empirical data",
        2009.
    """
    require("scipy", "degree_law")
    counted = np.asarray(degrees)
    numbers = np.sort(counted[counted > 0].astype(np.int64).reshape(-1))
    start, exponent, distance = _fitted(numbers, minimum)
    tail = numbers[numbers >= start]
    own = _law_likelihoods(tail, start, exponent)
    return DegreeLaw(
        exponent,
        _standard_error(exponent, start, tail.size),
        start,
        int(tail.size),
        int(numbers.size),
        distance,
        _compared(own, _exponential_likelihoods(tail, start)),
        _compared(own, _poisson_likelihoods(tail, start)),
        _share_farther(numbers, start, exponent, distance, minimum, samples, seed),
    )


def _fitted(numbers: Integers, minimum: int | None) -> tuple[int, float, float]:
    """Minimum, exponent and distance."""
    values, counts = np.unique(numbers, return_counts=True)
    sizes = counts[::-1].cumsum()[::-1]
    starts = values[:-1][sizes[:-1] >= _LEAST_TAIL] if minimum is None else np.array([minimum])
    best: tuple[float, int, float] | None = None
    for start in map(int, starts):
        inside = values >= start
        if inside.sum() < 2 or counts[inside].sum() < _LEAST_TAIL:
            continue
        exponent = _exponent(values[inside], counts[inside], start)
        distance = _ks(values[inside], counts[inside], start, exponent)
        if best is None or distance < best[0]:
            best = distance, start, exponent
    if best is None:
        raise ValueError(
            f"degrees to fit must be of {_LEAST_TAIL} neurons at least and differ in the tail, "
            f"got {numbers.size} neurons of {values.size} degrees"
        )
    return best[1], best[2], best[0]


def _exponent(values: Integers, counts: Integers, start: int) -> float:
    from scipy.optimize import minimize_scalar
    from scipy.special import zeta

    total, logarithms = counts.sum(), float(counts @ np.log(values))

    def loss(exponent: float) -> float:
        return float(total * np.log(zeta(exponent, start)) + exponent * logarithms)

    found = minimize_scalar(loss, bounds=(_LOWEST, _HIGHEST), method="bounded")
    return float(found.x)


def _ks(values: Integers, counts: Integers, start: int, exponent: float) -> float:
    """Greatest distance of the two distribution functions, also at degrees that nobody has."""
    from scipy.special import zeta

    own: Floats = counts.cumsum() / counts.sum()
    law = 1 - zeta(exponent, values + 1.0) / zeta(exponent, start)
    before = 1 - zeta(exponent, values.astype(np.float64)) / zeta(exponent, start)
    gaps = np.abs(own - law).max(), np.abs(np.append(0, own[:-1]) - before).max()
    return float(max(gaps))


def _standard_error(exponent: float, start: int, tail: int) -> float:
    from scipy.special import zeta

    step = 1e-3
    near = [math.log(zeta(exponent + shift, start)) for shift in (-step, 0, step)]
    information = (near[0] - 2 * near[1] + near[2]) / step**2
    return 1 / math.sqrt(tail * information) if information > 0 else math.inf


def _law_likelihoods(tail: Integers, start: int, exponent: float) -> Floats:
    from scipy.special import zeta

    found: Floats = -exponent * np.log(tail) - np.log(zeta(exponent, start))
    return found


def _exponential_likelihoods(tail: Integers, start: int) -> Floats:
    rate = math.log1p(1 / (tail.mean() - start))
    found: Floats = math.log(-math.expm1(-rate)) - rate * (tail - start).astype(np.float64)
    return found


def _poisson_likelihoods(tail: Integers, start: int) -> Floats:
    from scipy.optimize import minimize_scalar
    from scipy.stats import poisson

    values, counts = np.unique(tail, return_counts=True)

    def likelihoods(mean: float, at: Integers) -> Floats:
        found: Floats = poisson.logpmf(at, mean) - poisson.logsf(start - 1, mean)
        return found

    # The cut-off tail has a greater mean than the whole distribution.
    found = minimize_scalar(
        lambda mean: -float(counts @ likelihoods(mean, values)),
        bounds=(1e-6, float(tail.mean()) + 1),
        method="bounded",
    )
    return likelihoods(float(found.x), tail)


def _compared(law: Floats, other: Floats) -> Comparison:
    differences = law - other
    spread = float(differences.std() * math.sqrt(differences.size))
    if spread == 0:
        return Comparison(0.0, 1.0)
    ratio = float(differences.sum()) / spread
    return Comparison(ratio, math.erfc(abs(ratio) / math.sqrt(2)))


def _share_farther(
    numbers: Integers,
    start: int,
    exponent: float,
    distance: float,
    minimum: int | None,
    samples: int,
    seed: int,
) -> float | None:
    if not samples:
        return None
    rng = np.random.default_rng(seed)
    body, tail = numbers[numbers < start], int((numbers >= start).sum())
    farther = 0
    for _ in range(samples):
        count = int(rng.binomial(numbers.size, tail / numbers.size))
        drawn = _draw(start, exponent, count, rng)
        if body.size:
            drawn = np.concatenate([drawn, rng.choice(body, numbers.size - count)])
        try:
            farther += _fitted(drawn, minimum)[2] >= distance
        except ValueError:  # a sample without a tail to fit is as far as can be
            farther += 1
    return farther / samples


def _draw(start: int, exponent: float, count: int, rng: np.random.Generator) -> Integers:
    """Numbers of a power law: the greatest that at least a share u of all reaches."""
    from scipy.special import zeta

    share = rng.random(count)
    low = np.full(count, start, dtype=np.int64)
    high = low * 2
    whole = zeta(exponent, start)
    while (open_ := (zeta(exponent, high.astype(np.float64)) / whole > share)).any():
        if high.max() > 2**52:
            break
        low, high = np.where(open_, high, low), np.where(open_, 2 * high, high)
    while ((high - low) > 1).any():
        middle = (low + high) // 2
        above = zeta(exponent, middle.astype(np.float64)) / whole > share
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return low
