"""The registry of methods and the starts of new values."""

from __future__ import annotations

import pytest
import torch

import regrow
from regrow import SparseLinear
from regrow.evolution.methods import _METHODS, Method, register
from regrow.evolution.starts import STARTS, Normal


def test_the_first_methods_and_their_papers_defaults() -> None:
    methods = regrow.methods()
    assert {"static", "set", "rigl"} <= set(methods)
    assert all(method.name == name for name, method in methods.items())
    assert all(method.source for method in methods.values())
    assert methods["static"].every is None
    assert methods["set"].drop == "sign-split"
    assert methods["set"].fraction(10, None) == 0.3
    assert methods["set"].start == Normal(0.1)
    assert methods["rigl"].grow == "gradient"
    assert methods["rigl"].fraction(0, 100) == 0.3
    assert methods["rigl"].fraction(100, 100) == 0.0
    assert methods["rigl"].every == 100


def test_what_is_returned_is_a_copy() -> None:
    regrow.methods().clear()
    assert regrow.methods()


def test_names_are_registered_once() -> None:
    mine = Method(name="mine")
    try:
        assert register(mine) is mine
        assert regrow.methods()["mine"] is mine
        sentence = "method name must be new, got 'mine', which is registered already"
        with pytest.raises(ValueError, match=sentence):
            register(Method(name="mine"))
    finally:
        _METHODS.pop("mine")


def test_starts() -> None:
    layer = SparseLinear(50, 40, density=0.5)
    generator = torch.Generator().manual_seed(0)
    assert STARTS["zero"](layer, 3, generator).tolist() == [0.0] * 3
    drawn = STARTS["init"](layer, 500, generator)
    assert 0.9 / layer.fan_in**0.5 < drawn.abs().max() <= 1 / layer.fan_in**0.5
    normal = Normal(0.1)(layer, 4000, generator)
    # The estimate of a standard deviation from 4000 draws has relative error 0.011.
    assert abs(normal.std() / 0.1 - 1) < 6 * 0.0112
    assert abs(normal.mean()) < 6 * 0.1 / 4000**0.5
