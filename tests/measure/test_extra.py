"""Without the extra, a measure says what it needs."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
import torch

from regrow import Topology, measure

TOPOLOGY = Topology((4, 4), torch.arange(8))


@pytest.mark.parametrize(
    ("package", "call"),
    [
        ("scipy", lambda: measure.topology_distance(TOPOLOGY, TOPOLOGY)),
        ("scipy", lambda: measure.degree_law([1, 2, 3] * 9)),
        ("scipy", lambda: measure.small_world(TOPOLOGY)),
        ("networkx", lambda: measure.to_networkx(TOPOLOGY)),
    ],
)
def test_what_is_missing_is_said(
    monkeypatch: pytest.MonkeyPatch, package: str, call: Callable[[], object]
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModuleNotFoundError, match=rf"needs {package}, .*regrow\[analysis\]"):
        call()


def test_what_needs_nothing_works_without(monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("scipy", "networkx"):
        monkeypatch.setitem(sys.modules, package, None)
    assert measure.spectrum(TOPOLOGY).largest > 0
    assert measure.paths(TOPOLOGY).log10_total > 0
    assert measure.neuron_degrees(TOPOLOGY)[1].tolist() == [4, 4, 0, 0]
