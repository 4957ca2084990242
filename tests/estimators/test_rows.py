import numpy as np
import pytest
import torch
from scipy import sparse

from regrow.estimators.rows import SCALES, Rows, batches

TABLE = np.array([[0.0, 5.0, -1.0], [2.0, 5.0, 0.0], [4.0, 5.0, 0.0], [2.0, 5.0, 1.0]])


@pytest.mark.parametrize("scale", SCALES)
def test_sparse_tables_give_the_batches_of_dense_ones(scale: str | None) -> None:
    chosen = torch.tensor([3, 0, 2])
    dense = Rows(TABLE, scale).batch(chosen)
    for form in (sparse.csr_array, sparse.csr_matrix):
        torch.testing.assert_close(Rows(form(TABLE), scale).batch(chosen), dense)


def test_standard_gives_mean_zero_and_spread_one_but_to_constant_features() -> None:
    rows = Rows(TABLE, "standard")
    x = rows.batch(torch.arange(4))
    torch.testing.assert_close(x.mean(0), torch.zeros(3))
    torch.testing.assert_close(x.std(0, correction=0), torch.tensor([1.0, 0.0, 1.0]))
    assert rows.constant.tolist() == [False, True, False]


def test_minmax_fills_the_unit_interval() -> None:
    x = Rows(TABLE, "minmax").batch(torch.arange(4))
    assert x[:, 0].tolist() == [0.0, 0.5, 1.0, 0.5]
    assert x[:, 1].tolist() == [0.0] * 4


def test_global_keeps_differences_of_spread() -> None:
    x = Rows(TABLE, "global").batch(torch.arange(4))
    torch.testing.assert_close(x.mean(), torch.tensor(0.0), atol=1e-6, rtol=0)
    torch.testing.assert_close(x.std(correction=0), torch.tensor(1.0))
    assert float(x[:, 0].std()) > 1.5 * float(x[:, 2].std())


def test_what_is_handed_out_does_not_change_the_table() -> None:
    table = TABLE.astype(np.float32)
    Rows(table, None).batch(torch.arange(4)).zero_()
    assert np.array_equal(table, TABLE)


def test_batches_are_whole_and_disjoint() -> None:
    seen = torch.cat(list(batches(23, 5, torch.Generator().manual_seed(0))))
    assert len(seen) == len(seen.unique()) == 20
    assert int(seen.max()) <= 22


def test_few_rows_are_one_batch() -> None:
    (only,) = batches(3, 100, torch.Generator())
    assert sorted(only.tolist()) == [0, 1, 2]
