"""Layers that follow each other, as topologies whose columns are the neurons of the one before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn

from regrow.layers import sparse_layers
from regrow.topology import Topology

Network: TypeAlias = nn.Module | Topology | Sequence[Topology]


def topologies(network: Network) -> list[Topology]:
    """The topologies of a network in the order of its layers.

    Args:
        network: A model with sparse layers, a topology, or several.

    Raises:
        ValueError: There is none.
    """
    if isinstance(network, nn.Module):
        found = [layer.topology for layer in sparse_layers(network).values()]
    elif isinstance(network, Topology):
        found = [network]
    else:
        found = list(network)
    if not found:
        raise ValueError("a network to measure must have a sparse layer, got none; call sparsify")
    return found


def places(before: int, columns: int, number: int) -> int:
    """How many columns in a row belong to each neuron of the layer before.

    One in a chain of linear layers; the size of the kernel in one of convolutions, and the size of
    the map where a linear layer follows flattened channels.

    Args:
        before: Neurons of the layer before.
        columns: Columns of this layer.
        number: Of this layer, for the error.

    Raises:
        ValueError: The columns do not divide among the neurons.
    """
    if columns % before:
        raise ValueError(
            f"topologies must follow each other: layer {number} must have a multiple of the "
            f"{before} outputs of the layer before as inputs, got {columns}"
        )
    return columns // before


def sources(chain: Sequence[Topology]) -> list[Tensor]:
    """For each layer the neuron of the layer before that each connection comes from, ``[nnz]``.

    Inputs of the first layer are the columns of a linear one, and the channels of a convolution.
    """
    found = []
    for number, topology in enumerate(chain):
        before = chain[number - 1].matrix_shape[0] if number else topology.shape[1]
        width = places(before, topology.matrix_shape[1], number)
        columns = topology.csr()[1].long().cpu()
        found.append(torch.div(columns, width, rounding_mode="floor"))
    return found
