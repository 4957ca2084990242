"""Topology: hand-made vectors, bad arrays, rewiring, value semantics, large shapes."""

from __future__ import annotations

import copy
import io
import pickle
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from regrow import Topology
from regrow.topology.order import sorted_columns


def at(*positions: int, shape: tuple[int, ...] = (3, 4)) -> Topology:
    return Topology(shape, torch.tensor(positions, dtype=torch.int64))


@st.composite
def topologies(draw: st.DrawFn) -> Topology:
    shape = draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    positions = draw(st.sets(st.integers(0, shape[0] * shape[1] - 1)))
    return Topology(shape, torch.tensor(sorted(positions), dtype=torch.int64))


# [[. a b .], [. . . .], [c . . d]]
hand = at(8, 1, 11, 2)


def test_hand_made_vectors() -> None:
    assert hand.shape == (3, 4)
    assert hand.matrix_shape == (3, 4)
    assert hand.nnz == 4
    assert hand.density == 4 / 12
    assert hand.positions.tolist() == [1, 2, 8, 11]
    assert hand.positions.dtype == torch.int64
    assert hand.rows.tolist() == [0, 0, 2, 2]
    indptr, indices = hand.csr()
    assert (indptr.tolist(), indptr.dtype) == ([0, 2, 2, 4], torch.int64)
    assert (indices.tolist(), indices.dtype) == ([1, 2, 0, 3], torch.int32)
    t_indptr, t_indices, t_perm = hand.csc()
    assert (t_indptr.tolist(), t_indptr.dtype) == ([0, 1, 2, 3, 4], torch.int64)
    assert (t_indices.tolist(), t_indices.dtype) == ([2, 0, 0, 2], torch.int32)
    assert (t_perm.tolist(), t_perm.dtype) == ([2, 0, 1, 3], torch.int32)
    assert hand.mask().int().tolist() == [[0, 1, 1, 0], [0, 0, 0, 0], [1, 0, 0, 1]]
    assert [degree.tolist() for degree in hand.degrees()] == [[2, 0, 2], [1, 1, 1, 1]]
    assert repr(hand) == "Topology(shape=(3, 4), nnz=4, density=0.3333)"


def test_axes_after_the_first_are_columns() -> None:
    topology = at(0, 17, 29, shape=(2, 3, 5))
    assert topology.matrix_shape == (2, 15)
    assert topology.csr()[1].tolist() == [0, 2, 14]
    assert topology.mask().shape == (2, 3, 5)
    assert topology.mask()[1, 0, 2]


def test_no_connection_and_all_connections() -> None:
    none, every = at(), at(*range(12))
    assert (none.nnz, none.density, none.positions.tolist()) == (0, 0.0, [])
    assert none.csr()[0].tolist() == [0, 0, 0, 0]
    assert [part.tolist() for part in none.csc()] == [[0] * 5, [], []]
    assert [degree.sum().item() for degree in none.degrees()] == [0, 0]
    assert every.density == 1.0
    assert bool(every.mask().all())


def test_column_order_is_built_once_and_counted() -> None:
    topology = at(1, 2)
    rows_only = topology.nbytes
    assert rows_only == 8 * 4 + 4 * 2
    assert topology.csc() is topology.csc()
    assert topology.nbytes == rows_only + 8 * 5 + (4 + 4) * 2


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_any_integer_positions(dtype: torch.dtype) -> None:
    assert Topology((3, 4), torch.tensor([8, 1, 11, 2], dtype=dtype)) == hand
    indptr, indices = (part.to(dtype) for part in hand.csr())
    taken = Topology.from_csr((3, 4), indptr, indices)
    assert taken == hand
    assert [part.dtype for part in taken.csr()] == [torch.int64, torch.int32]


@given(topologies())
def test_orders_agree_with_the_mask_and_the_reference(topology: Topology) -> None:
    mask = topology.mask()
    assert torch.equal(topology.positions, mask.reshape(-1).nonzero().squeeze(1))
    assert torch.equal(topology.degrees()[0], mask.sum(1))
    assert torch.equal(topology.degrees()[1], mask.sum(0))
    expected = sorted_columns(*topology.csr(), mask.shape[1])
    assert all(torch.equal(a, b) for a, b in zip(topology.csc(), expected, strict=True))
    assert Topology.from_csr(topology.shape, *topology.csr()) == topology


def test_a_large_shape_costs_what_its_connections_cost() -> None:
    side = 100_000
    rows = torch.tensor([side - 1, 0, side - 1, 70_000])
    columns = torch.tensor([side - 1, 0, 0, 99_999])
    topology = Topology((side, side), rows * side + columns)
    assert topology.positions.tolist() == [0, 7_000_099_999, 9_999_900_000, 9_999_999_999]
    assert topology.positions.max() > 2**32
    assert topology.csc()[0].numel() == side + 1
    change = topology.rewire(torch.tensor([True, False, True, True]), torch.tensor([9_999_900_001]))
    assert change.topology.positions.tolist() == [0, 9_999_900_000, 9_999_900_001, 9_999_999_999]
    assert topology.nbytes < 3_000_000


BAD_POSITIONS = [
    ([0, 12], ValueError, "positions of a topology of shape (3, 4) must be in [0, 12), got 12"),
    ([-1, 3], ValueError, "positions of a topology of shape (3, 4) must be in [0, 12), got -1"),
    ([2**40], ValueError, f"shape (3, 4) must be in [0, 12), got {2**40}"),
    ([5, 1, 5], ValueError, "shape (3, 4) must be distinct, got 5 more than once"),
    ([0.0], TypeError, "must be a one-dimensional tensor of integers, got torch.float32"),
    ([True], TypeError, "must be a one-dimensional tensor of integers, got torch.bool"),
    ([1j], TypeError, "must be a one-dimensional tensor of integers, got torch.complex64"),
    ([[0, 1]], TypeError, "tensor of integers, got torch.int64 of shape (1, 2)"),
]


@pytest.mark.parametrize(("positions", "error", "sentence"), BAD_POSITIONS)
def test_bad_positions_are_refused(positions: list, error: type, sentence: str) -> None:
    with pytest.raises(error, match=re.escape(sentence)):
        Topology((3, 4), torch.tensor(positions))


def test_positions_that_are_no_tensor_are_refused() -> None:
    sentence = "positions of a topology must be a one-dimensional tensor of integers, got list"
    with pytest.raises(TypeError, match=re.escape(sentence)):
        Topology((3, 4), [0, 1])


@pytest.mark.parametrize("shape", [(), (5,), (0, 3), (3, 0), (-1, 2), (2, 0, 3)])
def test_bad_shapes_are_refused(shape: tuple[int, ...]) -> None:
    sentence = f"shape of a topology must have two or more axes of at least 1, got {shape}"
    with pytest.raises(ValueError, match=re.escape(sentence)):
        Topology(shape, torch.tensor([0]))


@pytest.mark.parametrize("shape", [(2**31, 1), (1, 2**31), (1, 2**16, 2**16)])
def test_shapes_beyond_32_bits_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=f"at most {2**31 - 1} rows and columns"):
        Topology(shape, torch.tensor([0]))


BAD_CSR = [
    ([0, 2, 1, 4], [1, 2, 0, 3], "must rise from 0 to 4, got 0 to 4"),  # falls inside
    ([0, 9, 4, 4], [1, 2, 0, 3], "must rise from 0 to 4, got 0 to 4"),  # leaves the arrays inside
    ([1, 2, 2, 4], [1, 2, 0, 3], "must rise from 0 to 4, got 1 to 4"),
    ([0, 2, 2, 3], [1, 2, 0, 3], "must rise from 0 to 4, got 0 to 3"),
    ([0, 2, 2, 9], [1, 2, 0, 3], "must rise from 0 to 4, got 0 to 9"),
    ([-1, 2, 2, 4], [1, 2, 0, 3], "must rise from 0 to 4, got -1 to 4"),
    ([0, 2, 4], [1, 2, 0, 3], "must have 4 entries, got (3,)"),
    ([], [], "must have 4 entries, got (0,)"),
    ([[0, 2, 2, 4]], [1, 2, 0, 3], "must have 4 entries, got (1, 4)"),
    ([0, 2, 2, 4], [1, 2, 0, 4], "must be in [0, 4), got 0 to 4"),
    ([0, 2, 2, 4], [1, 2, -1, 3], "must be in [0, 4), got -1 to 3"),
    ([0, 2, 2, 4], [1, 2, 2**32, 2**32 + 3], f"must be in [0, 4), got 1 to {2**32 + 3}"),
    ([0, 2, 2, 4], [1, 1, 0, 3], "must rise within each row"),  # repeated
    ([0, 2, 2, 4], [2, 1, 0, 3], "must rise within each row"),  # unsorted
    ([0, 0, 4, 4], [1, 2, 0, 3], "must rise within each row"),
]


@pytest.mark.parametrize(("indptr", "indices", "sentence"), BAD_CSR)
def test_bad_compressed_rows_are_refused(indptr: list, indices: list, sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"of a topology of shape (3, 4) {sentence}")):
        Topology.from_csr(
            (3, 4), *(torch.tensor(part, dtype=torch.int64) for part in (indptr, indices))
        )


@pytest.mark.parametrize(
    ("indptr", "indices", "sentence"),
    [
        (torch.tensor([0.0, 1.0]), torch.tensor([0]), "indptr of a topology must be a one-dim"),
        (torch.tensor([0, 1]), torch.tensor([0.5]), "indices of a topology must be a one-dim"),
        (torch.tensor([0, 1]), torch.tensor([[0]]), "indices of a topology must be a one-dim"),
        (torch.tensor([0, 1]), torch.tensor(0), "indices of a topology must be a one-dim"),
    ],
)
def test_compressed_rows_of_another_kind_are_refused(
    indptr: torch.Tensor, indices: torch.Tensor, sentence: str
) -> None:
    with pytest.raises(TypeError, match=sentence):
        Topology.from_csr((1, 2), indptr, indices)


@pytest.mark.parametrize(
    ("indptr", "positions"),
    [
        ([0, 0, 0, 2], [8, 9]),  # empty rows first
        ([0, 2, 2, 2], [0, 1]),  # and last
        ([0, 1, 1, 2], [0, 9]),
        ([0, 0, 0, 0], []),
    ],
)
def test_empty_rows_are_taken(indptr: list[int], positions: list[int]) -> None:
    indices = [position % 4 for position in positions]
    topology = Topology.from_csr((3, 4), torch.tensor(indptr), torch.tensor(indices).int())
    assert topology.positions.tolist() == positions


def test_columns_may_fall_where_a_row_ends() -> None:
    topology = Topology.from_csr((3, 4), torch.tensor([0, 1, 2, 3]), torch.tensor([3, 2, 0]))
    assert topology.positions.tolist() == [3, 6, 8]


def test_rewire_by_hand() -> None:
    keep = torch.tensor([True, False, True, False])
    change = hand.rewire(keep, torch.tensor([11, 0, 5]))
    assert change.topology.positions.tolist() == [0, 1, 5, 8, 11]
    assert change.grown == 3
    carried = change.carry(torch.tensor([1.0, 2.0, 8.0, 11.0]), torch.tensor([-11.0, -0.5, -5.0]))
    assert carried.tolist() == [-0.5, 1.0, -5.0, 8.0, -11.0]
    assert hand.positions.tolist() == [1, 2, 8, 11]  # the old one stays as it was


def test_rewire_may_keep_all_or_none_and_grow_none() -> None:
    none = torch.tensor([], dtype=torch.int64)
    assert hand.rewire(torch.ones(4, dtype=torch.bool), none).topology == hand
    assert hand.rewire(torch.zeros(4, dtype=torch.bool), none).topology == at()
    assert hand.rewire(torch.zeros(4, dtype=torch.bool), torch.tensor([3])).topology == at(3)


@pytest.mark.parametrize(
    ("grown", "sentence"),
    [
        ([1], "must be distinct, got 1 more than once"),  # kept already
        ([5, 5], "must be distinct, got 5 more than once"),
        ([12], "must be in [0, 12), got 12"),
        ([-2], "must be in [0, 12), got -2"),
    ],
)
def test_bad_growth_is_refused(grown: list[int], sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        hand.rewire(torch.ones(4, dtype=torch.bool), torch.tensor(grown))


@pytest.mark.parametrize("keep", [torch.ones(3).bool(), torch.ones(5).bool(), torch.ones(4).int()])
def test_what_is_kept_is_one_truth_value_a_connection(keep: torch.Tensor) -> None:
    sentence = f"keep of a topology must be torch.bool of shape (4,), got {keep.dtype} of shape"
    with pytest.raises(ValueError, match=re.escape(sentence)):
        hand.rewire(keep, torch.tensor([3]))


@given(topologies(), st.data())
def test_rewire_carries_every_number_to_its_position(topology: Topology, data: st.DataObject):
    kept = data.draw(st.lists(st.booleans(), min_size=topology.nnz, max_size=topology.nnz))
    keep = torch.tensor(kept, dtype=torch.bool)
    taken = set(topology.positions[keep].tolist())
    free = sorted(set(range(topology.shape.numel())) - taken)
    grown = data.draw(st.lists(st.sampled_from(free), unique=True)) if free else []
    start = torch.tensor(grown, dtype=torch.float64)
    change = topology.rewire(keep, torch.tensor(grown, dtype=torch.int64))
    carried = change.carry(topology.positions.double(), start)
    assert carried.long().tolist() == change.topology.positions.tolist()
    assert set(change.topology.positions.tolist()) == taken | set(grown)


def test_carry_keeps_the_dtype_and_the_bits() -> None:
    old = torch.tensor([float("nan"), -0.0, 1e-45, float("inf")], dtype=torch.float32)
    change = hand.rewire(torch.ones(4, dtype=torch.bool), torch.tensor([0]))
    carried = change.carry(old, torch.tensor([0.5], dtype=torch.float64))
    assert carried.dtype == torch.float32
    assert torch.equal(carried[1:].view(torch.int32), old.view(torch.int32))


@pytest.mark.parametrize("count", [0, 2])
def test_carry_wants_one_start_for_each_grown_connection(count: int) -> None:
    change = hand.rewire(torch.ones(4, dtype=torch.bool), torch.tensor([0]))
    sentence = f"start of grown connections must have shape (1,), got ({count},)"
    with pytest.raises(ValueError, match=re.escape(sentence)):
        change.carry(torch.zeros(4), torch.zeros(count))


def test_equality_is_of_content() -> None:
    assert hand == at(1, 2, 8, 11)
    assert hash(hand) == hash(at(1, 2, 8, 11))
    assert hand != at(1, 2, 8)
    assert hand != at(1, 2, 8, 10)
    assert hand != at(1, 2, 8, 11, shape=(4, 3))
    assert hand != at(1, 2, 8, 11, shape=(3, 2, 2))
    assert hand != "a topology"
    assert len({hand, at(1, 2, 8, 11), at(0)}) == 2


def test_copies_share_and_pickles_are_equal() -> None:
    topology = at(1, 2)
    topology.csc()
    assert copy.deepcopy(topology) is topology
    again = pickle.loads(pickle.dumps(topology))
    assert again == topology
    assert again.nbytes < topology.nbytes  # without the column order
    buffer = io.BytesIO()
    torch.save(topology, buffer)
    buffer.seek(0)
    assert torch.load(buffer, weights_only=False) == topology


def test_only_some_connections_or_more_of_them() -> None:
    topology = at(1, 2, 8)
    assert topology.kept(torch.tensor([True, False, True])) == at(1, 8)
    assert topology.joined(torch.tensor([11, 0])) == at(0, 1, 2, 8, 11)
    assert topology == at(1, 2, 8)
    with pytest.raises(ValueError, match="must be distinct, got 2"):
        topology.joined(torch.tensor([2]))
    with pytest.raises(ValueError, match="keep of a topology must be"):
        topology.kept(torch.tensor([True]))


def test_sums_over_rows_and_columns() -> None:
    topology = at(1, 2, 8, 11)  # of 3 x 4: (0, 1), (0, 2), (2, 0), (2, 3)
    values = torch.tensor([1.0, 2.0, 4.0, 8.0])
    assert topology.sums(values, 0).tolist() == [3.0, 0.0, 12.0]
    assert topology.sums(values, 1).tolist() == [4.0, 1.0, 2.0, 8.0]


def test_to_the_device_where_it_is_is_itself() -> None:
    assert hand.to("cpu") is hand
    assert hand.device == torch.device("cpu")
