"""FLOPs of a training as its connections come and go."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from regrow.layers import sparse_layers
from regrow.measure import summary


class FlopCount:
    """What a network costs for one sample, with the connections that it has at the moment.

    A multiply-add counts as two. Only what a connection causes is counted, also where a layer
    computes with the dense product; what is not of a sparse layer, such as attention, is counted
    as torch does.

    Args:
        model: The network, without gradients; its mode is left as it was.
        sample: One sample ``[1, ...]``.

    Example:
        >>> import regrow
        >>> model = nn.Sequential(regrow.SparseLinear(64, 32, density=0.1), nn.Linear(32, 10))
        >>> count = FlopCount(model, torch.ones(1, 64))
        >>> (count.forward, count.backward, count.dense_gradient)
        (1050, 1690, 4096)
    """

    def __init__(self, model: nn.Module, sample: Tensor) -> None:
        self._model = model
        found = {layer.path: layer for layer in summary(model, sample).layers}
        self._ratios = {
            path: (found[path].flops_forward / layer.topology.nnz,
                   found[path].flops_backward / layer.topology.nnz)
            for path, layer in sparse_layers(model).items()
        }  # fmt: skip
        forward, backward = _counted(model, sample)
        self._rest = (0, 0)
        self._rest = (forward - self.forward, backward - self.backward)

    @property
    def forward(self) -> int:
        """FLOPs of a sample on its way forward."""
        return self._rest[0] + self._sparse(0)

    @property
    def backward(self) -> int:
        """FLOPs of a sample on its way back."""
        return self._rest[1] + self._sparse(1)

    @property
    def dense_gradient(self) -> int:
        """FLOPs of a sample in the gradient of all positions of the sparse layers."""
        return sum(
            round(self._ratios[path][0] * layer.topology.shape.numel())
            for path, layer in sparse_layers(self._model).items()
        )

    def _sparse(self, way: int) -> int:
        return sum(
            round(self._ratios[path][way] * layer.topology.nnz)
            for path, layer in sparse_layers(self._model).items()
        )


def _counted(model: nn.Module, sample: Tensor) -> tuple[int, int]:
    """FLOPs forward and backward as torch counts them."""
    training = model.training
    model.eval()  # batch norm takes no note of the sample
    counter = FlopCounterMode(display=False)
    with torch.random.fork_rng(devices=[]), sdpa_kernel(SDPBackend.MATH), counter:
        output = model(sample)
        forward = counter.get_total_flops()
        output.sum().backward()
    backward = counter.get_total_flops() - forward
    model.zero_grad(set_to_none=True)
    model.train(training)
    return forward, backward
