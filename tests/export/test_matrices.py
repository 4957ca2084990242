"""CSR matrices of SciPy and torch: the same numbers, there and back."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

import regrow
from regrow.export import from_csr, to_scipy, to_torch_csr
from regrow.topology import Topology

scipy_sparse = pytest.importorskip("scipy.sparse")


def layer(dtype: torch.dtype = torch.float32) -> regrow.SparseLinear:
    topology = Topology((3, 4), torch.tensor([1, 2, 8, 11]))
    made = regrow.SparseLinear(4, 3, topology=topology, dtype=dtype)
    with torch.no_grad():
        made.values.copy_(torch.tensor([1.0, 0.0, 3.0, -4.0]))
    return made


def test_a_scipy_matrix_by_hand() -> None:
    matrix = to_scipy(nn.Sequential(layer()))["0"]
    assert isinstance(matrix, scipy_sparse.csr_array)
    assert matrix.indptr.tolist() == [0, 2, 2, 4]
    assert matrix.indices.tolist() == [1, 2, 0, 3]
    assert matrix.data.tolist() == [1, 0, 3, -4]  # a connection of value zero is one


def test_a_torch_matrix_by_hand() -> None:
    tensor = to_torch_csr(nn.Sequential(layer()))["0"]
    assert tensor.layout == torch.sparse_csr
    assert tensor.crow_indices().tolist() == [0, 2, 2, 4]
    assert tensor.col_indices().tolist() == [1, 2, 0, 3]
    assert tensor.values().tolist() == [1, 0, 3, -4]
    x = torch.randn(4, 5)
    torch.testing.assert_close(tensor @ x, layer().weight @ x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("to", [to_scipy, to_torch_csr])
def test_there_and_back(to: object, dtype: torch.dtype) -> None:
    source = layer(dtype)
    back = from_csr(to(source)[""], source.bias)
    assert back.topology == source.topology
    assert back.values.dtype == dtype
    assert torch.equal(back.values, source.values)
    assert torch.equal(back.bias, source.bias)


@pytest.mark.parametrize("to", [to_scipy, to_torch_csr])
def test_what_is_given_is_a_copy(to: object) -> None:
    source = layer()
    matrix = to(source)[""]
    entries = matrix.values() if isinstance(matrix, torch.Tensor) else matrix.data
    entries *= 2
    back = from_csr(matrix)
    entries *= 2
    assert source.values.tolist() == [1, 0, 3, -4]
    assert back.values.tolist() == [2, 0, 6, -8]


def test_every_kind_of_layer() -> None:
    model = nn.ModuleDict(
        {
            "conv": nn.Conv2d(3, 4, 3),
            "embed": nn.Embedding(9, 4),
            "attention": nn.MultiheadAttention(4, 2),
            "rnn": nn.LSTM(4, 5),
        }
    )
    regrow.sparsify(model, 0.4)
    for to in (to_scipy, to_torch_csr):
        matrices = to(model)
        assert matrices.keys() == regrow.sparse_layers(model).keys()
        for path, sparse in regrow.sparse_layers(model).items():
            matrix = matrices[path]
            dense = matrix.to_dense() if to is to_torch_csr else torch.tensor(matrix.toarray())
            assert torch.equal(dense, sparse.weight.flatten(1))


def test_lower_precision_reaches_scipy_as_single() -> None:
    source = layer().to(torch.bfloat16)
    matrix = to_scipy(source)[""]
    assert matrix.dtype == "float32"
    assert matrix.data.tolist() == [1, 0, 3, -4]


def test_other_forms_are_taken() -> None:
    wanted = layer().weight.detach()
    coo = scipy_sparse.coo_array(to_scipy(layer())[""])
    repeated = scipy_sparse.coo_array(([1.0, 2.0], ([0, 0], [1, 1])), shape=(1, 2))
    assert torch.equal(from_csr(coo).weight, wanted)
    assert torch.equal(from_csr(wanted.to_sparse()).weight, wanted)
    assert from_csr(repeated).weight.tolist() == [[0, 3]]
    assert from_csr(coo).bias is None


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=re.escape("must have two axes, got shape (2, 2, 2)")):
        from_csr(torch.ones(2, 2, 2))
    with pytest.raises(
        ValueError, match=re.escape("bias of a layer must have shape (3,), got (4,)")
    ):
        from_csr(to_scipy(layer())[""], torch.ones(4))
