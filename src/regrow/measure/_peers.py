"""Training steps to be timed: of anything differentiable, and of other sparse formats."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib.util import find_spec

import torch
from torch import Tensor

Step = Callable[[], None]
Makers = dict[str, Callable[[Tensor, Tensor], Step]]

# SparseLab 0.2.2 caches column orders by the address of a layer's weight, and would take that of a
# layer that is gone for that of a new one in its place: so none goes.
_alive: list[object] = []


def available() -> tuple[Makers, tuple[str, ...]]:
    """What makes the step of each peer from a weight and an input, and the peers not installed."""
    makers: Makers = {"torch csr": torch_csr}
    optional: Makers = {"scipy": scipy_csr, "sparselab": sparselab_layer}
    missing = tuple(name for name in optional if find_spec(name) is None)
    makers |= {name: make for name, make in optional.items() if name not in missing}
    return makers, missing


def step(layer: Callable[[Tensor], Tensor], x: Tensor, parameter: Tensor) -> Step:
    """A training step of anything differentiable: forward pass, both gradients.

    Args:
        layer: From ``[batch, in]`` to ``[batch, out]``.
        x: The input; it is copied.
        parameter: What beside the input needs a gradient.
    """
    x = x.clone().requires_grad_()
    grad = torch.ones_like(layer(x).detach())

    def work() -> None:
        x.grad = parameter.grad = None
        layer(x).backward(grad)

    return work


def torch_csr(weight: Tensor, x: Tensor) -> Step:
    """The CSR layout of torch, through autograd, which makes the gradient of the weight dense."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        compressed = weight.to_sparse_csr().requires_grad_()
    return step(lambda x: torch.sparse.mm(compressed, x.t()).t(), x, compressed)


def scipy_csr(weight: Tensor, x: Tensor) -> Step:
    """SciPy's CSR for both sparse products; the values' gradient is picked from a dense one."""
    from scipy.sparse import csr_matrix

    matrix = csr_matrix(weight.numpy())
    transposed = matrix.T.tocsr()
    rows, columns = (torch.from_numpy(part.astype("int64")) for part in matrix.nonzero())
    grad = x.new_ones(len(x), len(weight))

    def work() -> None:
        _ = matrix @ x.numpy().T
        _ = transposed @ grad.numpy().T
        _ = (grad.t() @ x)[rows, columns]

    return work


def sparselab_layer(weight: Tensor, x: Tensor) -> Step:
    """SparseLab's layer, with as many connections as the weight, at places of its own."""
    import sparselab

    n_out, n_in = weight.shape
    sparsity = 1 - int((weight != 0).sum()) / weight.numel()
    layer = sparselab.SparseLinear(n_in, n_out, bias=False, sparsity=sparsity)
    _alive.append(layer)
    return step(layer, x, next(layer.parameters()))
