"""Sparse weights as compressed matrices of SciPy and of torch, and layers made of such."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from regrow.layers import SparseLayer, SparseLinear, sparse_layers
from regrow.topology import Topology


def to_scipy(model: nn.Module) -> dict[str, Any]:
    """Every sparse weight of a model as a SciPy matrix of compressed rows.

    Rows are outputs, columns inputs; those of a convolution are all but its first axis taken
    together. The numbers are copies, in double or single precision.

    Args:
        model: With sparse layers.

    Returns:
        ``scipy.sparse.csr_array`` by path of the layer, empty for the model itself.

    Raises:
        ModuleNotFoundError: SciPy is not there.

    Example:
        >>> import regrow
        >>> model = nn.Sequential(regrow.SparseLinear(8, 4, density=0.5))
        >>> matrix = to_scipy(model)["0"]
        >>> matrix.shape, matrix.nnz
        ((4, 8), 16)
    """
    from scipy.sparse import csr_array

    matrices = {}
    for path, layer in sparse_layers(model).items():
        indptr, indices = (index.cpu().numpy() for index in layer.topology.csr())
        values = layer.values.detach().cpu()
        if values.dtype not in (torch.float32, torch.float64):
            values = values.float()
        parts = (values.clone().numpy(), indices, indptr)
        matrices[path] = csr_array(parts, shape=layer.topology.matrix_shape, copy=True)
    return matrices


def to_torch_csr(model: nn.Module) -> dict[str, Tensor]:
    """Every sparse weight of a model as a torch tensor of layout ``torch.sparse_csr``.

    Rows and columns are as of ``to_scipy``. The numbers are copies, and need no gradient.

    Args:
        model: With sparse layers.

    Returns:
        Sparse tensors by path of the layer, on its device and in its dtype, with int32 indices.

    Example:
        >>> import regrow
        >>> layer = regrow.SparseLinear(8, 4, density=0.5)
        >>> tensor = to_torch_csr(layer)[""]
        >>> tensor.layout, torch.equal(tensor.to_dense(), layer.weight)
        (torch.sparse_csr, True)
    """
    return {path: _torch_csr(layer) for path, layer in sparse_layers(model).items()}


def from_csr(matrix: Any, bias: Tensor | None = None, compute: str = "auto") -> SparseLinear:
    """A sparse linear layer of a matrix; the way back from ``to_scipy`` and ``to_torch_csr``.

    Args:
        matrix: A sparse matrix of SciPy or of torch, ``(outputs, inputs)``. Entries that are
            stored are connections, also those that are zero.
        bias: ``[outputs]``, or None for a layer without.
        compute: Of the layer.

    Raises:
        ValueError: The matrix has other than two axes, or the bias does not fit.

    Example:
        >>> from scipy.sparse import csr_array
        >>> layer = from_csr(csr_array([[0.0, 2.0], [3.0, 0.0]]))
        >>> layer.weight
        tensor([[0., 2.],
                [3., 0.]], dtype=torch.float64, grad_fn=<ViewBackward0>)
    """
    if len(matrix.shape) != 2:
        raise ValueError(f"matrix of a layer must have two axes, got shape {tuple(matrix.shape)}")
    if isinstance(matrix, Tensor):
        matrix = _compressed(matrix)
        arrays = [matrix.crow_indices(), matrix.col_indices(), matrix.values()]
    else:
        rows = matrix.tocsr(copy=True)
        rows.sum_duplicates()  # brings the columns of a row in order, too
        arrays = [torch.from_numpy(x) for x in (rows.indptr, rows.indices, rows.data)]
    indptr, indices, values = (array.detach().clone() for array in arrays)
    outputs, inputs = (int(n) for n in matrix.shape)
    if bias is not None and bias.shape != (outputs,):
        raise ValueError(f"bias of a layer must have shape ({outputs},), got {tuple(bias.shape)}")
    layer = SparseLinear(
        inputs,
        outputs,
        bias is not None,
        topology=Topology.from_csr((outputs, inputs), indptr, indices),
        compute=compute,
        device=values.device,
        dtype=values.dtype,
    )
    with torch.no_grad():
        layer.values.copy_(values)
        if layer.bias is not None and bias is not None:
            layer.bias.copy_(bias)
    return layer


def _torch_csr(layer: SparseLayer) -> Tensor:
    indptr, indices = layer.topology.csr()
    with _in_silence():
        return torch.sparse_csr_tensor(
            indptr.to(torch.int32),
            indices.clone(),
            layer.values.detach().clone(),
            layer.topology.matrix_shape,
        )


def _compressed(matrix: Tensor) -> Tensor:
    with _in_silence():
        return matrix if matrix.layout == torch.sparse_csr else matrix.to_sparse_csr()


def _in_silence() -> warnings.catch_warnings[None]:
    """Without torch's word that the layout is in beta."""
    return warnings.catch_warnings(action="ignore", category=UserWarning)
