"""Methods made to fit a training."""

import pytest

import regrow
from regrow import Block, Method, NofM
from regrow.evolution.fitted import beginning, falling, fitted, pattern_for
from regrow.evolution.schedules import Cosine, Cubic, Pals, Phases

GIVEN = {"density": 0.25, "total_steps": 200, "steps_per_epoch": 10, "shapes": [(32, 64)]}


def test_an_end_in_steps_comes_at_three_quarters_and_one_that_is_a_share_stays() -> None:
    assert fitted(Method("mine", until=25_000), **GIVEN).until == 150
    assert fitted(Method("mine", until=0.5), **GIVEN).until == 0.5
    assert fitted(Method("mine"), **GIVEN).until is None


def test_an_interval_is_a_tenth_at_most() -> None:
    assert fitted(Method("mine", every=1000), **GIVEN).every == 20
    assert fitted(Method("mine", every=7), **GIVEN).every == 7
    assert fitted(Method("mine", every="epoch"), **GIVEN).every == "epoch"
    assert fitted(Method("mine", every=50), **{**GIVEN, "total_steps": 5}).every == 1


def test_a_topology_that_stays_is_left_alone() -> None:
    static = regrow.methods()["static"]
    assert fitted(static, **GIVEN) is static


def test_a_density_ends_at_an_update_with_what_was_asked_for() -> None:
    found = fitted(Method("mine", every=15, density=Cubic(1.0, 0.1)), **GIVEN)
    assert (found.until, found.density) == (195, Cubic(1.0, 0.25))
    found = fitted(Method("mine", every="epoch", density=Cubic(1.0, 0.1)), **GIVEN)
    assert (found.until, found.density) == (190, Cubic(1.0, 0.25))
    parts = falling(Phases(1.0, 0.1, 1000), 0.25, until=100, every=10)
    assert parts == {"until": 100, "density": Phases(1.0, 0.25, 10)}


def test_n_of_m_comes_near_to_the_density() -> None:
    assert fitted(Method("mine", scope=NofM(2, 4)), **GIVEN).scope == NofM(1, 4)


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (Method("mine"), (None, "random")),
        (Method("mine", pattern="small-world"), (None, "small-world")),
        (Method("mine", scope="row"), (None, "fan-in")),
        (Method("mine", scope="column"), (None, "fan-out")),
        (Method("mine", scope=NofM(2, 4)), (None, NofM(2, 4))),
        (Method("mine", unit=Block(2, 2)), (None, Block(2, 2))),
        (Method("mine", density=Cubic(0.5, 0.1), until=100), (0.5, "random")),
        (Method("mine", density=Pals()), (1.0, "random")),
    ],
)
def test_a_network_begins_in_the_form_that_the_method_keeps(method, expected) -> None:
    assert beginning(method) == expected
    assert pattern_for(method, method.scope) == expected[1]


def test_other_parts_stay() -> None:
    method = Method("mine", drop="magnitude", grow="gradient", fraction=Cosine(0.5), until=9)
    found = fitted(method, **GIVEN)
    assert (found.drop, found.grow, found.fraction) == ("magnitude", "gradient", Cosine(0.5))
