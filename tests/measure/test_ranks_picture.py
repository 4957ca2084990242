"""Average ranks: every method is named, and bars join what is not told apart."""

from itertools import pairwise

import pytest

from regrow.measure import pictures
from regrow.measure._ranks_picture import joined


def test_bars_are_the_longest_runs() -> None:
    assert joined([1.0, 1.5, 2.0, 5.0], 1.0) == [(0, 2)]
    assert joined([1.0, 1.5, 2.4, 5.0], 1.0) == [(0, 1), (1, 2)]
    assert joined([1.0, 3.0, 5.0], 1.0) == []
    assert joined([1.0, 1.0, 1.0], 0.5) == [(0, 2)]


@pytest.mark.parametrize("count", [2, 5, 12])
def test_names_stand_at_both_sides_in_the_order_of_the_ranks(count: int) -> None:
    ranks = {f"method {i}": 1 + i * 0.9 for i in range(count)}
    axes = pictures.critical_difference(ranks, 1.0, title="t").axes[0]
    texts = [text for text in axes.texts if text.get_text().startswith("method")]
    assert [text.get_text() for text in texts] == [f"{k} {v:.2f}" for k, v in ranks.items()]
    left = [text for text in texts if text.get_ha() == "right"]
    assert len(left) == (count + 1) // 2
    heights = [text.get_position()[1] for text in left]
    assert all(a - b > 0.15 for a, b in pairwise(heights))


def test_bars_span_their_ranks() -> None:
    ranks = {"a": 1.0, "b": 1.5, "c": 3.0}
    axes = pictures.critical_difference(ranks, 1.0, title="t").axes[0]
    bars = [line.get_xdata() for line in axes.lines if line.get_linewidth() == 2.2]
    assert [list(bar) for bar in bars] == [[1.0, 1.5], [1.0, 2.0]]  # the last is the key
