"""Selection: native against torch on every kind of number, ties, and brute force."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from regrow import Topology
from regrow.topology import extension
from regrow.topology.select import Highest, without_lowest, without_nearest_zero

needs_native = pytest.mark.skipif(extension.native is None, reason="the extension is not built")
# Few different numbers, so that ties are the rule.
numbers = st.sampled_from([0.0, -0.0, 1.0, -1.0, 1.5, -1.5, 1e-40, -1e-40, 3e38, -3e38])
anything = st.one_of(numbers, st.sampled_from([math.inf, -math.inf, math.nan]), st.floats(width=32))
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


def by_torch(function, *arguments):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extension, "native", None)
        return function(*arguments)


@dtypes
@given(st.lists(anything, max_size=60), st.data())
def test_lowest_equal_torch_and_brute_force(
    dtype: torch.dtype, values: list[float], data: st.DataObject
) -> None:
    count = data.draw(st.integers(0, len(values)))
    scores = torch.tensor(values, dtype=dtype)
    keep = without_lowest(scores, count)
    assert torch.equal(keep, by_torch(without_lowest, scores, count))
    stored = scores.tolist()
    order = sorted(range(len(stored)), key=lambda i: (math.isnan(stored[i]), stored[i]))
    if not any(map(math.isnan, stored)):
        assert set((~keep).nonzero().flatten().tolist()) == set(order[:count])
    assert int(keep.sum()) == len(values) - count


@dtypes
@given(st.lists(anything, max_size=60), st.data())
def test_nearest_zero_equal_torch_and_the_ranks(
    dtype: torch.dtype, entries: list[float], data: st.DataObject
) -> None:
    count = data.draw(st.integers(0, len(entries)))
    values = torch.tensor(entries, dtype=dtype)
    keep = without_nearest_zero(values, count)
    assert torch.equal(keep, by_torch(without_nearest_zero, values, count))
    stored = values.tolist()
    ranked = []
    for sign, part in enumerate(([v >= 0 for v in stored], [v < 0 for v in stored])):
        inside = sorted((i for i, there in enumerate(part) if there), key=lambda i: abs(stored[i]))
        ranked += [((rank + 0.5) / len(inside), sign, i) for rank, i in enumerate(inside)]
    assert set((~keep).nonzero().flatten().tolist()) == {i for *_, i in sorted(ranked)[:count]}


def test_large_inputs_equal_torch() -> None:
    values = torch.randn(100_000, generator=torch.Generator().manual_seed(0))
    coarse = (values * 50).round() / 50
    for entries in (values, coarse, values.double(), torch.zeros(1000), values.half()):
        for count in (0, 1, entries.numel() // 3, entries.numel() - 1, entries.numel()):
            for select in (without_lowest, without_nearest_zero):
                assert torch.equal(select(entries, count), by_torch(select, entries, count))


def many(kind: str) -> torch.Tensor:
    """More numbers than one thread takes at a time."""
    numbers = torch.randn(300_000, generator=torch.Generator().manual_seed(0))
    if kind == "near each other":
        return numbers.mul_(1e-3).add_(1.7)
    if kind == "few":
        return numbers.mul_(2).round_()
    if kind == "mostly zero":
        return numbers.mul_(torch.rand(300_000, generator=torch.Generator().manual_seed(1)) < 0.1)
    if kind == "far from each other":
        return numbers.mul_(60).exp_().mul_(numbers.sign())
    if kind == "some not finite":
        numbers[::7] = torch.nan
        numbers[1::70], numbers[2::70] = torch.inf, -torch.inf
        return numbers
    return torch.full_like(numbers, {"equal": -2.5, "zero": -0.0, "nan": torch.nan}[kind])


@needs_native
@dtypes
@pytest.mark.parametrize(
    "kind",
    [
        *("near each other", "few", "mostly zero", "far from each other", "some not finite"),
        *("equal", "zero", "nan"),
    ],
)
def test_selection_of_many_does_not_depend_on_threads(kind: str, dtype: torch.dtype) -> None:
    numbers = many(kind).to(dtype)
    size = numbers.numel()
    for count in (0, 1, 12_345, 150_000, size - 1, size):
        for select, name in (
            (without_lowest, "drop_lowest"),
            (without_nearest_zero, "drop_nearest_zero"),
        ):
            expected = by_torch(select, numbers, count)
            for threads in (1, 2, 7):
                keep = torch.empty(size, dtype=torch.bool)
                given_ = numbers.itemsize, numbers.data_ptr(), size, count
                getattr(extension.native, name)(*given_, keep.data_ptr(), threads)
                assert torch.equal(keep, expected), (name, count, threads)


def offered(table: torch.Tensor, topology: Topology, count: int, height: int):
    best = Highest(topology, count)
    rows, columns = topology.matrix_shape
    for first in range(0, rows, height):
        last = min(rows, first + height)
        best.offer(table[first * columns : last * columns], first, last)
    return best.found()


@dtypes
@given(st.data())
def test_highest_equal_torch_and_brute_force(dtype: torch.dtype, data: st.DataObject) -> None:
    rows, columns = data.draw(st.integers(1, 7)), data.draw(st.integers(1, 40))
    total = rows * columns
    taken = data.draw(st.sets(st.integers(0, total - 1)))
    free = [position for position in range(total) if position not in taken]
    count, height = data.draw(st.integers(0, len(free))), data.draw(st.integers(1, rows))
    topology = Topology((rows, columns), torch.tensor(sorted(taken), dtype=torch.int64))
    table = torch.tensor(data.draw(st.lists(anything, min_size=total, max_size=total)), dtype=dtype)
    scores, positions = offered(table, topology, count, height)
    twin = by_torch(offered, table, topology, count, height)
    assert torch.equal(positions, twin[1])
    assert scores.tolist() == twin[0].tolist()
    least = torch.finfo(dtype).min
    floor = [least if math.isnan(s) else max(least, s) for s in table.tolist()]
    wanted = sorted(free, key=lambda position: (-floor[position], position))[:count]
    assert positions.tolist() == sorted(wanted)


def test_highest_of_many_throws_the_worse_away_on_the_way() -> None:
    generator = torch.Generator().manual_seed(0)
    topology = Topology((300, 500), torch.randperm(150_000, generator=generator)[:20_000])
    for table in (torch.randn(150_000, generator=generator), torch.zeros(150_000)):
        found = offered(table, topology, 700, 7)
        twin = by_torch(offered, table, topology, 700, 7)
        assert all(torch.equal(a, b) for a, b in zip(found, twin, strict=True))


@dtypes
def test_highest_in_wide_rows_with_room_to_spare_and_without(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    topology = Topology((3, 2500), torch.randperm(7500, generator=generator)[:900])
    table = torch.randn(7500, generator=generator).mul_(20).round_().to(dtype)
    table[::50] = torch.nan
    for count in (1, 1500, 6600):
        scores, positions = by_torch(offered, table, topology, count, 2)
        found = offered(table, topology, count, 2)
        assert torch.equal(found[0], scores)
        assert torch.equal(found[1], positions)
        if extension.native is None:
            continue
        held = torch.empty(count + 1, dtype=dtype), torch.empty(count + 1, dtype=torch.int64)
        indptr, indices = topology.csr()
        kind = "HighestFloat" if dtype == torch.float32 else "HighestDouble"
        best = getattr(extension.native, kind)(
            *(held[0].data_ptr(), held[1].data_ptr(), count + 1, count),
            *(indptr.data_ptr(), indices.data_ptr(), 3, 2500, 900),
        )
        best.offer(table.data_ptr(), 0, 3, 2)
        assert best.settle(2) == count
        assert torch.equal(held[0][:count], scores)
        assert torch.equal(held[1][:count], positions)


@needs_native
def test_bad_arguments_of_native_selection_are_refused() -> None:
    native, scores = extension.native, torch.zeros(4)
    keep = torch.ones(4, dtype=torch.bool)
    address, flags = scores.data_ptr(), keep.data_ptr()
    with pytest.raises(ValueError, match=r"count must be in \[0, 4\], got 5"):
        native.drop_lowest(4, address, 4, 5, flags, 1)
    with pytest.raises(ValueError, match="itemsize must be 4 or 8, got 2"):
        native.drop_lowest(2, address, 4, 1, flags, 1)
    with pytest.raises(ValueError, match="keep must have an address, got 0 for 4 elements"):
        native.drop_lowest(4, address, 4, 1, 0, 1)
    with pytest.raises(ValueError, match=r"count must be in \[0, 4\], got 5"):
        native.drop_nearest_zero(4, address, 4, 5, flags, 1)
    with pytest.raises(ValueError, match=r"size must be in \[0, 2147483647\], got -4"):
        native.drop_nearest_zero(4, address, -4, 0, flags, 1)
    pointers, columns = torch.tensor([0, 1]), torch.tensor([7], dtype=torch.int32)
    made = pointers.data_ptr(), columns.data_ptr(), 1, 4, 1
    places = torch.empty(4, dtype=torch.int64)
    positions = places.data_ptr()
    with pytest.raises(ValueError, match=r"count must be in \[0, 1\], got 3"):
        native.HighestFloat(address, positions, 2, 3, *made)
    best = native.HighestFloat(address, positions, 4, 3, *made)
    with pytest.raises(ValueError, match=r"last_row must be in \[0, 1\], got 2"):
        best.offer(address, 0, 2, 1)
    best.offer(address, 0, 1, 1)  # the column outside is met by no score
    assert best.settle(1) == 3
