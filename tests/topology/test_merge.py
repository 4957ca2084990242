"""Merging and carrying: native against torch, all dtypes, and arguments that make no sense."""

from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from regrow import Topology
from regrow.topology import extension, merge, random_topology
from regrow.topology.patterns import sample_distinct

needs_native = pytest.mark.skipif(extension.native is None, reason="the extension is not built")
DTYPES = [
    *(torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int8, torch.int64),
    *(torch.bool, torch.complex64, torch.complex128),
]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rewired(topology: Topology, keep: torch.Tensor, grown: torch.Tensor, entries: torch.Tensor):
    change = topology.rewire(keep, grown)
    start = (torch.arange(grown.numel()) * -1.0).to(entries)
    return change, change.carry(entries, start), change.survivors(entries)


@given(st.data())
def test_rewiring_equals_torch_and_brute_force(data: st.DataObject) -> None:
    shape = data.draw(st.integers(1, 8)), data.draw(st.integers(1, 8))
    total = shape[0] * shape[1]
    old = sorted(data.draw(st.sets(st.integers(0, total - 1))))
    keep = [data.draw(st.booleans()) for _ in old]
    kept = {p for p, stays in zip(old, keep, strict=True) if stays}
    free = [p for p in range(total) if p not in kept]
    new = data.draw(st.lists(st.sampled_from(free), unique=True)) if free else []
    topology = Topology(shape, torch.tensor(old, dtype=torch.int64))
    given_ = torch.tensor(keep, dtype=torch.bool), torch.tensor(new, dtype=torch.int64)
    entries = torch.tensor([p + 1.0 for p in old])
    change, moved, stayed = rewired(topology, *given_, entries)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extension, "native", None)
        twin, twin_moved, twin_stayed = rewired(topology, *given_, entries)
        twin_kept = topology.kept(given_[0])
    assert change.topology == twin.topology
    assert topology.kept(given_[0]) == twin_kept
    assert twin_kept.positions.tolist() == sorted(kept)
    assert torch.equal(change.fresh, twin.fresh)
    assert change.grown == twin.grown == len(new)
    assert torch.equal(moved, twin_moved)
    assert torch.equal(stayed, twin_stayed)
    assert change.topology.positions.tolist() == sorted(kept | set(new))
    wanted = [p + 1.0 if p in kept else -float(new.index(p)) for p in sorted(kept | set(new))]
    assert moved.tolist() == wanted
    assert stayed.tolist() == [p + 1.0 for p in sorted(kept)]
    assert torch.equal(change.topology.csr()[0], twin.topology.csr()[0])


@pytest.mark.parametrize("dtype", DTYPES)
def test_entries_of_any_type_are_carried(dtype: torch.dtype) -> None:
    topology = random_topology((70, 90), 4000, generator=seeded())
    keep = torch.rand(4000, generator=seeded(1)) < 0.6
    grown = torch.randperm(6300, generator=seeded(2))
    grown = grown[~topology.mask().view(-1)[grown]][:1500]
    entries = torch.randint(-100, 100, (4000,), generator=seeded(3)).to(dtype)
    _, moved, stayed = rewired(topology, keep, grown, entries)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extension, "native", None)
        _, twin_moved, twin_stayed = rewired(topology, keep, grown, entries)
    assert moved.dtype == stayed.dtype == dtype
    assert torch.equal(moved, twin_moved)
    assert torch.equal(stayed, twin_stayed)


def test_views_are_read_as_they_are() -> None:
    topology = Topology((2, 3), torch.tensor([0, 1, 5]))
    keep = torch.tensor([True, True, False, False, True, True])[::2]
    grown = torch.tensor([4, 0, 3, 0])[::2]
    entries = torch.tensor([10.0, 0.0, 11.0, 0.0, 15.0, 0.0])[::2]
    change, moved, stayed = rewired(topology, keep, grown, entries)
    assert change.topology.positions.tolist() == [0, 3, 4, 5]
    assert moved.tolist() == [10.0, -1.0, 0.0, 15.0]
    assert stayed.tolist() == [10.0, 15.0]


@pytest.mark.parametrize("native", [pytest.param(True, marks=needs_native), False])
@pytest.mark.parametrize(
    ("grown", "sentence"),
    [
        ([5, 3], "shape (2, 3) must be distinct, got 5 more than once"),
        ([3, 3], "shape (2, 3) must be distinct, got 3 more than once"),
        ([4, 3, 4], "shape (2, 3) must be distinct, got 4 more than once"),
        ([6], "positions of a topology of shape (2, 3) must be in [0, 6), got 6"),
        ([-1, 3], "positions of a topology of shape (2, 3) must be in [0, 6), got -1"),
        ([2**62], f"positions of a topology of shape (2, 3) must be in [0, 6), got {2**62}"),
    ],
)
def test_bad_growth_is_refused(
    native: bool, grown: list[int], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not native:
        monkeypatch.setattr(extension, "native", None)
    topology = Topology((2, 3), torch.tensor([0, 1, 5]))
    with pytest.raises(ValueError, match=re.escape(sentence)):
        topology.rewire(torch.tensor([True, False, True]), torch.tensor(grown))


SHAPES = [(400, 1500), (1, 600_000), (600_000, 1), (300_000, 2), (3, 200_000)]


def uneven(shape: tuple[int, int], count: int, seed: int) -> torch.Tensor:
    """Positions that grow sparse towards the end, so that parts of the work are of all forms."""
    total = shape[0] * shape[1]
    return (torch.rand(count, generator=seeded(seed), dtype=torch.float64) ** 3 * total).long()


@needs_native
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("even", [True, False])
def test_a_large_merge_does_not_depend_on_threads(shape: tuple[int, int], even: bool) -> None:
    total = shape[0] * shape[1]
    old = sample_distinct(total, 250_000, seeded()) if even else uneven(shape, 400_000, 0).unique()
    keep = torch.rand(old.numel(), generator=seeded(1)) < 0.6
    keep[:70_000] = False  # a part of which nothing stays
    keep[70_000:140_000] = True
    mask = torch.zeros(total, dtype=torch.bool)
    mask[old[keep]] = True
    grown = (~mask).nonzero().view(-1)[::3].contiguous()
    topology = Topology(shape, old)
    indptr, indices = topology.csr()
    pointers = torch.cat([torch.zeros(1).long(), keep.cumsum(0)])[indptr]
    *expected, clash = merge._merged((indptr, indices), shape[1], keep, grown)
    assert clash == -1
    made = expected[1].numel()
    given_ = indptr.data_ptr(), indices.data_ptr(), *shape, topology.nnz
    for threads in (1, 2, 7):
        new = torch.empty_like(indptr), torch.empty(made).int(), torch.empty(made).int()
        room = (part.data_ptr() for part in new)
        chosen = keep.data_ptr(), int(keep.sum()), grown.data_ptr(), grown.numel()
        assert extension.native.rewire(*given_, *chosen, *room, threads) == -1
        assert all(torch.equal(*pair) for pair in zip(new, expected, strict=True))
        left = torch.empty_like(indptr)
        given_rows = indptr.data_ptr(), shape[0], topology.nnz
        extension.native.keep_pointers(*given_rows, keep.data_ptr(), left.data_ptr(), threads)
        assert torch.equal(left, pointers)


@pytest.mark.parametrize("native", [pytest.param(True, marks=needs_native), False])
def test_of_many_clashes_the_first_is_named(native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not native:
        monkeypatch.setattr(extension, "native", None)
    topology = Topology((500, 1000), torch.arange(0, 500_000, 2))
    everything = torch.ones(topology.nnz, dtype=torch.bool)
    odd = torch.arange(1, 500_000, 2)
    for first, more in ((300_000, [300_001, 400_000]), (200_001, [200_004, 499_999])):
        grown = torch.cat([odd, torch.tensor([first, *more])])
        with pytest.raises(ValueError, match=f"got {first} more than once"):
            topology.rewire(everything, grown)


@needs_native
def test_carrying_and_choosing_many_does_not_depend_on_threads() -> None:
    entries = torch.randn(300_000, generator=seeded())
    keep = torch.rand(300_000, generator=seeded(1)) < 0.7
    keep[-100_000:] = False
    kept, start = int(keep.sum()), torch.full((50_000,), -1.0)
    origin = torch.cat([keep.nonzero().view(-1), torch.arange(-50_000, 0)]).int()
    origin = origin[torch.randperm(origin.numel(), generator=seeded(2))]
    expected = torch.cat([entries, start.new_zeros(50_000)])[origin]
    expected[origin < 0] = -1.0
    for threads in (1, 2, 7):
        found, moved = torch.empty(kept), torch.empty(origin.numel())
        given_ = 4, entries.data_ptr(), keep.data_ptr(), 300_000, kept
        extension.native.survivors(*given_, found.data_ptr(), threads)
        assert torch.equal(found, entries[keep])
        where = origin.data_ptr(), origin.numel(), moved.data_ptr(), threads
        for step in (0, 1):
            given_ = 4, entries.data_ptr(), 300_000, start.data_ptr(), 50_000, step
            moved.zero_()
            extension.native.carry(*given_, *where)
            assert torch.equal(moved, expected)


@pytest.mark.parametrize("native", [pytest.param(True, marks=needs_native), False])
def test_one_start_for_all_is_enough(native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not native:
        monkeypatch.setattr(extension, "native", None)
    topology = Topology((2, 3), torch.tensor([0, 1, 5]))
    entries = torch.tensor([10.0, 11.0, 15.0])
    keep = torch.tensor([True, False, True])
    start = torch.full((1,), -1.0, dtype=torch.float64)
    for grown, expected in (
        ([3, 4], [10.0, -1.0, -1.0, 15.0]),
        ([4, 1], [10.0, -1.0, -1.0, 15.0]),
        ([2], [10.0, -1.0, 15.0]),
        ([], [10.0, 15.0]),
    ):
        change = topology.rewire(keep, torch.tensor(grown, dtype=torch.int64))
        assert change.carry(entries, start.expand(len(grown))).tolist() == expected


@needs_native
def test_whether_numbers_rise_is_seen_at_every_place() -> None:
    numbers = torch.arange(200_000)
    assert merge.rising(numbers)
    assert merge.rising(numbers[:0])
    assert merge.rising(torch.tensor([3, 3]))
    for place in (1, 65_536, 131_072, 199_999):
        bent = numbers.clone()
        bent[place] = place - 2
        assert not merge.rising(bent)


@needs_native
@given(st.lists(st.sampled_from([0, 1, 3, -1, 7, 2**31 - 1, -(2**31)]), min_size=4, max_size=4))
def test_columns_that_make_no_sense_lead_nowhere_else(columns: list[int]) -> None:
    indptr, indices = torch.tensor([0, 2, 4]), torch.tensor(columns, dtype=torch.int32)
    keep, grown = torch.tensor([True, False, True, True]), torch.tensor([1, 2, 5])
    new = torch.zeros(3, dtype=torch.int64), torch.zeros(6).int(), torch.zeros(6).int()
    given_ = indptr.data_ptr(), indices.data_ptr(), 2, 4, 4
    room = (part.data_ptr() for part in new)
    try:
        extension.native.rewire(*given_, keep.data_ptr(), 3, grown.data_ptr(), 3, *room, 2)
    except ValueError as error:
        assert str(error) == "indices must rise within each row"  # noqa: PT017
    ranks = torch.tensor([0, 1, 1, 3])
    extension.native.free_positions(*given_, ranks.data_ptr(), 4, 2)
    assert bool(((ranks >= 0) & (ranks < 8)).all())


@needs_native
def test_bad_arguments_of_the_native_merge_are_refused() -> None:
    native = extension.native
    columns = torch.tensor([0, 1], dtype=torch.int32)
    keep = torch.tensor([True, False])
    grown, out = torch.tensor([3, 2]), torch.zeros(64, dtype=torch.int64)
    room = out.data_ptr(), out.data_ptr() + 128, out.data_ptr() + 256

    def rewire(pointers: list[int], kept: int = 1, count: int = 1) -> int:
        indptr = torch.tensor(pointers)
        given_ = indptr.data_ptr(), columns.data_ptr(), len(pointers) - 1, 4, 2
        return native.rewire(*given_, keep.data_ptr(), kept, grown.data_ptr(), count, *room, 1)

    assert rewire([0, 1, 2]) == -1
    for pointers in ([0, 1, 3], [1, 1, 2], [0, 5, 2], [0, -1, 2]):
        with pytest.raises(ValueError, match="indptr must rise from 0 to 2"):
            rewire(pointers)
    bent = torch.tensor([0, 3, 2])
    with pytest.raises(ValueError, match="indptr must rise from 0 to 2"):
        native.keep_pointers(bent.data_ptr(), 2, 2, keep.data_ptr(), out.data_ptr(), 1)
    with pytest.raises(ValueError, match="keep must be set at 2, got 1"):
        rewire([0, 1, 2], kept=2)
    with pytest.raises(ValueError, match="grown must not fall"):
        rewire([0, 1, 2], count=2)
    grown[0] = 8
    with pytest.raises(ValueError, match=re.escape("grown must be in [0, 8), got 8 to 8")):
        rewire([0, 1, 2])
    flags, entries = keep.data_ptr(), torch.zeros(2)
    with pytest.raises(ValueError, match="itemsize must be 1, 2, 4 or 8, got 3"):
        native.survivors(3, entries.data_ptr(), flags, 2, 1, out.data_ptr(), 1)
    with pytest.raises(ValueError, match="keep must be set at 2, got 1"):
        native.survivors(4, entries.data_ptr(), flags, 2, 2, out.data_ptr(), 1)
    with pytest.raises(ValueError, match=re.escape("count must be in [0, 2], got 3")):
        native.survivors(4, entries.data_ptr(), flags, 2, 3, out.data_ptr(), 1)
    for origins in ([0, -2], [-1, 2]):
        origin = torch.tensor(origins, dtype=torch.int32)
        sentence = f"origin must be in [-1, 2), got {min(origins)} to {max(origins)}"
        with pytest.raises(ValueError, match=re.escape(sentence)):
            native.carry(
                *(4, entries.data_ptr(), 2, entries.data_ptr(), 1, 1),
                *(origin.data_ptr(), 2, out.data_ptr(), 1),
            )
    indptr = torch.tensor([0, 1, 2])
    taken = indptr.data_ptr(), columns.data_ptr(), 2, 4, 2
    with pytest.raises(ValueError, match=re.escape("ranks must be in [0, 6), got 8 to 8")):
        native.free_positions(*taken, grown.data_ptr(), 1, 1)
