"""What every registered method owes, on every kind of layer, compute and optimiser.

A method is covered by being registered; a kind of layer by one entry in ``MODELS``.
"""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor, nn

import regrow
from regrow import Evolution, Method
from regrow.evolution import UpdateRecord
from regrow.evolution.starts import STARTS
from regrow.kernels import native, ops, reference

METHODS = sorted(regrow.methods())
COMPUTES = ("csr", "dense")
DTYPES = (torch.float32, torch.float64)
EVERY, UNTIL = 2, 6


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def features(step: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(6, 4, 12, generator=seeded(100 + step), dtype=dtype)


def ids(step: int, dtype: torch.dtype) -> Tensor:
    return torch.randint(9, (6, 4), generator=seeded(100 + step))


def linear() -> nn.Module:
    return nn.Sequential(nn.Linear(12, 10), nn.Tanh(), nn.Linear(10, 8))


def embedding() -> nn.Module:
    return nn.Sequential(nn.Embedding(9, 10, padding_idx=0), nn.Tanh(), nn.Linear(10, 8))


def images(step: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(6, 3, 6, 5, generator=seeded(100 + step), dtype=dtype)


def convolution() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Tanh(), nn.Conv2d(8, 6, 3, 2, groups=2))


class Recurrent(nn.Module):
    """The sequence that a recurrent module puts out."""

    def __init__(self, kind: type) -> None:
        super().__init__()
        self.body = kind(12, 6, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)[0]


@dataclass(frozen=True)
class Kind:
    """A dense model to be made sparse, and its input at a step."""

    dense: Callable[[], nn.Module]
    batch: Callable[[int, torch.dtype], Tensor] = features


MODELS = {
    "linear": Kind(linear),
    "convolution": Kind(convolution, images),
    "embedding": Kind(embedding, ids),
    "rnn": Kind(lambda: Recurrent(nn.RNN)),
    "gru": Kind(lambda: Recurrent(nn.GRU)),
    "lstm": Kind(lambda: Recurrent(nn.LSTM)),
}

OPTIMIZERS = {
    "momentum": (torch.optim.SGD, {"lr": 0.05, "momentum": 0.9}),
    "adam": (torch.optim.Adam, {"lr": 0.01}),
    "adagrad": (torch.optim.Adagrad, {"lr": 0.05, "initial_accumulator_value": 0.25}),
}


def sparse_model(kind: str, compute: str, dtype: torch.dtype, density: float = 0.3) -> nn.Module:
    torch.manual_seed(0)
    model = MODELS[kind].dense().to(dtype)
    return regrow.sparsify(model, density, compute=compute, generator=seeded(0))


@dataclass
class Case:
    """One training: a method on a model, with an optimiser."""

    method: str | Method
    kind: str = "linear"
    compute: str = "csr"
    optimizer_name: str = "adam"
    dtype: torch.dtype = torch.float64
    density: float = 0.3
    seed: int = 3
    overrides: dict = field(default_factory=dict)
    at: int = 0

    def __post_init__(self) -> None:
        self.model = sparse_model(self.kind, self.compute, self.dtype, self.density)
        make, options = OPTIMIZERS[self.optimizer_name]
        self.optimizer = make(self.model.parameters(), **options)
        every = {} if self.composed.every is None else {"every": EVERY, "until": UNTIL}
        self.evolution = Evolution(
            self.model, self.optimizer, self.method, seed=self.seed, **every, **self.overrides
        )

    @property
    def composed(self) -> Method:
        return regrow.methods()[self.method] if isinstance(self.method, str) else self.method

    def learn(self) -> None:
        self.optimizer.zero_grad()
        x = MODELS[self.kind].batch(self.at, self.dtype)
        self.model(x).square().sum().backward()
        self.optimizer.step()
        self.at += 1

    def step(self) -> UpdateRecord | None:
        self.learn()
        return self.evolution.step()

    def layers(self) -> dict[str, regrow.layers.SparseLayer]:
        return regrow.sparse_layers(self.model)

    def nnz(self) -> dict[str, int]:
        return {path: layer.topology.nnz for path, layer in self.layers().items()}

    def gates(self) -> dict[tuple[str, str], int]:
        """Connections of each named group of rows."""
        return {
            (path, name): int(layer.topology.mask()[rows].sum())
            for path, layer in self.layers().items()
            for name, rows in layer.row_groups.items()
        }

    def masks(self) -> dict[str, Tensor]:
        return {path: layer.topology.mask().view(-1) for path, layer in self.layers().items()}

    def spread(self) -> dict[tuple[str, str], Tensor]:
        """Value, gradient and optimiser state of each connection at its place; NaN elsewhere."""
        found = {}
        for path, layer in self.layers().items():
            state = self.optimizer.state[layer.values]
            entries = {"value": layer.values, "grad": layer.values.grad, **state}
            for name, entry in entries.items():
                if isinstance(entry, Tensor) and entry.dim():
                    dense = torch.full(
                        (layer.topology.shape.numel(),), torch.nan, dtype=entry.dtype
                    )
                    dense[layer.topology.positions] = entry.detach()
                    found[path, name] = dense
        return found


def same(one: Case, other: Case) -> None:
    """Bit for bit: values, topologies, optimiser state."""
    assert [m.topology for m in one.layers().values()] == [
        m.topology for m in other.layers().values()
    ]
    for a, b in zip(one.model.parameters(), other.model.parameters(), strict=True):
        assert torch.equal(a, b)
        states = one.optimizer.state[a], other.optimizer.state[b]
        assert states[0].keys() == states[1].keys()
        for name, entry in states[0].items():
            assert entry is states[1][name] or torch.equal(entry, states[1][name]), name


def closed(layer: regrow.layers.SparseLayer) -> int:
    """Number of positions at which nothing may ever be."""
    return 0 if layer.closed is None else layer.closed.numel()


def random_parts(method: Method) -> bool:
    """Whether the seed can make a difference."""
    return "random" in (method.drop, method.grow) or method.start not in ("zero", STARTS["zero"])


every_kind = pytest.mark.parametrize("kind", MODELS)
every_compute = pytest.mark.parametrize("compute", COMPUTES)
every_method = pytest.mark.parametrize("method", METHODS)
every_optimizer = pytest.mark.parametrize("optimizer", OPTIMIZERS)


@every_method
@every_kind
@every_compute
@pytest.mark.parametrize("scope", [None, "global", "gate"])
@pytest.mark.parametrize("density", [0.05, 0.3, 0.95])
def test_budget_is_exact_and_the_topology_freezes(
    method: str, kind: str, compute: str, scope: str | None, density: float
) -> None:
    overrides = {} if scope is None else {"scope": scope}
    case = Case(method, kind, compute, density=density, overrides=overrides)
    part = case.evolution.method
    before, updates = case.nnz(), 0
    gates = case.gates()
    sizes = {path: m.topology.shape.numel() - closed(m) for path, m in case.layers().items()}
    for step in range(1, UNTIL + 4):
        held = [layer.topology for layer in case.layers().values()]
        record = case.step()
        if record is None:
            assert all(a is m.topology for a, m in zip(held, case.layers().values(), strict=True))
            continue
        updates += 1
        assert step % EVERY == 0
        assert step <= UNTIL
        now = case.nnz()
        assert {path: done.nnz for path, done in record.layers.items()} == now
        assert min(now.values()) >= 1
        if part.density is not None:
            assert sum(now.values()) == round(part.density(step, UNTIL) * sum(sizes.values()))
        elif part.scope == "global":
            assert sum(now.values()) == sum(before.values())
        else:
            assert now == before
        if part.scope == "gate":
            assert case.gates() == gates
        for path, layer in case.layers().items():
            assert layer.values.shape == (now[path],)
            assert (
                sum(
                    any(layer.values is p for p in g["params"]) for g in case.optimizer.param_groups
                )
                == 1
            )
    assert updates == (0 if part.every is None else UNTIL // EVERY)


@every_method
@every_kind
@every_compute
@every_optimizer
@pytest.mark.parametrize("scope", [None, "global"])
def test_survivors_keep_everything_and_new_ones_start_by_policy(
    method: str, kind: str, compute: str, optimizer: str, scope: str | None
) -> None:
    overrides = {} if scope is None else {"scope": scope}
    case = Case(method, kind, compute, optimizer, overrides=overrides)
    part = case.evolution.method
    for _ in range(UNTIL):
        case.learn()
        before, masks = case.spread(), case.masks()
        record = case.evolution.step()
        after, now = case.spread(), case.masks()
        assert after.keys() == before.keys()
        for path, mask in masks.items():
            stayed, fresh = mask & now[path], now[path] & ~mask
            if record is None:
                assert torch.equal(mask, now[path])
            elif not part.regrow:
                assert int((mask & ~now[path]).sum()) == record.layers[path].dropped
                assert int(fresh.sum()) == record.layers[path].grown
            for (owner, name), entries in after.items():
                if owner != path:
                    continue
                if not part.regrow:  # else a survivor's place may hold a connection grown anew
                    assert torch.equal(entries[stayed], before[path, name][stayed]), name
                if name == "value":
                    if part.start == "zero":
                        assert not entries[fresh].any()
                elif part.state == "zero" or name == "grad":
                    start = 0.25 if name == "sum" else 0.0
                    assert bool((entries[fresh] == start).all()), name


@every_method
@every_kind
def test_survivors_keep_everything_also_where_places_may_be_regrown(method: str, kind: str) -> None:
    case = Case(method, kind, overrides={"regrow": True, "start": "zero"})
    for _ in range(UNTIL):
        case.learn()
        before, masks = case.spread(), case.masks()
        record = case.evolution.step()
        after, now = case.spread(), case.masks()
        if record is None:
            continue
        for path, mask in masks.items():
            stayed = mask & now[path]
            changed = before[path, "value"][stayed] != after[path, "value"][stayed]
            # Those that changed were dropped and grown again, and start as new ones do.
            assert not after[path, "value"][stayed][changed].any()
            assert int(changed.sum()) <= record.layers[path].dropped
            gone = int((mask & ~now[path]).sum())
            assert gone + int(changed.sum()) <= record.layers[path].dropped


@every_method
@every_kind
@every_compute
@every_optimizer
@pytest.mark.parametrize("stop", [EVERY, EVERY + 1])
def test_resumed_equals_uninterrupted(
    method: str, kind: str, compute: str, optimizer: str, stop: int
) -> None:
    whole, first = (Case(method, kind, compute, optimizer) for _ in range(2))
    for _ in range(stop):
        assert whole.step() == first.step()
    parts = {"model": first.model, "optimizer": first.optimizer, "evolution": first.evolution}
    buffer = io.BytesIO()
    torch.save({name: part.state_dict() for name, part in parts.items()}, buffer)
    buffer.seek(0)
    saved = torch.load(buffer, weights_only=True)
    second = Case(method, kind, compute, optimizer, density=0.4, seed=99, at=first.at)
    second.model.load_state_dict(saved["model"])
    second.optimizer.load_state_dict(saved["optimizer"])
    second.evolution.load_state_dict(saved["evolution"])
    same(first, second)
    for _ in range(UNTIL):
        assert whole.step() == second.step()
    same(whole, second)


@every_method
@every_kind
@pytest.mark.parametrize("scope", [None, "global"])
def test_state_dict_goes_round(method: str, kind: str, scope: str | None) -> None:
    case = Case(method, kind, overrides={} if scope is None else {"scope": scope})
    for _ in range(EVERY):
        case.step()
    fresh = sparse_model(kind, "csr", torch.float64, density=0.5)
    fresh.load_state_dict(case.model.state_dict())
    for key, tensor in case.model.state_dict().items():
        assert torch.equal(fresh.state_dict()[key], tensor)
    x = MODELS[kind].batch(50, torch.float64)
    assert torch.equal(fresh(x), case.model(x))
    again = Case(method, kind, seed=99, overrides=case.overrides).evolution
    again.load_state_dict(copy.deepcopy(case.evolution.state_dict()))
    states = [evolution.state_dict() for evolution in (again, case.evolution)]
    assert torch.equal(states[0].pop("generator"), states[1].pop("generator"))
    assert states[0] == states[1]


@every_method
@every_kind
def test_copies_in_the_middle_of_training_live_on_their_own(method: str, kind: str) -> None:
    case = Case(method, kind)
    for _ in range(EVERY + 1):
        case.step()
    x = MODELS[kind].batch(50, torch.float64)
    expected = case.model(x).detach()
    copies = [copy.deepcopy(case.model), pickle.loads(pickle.dumps(case.model))]
    for _ in range(EVERY):
        case.step()
    for twin in copies:
        assert torch.equal(twin(x), expected)
        twin(x).square().sum().backward()
        assert all(layer.values.grad is not None for layer in regrow.sparse_layers(twin).values())


@pytest.mark.skipif(not native.available(), reason="the C++ extension was not built")
@every_method
@every_kind
@pytest.mark.parametrize("compute", COMPUTES)
def test_reference_and_native_kernels_agree(
    method: str, kind: str, compute: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = []
    for kernels in (reference, native):
        monkeypatch.setattr(ops, "sparse_kernels", lambda values, kernels=kernels: kernels)
        case = Case(method, kind, compute)
        records = [case.step() for _ in range(UNTIL)]
        trained.append((case, records))
    (one, records), (other, others) = trained
    assert records == others
    assert [m.topology for m in one.layers().values()] == [
        m.topology for m in other.layers().values()
    ]
    for a, b in zip(one.model.parameters(), other.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@every_method
@every_kind
@every_compute
@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes_are_kept(method: str, kind: str, compute: str, dtype: torch.dtype) -> None:
    case = Case(method, kind, compute, dtype=dtype)
    for _ in range(UNTIL):
        case.step()
    for layer in case.layers().values():
        assert layer.values.dtype == layer.values.grad.dtype == dtype
        state = case.optimizer.state[layer.values]
        assert {entry.dtype for entry in state.values() if entry.dim()} == {dtype}


@every_method
@every_kind
def test_the_seed_decides_and_nothing_else(method: str, kind: str) -> None:
    cases = []
    for seed, noise in ((3, 0), (3, 1), (4, 0)):
        case = Case(method, kind, seed=seed)
        torch.manual_seed(noise)
        for _ in range(UNTIL):
            case.step()
            torch.rand(noise + 1)
        cases.append(case)
    same(cases[0], cases[1])
    part = cases[0].evolution.method
    differ = any(
        not (a.topology == b.topology and torch.equal(a.values, b.values))
        for a, b in zip(cases[0].layers().values(), cases[2].layers().values(), strict=True)
    )
    assert differ == (part.every is not None and random_parts(part))
