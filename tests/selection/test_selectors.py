"""What each selector does that the others do not."""

import numpy as np
import pytest
import torch

from regrow.selection import WAST, NeuroFS, NeuronAttribution, QuickSelection
from regrow.selection.planted import planted

DATA = planted(400, 60, informative=4, redundant=6, clusters=2, seed=0)


def test_quickselection_counts_what_its_strength_sums() -> None:
    found = QuickSelection(8, hidden=30, epsilon=3, epochs=2, random_state=0).fit(DATA.table)
    left = 3 * 90 - round(0.2 * 3 * 90)
    assert found.degrees_.sum() == left
    assert ((found.degrees_ == 0) == (found.feature_importances_ == 0)).all()


def test_wast_by_set_updates_between_epochs_only() -> None:
    once = WAST(8, hidden=20, epochs=1, rewiring="set", random_state=0).fit(DATA.table)
    again = WAST(8, hidden=20, epochs=2, rewiring="set", random_state=0).fit(DATA.table)
    first, second = once._network_.encoder, again._network_.encoder
    assert first.topology.nnz == second.topology.nnz
    moved = len(np.setdiff1d(second.topology.positions, first.topology.positions))
    assert 0 < moved <= round(0.3 * first.topology.nnz)
    strength = first.topology.sums(first.values.detach().abs(), axis=1).double().numpy()
    np.testing.assert_allclose(once.feature_importances_, strength)


def test_wast_knows_two_ways_to_rewire() -> None:
    with pytest.raises(ValueError, match="rewiring must be attention or set, got 'rigl'"):
        WAST(8, rewiring="rigl").fit(DATA.table)


def test_supervised_networks_start_with_the_weights_of_dense_ones() -> None:
    """Larger ones hide what inputs learn behind what they were given."""
    neurofs = NeuroFS(8, hidden=200, epsilon=5)
    neurofs.classes_ = np.array([0, 1])
    first = neurofs._network(500, torch.Generator().manual_seed(0))[0]
    assert first.values.abs().max() <= (6 / 700) ** 0.5
    attribution = NeuronAttribution(8, hidden=(200,), density=0.05)
    attribution.classes_ = np.array([0, 1])
    first = attribution._network(500, torch.Generator().manual_seed(0))[0]
    assert first.values.abs().max() <= 500**-0.5
