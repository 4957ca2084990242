"""Column order by hand; elsewhere it is compared with the mask."""

from __future__ import annotations

import pytest
import torch

from regrow import Topology
from regrow.topology import extension
from regrow.topology.order import column_order, sorted_columns


@pytest.mark.parametrize("order", [column_order, sorted_columns])
def test_columns_are_listed_with_rising_rows(order) -> None:
    # [[a b .], [. . .], [c . d]]
    indptr, indices = torch.tensor([0, 2, 2, 4]), torch.tensor([0, 1, 0, 2], dtype=torch.int32)
    t_indptr, t_indices, t_perm = order(indptr, indices, 4)
    assert t_indptr.tolist() == [0, 2, 3, 4, 4]
    assert t_indptr.dtype == torch.int64
    assert t_indices.tolist() == [0, 2, 0, 2]
    assert t_indices.dtype == torch.int32
    assert t_perm.tolist() == [0, 2, 1, 3]
    assert t_perm.dtype == torch.int32


@pytest.mark.skipif(extension.native is None, reason="the extension is not built")
@pytest.mark.parametrize(
    ("shape", "count", "even"),
    [
        ((1500, 400), 250_000, True),
        ((1, 600_000), 250_000, False),
        ((600_000, 1), 250_000, True),
        ((70, 5000), 300_000, False),
        # So many are put in buckets of columns first, but not where few columns have most.
        ((3000, 50_000), 1_200_000, True),
        ((3000, 50_000), 1_500_000, False),
        ((40, 4_000_001), 1_200_000, True),
        ((3000, 4097), 1_200_000, True),
    ],
)
def test_order_of_many_does_not_depend_on_threads(
    shape: tuple[int, int], count: int, even: bool
) -> None:
    generator = torch.Generator().manual_seed(0)
    place = torch.rand(2, count, generator=generator, dtype=torch.float64)
    row, column = (place if even else place**4) * torch.tensor(shape)[:, None]
    topology = Topology(shape, (row.long() * shape[1] + column.long()).unique())
    indptr, indices = topology.csr()
    expected = sorted_columns(indptr, indices, shape[1])
    given = indptr.data_ptr(), indices.data_ptr(), *shape, topology.nnz
    for threads in (1, 2, 7):
        made = [torch.empty_like(part) for part in expected]
        extension.native.transpose(*given, *(part.data_ptr() for part in made), threads)
        assert all(torch.equal(*pair) for pair in zip(made, expected, strict=True))
