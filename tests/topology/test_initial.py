"""Patterns by name, and as objects."""

from __future__ import annotations

import re

import pytest
import torch

from regrow.topology import Block, NofM
from regrow.topology.initial import PATTERNS, pattern_of


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


EXACT = ["random", "small-world", "scale-free", "fan-in", "fan-out"]


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize("shape", [(12, 20), (12, 5, 2, 2)])
def test_every_pattern_gives_what_is_asked_for(name: str, shape: tuple[int, ...]) -> None:
    one, again = (pattern_of(name)(shape, 60, generator=seeded(3)) for _ in range(2))
    assert one == again
    assert tuple(one.shape) == shape
    if name in EXACT:
        assert one.nnz == 60
    else:  # 60 of 240: sd 6.7 with coin flips; 53 distinct, sd 2.3, with replacement
        assert 20 < one.nnz < 100
        assert one.nnz != 60


@pytest.mark.parametrize(
    ("pattern", "asked", "made"),
    [
        ("fan-in", 41, 36),
        ("fan-out", 41, 40),
        (Block(3, 4), 31, 36),
        (Block(3, 4), 1, 12),
        (NofM(1, 5), 48, 48),
    ],
)
def test_a_structure_takes_the_nearest_number(pattern, asked: int, made: int) -> None:
    assert pattern_of(pattern)((12, 20), asked, generator=seeded()).nnz == made


def test_n_of_m_decides_the_number() -> None:
    sentence = (
        "connections of a topology of 1 of 4 of shape (2, 8) must be 4, got 5; "
        "leave density and allocation to the pattern"
    )
    with pytest.raises(ValueError, match=re.escape(sentence)):
        NofM(1, 4)((2, 8), 5)


def test_a_function_is_a_pattern() -> None:
    assert pattern_of(test_a_function_is_a_pattern) is test_a_function_is_a_pattern


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="pattern must be one of random, bernoulli, replacement"):
        pattern_of("ring")
