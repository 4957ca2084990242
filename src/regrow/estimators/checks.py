"""Checks of constructor parameters, each failing with one sentence."""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils import check_array, check_random_state


def whole(name: str, value: Any, least: int) -> int:
    """A whole number of at least ``least``.

    Example:
        >>> whole("n_iter", 2.5, 0)
        Traceback (most recent call last):
        ValueError: n_iter must be a whole number of at least 0, got 2.5
    """
    if not isinstance(value, Integral) or isinstance(value, (bool, np.bool_)) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")
    return int(value)


def number(
    name: str, value: Any, low: float, high: float = float("inf"), ends: str = "[)"
) -> float:
    """A number between two others.

    Args:
        name: Of the parameter.
        value: Of it.
        low: Lower end.
        high: Upper end.
        ends: Whether the ends belong to it, in brackets.

    Example:
        >>> number("momentum", 1.5, 0, 1)
        Traceback (most recent call last):
        ValueError: momentum must be a number in [0, 1), got 1.5
    """
    fits = isinstance(value, Real) and not isinstance(value, (bool, np.bool_))
    if fits:
        above = value >= low if ends[0] == "[" else value > low
        fits = above and (value <= high if ends[1] == "]" else value < high)
    if not fits:
        raise ValueError(
            f"{name} must be a number in {ends[0]}{low}, {high}{ends[1]}, got {value!r}"
        )
    return float(value)


def one_of(name: str, value: Any, known: Iterable[str]) -> str:
    """One of some names.

    Example:
        >>> one_of("solver", "lbfgs", ("adam", "sgd"))
        Traceback (most recent call last):
        ValueError: solver must be one of adam, sgd, got 'lbfgs'
    """
    known = list(known)
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")
    return value


def density_or_epsilon(density: Any, epsilon: Any) -> None:
    """How many connections: a density, an epsilon, or neither."""
    if density is not None and epsilon is not None:
        raise ValueError(
            f"density and epsilon both say how many connections there are: give one of them, "
            f"got density={density!r} and epsilon={epsilon!r}"
        )
    if density is not None:
        number("density", density, 0, 1, "(]")
    if epsilon is not None:
        number("epsilon", epsilon, 0, ends="()")


def codes(table: Any, width: int) -> NDArray[Any]:
    """What is to be transformed back, ``[rows, width]``."""
    found = check_array(table, dtype=[np.float32, np.float64])
    if found.shape[1] != width:
        raise ValueError(f"X to transform back must have shape (rows, {width}), got {found.shape}")
    return np.asarray(found)


def generator_of(random_state: Any) -> torch.Generator:
    """One source of all random draws of a fit; torch's own is left alone.

    Args:
        random_state: Seed, ``numpy.random.RandomState`` or None.
    """
    seed = check_random_state(random_state).randint(np.iinfo(np.int32).max)
    return torch.Generator().manual_seed(int(seed))


def seed_of(generator: torch.Generator) -> int:
    """A seed, drawn."""
    return int(torch.randint(2**31 - 1, (1,), generator=generator))
