import numpy as np
import pytest

from regrow.selection.average_ranks import average_ranks


def test_equal_scores_share_their_ranks() -> None:
    found = average_ranks([[3, 2, 2, 1], [3, 1, 2, 0]])
    np.testing.assert_allclose(found.ranks, [1, 2.75, 2.25, 4])


def test_the_distance_is_that_of_the_table_of_critical_values() -> None:
    # Demsar 2006: q = 2.343, 2.569, 2.728 for 3, 4, 5 classifiers at 0.05.
    for methods, q in ((3, 2.343), (4, 2.569), (5, 2.728)):
        found = average_ranks(np.random.default_rng(0).random((14, methods)))
        wanted = q * np.sqrt(methods * (methods + 1) / (6 * 14))
        assert found.distance == pytest.approx(wanted, rel=1e-3)


def test_what_is_always_in_one_order_is_not_alike() -> None:
    steady = np.tile([3.0, 2.0, 1.0], (10, 1))
    assert average_ranks(steady).p < 0.001
    assert average_ranks(np.ones((10, 3))).p == 1.0
    assert average_ranks([[1, 2], [2, 1]]).p == 1.0


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([[1, 2, 3]], r"scores must be \[sets >= 2, methods >= 2\], got shape \(1, 3\)"),
        ([[1.0, float("nan")], [1.0, 2.0]], "scores must be numbers"),
    ],
)
def test_bad_input(scores: list[list[float]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        average_ranks(scores)
