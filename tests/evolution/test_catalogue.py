"""The catalogue in words."""

from __future__ import annotations

import pytest

import regrow
from regrow.evolution import DropScore, Method
from regrow.evolution.catalogue import account, in_words, overview, parts, short_source, told
from regrow.evolution.drop import magnitude, threshold
from regrow.evolution.grow import mix, momentum
from regrow.evolution.schedules import Constant, Cosine, Pals
from regrow.evolution.scores import DROP_SCORES, GROW_SCORES, described
from regrow.evolution.starts import STARTS, Normal
from regrow.topology import NofM


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("epoch", "epoch"),
        (0.3, "0.3"),
        (25_000, "25,000"),
        (True, "True"),
        (None, "None"),
        (Constant(0.3), "0.3"),
        (Cosine(0.5, 0.005), "0.5 to 0.005, cosine"),
        (Pals(1.2, 1.1), "Pals(1.2, 1.1, 0.8, 0.1)"),
        (Normal(0.1), "Normal(0.1)"),
        (NofM(2, 4), "NofM(2, 4)"),
        (threshold(0.2), "threshold"),
        (mix(0.3, lambda site, candidates: None), "mix"),
        (momentum(0.5, 3), "momentum"),
    ],
)
def test_parts_in_words(value: object, words: str) -> None:
    assert in_words(value) == words


def test_what_has_a_name_is_called_by_it() -> None:
    assert in_words(magnitude, DROP_SCORES) == "magnitude"
    assert in_words(DROP_SCORES["mest"], DROP_SCORES) == "mest"
    assert in_words(GROW_SCORES["bernoulli"], GROW_SCORES) == "bernoulli"
    assert in_words(STARTS["init"], STARTS) == "init"

    def by_luck(site: object) -> None: ...

    assert in_words(by_luck, DROP_SCORES) == "by-luck"


@pytest.mark.parametrize(
    ("source", "short"),
    [
        ('A. B. Cee, "Title of 1999", 2020', "Cee 2020"),
        ('A. Bee, C. Dee, "Title", 2020', "Bee, Dee 2020"),
        ('A. Bee, C. Dee, E. Eff, "Title", 2020', "Bee et al. 2020"),
        ('A. Bee et al., "Title", 2020', "Bee et al. 2020"),
        ("this page", "this page"),
        ("", ""),
    ],
)
def test_sources_in_short(source: str, short: str) -> None:
    assert short_source(source) == short


def test_parts_tell_what_is_unusual() -> None:
    method = Method("mine", scope="row", regrow="revive", differs="in all")
    assert list(parts(method)) == ["drop", "grow", "fraction", "every", "scope", "regrow"]
    assert account(method).splitlines()[-1] == "  differs      in all"
    assert parts(Method("still", every=None)) == {}


def test_methods_print_as_a_table() -> None:
    lines = str(regrow.methods()).splitlines()
    assert lines[0].split() == ["method", "drops", "grows", "share", "every", "from"]
    assert [line.split()[0] for line in lines[1:]] == sorted(regrow.methods())
    assert repr(regrow.methods()) == overview(regrow.methods())
    assert max(map(len, lines)) < 120


@pytest.mark.parametrize("name", sorted(regrow.methods()))
def test_every_method_has_a_source_and_says_where_it_differs(name: str) -> None:
    method = regrow.methods()[name]
    assert short_source(method.source)[-4:].isdigit()
    assert method.differs
    assert name in account(method)


def test_what_a_maker_says_its_entries_say() -> None:
    @described
    def above(row: int) -> DropScore:
        """Connections above a row go first."""
        return DropScore(lambda site: site.topology.rows)

    assert told(above(3)) == "Connections above a row go first."
    assert told(DROP_SCORES["magnitude"]).startswith("|w|")
    assert told(DropScore(lambda site: site.values)) == ""
