"""Peak memory of a training."""

import pytest
import torch

from regrow.training.machine import PeakMemory


def test_peak_of_each_training_alone() -> None:
    first = PeakMemory()
    first.begin()
    if first.read() is None:
        pytest.skip("the system does not tell")
    block = torch.ones(20 * 2**20 // 4)
    peak = first.read()
    assert peak is not None
    assert peak > 0.9 * block.nbytes
    del block
    second = PeakMemory()
    second.begin()
    peak = second.read()
    assert peak is not None
    assert peak < 10 * 2**20
