"""Selectors and simple rankings are judged alike, on rows that they have not seen."""

import numpy as np
import pytest

from regrow.reproduce.recipe import Context, Outcome, Outcomes
from regrow.reproduce.selectors import (
    BLIND,
    RANKINGS,
    SETS,
    at,
    compare,
    compared,
    comparison_pictures,
    comparison_tables,
    counted,
    operations,
    ranked,
    score,
    selector,
    split_set,
)
from regrow.selection import QuickSelection

HERE = Context(None)


def test_a_split_shares_no_row_and_depends_on_the_seed() -> None:
    (x, y), (x_test, y_test) = split_set(HERE, "digits", 0)
    assert len(x) == 1438
    assert len(x_test) == 359
    assert np.unique(y, return_counts=True)[1].min() >= 1438 // 10 - 5
    rows = {row.tobytes() for row in x}
    assert sum(row.tobytes() in rows for row in x_test) <= 2  # twins within the data
    again, _ = split_set(HERE, "digits", 0)
    other, _ = split_set(HERE, "digits", 1)
    assert np.array_equal(again[0], x)
    assert not np.array_equal(other[0], x)
    assert len(y_test) == 359


@pytest.mark.parametrize("name", RANKINGS)
def test_every_ranking_gives_one_number_a_feature(name: str) -> None:
    train, _ = split_set(HERE, "digits", 0)
    train = train[0][:200], train[1][:200]
    options = {"epochs": 1, "hidden": (20,)} if name == "attribution" else {"epochs": 1}
    scores, seconds, peak = ranked(
        name, SETS["digits"], train, 0, **(options if name in RANKINGS[:4] else {})
    )
    assert scores.shape == (64,)
    assert np.isfinite(scores).all()
    assert seconds >= 0
    assert peak is None or peak >= 0


def test_what_is_judged() -> None:
    found = compare(HERE, "digits", "variance", 0)
    assert set(found) == {"svm", "trees", "neighbour", "clusters", "seconds", "peak"}
    assert found["svm"][0] < found["svm"][2] > 0.9
    assert "variance" in BLIND
    assert "clusters" not in compare(HERE, "digits", "f-test", 0)
    whole = compare(HERE, "digits", "all features", 0)
    assert len(whole["svm"]) == 1
    assert whole["svm"][0] > 0.95


def test_published_options_go_by_the_kind_and_may_be_replaced() -> None:
    assert selector("wast", "image", 5, 0).sensitivity == 0.4
    assert selector("wast", "text", 5, 0).sensitivity == 0.9
    assert selector("wast", "text", 5, 0, sensitivity=0.5).sensitivity == 0.5
    assert selector("neurofs", "genes", 5, 0).batch_size == 20
    assert selector("attribution", "text", 5, 3).random_state == 3


def test_flops_are_those_of_the_connections() -> None:
    x = np.random.default_rng(0).normal(size=(100, 30))
    made = QuickSelection(5, hidden=20, epsilon=3, epochs=2, random_state=0)
    # Two layers of 150 connections, 2 FLOPs each a row: forward, the values of both, and the
    # inputs of the second.
    assert counted(lambda: made.fit(x)) == 2 * 100 * 150 * (2 * 2 + 2 * 2 + 2)


def test_options_are_those_of_one_ranking_only() -> None:
    parts = list(compared(["digits"], ["wast", "chance"], range(2), "wast", epochs=1))
    assert [p.label for p in parts] == [
        "compare digits wast 0 1",
        "compare digits wast 1 1",
        "compare digits chance 0",
        "compare digits chance 1",
        "operations digits wast 1",
    ]
    done = Outcomes(
        [Outcome(p.run.__name__, p.arguments, p.run(HERE, **p.arguments)) for p in parts]
    )
    (table,) = comparison_tables(done)
    assert [row[0] for row in table.rows] == ["wast", "chance"]
    assert all(len(row) == len(table.columns) for row in table.rows)
    assert "GFLOP" in table.note
    assert list(comparison_pictures(done)) == ["Accuracy against the number of features, digits"]
    some = done.of(compare, by="wast")
    assert score(some)[0] == pytest.approx(np.mean(some.values("svm")[0]))
    assert at(some, 1) == [values[1] for values in some.values("svm")]
    assert operations(HERE, "digits", "wast", epochs=1)["flops"] > 0
