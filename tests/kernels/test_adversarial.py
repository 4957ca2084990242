"""Indices from hostile or damaged files: refused in a sentence, or right; never a bad access.

`.ci/sanitize/run` runs this on kernels that stop at the first bad access.
"""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from regrow import SparseLinear, Topology
from regrow.kernels import native, native_structured
from regrow.topology import Block

needs_native = pytest.mark.skipif(not native.available(), reason=native.reason())

BIG = 2**31 - 1
EXTREMES = [0, 1, -1, 2, 7, BIG, -BIG - 1]
FAR = [*EXTREMES, 2**31, 2**32 + 1, 2**62, 2**63 - 1, -(2**63)]


@st.composite
def damaged(draw: st.DrawFn) -> tuple[list[int], list[int], int]:
    """Compressed rows with some entries overwritten, and the number of columns."""
    columns = draw(st.integers(1, 9))
    rows = draw(st.lists(st.sets(st.integers(0, columns - 1)).map(sorted), min_size=1, max_size=7))
    indices = [column for row in rows for column in row]
    indptr = [0]
    for row in rows:
        indptr.append(indptr[-1] + len(row))
    for _ in range(draw(st.integers(0, 2))):
        indptr[draw(st.integers(0, len(indptr) - 1))] = draw(st.sampled_from(FAR))
    for _ in range(draw(st.integers(0, 2)) if indices else 0):
        indices[draw(st.integers(0, len(indices) - 1))] = draw(st.sampled_from(EXTREMES))
    return indptr, indices, columns


def is_sound(indptr: list[int], indices: list[int], columns: int) -> bool:
    """The definition, word by word."""
    if indptr[0] != 0 or indptr[-1] != len(indices) or indptr != sorted(indptr):
        return False
    rows = [indices[a:b] for a, b in pairwise(indptr)]
    return all(
        row == sorted(set(row)) and all(0 <= column < columns for column in row) for row in rows
    )


def tensors(indptr: list[int], indices: list[int]) -> tuple[Tensor, Tensor]:
    return torch.tensor(indptr), torch.tensor(indices, dtype=torch.int32)


@needs_native
@given(damaged())
@example(([0, 2**62, 1], [0], 1))
@example(([0, -1, 1], [0], 1))
def test_the_native_check_refuses_exactly_what_is_not_sound(case: tuple) -> None:
    indptr, indices, columns = case
    if is_sound(*case):
        native.check_structure(*tensors(indptr, indices), columns)
        return
    with pytest.raises(ValueError, match=r"^(indptr|indices)\[\d+\] .*must "):
        native.check_structure(*tensors(indptr, indices), columns)


@given(damaged())
def test_a_topology_is_refused_or_serves_every_kernel(case: tuple) -> None:
    indptr, indices, columns = case
    shape = (len(indptr) - 1, columns)
    if not is_sound(*case):
        with pytest.raises(ValueError, match=r"^(indptr|indices) of a topology of shape .* must "):
            Topology.from_csr(shape, *tensors(indptr, indices))
        return
    topology = Topology.from_csr(shape, *tensors(indptr, indices))
    assert topology.positions.tolist() == topology.mask().flatten().nonzero().flatten().tolist()
    starts, rows, slots = (part.tolist() for part in topology.csc())
    assert sorted(slots) == list(range(topology.nnz))
    assert [indices[slot] for slot in slots] == sorted(indices)
    assert topology.rows[slots].tolist() == rows
    assert starts == [sum(i < column for i in indices) for column in range(columns + 1)]
    layer = SparseLinear(columns, shape[0], topology=topology, compute="csr")
    for batch, dtype in ((3, torch.float32), (20, torch.bfloat16)):
        x = torch.randn(batch, columns, dtype=dtype, requires_grad=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            layer(x).sum().backward()
        expected = layer.weight.detach().sum(0).to(dtype).expand(batch, -1)
        torch.testing.assert_close(x.grad, expected)


@given(st.lists(st.sampled_from([*FAR, 3, 14, 15]), max_size=5))
def test_positions_are_refused_or_kept(positions: list[int]) -> None:
    given_ = torch.tensor(positions, dtype=torch.int64)
    sound = len(set(positions)) == len(positions) and all(0 <= p < 15 for p in positions)
    if sound:
        assert Topology((3, 5), given_).positions.tolist() == sorted(positions)
        return
    with pytest.raises(ValueError, match=r"^positions of a topology of shape \(3, 5\) must "):
        Topology((3, 5), given_)


@needs_native
@given(st.lists(st.sampled_from(FAR), min_size=1, max_size=4), st.booleans())
def test_pairs_out_of_range_are_refused(places: list[int], as_rows: bool) -> None:
    grad, x = torch.ones(2, 3), torch.ones(2, 3)
    bad, good = torch.tensor(places), torch.zeros(len(places), dtype=torch.int64)
    rows, columns = (bad, good) if as_rows else (good, bad)
    if all(0 <= place < 3 for place in places):
        assert native.pair_products(grad, x, rows, columns).tolist() == [2.0] * len(places)
        return
    with pytest.raises(IndexError, match=r"^(rows|columns)\[\d\] must be in \[0, 3\), got "):
        native.pair_products(grad, x, rows, columns)


@given(damaged())
def test_a_damaged_checkpoint_is_refused_and_changes_nothing(case: tuple) -> None:
    indptr, indices, columns = case
    shape = (len(indptr) - 1, columns)
    layer = SparseLinear(columns, shape[0], density=0.5)
    before = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    arrays = tensors(indptr, indices)
    state = before | {"indptr": arrays[0], "indices": arrays[1], "values": torch.ones(len(indices))}
    if is_sound(*case):
        layer.load_state_dict(state)
        layer(torch.ones(2, columns)).sum().backward()
        return
    with pytest.raises(RuntimeError, match="must"):
        layer.load_state_dict(state)
    after = layer.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


@st.composite
def damaged_blocks(draw: st.DrawFn) -> tuple[list[Tensor], int]:
    """The parts of blocks of 2 x 4 with some entries overwritten, and the number of columns."""
    down, along = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    places = draw(st.sets(st.integers(0, down * along - 1), min_size=1))
    first = torch.tensor(sorted(places))
    mask = torch.zeros(down * along)
    mask[first] = 1
    mask = mask.view(down, along).repeat_interleave(2, 0).repeat_interleave(4, 1)
    topology = Topology(mask.shape, mask.flatten().nonzero().flatten()).declare(Block(2, 4))
    parts = [part.clone() for part in topology.parts()]
    for _ in range(draw(st.integers(0, 2))):
        part = parts[draw(st.integers(0, 4))]
        extremes = FAR if part.dtype == torch.int64 else EXTREMES
        part[draw(st.integers(0, part.numel() - 1))] = draw(st.sampled_from(extremes))
    return parts, 4 * along


@needs_native
@given(damaged_blocks(), st.sampled_from([1, 20]))
def test_blocks_are_refused_or_computed_with(case: tuple, batch: int) -> None:
    parts, columns = case
    rows, nnz = 2 * (parts[0].numel() - 1), 8 * parts[1].numel()
    x, values = torch.ones(batch, columns), torch.ones(nnz)
    try:
        y = native_structured.block_forward(x, values, tuple(parts), (2, 4))
    except ValueError as error:
        assert str(error).startswith(("indptr[", "indices["))  # noqa: PT017
    else:
        assert float(y.sum()) == batch * nnz
    try:
        dx, dvalues = native_structured.block_backward(
            torch.ones(batch, rows), x, values, tuple(parts), (2, 4)
        )
    except ValueError as error:
        assert "must " in str(error)  # noqa: PT017
    else:
        assert float(dx.sum()) == batch * nnz
        assert torch.equal(dvalues, torch.full((nnz,), float(batch)))


@needs_native
@given(
    st.integers(1, 5),
    st.integers(1, 3),
    st.lists(st.integers(0, 255), min_size=1, max_size=24),
    st.sampled_from([1, 20]),
)
def test_places_are_refused_or_computed_with(m: int, n: int, places: list, batch: int) -> None:
    n, count = min(n, m), len(places) // min(n, m) * min(n, m)
    if count == 0:
        return
    given_ = torch.tensor(places[:count], dtype=torch.uint8)
    x, values = torch.ones(batch, m), torch.ones(count)
    try:
        y = native_structured.nm_forward(x, values, (given_,), (n, m))
        dx, dvalues = native_structured.nm_backward(
            torch.ones_like(y), x, values, (given_,), (n, m)
        )
    except ValueError as error:
        bad = next(k for k in range(count) if places[k] >= m)
        expected = f"places[{bad}] must be in [0, {m}), got {places[bad]}"
        assert str(error) == expected  # noqa: PT017
    else:
        assert max(places[:count]) < m
        assert float(y.sum()) == float(dx.sum()) == float(dvalues.sum()) == batch * count
