"""What a backward pass leaves behind for layers that asked, and only for them."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from regrow import SparseLinear
from regrow.kernels import capture


@pytest.fixture(autouse=True)
def _nothing_armed() -> Iterator[None]:
    capture._armed.clear()
    yield
    capture._armed.clear()


@pytest.fixture(params=["csr", "dense"])
def layer(request: pytest.FixtureRequest) -> SparseLinear:
    return SparseLinear(3, 2, density=0.5, compute=request.param)


def backward(layer: SparseLinear, x: Tensor) -> None:
    (layer(x) * torch.tensor([1.0, 2.0])).sum().backward()


def test_an_armed_layer_keeps_each_backward_pass(layer: SparseLinear) -> None:
    other = SparseLinear(3, 2, density=0.5, compute="csr")
    capture.arm(layer.values)
    backward(layer, torch.ones(2, 3))
    backward(layer, torch.full((1, 3), 5.0))
    backward(other, torch.ones(2, 3))
    pairs = capture.take(layer.values)
    assert [(x.tolist(), grad.tolist()) for x, grad in pairs] == [
        ([[1.0] * 3] * 2, [[1.0, 2.0]] * 2),
        ([[5.0] * 3], [[1.0, 2.0]]),
    ]
    assert not any(tensor.requires_grad for pair in pairs for tensor in pair)
    assert capture.take(layer.values) == []
    assert capture.take(other.values) == []


def test_nothing_is_kept_unless_armed(layer: SparseLinear) -> None:
    backward(layer, torch.ones(2, 3))
    assert capture._armed == {}


def test_arming_again_starts_anew(layer: SparseLinear) -> None:
    capture.arm(layer.values)
    backward(layer, torch.ones(2, 3))
    capture.arm(layer.values)
    assert capture.take(layer.values) == []


def test_what_is_kept_does_not_change_with_the_batch_buffer(layer: SparseLinear) -> None:
    # A loop that refills one input tensor, as accumulation from pinned memory does.
    capture.arm(layer.values)
    buffer = torch.ones(2, 3)
    backward(layer, buffer)
    buffer.fill_(7.0)
    backward(layer, buffer)
    assert [x[0, 0].item() for x, _ in capture.take(layer.values)] == [1.0, 7.0]


def test_a_closed_collection_gives_way_to_the_next_step(layer: SparseLinear) -> None:
    capture.arm(layer.values)
    backward(layer, torch.ones(2, 3))
    capture.close(layer.values)
    assert len(capture._armed[layer.values.data_ptr()].pairs) == 1
    backward(layer, torch.full((2, 3), 2.0))
    backward(layer, torch.full((2, 3), 3.0))
    assert [x[0, 0].item() for x, _ in capture.take(layer.values)] == [2.0, 3.0]
    capture.close(layer.values)  # nothing armed: nothing happens
    assert capture._armed == {}


def test_a_collection_moves_with_replaced_values(layer: SparseLinear) -> None:
    capture.arm(layer.values)
    backward(layer, torch.ones(2, 3))
    new = torch.nn.Parameter(torch.zeros(1))
    capture.follow(layer.values, new)
    assert capture.take(layer.values) == []
    assert len(capture.take(new)) == 1


def test_what_is_kept_goes_with_the_layer() -> None:
    layer = SparseLinear(6, 4, density=0.5)
    capture.arm(layer.values)
    layer(torch.ones(2, 6)).sum().backward()
    assert len(capture._armed) == 1
    del layer
    gc.collect()
    assert capture._armed == {}
