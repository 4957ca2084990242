"""Recurrent layers against torch's own with the same dense weights."""

from __future__ import annotations

import copy
import re
from itertools import product

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

import regrow
from regrow import SparseGRU, SparseLinear, SparseLSTM, SparseRNN
from regrow.kernels import capture, dispatch
from regrow.layers.cells import DenseRecurrence, SparseRecurrence

COMPUTES = ("csr", "dense", "auto")
KINDS = {
    "tanh": (SparseRNN, {}),
    "relu": (SparseRNN, {"nonlinearity": "relu"}),
    "gru": (SparseGRU, {}),
    "lstm": (SparseLSTM, {}),
}
FEATURES, HIDDEN = 5, 6


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randn(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=seeded(seed))


def layer_of(kind: str, **options):  # type: ignore[no-untyped-def]
    cls, own = KINDS[kind]
    options = {"density": 0.4, "dtype": torch.float64, "generator": seeded(), **own, **options}
    return cls(FEATURES, HIDDEN, **options)


def state_of(layer: nn.Module, batch: int | None = 3) -> Tensor | tuple[Tensor, Tensor]:
    shape = (len(layer.cells), HIDDEN) if batch is None else (len(layer.cells), batch, HIDDEN)
    h, c = randn(*shape, seed=2).requires_grad_(), randn(*shape, seed=3).requires_grad_()
    return (h, c) if isinstance(layer, SparseLSTM) else h


def flat(result) -> list[Tensor]:  # type: ignore[no-untyped-def]
    """States and last states of a result as a list of tensors."""
    y, state = result
    y = y.data if isinstance(y, PackedSequence) else y
    return [y, *(state if isinstance(state, tuple) else [state])]


def weights_of(layer: nn.Module) -> dict[str, tuple[nn.Module, str]]:
    """torch's name of each parameter: the part that holds it, and its name there."""
    directions = 2 if layer.bidirectional else 1
    names = {}
    for i, cell in enumerate(layer.cells):
        suffix = f"l{i // directions}" + ("_reverse" if i % directions else "")
        for part, short in ((cell.input, "ih"), (cell.hidden, "hh")):
            names[f"weight_{short}_{suffix}"] = (part, "values")
            names[f"bias_{short}_{suffix}"] = (part, "bias")
    return names


def assert_equal_to_torch(layer: nn.Module, make_input, state) -> None:  # type: ignore[no-untyped-def]
    """Results and all gradients are those of the densified layer."""
    twin = regrow.densify(copy.deepcopy(layer))
    x, same = make_input(), make_input()
    inner = x.data if isinstance(x, PackedSequence) else x
    leaves = [] if state is None else list(state) if isinstance(state, tuple) else [state]
    mine, theirs = flat(layer(x, state)), flat(twin(same, state))
    for a, b in zip(mine, theirs, strict=True):
        assert a.shape == b.shape
        torch.testing.assert_close(a, b)
    grads = [randn(*a.shape, seed=7 + i) for i, a in enumerate(mine)]
    inner_same = same.data if isinstance(same, PackedSequence) else same
    got = torch.autograd.grad(mine, [inner, *leaves], grads, retain_graph=True)
    want = torch.autograd.grad(theirs, [inner_same, *leaves], grads, retain_graph=True)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b)
    torch.autograd.backward(mine, grads)
    torch.autograd.backward(theirs, grads)
    for name, (part, own) in weights_of(layer).items():
        if own == "bias" and not layer.bias:
            assert part.bias is None
            continue
        expected = getattr(twin, name).grad
        if own == "values":
            expected = expected.reshape(-1)[part.topology.positions]
        torch.testing.assert_close(getattr(part, own).grad, expected)


@pytest.mark.parametrize(("compute", "bias"), [*product(COMPUTES, [True, False])])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_equals_torch(
    kind: str, layers: int, bidirectional: bool, compute: str, bias: bool
) -> None:
    options = {"compute": compute, "bias": bias, "bidirectional": bidirectional}
    layer = layer_of(kind, num_layers=layers, **options)
    assert_equal_to_torch(layer, lambda: randn(7, 3, FEATURES).requires_grad_(), state_of(layer))


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("batch", [0, 1, 2])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_sizes_and_axes(kind: str, batch_first: bool, batch: int, steps: int) -> None:
    layer = layer_of(kind, batch_first=batch_first, bidirectional=True)
    shape = (batch, steps, FEATURES) if batch_first else (steps, batch, FEATURES)
    if batch:
        assert_equal_to_torch(layer, lambda: randn(*shape).requires_grad_(), None)
    else:
        y, _ = layer(randn(*shape))
        assert y.shape == (*shape[:2], 2 * HIDDEN)
        y.sum().backward()
        assert layer.cells[0].hidden.values.grad.abs().sum() == 0


@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_without_a_batch(kind: str, given: bool) -> None:
    layer = layer_of(kind, num_layers=2)
    state = state_of(layer, batch=None) if given else None
    assert_equal_to_torch(layer, lambda: randn(7, FEATURES).requires_grad_(), state)


@pytest.mark.parametrize("enforce_sorted", [True, False])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("compute", ["csr", "dense"])
@pytest.mark.parametrize("kind", KINDS)
def test_packed_sequences(
    kind: str, compute: str, bidirectional: bool, enforce_sorted: bool
) -> None:
    layer = layer_of(kind, compute=compute, bidirectional=bidirectional, num_layers=2)
    lengths = [7, 4, 4, 1] if enforce_sorted else [4, 1, 7, 4]

    def packed() -> PackedSequence:
        given = pack_padded_sequence(randn(7, 4, FEATURES), lengths, enforce_sorted=enforce_sorted)
        return given._replace(data=given.data.requires_grad_())

    assert_equal_to_torch(layer, packed, state_of(layer, batch=4))
    padded, found = pad_packed_sequence(layer(packed())[0])
    assert found.tolist() == lengths
    alone, _ = layer(randn(7, 4, FEATURES)[: lengths[0], 0])
    torch.testing.assert_close(padded[: lengths[0], 0], alone)


@pytest.mark.parametrize("kind", KINDS)
def test_dropout_is_between_layers_and_in_training_only(kind: str) -> None:
    layer = layer_of(kind, num_layers=2, dropout=0.5)
    x = randn(4, 3, FEATURES)
    torch.manual_seed(0)
    first, second = layer(x)[0], layer(x)[0]
    assert not torch.equal(first, second)
    assert_equal_to_torch(layer.eval(), lambda: randn(4, 3, FEATURES).requires_grad_(), None)
    with pytest.warns(UserWarning, match="there is one layer only"):
        layer_of(kind, dropout=0.5)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("compute", ["csr", "dense"])
@pytest.mark.parametrize("kind", KINDS)
def test_gradcheck(kind: str, compute: str, reverse: bool) -> None:
    layer = layer_of(kind, compute=compute).cells[0].hidden
    width = layer.out_features
    c = randn(2, HIDDEN, seed=5).requires_grad_() if kind == "lstm" else randn(0)
    given = (randn(5, width, seed=4).requires_grad_(), randn(2, HIDDEN).requires_grad_(), c)

    def apply(values: Tensor, bias: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
        held = {"values": values, "bias": bias}
        y, h, memory = torch.func.functional_call(layer, held, (*inputs, reverse, [2, 2, 1]))
        return (y, h, memory) if kind == "lstm" else (y, h)

    assert torch.autograd.gradcheck(apply, (layer.values, layer.bias, *given))


@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_compiles_without_a_break(kind: str) -> None:
    layer = layer_of(kind, compute="csr")
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    x, twin = randn(4, 2, FEATURES), copy.deepcopy(layer)
    y, z = compiled(x)[0], twin(x)[0]
    torch.testing.assert_close(y, z)
    y.square().sum().backward()
    z.square().sum().backward()
    for a, b in zip(layer.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


@pytest.mark.parametrize("name", ["recurrence", "lookup"])
def test_operators_are_registered_as_torch_wants_them(name: str) -> None:
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    if name == "lookup":
        layer = regrow.SparseEmbedding(9, 4, density=0.5, compute="csr")
        inputs = (torch.tensor([1, 3]), layer.values, *layer.topology.csr(), 4, "csr", True)
    else:
        hidden = layer_of("gru").cells[0].hidden
        first = randn(2, HIDDEN)
        operands = (hidden.values, hidden.bias, list(hidden.operands()))
        options = ([2, 2], "gru", False, "csr", True)
        inputs = (randn(4, 18).requires_grad_(), first, randn(0), *operands, *options)
    torch.library.opcheck(getattr(torch.ops.regrow, name).default, inputs, test_utils=checks)


@pytest.mark.parametrize("kind", KINDS)
def test_state_of_half_precision_under_autocast(kind: str) -> None:
    layer = layer_of(kind, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, _ = layer(randn(4, 3, FEATURES).float())
    assert y.dtype == torch.float32
    exact, _ = layer(randn(4, 3, FEATURES).float())
    torch.testing.assert_close(y, exact, atol=0.05, rtol=0.05)
    y.sum().backward()


def test_weights_are_sparse_layers_with_gates() -> None:
    layer = SparseLSTM(FEATURES, HIDDEN, num_layers=2, bidirectional=True, density=0.4)
    layers = regrow.sparse_layers(layer)
    assert list(layers) == [f"cells.{i}.{part}" for i in range(4) for part in ("input", "hidden")]
    for path, weight in layers.items():
        assert list(weight.row_groups) == ["input", "forget", "cell", "output"]
        assert weight.row_groups["cell"] == slice(2 * HIDDEN, 3 * HIDDEN)
        columns = HIDDEN if "hidden" in path else FEATURES if path < "cells.2" else 2 * HIDDEN
        assert tuple(weight.topology.shape) == (4 * HIDDEN, columns)
        assert weight.topology.nnz == round(0.4 * 4 * HIDDEN * columns)
    assert list(SparseGRU(5, 6, density=0.4).cells[0].hidden.row_groups) == [
        "reset",
        "update",
        "new",
    ]
    assert not SparseRNN(5, 6, density=0.4).cells[0].hidden.row_groups


def test_topologies_may_be_given_and_the_rest_is_dense() -> None:
    topology = regrow.Topology((24, 6), torch.arange(0, 144, 5))
    layer = SparseLSTM(5, 6, topologies={"cells.0.hidden": topology})
    assert layer.cells[0].hidden.topology == topology
    assert type(layer.cells[0].input) is nn.Linear
    other = SparseLSTM(
        5, 6, topologies={"cells.0.input": regrow.Topology((24, 5), topology.positions[:20])}
    )
    assert isinstance(other.cells[0].hidden, DenseRecurrence)
    x = torch.randn(4, 3, 5, generator=seeded())
    for mixed in (layer, other):
        dense = regrow.densify(copy.deepcopy(mixed))
        torch.testing.assert_close(mixed(x)[0], dense(x)[0])
        mixed(x)[0].sum().backward()
        assert all(p.grad is not None for p in mixed.parameters())


def test_state_dict_takes_over_other_topologies() -> None:
    layer, other = layer_of("lstm"), layer_of("lstm", density=0.7, generator=seeded(5))
    layer.load_state_dict(other.state_dict())
    x = randn(4, 3, FEATURES)
    assert torch.equal(layer(x)[0], other(x)[0])
    assert layer.cells[0].hidden.topology == other.cells[0].hidden.topology


def test_deep_copy_is_independent() -> None:
    layer = layer_of("gru")
    other = copy.deepcopy(layer)
    with torch.no_grad():
        other.cells[0].hidden.values.zero_()
    x = randn(4, 3, FEATURES)
    assert not torch.equal(layer(x)[0], other(x)[0])


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_of_free_positions_over_all_steps(kind: str) -> None:
    layer = layer_of(kind)
    hidden = layer.cells[0].hidden
    twin = regrow.densify(copy.deepcopy(layer))
    capture.arm(hidden)
    layer(randn(6, 3, FEATURES))[0].square().sum().backward()
    twin(randn(6, 3, FEATURES))[0].square().sum().backward()
    ((before, grad, _),) = capture.take(hidden)
    found = hidden.gradient_block(before, grad, slice(0, hidden.out_features))
    torch.testing.assert_close(found, twin.weight_hh_l0.grad)


@pytest.mark.parametrize("method", ["set", "rigl"])
@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_evolves_with_exact_budgets(kind: str, method: str) -> None:
    layer = layer_of(kind, num_layers=2)
    before = {path: m.topology.nnz for path, m in regrow.sparse_layers(layer).items()}
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.01)
    evolution = regrow.Evolution(layer, optimizer, method=method, every=1, until=None, fraction=0.4)
    for step in range(6):
        layer(randn(5, 3, FEATURES, seed=step))[0].square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        record = evolution.step()
        assert record.grown == record.dropped > 0
        assert {path: update.nnz for path, update in record.layers.items()} == before
    for path, m in regrow.sparse_layers(layer).items():
        assert m.topology.nnz == before[path]
        assert optimizer.state[m.values]["exp_avg"].shape == m.values.shape


def test_rigl_grows_the_largest_gradients() -> None:
    layer = layer_of("lstm")
    twin = regrow.densify(copy.deepcopy(layer))
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.0)
    options = {"method": "rigl", "every": 1, "fraction": 0.5, "regrow": False}
    evolution = regrow.Evolution(layer, optimizer, **options)
    hidden = layer.cells[0].hidden
    before = hidden.topology
    for model in (layer, twin):
        model(randn(6, 3, FEATURES))[0].square().sum().backward()
    optimizer.step()
    evolution.step()
    score = twin.weight_hh_l0.grad.abs().masked_fill(before.mask(), -1).reshape(-1)
    best = set(score.topk(round(0.5 * before.nnz)).indices.tolist())
    assert set(hidden.topology.positions.tolist()) - set(before.positions.tolist()) == best


@pytest.mark.parametrize("values", ["rescale", "keep", "init"])
@pytest.mark.parametrize("dense", [nn.RNN, nn.GRU, nn.LSTM])
def test_conversion_there_and_back(dense: type[nn.RNNBase], values: str) -> None:
    module = dense(FEATURES, HIDDEN, num_layers=2, bidirectional=True, batch_first=True)
    module.weight_hh_l0.requires_grad_(False)
    weight, bias = module.weight_hh_l1.detach().clone(), module.bias_hh_l1.detach().clone()
    layer = regrow.sparsify(module, 0.5, values=values, generator=seeded())
    hidden = layer.cells[2].hidden
    assert isinstance(hidden, SparseRecurrence)
    total = sum(m.topology.nnz for m in regrow.sparse_layers(layer).values())
    assert total == round(
        0.5 * sum(m.topology.shape.numel() for m in regrow.sparse_layers(layer).values())
    )
    if values != "init":
        kept = weight.reshape(-1)[hidden.topology.positions]
        scale = hidden.density**0.5 if values == "rescale" else 1
        torch.testing.assert_close(hidden.values.detach(), kept / scale)
        assert torch.equal(hidden.bias, bias)
    back = regrow.densify(copy.deepcopy(layer))
    assert type(back) is dense
    assert not back.weight_hh_l0.requires_grad
    assert back.weight_hh_l1.requires_grad
    x = torch.randn(2, 4, FEATURES, generator=seeded())
    torch.testing.assert_close(back(x)[0], layer(x)[0])


@pytest.mark.parametrize("dense", [nn.RNN, nn.GRU, nn.LSTM])
def test_nearly_dense_is_the_same_but_for_what_is_missing(dense: type[nn.RNNBase]) -> None:
    module = dense(20, 20)
    x = torch.randn(5, 3, 20, generator=seeded())
    layer = regrow.sparsify(module, 0.99, allocation="uniform", values="keep")
    with torch.no_grad():
        module.weight_ih_l0.mul_(layer.cells[0].input.topology.mask())
        module.weight_hh_l0.mul_(layer.cells[0].hidden.topology.mask())
    torch.testing.assert_close(layer(x)[0], module(x)[0])


def test_a_model_with_embedding_lstm_and_head() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Embedding(30, 8, padding_idx=0), nn.Linear(16, 30)
            self.lstm = nn.LSTM(8, 16, batch_first=True)

        def forward(self, ids: Tensor) -> Tensor:
            return self.head(self.lstm(self.embed(ids))[0])

    model, ids = Model(), torch.randint(30, (4, 6), generator=seeded())
    regrow.sparsify(model, 0.3, exclude=["head"])
    paths = ["embed", "lstm.cells.0.input", "lstm.cells.0.hidden"]
    assert list(regrow.sparse_layers(model)) == paths
    entries = {entry.path: entry for entry in regrow.measure.summary(model, ids).layers}
    assert [path for path in entries if path in paths] == paths
    for path in paths[1:]:
        entry = entries[path]
        assert entry.flops_forward == 2 * 4 * 6 * entry.nnz
        assert entry.flops_backward == 2 * entry.flops_forward
        assert entry.compute in ("csr", "dense")
    with pytest.raises(ValueError, match="layer embed is sparse already"):
        regrow.sparsify(model, 0.3)
    expected = model(ids)
    dense = regrow.densify(model)
    assert type(dense.lstm) is nn.LSTM
    torch.testing.assert_close(dense(ids), expected)


def test_auto_is_decided_for_the_whole_sequence() -> None:
    dispatch.forget()
    layer = SparseLSTM(8, 8, density=0.3)
    layer(torch.ones(20, 3, 8))
    layer(torch.ones(9, 3, 8))
    keys = [key for key in dispatch.decisions() if "recurrence" in key]
    assert len(keys) == 1
    assert keys[0].endswith("recurrence of 8 steps")


@pytest.mark.parametrize(
    ("kind", "options", "sentence"),
    [
        ("lstm", {"proj_size": 3}, "proj_size of SparseLSTM must be 0, got 3"),
        ("gru", {"num_layers": 0}, "num_layers of SparseGRU must be at least 1, got 0"),
        ("gru", {"dropout": 1.5}, "dropout of SparseGRU must be in [0, 1], got 1.5"),
        ("tanh", {"density": 0.0}, "density of SparseRNN must be in (0, 1], got 0.0"),
        (
            "lstm",
            {"density": None},
            "SparseLSTM needs a density or topologies, not both or neither",
        ),
        (
            "tanh",
            {"nonlinearity": "sin"},
            "nonlinearity of SparseRNN must be tanh or relu, got 'sin'",
        ),
        ("lstm", {"compute": "fast"}, "compute of SparseLinear must be one of auto, csr, dense"),
        (
            "gru",
            {"density": None, "topologies": {"input": regrow.Topology((2, 2), torch.arange(2))}},
            "topologies of SparseGRU must be of cells.0.input, cells.0.hidden, got input",
        ),
    ],
)
def test_bad_arguments(kind: str, options: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        layer_of(kind, **options)


@pytest.mark.parametrize(
    ("x", "state", "sentence"),
    [
        (
            randn(4, 3, 2),
            None,
            "input of SparseLSTM must be (steps, batch, 5), or without the batch",
        ),
        (randn(5), None, "or without the batch, got shape (5,)"),
        (randn(0, 3, 5), None, "input of SparseLSTM must have a step at least, got none"),
        (
            randn(4, 3, 5),
            randn(1, 3, 6),
            "must be a pair of states of shape (1, 3, 6), got (1, 3, 6)",
        ),
        (randn(4, 5), (randn(1, 2, 6), randn(1, 2, 6)), "a pair of states of shape (1, 6)"),
        (PackedSequence(randn(5, 4), torch.tensor([3, 2])), None, "must have 5 features, got 4"),
    ],
)
def test_bad_inputs(x, state, sentence: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=re.escape(sentence)):
        layer_of("lstm")(x, state)


def test_another_dtype_is_refused() -> None:
    with pytest.raises(TypeError, match=re.escape("input of SparseLinear must be torch.float64")):
        layer_of("lstm")(torch.ones(4, 3, FEATURES))


def test_projection_of_a_dense_lstm_is_refused_by_path() -> None:
    sentence = "layer 0: proj_size of a recurrent layer to make sparse must be 0, got 2"
    with pytest.raises(ValueError, match=re.escape(sentence)):
        regrow.sparsify(nn.Sequential(nn.LSTM(5, 4, proj_size=2)), 0.5)


@pytest.mark.parametrize(("kind", "scope"), [("gru", "layer"), ("lstm", "gate")])
def test_learns_to_repeat_what_it_saw_three_steps_ago(kind: str, scope: str) -> None:
    torch.manual_seed(0)
    cls = KINDS[kind][0]
    embed = regrow.SparseEmbedding(4, 12, density=0.5, generator=seeded())
    layer, head = cls(12, 48, density=0.2, generator=seeded()), SparseLinear(48, 4, density=0.5)
    model = nn.ModuleList([embed, layer, head])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    evolution = regrow.Evolution(model, optimizer, method="rigl", every=20, until=150, scope=scope)
    for _ in range(220):
        ids = torch.randint(4, (14, 16))
        logits = head(layer(embed(ids))[0])[3:]
        nn.functional.cross_entropy(logits.reshape(-1, 4), ids[:-3].reshape(-1)).backward()
        optimizer.step()
        optimizer.zero_grad()
        evolution.step()
    ids = torch.randint(4, (14, 200))
    found = head(layer(embed(ids))[0])[3:].argmax(-1)
    assert float((found == ids[:-3]).float().mean()) > 0.9
