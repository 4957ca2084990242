"""Random compositions of all that is registered: an exact update, or a reason in a sentence."""

from __future__ import annotations

from dataclasses import replace

import exactness
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import regrow
from regrow import Evolution, Topology
from regrow.evolution.scores import DROP_SCORES, GROW_SCORES

UPDATES = 3


def drawn(data: st.DataObject) -> exactness.Composition:
    return exactness.Composition.drawn(lambda choices: data.draw(st.sampled_from(choices)))


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_updates_equal_a_slow_dense_account(data: st.DataObject) -> None:
    found = exactness.check(drawn(data), UPDATES)
    if isinstance(found, str):
        is_a_sentence(found)
    else:
        assert found[0] == UPDATES


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_every_registered_rule_keeps_the_number_or_says_why_not(data: st.DataObject) -> None:
    composition = drawn(data)
    drop = data.draw(st.sampled_from(sorted(DROP_SCORES)))
    grow = data.draw(st.sampled_from(sorted(GROW_SCORES)))
    method = replace(composition.method(), drop=drop, grow=grow)
    model = exactness.network(composition)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    try:
        evolution = Evolution(model, optimizer, method, seed=composition.seed)
    except (ValueError, TypeError) as error:
        is_a_sentence(str(error))
        return
    layers = regrow.sparse_layers(model)
    for step in range(UPDATES):
        first = {path: layer.topology.nnz for path, layer in layers.items()}
        model(exactness.batch(composition, step)).square().sum().backward()
        optimizer.step()
        record = evolution.step()
        optimizer.zero_grad()
        assert record is not None
        for path, layer in layers.items():
            topology = layer.topology
            assert layer.values.shape == (topology.nnz,) == (record.layers[path].nnz,)
            assert topology == Topology(topology.shape, topology.positions)  # valid and distinct
        if method.density is None and GROW_SCORES[grow].exact:
            now = {path: layer.topology.nnz for path, layer in layers.items()}
            assert sum(now.values()) == sum(first.values())
            if method.scope != "global" and method.redistribute is None:
                assert now == first


def is_a_sentence(text: str) -> None:
    """One line that says what must be and what was given."""
    assert "\n" not in text
    assert "must" in text or "needs" in text or "fit" in text


@pytest.mark.parametrize("kind", exactness.KINDS)
def test_the_account_sees_what_is_wrong(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A budget, a value or a position that is off does not go unnoticed."""
    parts = {name: choices[0] for name, choices in exactness.PARTS.items()} | {"fraction": 0.5}
    composition = exactness.Composition(kind, "momentum", 0.5, "magnitude", "random", parts, 3)
    assert not isinstance(exactness.check(composition, 2), str)
    run = exactness.Run(composition)
    make = run.evolution._changes.make

    def spoilt(decisions):
        done = make(decisions)
        layer = next(iter(regrow.sparse_layers(run.model).values()))
        run.optimizer.state[layer.values]["momentum_buffer"].add_(1)
        return done

    monkeypatch.setattr(run.evolution._changes, "make", spoilt)
    with pytest.raises(exactness.DifferenceError, match="momentum_buffer of a connection that sta"):
        run.update()
