"""torch's own FLOP counter against counts by hand, for every sparse layer and compute."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import regrow
from regrow import (
    SparseConv1d,
    SparseConv2d,
    SparseConv3d,
    SparseEmbedding,
    SparseGRU,
    SparseLinear,
    SparseLSTM,
    SparseRNN,
)
from regrow.layers.attention import SparseMultiheadAttention
from regrow.topology.structured import Block, block_topology, nm_topology

COMPUTES = ["csr", "dense", "auto"]


def counted(run: Callable[[], Tensor]) -> tuple[int, int]:
    """FLOPs forward and backward."""
    counter = FlopCounterMode(display=False)
    with counter:
        output = run()
        forward = counter.get_total_flops()
        output.sum().backward()
    return forward, counter.get_total_flops() - forward


def both(layer: nn.Module, *inputs: Tensor) -> tuple[int, int]:
    def run() -> Tensor:
        output = layer(*inputs)
        return output[0] if isinstance(output, tuple) else output

    return counted(run)


@pytest.mark.parametrize("compute", COMPUTES)
@pytest.mark.parametrize("needs", [True, False])
def test_linear(compute: str, needs: bool) -> None:
    layer = SparseLinear(40, 30, density=0.1, compute=compute)
    x = torch.ones(7, 40, requires_grad=needs)
    assert both(layer, x) == (2 * 7 * 120, (1 + needs) * 2 * 7 * 120)
    layer.values.requires_grad_(False)
    assert both(layer, x.detach().requires_grad_()) == (2 * 7 * 120, 2 * 7 * 120)
    assert both(layer, torch.ones(5, 7, 40, requires_grad=True))[0] == 2 * 35 * 120


@pytest.mark.parametrize("compute", [*COMPUTES, "block", "nm"])
def test_linear_with_a_structure(compute: str) -> None:
    if compute == "nm":
        topology = nm_topology((32, 64), 2, 4)
    else:
        topology = block_topology((32, 64), 256, Block(4, 4))
    layer = SparseLinear(64, 32, topology=topology, compute=compute)
    once = 2 * 5 * topology.nnz
    assert both(layer, torch.ones(5, 64, requires_grad=True)) == (once, 2 * once)


@pytest.mark.parametrize("compute", COMPUTES)
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_convolution(compute: str, axes: int) -> None:
    kind = (SparseConv1d, SparseConv2d, SparseConv3d)[axes - 1]
    layer = kind(4, 6, 3, stride=2, padding=1, groups=2, density=0.25, compute=compute)
    x = torch.ones(5, 4, *[8] * axes, requires_grad=True)
    assert layer.topology.nnz == round(0.25 * 6 * 2 * 3**axes)
    once = 2 * 5 * layer.topology.nnz * 4**axes  # every connection at every place of the output
    assert both(layer, x) == (once, 2 * once)


@pytest.mark.parametrize("compute", COMPUTES)
def test_embedding_multiplies_nothing(compute: str) -> None:
    layer = SparseEmbedding(50, 8, density=0.2, compute=compute)
    assert both(layer, torch.arange(20)) == (0, 0)
    assert both(nn.Embedding(50, 8), torch.arange(20)) == (0, 0)


@pytest.mark.parametrize("compute", COMPUTES)
@pytest.mark.parametrize("kind", [SparseRNN, SparseGRU, SparseLSTM])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_recurrent(compute: str, kind: type[SparseRNN], bidirectional: bool) -> None:
    layer = kind(6, 10, 2, bidirectional=bidirectional, density=0.3, compute=compute)
    x = torch.ones(4, 3, 6, requires_grad=True)
    connections = sum(sparse.topology.nnz for sparse in regrow.sparse_layers(layer).values())
    once = 2 * 4 * 3 * connections  # every step of every sequence
    assert both(layer, x) == (once, 2 * once)


def test_packed_sequences_count_their_steps_only() -> None:
    layer = SparseGRU(6, 10, density=0.3, compute="csr")
    x = torch.ones(4, 3, 6, requires_grad=True)
    packed = nn.utils.rnn.pack_padded_sequence(x, torch.tensor([4, 2, 1]))
    connections = sum(sparse.topology.nnz for sparse in regrow.sparse_layers(layer).values())
    forward, _ = counted(lambda: layer(packed)[0].data)
    assert forward == 2 * 7 * connections


@pytest.mark.parametrize("compute", COMPUTES)
def test_attention(compute: str) -> None:
    layer = SparseMultiheadAttention(16, 4, density=0.25, batch_first=True, compute=compute)
    x = torch.ones(2, 5, 16, requires_grad=True)
    projections = 4 * 2 * 10 * 64
    products = 2 * (2 * 2 * 4 * 5 * 5 * 4)  # scores, and weights with values
    weighted = both(layer, x, x, x)
    assert weighted == (projections + products, 2 * (projections + products))
    forward, backward = counted(lambda: layer(x, x, x, need_weights=False)[0])
    assert forward == projections + products
    # The fused kernel forms the scores once more on the way back.
    assert backward == 2 * projections + 2.5 * products


def test_a_dense_lstm_as_its_sparse_twin_with_every_connection() -> None:
    x = torch.ones(4, 3, 6, requires_grad=True)
    weights = 2 * (4 * 10 * (6 + 10) + 4 * 10 * (20 + 10))
    for layer in (
        nn.LSTM(6, 10, 2, bidirectional=True),
        SparseLSTM(6, 10, 2, bidirectional=True, density=1.0, compute="csr"),
    ):
        assert both(layer, x) == (2 * 4 * 3 * weights, 2 * 2 * 4 * 3 * weights)


def test_nothing_else_is_counted() -> None:
    """A whole network counts as the sum of its layers."""
    model = nn.Sequential(
        SparseConv2d(3, 8, 3, density=0.5, compute="csr"), nn.ReLU(), nn.BatchNorm2d(8),
        nn.Flatten(), SparseLinear(8 * 16, 10, density=0.1, compute="dense"),
    )  # fmt: skip
    once = 2 * 2 * (108 * 16 + 128)
    forward, backward = both(model, torch.ones(2, 3, 6, 6))
    assert forward == once
    assert backward == 2 * once - 2 * 2 * 108 * 16  # no gradient of the picture
