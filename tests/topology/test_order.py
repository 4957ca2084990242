"""Column order by hand; elsewhere it is compared with the mask."""

from __future__ import annotations

import pytest
import torch

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
