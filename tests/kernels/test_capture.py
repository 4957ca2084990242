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
    capture.arm(layer)
    backward(layer, torch.ones(2, 3))
    backward(layer, torch.full((1, 3), 5.0))
    backward(other, torch.ones(2, 3))
    passes = capture.take(layer)
    assert [(x.tolist(), grad.tolist(), ago) for x, grad, ago in passes] == [
        ([[1.0] * 3] * 2, [[1.0, 2.0]] * 2, 0),
        ([[5.0] * 3], [[1.0, 2.0]], 0),
    ]
    assert not any(tensor.requires_grad for x, grad, _ in passes for tensor in (x, grad))
    assert capture.take(layer) == []
    assert capture.take(other) == []


def test_nothing_is_kept_unless_armed(layer: SparseLinear) -> None:
    backward(layer, torch.ones(2, 3))
    assert not capture.armed(layer)
    assert len(capture._armed) == 0


def test_arming_again_starts_anew(layer: SparseLinear) -> None:
    capture.arm(layer)
    backward(layer, torch.ones(2, 3))
    capture.arm(layer)
    assert capture.take(layer) == []


def test_what_is_kept_does_not_change_with_the_batch_buffer(layer: SparseLinear) -> None:
    # A loop that refills one input tensor, as accumulation from pinned memory does.
    capture.arm(layer)
    buffer = torch.ones(2, 3)
    backward(layer, buffer)
    buffer.fill_(7.0)
    backward(layer, buffer)
    assert [kept.x[0, 0].item() for kept in capture.take(layer)] == [1.0, 7.0]


def test_a_closed_collection_gives_way_to_the_next_step(layer: SparseLinear) -> None:
    capture.arm(layer)
    backward(layer, torch.ones(2, 3))
    capture.close(layer)
    assert len(capture._armed[layer].passes) == 1
    backward(layer, torch.full((2, 3), 2.0))
    backward(layer, torch.full((2, 3), 3.0))
    assert [kept.x[0, 0].item() for kept in capture.take(layer)] == [2.0, 3.0]
    capture.close(layer)  # nothing armed: nothing happens
    assert not capture.armed(layer)


def test_the_passes_of_several_steps_know_how_long_ago_they_were(layer: SparseLinear) -> None:
    capture.arm(layer, history=2)
    for step in range(1, 5):
        backward(layer, torch.full((1, 3), float(step)))
        if step == 4:
            backward(layer, torch.full((1, 3), 4.5))
        capture.close(layer)
    assert [(kept.x[0, 0].item(), kept.ago) for kept in capture.take(layer)] == [
        (3.0, 1),
        (4.0, 0),
        (4.5, 0),
    ]


@pytest.mark.parametrize("change", ["double", "load", "rewire"])
def test_keeping_goes_on_when_the_values_move(layer: SparseLinear, change: str) -> None:
    capture.arm(layer)
    backward(layer, torch.ones(2, 3))
    if change == "double":
        layer.double()
    elif change == "load":
        layer.load_state_dict(SparseLinear(3, 2, density=0.9).state_dict())
    else:
        topology = SparseLinear(3, 2, density=0.9).topology
        layer.set_topology(topology, torch.ones(topology.nnz))
    layer.values.grad = torch.ones_like(layer.values)  # what has been accumulated stays
    backward(layer, torch.ones(2, 3, dtype=layer.values.dtype))
    assert len(capture.take(layer)) == 2


def test_what_is_kept_goes_with_the_layer() -> None:
    layer = SparseLinear(6, 4, density=0.5)
    capture.arm(layer)
    layer(torch.ones(2, 6)).sum().backward()
    assert len(capture._armed) == 1
    del layer
    gc.collect()
    assert len(capture._armed) == 0


@pytest.mark.parametrize("set_to_none", [True, False])
def test_passes_of_a_step_that_was_not_taken_are_dropped(
    layer: SparseLinear, set_to_none: bool
) -> None:
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    capture.arm(layer, history=2)
    backward(layer, torch.full((1, 3), 1.0))
    capture.close(layer)
    optimizer.zero_grad(set_to_none=set_to_none)
    backward(layer, torch.full((1, 3), 2.0))  # of a step that is then skipped
    optimizer.zero_grad(set_to_none=set_to_none)
    backward(layer, torch.full((1, 3), 3.0))
    backward(layer, torch.full((1, 3), 4.0))
    assert [(kept.x[0, 0].item(), kept.ago) for kept in capture.take(layer)] == [
        (1.0, 1),
        (3.0, 0),
        (4.0, 0),
    ]


@pytest.mark.parametrize("after", ["arming", "a step"])
def test_a_layer_used_twice_is_seen_twice(layer: SparseLinear, after: str) -> None:
    capture.arm(layer)
    if after == "a step":
        backward(layer, torch.ones(1, 3))
        capture.close(layer)
        layer.zero_grad()
    for scale in (1.0, 2.0):
        (layer(torch.full((1, 3), scale)) + layer(torch.full((1, 3), 10 * scale))).sum().backward()
    found = sorted(kept.x[0, 0].item() for kept in capture.take(layer))
    assert found == [1.0, 2.0, 10.0, 20.0]
