"""Dropping a number of each part."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from regrow import Evolution, SparseLinear, Topology
from regrow.evolution.dropping import ranks, without_lowest_in_parts


def test_ranks_by_hand() -> None:
    scores, part = torch.tensor([5.0, 1.0, 3.0, 1.0, 2.0]), torch.tensor([0, 1, 0, 1, 2])
    assert ranks(scores, part, 3).tolist() == [1, 0, 0, 1, 0]
    assert ranks(scores, part, 3, descending=True).tolist() == [0, 0, 1, 1, 0]


@given(st.data())
def test_bounds_of_every_part_are_kept(data: st.DataObject) -> None:
    parts = data.draw(st.integers(1, 4))
    part = torch.tensor(data.draw(st.lists(st.integers(0, parts - 1), min_size=1, max_size=20)))
    scores = torch.tensor(
        data.draw(st.lists(st.integers(0, 6), min_size=len(part), max_size=len(part)))
    ).float()
    held = torch.bincount(part, minlength=parts)
    most = torch.tensor([data.draw(st.integers(0, int(n))) for n in held])
    least = torch.tensor([data.draw(st.integers(0, int(n))) for n in most])
    total = data.draw(st.integers(int(least.sum()), int(most.sum())))
    keep = without_lowest_in_parts(scores, part, least, most, total)
    gone = torch.bincount(part[~keep], minlength=parts)
    assert int(gone.sum()) == total
    assert bool(((gone >= least) & (gone <= most)).all())
    for p in range(parts):
        own = part == p
        if (own & keep).any() and (own & ~keep).any():
            assert scores[own & ~keep].max() <= scores[own & keep].min()
    # No exchange between two parts that bounds allow would drop a lower score.
    for worse in (~keep).nonzero().view(-1).tolist():
        for better in keep.nonzero().view(-1).tolist():
            one, other = int(part[worse]), int(part[better])
            if one != other and gone[one] > least[one] and gone[other] < most[other]:
                assert scores[worse] <= scores[better]


@pytest.mark.parametrize("drop", ["magnitude", "sign-split", "random"])
@pytest.mark.parametrize("scope", ["layer", "global", "row"])
def test_what_is_not_a_number_goes_first(drop: str, scope: str) -> None:
    torch.manual_seed(0)
    positions = torch.arange(24)
    layer = SparseLinear(12, 4, topology=Topology((4, 12), positions * 2))
    with torch.no_grad():
        layer.values[[3, 17]] = torch.nan
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.0)
    evolution = Evolution(layer, optimizer, "set", drop=drop, scope=scope, every=1, fraction=0.25)
    evolution.update()
    assert layer.topology.nnz == 24
    if drop != "random":
        assert bool(layer.values.isfinite().all())
