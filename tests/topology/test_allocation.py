"""Allocation: the published vectors, exact totals, refusals."""

from __future__ import annotations

import math
import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrow.topology import allocate
from regrow.topology.allocation import ALLOCATIONS, share


def mlp(*sizes: int) -> dict[str, tuple[int, int]]:
    return {str(i): (b, a) for i, (a, b) in enumerate(pairwise(sizes))}


VECTORS = [
    ((3072, 1024, 512, 10), 0.01, [0.0077759723, 0.0174959376, 0.6088586285]),
    ((3072, 1024, 1024, 10), 0.05, [0.0423828125, 0.0635742188, 1.0]),
]


@pytest.mark.parametrize("allocation", ["er", "erk"])
@pytest.mark.parametrize(("sizes", "density", "expected"), VECTORS)
def test_published_densities(
    sizes: tuple[int, ...], density: float, expected: list[float], allocation: str
) -> None:
    shapes = mlp(*sizes)
    counts = allocate(shapes, density=density, allocation=allocation)
    for path, wanted in zip(shapes, expected, strict=True):
        size = math.prod(shapes[path])
        assert abs(counts[path] - wanted * size) <= 1, path
    assert sum(counts.values()) == round(density * sum(math.prod(s) for s in shapes.values()))


def test_epsilon_of_set() -> None:
    counts = allocate(mlp(784, 1000, 1000, 1000, 10), epsilon=20)
    assert list(counts.values()) == [35_680, 40_000, 40_000, 10_000]
    # 341,440 sparse weights of the CIFAR-10 net; the output layer is dense there.
    assert sum(allocate(mlp(3072, 4000, 1000, 4000), epsilon=20).values()) == 341_440
    assert allocate({"0": (1000, 784)}, epsilon=13) == {"0": 23_192}


def test_small_epsilon_leaves_a_connection() -> None:
    assert allocate(mlp(3, 4, 2), epsilon=1e-6) == {"0": 1, "1": 1}


def test_epsilon_of_a_convolution_counts_all_inputs() -> None:
    assert allocate({"conv": (8, 4, 3, 3)}, epsilon=2) == {"conv": 2 * (8 + 36)}


def test_erk_and_er_on_convolutions() -> None:
    shapes = {"conv": (64, 32, 3, 3), "head": (10, 1024)}
    sizes = {path: math.prod(shape) for path, shape in shapes.items()}
    by_kernel = allocate(shapes, density=0.05, allocation="erk")
    by_channel = allocate(shapes, density=0.05, allocation="er")
    scale = 0.05 * sum(sizes.values()) / ((64 + 32 + 3 + 3) + (10 + 1024))
    assert abs(by_kernel["conv"] - scale * (64 + 32 + 3 + 3)) <= 1
    assert abs(by_kernel["head"] - scale * (10 + 1024)) <= 1
    scale = 0.05 * sum(sizes.values()) / ((64 + 32) * 9 + (10 + 1024))
    assert abs(by_channel["conv"] - scale * (64 + 32) * 9) <= 1


def test_uniform_is_the_same_density_everywhere() -> None:
    counts = allocate({"a": (10, 10), "b": (20, 50)}, density=0.1, allocation="uniform")
    assert counts == {"a": 10, "b": 100}


def test_layers_of_one_shape_get_the_same_when_both_are_full() -> None:
    shapes = {"a": (2, 2), "b": (2, 2), "c": (100, 100)}
    counts = allocate(shapes, density=0.03)
    assert (counts["a"], counts["b"]) == (4, 4)
    assert sum(counts.values()) == round(0.03 * 10_008)


shapes_strategy = st.dictionaries(
    st.text("abc", min_size=1, max_size=3),
    st.tuples(st.integers(1, 40), st.integers(1, 40))
    | st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 3), st.integers(1, 3)),
    min_size=1,
    max_size=6,
)


def own(shapes: dict, density: float, allocation: str) -> float:
    """Connections of the layers that uniform+ and erk+ give a density of their own."""
    first, last = next(iter(shapes)), list(shapes)[-1]
    if first == last:
        return -1.0  # nobody else is there
    fixed = {last: 1.0 if allocation == "erk+" else max(0.2, density)}
    if allocation == "uniform+" and len(shapes[first]) > 2:
        fixed[first] = 1.0
    if len(fixed) == len(shapes):
        return -1.0
    return sum(share * math.prod(shapes[path]) for path, share in fixed.items())


@given(shapes_strategy, st.floats(0.0005, 1.0), st.sampled_from(sorted(ALLOCATIONS)))
def test_totals_are_exact(shapes: dict, density: float, allocation: str) -> None:
    sizes = {path: math.prod(shape) for path, shape in shapes.items()}
    total = round(density * sum(sizes.values()))
    if allocation.endswith("+") and density * sum(sizes.values()) <= own(
        shapes, density, allocation
    ):
        with pytest.raises(ValueError, match="must leave something to the other layers"):
            allocate(shapes, density=density, allocation=allocation)
        return
    if total < len(shapes):
        with pytest.raises(ValueError, match="density must leave every layer a connection"):
            allocate(shapes, density=density, allocation=allocation)
        return
    counts = allocate(shapes, density=density, allocation=allocation)
    assert sum(counts.values()) == total
    assert list(counts) == list(shapes)
    assert all(1 <= counts[path] <= sizes[path] for path in shapes)


@given(shapes_strategy, st.floats(0.1, 200, allow_nan=False))
def test_epsilon_counts_are_in_range(shapes: dict, epsilon: float) -> None:
    counts = allocate(shapes, epsilon=epsilon)
    assert all(1 <= counts[path] <= math.prod(shapes[path]) for path in shapes)


def test_density_one_is_dense() -> None:
    shapes = mlp(30, 20, 10, 3)
    for allocation in ALLOCATIONS:
        counts = allocate(shapes, density=1.0, allocation=allocation)
        assert counts == {path: math.prod(shape) for path, shape in shapes.items()}


def test_uniform_plus_by_hand() -> None:
    # 5000 positions, a tenth: 500. The first convolution has all its 90, the head 0.2 of 910 = 182;
    # 228 are left for 4000 positions.
    shapes = {"conv": (10, 1, 3, 3), "a": (50, 20), "b": (60, 50), "head": (10, 91)}
    counts = allocate(shapes, density=0.1, allocation="uniform+")
    assert counts == {"conv": 90, "a": 57, "b": 171, "head": 182}
    # Above 0.2 the head is as dense as all, and without a convolution only it has its own.
    counts = allocate({"a": (10, 10), "head": (10, 10)}, density=0.4, allocation="uniform+")
    assert counts == {"a": 40, "head": 40}
    counts = allocate({"a": (10, 30), "head": (10, 10)}, density=0.1, allocation="uniform+")
    assert counts == {"a": 20, "head": 20}


def test_erk_plus_by_hand() -> None:
    # 400 of 4000; the head has its 100; of 300, a gets 60/(60+130) and b 130/(60+130).
    shapes = {"a": (30, 30), "b": (100, 30), "head": (10, 10)}
    counts = allocate(shapes, density=0.1, allocation="erk+")
    assert counts == {"a": 95, "b": 205, "head": 100}


def test_layers_that_take_all_are_refused() -> None:
    sentence = (
        "density of erk+ must leave something to the other layers: head have 500 connections of "
        "their own, 0.1 of all positions are 60"
    )
    with pytest.raises(ValueError, match=re.escape(sentence)):
        allocate({"a": (10, 10), "head": (50, 10)}, density=0.1, allocation="erk+")


def test_a_full_rest_leaves_more_to_the_last() -> None:
    counts = allocate({"a": (2, 2), "head": (10, 10)}, density=0.99, allocation="uniform+")
    assert sum(counts.values()) == round(0.99 * 104)


def test_globs_give_densities_and_numbers() -> None:
    shapes = {"body.0": (10, 10), "body.1": (10, 20), "head": (5, 10)}
    counts = allocate(shapes, allocation={"body.0": 7, "body.*": 0.25, "head": 1.0})
    assert counts == {"body.0": 7, "body.1": 50, "head": 50}
    # With a density for the whole: 70 in all, 20 and 7 are given.
    counts = allocate(shapes, density=0.2, allocation={"body.0": 20, "head": 7})
    assert counts == {"body.0": 20, "body.1": 43, "head": 7}


def test_what_is_left_is_shared_as_erk_does() -> None:
    shapes = {"a": (30, 30), "b": (100, 30), "head": (10, 10)}
    counts = allocate(shapes, density=0.1, allocation={"head": 1.0})
    assert counts == allocate(shapes, density=0.1, allocation="erk+")


@pytest.mark.parametrize(
    ("allocation", "density", "sentence"),
    [
        ({"c": 0.1}, None, "path glob 'c' of the allocation meets no layer; there are a, b"),
        ({"a": 0.1}, None, "allocation must give every layer a density or a number of connections"),
        ({"a": 0, "b": 1}, None, "allocation of a must be a density in (0, 1] or a whole number"),
        ({"a": 21, "b": 1}, None, "of connections in [1, 20], got 21"),
        ({"*": 1.5}, None, "in [1, 20], got 1.5"),
        ({"a": 19}, 0.3, "the allocation does not name between 1 and 30 connections, got -4"),
        ({"a": 1}, 1.0, "the allocation does not name between 1 and 30 connections, got 49"),
        ({"*": 1}, 0.5, "the allocation does not name between 0 and 0 connections, got 23"),
        ({"a": 0.5}, 1.5, "density of the allocation must be in (0, 1], got 1.5"),
    ],
)
def test_mappings_that_cannot_be_are_refused(allocation, density, sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        allocate({"a": (4, 5), "b": (5, 6)}, density=density, allocation=allocation)


def test_a_function_may_allocate() -> None:
    shapes = {"a": (10, 10), "b": (10, 10)}
    counts = allocate(shapes, density=0.2, allocation=lambda s, d: {"a": 29.6, "b": 10.4})
    assert counts == {"a": 30, "b": 10}
    with pytest.raises(ValueError, match="must give every layer its connections: a, b; got a"):
        allocate(shapes, density=0.2, allocation=lambda s, d: {"a": 40})


def test_an_epsilon_is_shared_as_er_or_erk() -> None:
    shapes = {"conv": (8, 4, 3, 3), "head": (10, 1024)}
    assert allocate(shapes, epsilon=2, allocation="er") == allocate(shapes, epsilon=2)
    assert allocate(shapes, epsilon=2, allocation="erk") == {"conv": 2 * 18, "head": 2 * 1034}
    sentence = "an epsilon is shared as er or erk does, got allocation 'uniform'"
    with pytest.raises(ValueError, match=sentence):
        allocate(shapes, epsilon=2, allocation="uniform")
    with pytest.raises(ValueError, match="a mapping gives layers their density itself"):
        allocate(shapes, epsilon=2, allocation={"*": 0.5})


def test_share_follows_given_weights() -> None:
    assert share({"a": 100, "b": 100}, {"a": 1.0, "b": 3.0}, 0.2) == {"a": 10, "b": 30}
    assert share({"a": 10, "b": 100}, {"a": 50.0, "b": 1.0}, 0.2) == {"a": 10, "b": 12}


@pytest.mark.parametrize("density", [0, -0.1, 1.01, float("nan"), float("inf")])
def test_bad_densities_are_refused(density: float) -> None:
    sentence = f"density of the allocation must be in (0, 1], got {density}"
    with pytest.raises(ValueError, match=re.escape(sentence)):
        allocate(mlp(4, 5), density=density)


@pytest.mark.parametrize("epsilon", [0, -3, float("nan"), float("inf")])
def test_bad_epsilons_are_refused(epsilon: float) -> None:
    with pytest.raises(ValueError, match=f"epsilon must be a positive number, got {epsilon}"):
        allocate(mlp(4, 5), epsilon=epsilon)


@pytest.mark.parametrize("given", [{}, {"density": 0.1, "epsilon": 20}])
def test_a_density_or_an_epsilon(given: dict) -> None:
    with pytest.raises(ValueError, match="give either a density or an epsilon to allocate"):
        allocate(mlp(4, 5), **given)


def test_no_layers_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one layer to allocate connections to"):
        allocate({}, density=0.1)


def test_unknown_allocation_is_refused() -> None:
    sentence = r"allocation must be one of uniform, uniform\+, er, erk, erk\+, got 'snip'"
    with pytest.raises(ValueError, match=sentence):
        allocate(mlp(4, 5), density=0.5, allocation="snip")


def test_fewer_connections_than_layers_are_refused() -> None:
    sentence = (
        "density must leave every layer a connection: 0.01 of 130 positions are 1 connections "
        "for 2 layers"
    )
    with pytest.raises(ValueError, match=sentence):
        allocate({"a": (10, 10), "b": (10, 3)}, density=0.01)
