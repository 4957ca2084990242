"""What every registered method owes, on every kind of layer, compute and optimiser.

A method is covered by being registered; a kind of layer by one entry in ``MODELS``.
"""

from __future__ import annotations

import copy
import io
import pickle
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import regrow
from regrow import Evolution, Method
from regrow.evolution import UpdateRecord
from regrow.evolution.compose import scores
from regrow.evolution.methods import _METHODS
from regrow.evolution.schedules import Adaptive
from regrow.evolution.scores import DROP_SCORES, GROW_SCORES
from regrow.kernels import native, ops, reference
from regrow.topology import NofM

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


def images(step: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(6, 4, 6, 5, generator=seeded(100 + step), dtype=dtype)


def linear() -> nn.Module:
    return nn.Sequential(nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 8))


def embedding() -> nn.Module:
    return nn.Sequential(nn.Embedding(9, 8, padding_idx=0), nn.Tanh(), nn.Linear(8, 8))


def convolution() -> nn.Module:
    return nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.Tanh(), nn.Conv2d(8, 6, 3, 2, groups=2))


class Body(nn.Module):
    """The first thing that a module puts out."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)[0]


class Attending(nn.Module):
    """Attention of a sequence to itself."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.MultiheadAttention(12, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x, x, x, need_weights=False)[0]


class Language(nn.Module):
    """An embedding whose weight is that of the head, too."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(9, 8)
        self.head = nn.Linear(8, 9, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.embed(x)))


@dataclass(frozen=True)
class Kind:
    """A dense model to be made sparse, and its input at a step."""

    dense: Callable[[], nn.Module]
    batch: Callable[[int, torch.dtype], Tensor] = features


MODELS = {
    "linear": Kind(linear),
    "convolution": Kind(convolution, images),
    "embedding": Kind(embedding, ids),
    "rnn": Kind(lambda: Body(nn.RNN(12, 8, batch_first=True))),
    "gru": Kind(lambda: Body(nn.GRU(12, 8, batch_first=True))),
    "lstm": Kind(lambda: Body(nn.LSTM(12, 8, batch_first=True))),
    "attention": Kind(Attending),
    "transformer": Kind(lambda: nn.TransformerEncoderLayer(12, 2, 16, 0.0, batch_first=True)),
    "tied": Kind(Language, ids),
}

OPTIMIZERS = {
    "momentum": (torch.optim.SGD, {"lr": 0.05, "momentum": 0.9}),
    "adam": (torch.optim.Adam, {"lr": 0.01}),
    "adagrad": (torch.optim.Adagrad, {"lr": 0.05, "initial_accumulator_value": 0.25}),
    "local-age": (regrow.optim.LocalAgeAdam, {"lr": 0.01, "warmup": 2}),
}

# What a method cannot do, on which kinds of model, and the sentence that says why.
ACTIVATIONS = "growth by activations must be of linear layers or convolutions of one or two"
NOT_LINEAR = {"convolution", "embedding", "rnn", "gru", "lstm", "tied"}
REFUSED = {
    "cte": (NOT_LINEAR, ACTIVATIONS),
    "ctre": (NOT_LINEAR, ACTIVATIONS),
    "ctre-seq": (NOT_LINEAR, ACTIVATIONS),
    "nm": ({"embedding"}, "scope of 0 does not fit: every 4 consecutive columns must hold 2"),
}


def refusal(method: str, kind: str) -> str | None:
    """The sentence that refuses a method on a kind of model, if it is to be refused."""
    kinds, sentence = REFUSED.get(method, (set(), ""))
    return sentence if kind in kinds else None


def first_density(method: Method, density: float) -> float | None:
    """The density that a method starts from; None where its pattern has one."""
    if isinstance(method.density, Adaptive):
        return 1.0
    if method.density is not None:
        return method.density(0, UNTIL)
    return None if isinstance(method.pattern, NofM) else density


def sparse_model(
    kind: str, compute: str, dtype: torch.dtype, method: Method, density: float = 0.3
) -> nn.Module:
    torch.manual_seed(0)
    return regrow.sparsify(
        MODELS[kind].dense().to(dtype),
        first_density(method, density),
        compute=compute,
        pattern=method.pattern,
        full="sparse",
        generator=seeded(0),
    )


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
        part = self.composed
        self.model = sparse_model(self.kind, self.compute, self.dtype, part, self.density)
        make, options = OPTIMIZERS[self.optimizer_name]
        self.optimizer = make(self.model.parameters(), **options)
        every = {} if part.every is None else {"every": EVERY, "until": UNTIL}
        self.evolution = Evolution(
            self.model, self.optimizer, self.method, seed=self.seed, **every, **self.overrides
        )

    @property
    def composed(self) -> Method:
        return regrow.methods()[self.method] if isinstance(self.method, str) else self.method

    def learn(self) -> None:
        self.optimizer.zero_grad()
        x = MODELS[self.kind].batch(self.at, self.dtype)
        self.model(x).square().mean().backward()
        self.optimizer.step()
        self.at += 1

    def step(self) -> UpdateRecord | None:
        self.learn()
        return self.evolution.step()

    def layers(self) -> dict[str, regrow.layers.SparseLayer]:
        return regrow.sparse_layers(self.model)

    def nnz(self) -> dict[str, int]:
        return {path: layer.topology.nnz for path, layer in self.layers().items()}

    def masks(self) -> dict[str, Tensor]:
        return {path: layer.topology.mask().view(-1) for path, layer in self.layers().items()}

    def spread(self) -> dict[tuple[str, str], Tensor]:
        """Value, gradient and optimiser state of each connection at its place; NaN elsewhere."""
        found = {}
        with self.evolution._dormant.awake(self.layers()):
            for path, layer in self.layers().items():
                self._spread(path, layer, found)
        return found

    def _spread(
        self, path: str, layer: regrow.layers.SparseLayer, found: dict[tuple[str, str], Tensor]
    ) -> None:
        state = self.optimizer.state[layer.values]
        entries = {"value": layer.values, "grad": layer.values.grad, **state}
        for name, entry in entries.items():
            if isinstance(entry, Tensor) and entry.dim():
                dense = torch.full((layer.topology.shape.numel(),), torch.nan).double()
                dense[layer.topology.positions] = entry.detach().double()
                found[path, name] = dense


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


def seed_matters(method: Method) -> bool | None:
    """Whether another seed gives another topology: surely, surely not, or None if it depends."""
    drop, grow = scores(method)
    random_growth = grow.score is None and grow.place is None
    chance = random_growth or method.start != "zero" or method.drop == "random"
    if method.every is None or not (chance or grow.place or method.regrow == "replace"):
        return False
    fraction = method.fraction(EVERY, UNTIL) if callable(method.fraction) else method.fraction
    sure = chance and fraction > 0 and drop.count is None and method.density is None
    return True if sure else None


def turning(*axes: Sequence[str]) -> list[tuple[str, ...]]:
    """All pairs of the first two axes; of the others, every value comes with every one of these."""
    rows = []
    for i, first in enumerate(axes[0]):
        for j, second in enumerate(axes[1]):
            others = [axis[((k + 1) * i + j) % len(axis)] for k, axis in enumerate(axes[2:])]
            rows.append((first, second, *others))
    return rows


every_method = pytest.mark.parametrize("method", METHODS)
every_pair = pytest.mark.parametrize(
    ("method", "kind", "compute", "optimizer"), turning(METHODS, MODELS, COMPUTES, list(OPTIMIZERS))
)
some_kinds = pytest.mark.parametrize("turn", range(2))


def kind_of(method: str, turn: int) -> str:
    """Some kinds of model for each method, so that together they have all of them."""
    allowed = [kind for kind in MODELS if refusal(method, kind) is None]
    return allowed[(5 * METHODS.index(method) + 4 * turn) % len(allowed)]


@pytest.mark.parametrize("compute", COMPUTES)
@pytest.mark.parametrize(
    ("method", "kind", "optimizer", "density"),
    turning(METHODS, MODELS, list(OPTIMIZERS), [0.3, 0.05, 0.95]),
)
def test_every_update_is_exact(
    method: str, kind: str, optimizer: str, density: float, compute: str
) -> None:
    if sentence := refusal(method, kind):
        with pytest.raises(ValueError, match=sentence):
            Case(method, kind, compute, optimizer, density=density)
        return
    case = Case(method, kind, compute, optimizer, density=density)
    part = case.evolution.method
    first = case.nnz()
    sizes = {path: m.topology.shape.numel() - closed(m) for path, m in case.layers().items()}
    updates = 0
    for step in range(1, UNTIL + 3):
        case.learn()
        case.evolution.report(1 / step)
        before, masks = case.spread(), case.masks()
        held = [layer.topology for layer in case.layers().values()]
        record = case.evolution.step()
        after, now = case.spread(), case.masks()
        due = part.every is not None and step % EVERY == 0 and step <= UNTIL
        assert (record is not None) == due
        if record is None:  # the topology stays, and everything with it
            assert after.keys() == before.keys()
            assert all(a is m.topology for a, m in zip(held, case.layers().values(), strict=True))
            assert all(torch.equal(after[k].nan_to_num(9), before[k].nan_to_num(9)) for k in after)
            continue
        updates += 1
        numbers = case.nnz()
        assert {path: done.nnz for path, done in record.layers.items()} == numbers
        budgets_hold(case, first, numbers, masks, sizes, step)
        everything_at_its_place(case, record, before, after, masks, now)
    assert updates == (0 if part.every is None else UNTIL // EVERY)


def budgets_hold(
    case: Case,
    first: dict[str, int],
    numbers: dict[str, int],
    masks: dict[str, Tensor],
    sizes: dict[str, int],
    step: int,
) -> None:
    """The number of connections is the one asked for."""
    part = case.evolution.method
    assert min(numbers.values()) >= 1
    if isinstance(part.density, Adaptive):
        assert sum(numbers.values()) <= sum(sizes.values())
    elif part.density is not None:
        assert sum(numbers.values()) == round(part.density(step, UNTIL) * sum(sizes.values()))
    elif part.scope == "global" or part.redistribute is not None:
        assert sum(numbers.values()) == sum(first.values())
    else:
        assert numbers == first
    for path, layer in case.layers().items():
        now, then = layer.topology.mask().view_as(masks[path]), masks[path]
        table = layer.topology.matrix_shape
        if part.scope == "row":
            assert torch.equal(now.view(table).sum(1), then.view(table).sum(1))
        if isinstance(part.scope, NofM):
            assert bool((now.view(-1, part.scope.m).sum(1) == part.scope.n).all())


def everything_at_its_place(
    case: Case,
    record: UpdateRecord,
    before: dict[tuple[str, str], Tensor],
    after: dict[tuple[str, str], Tensor],
    masks: dict[str, Tensor],
    now: dict[str, Tensor],
) -> None:
    """Survivors keep value, gradient and state bit for bit, and new connections start anew."""
    part = case.evolution.method
    for path, layer in case.layers().items():
        assert layer.values.shape == (layer.topology.nnz,)
        groups = case.optimizer.param_groups
        assert sum(layer.values is p for group in groups for p in group["params"]) == 1
        stayed, fresh = masks[path] & now[path], now[path] & ~masks[path]
        gone = masks[path] & ~now[path]
        done = record.layers[path]
        assert int(gone.sum()) <= done.dropped
        assert int(fresh.sum()) <= done.grown
        if part.regrow in (False, "revive"):
            assert (int(gone.sum()), int(fresh.sum())) == (done.dropped, done.grown)
        for (owner, name), entries in after.items():
            if owner != path:
                continue
            # An age may be one for the whole layer until its connections differ.
            assert (path, name) in before or name == "age"
            old = before.get((path, name), torch.where(stayed, entries, torch.nan))
            changed = stayed & (entries != old)
            if part.regrow in (False, "revive"):
                assert not changed.any(), name
            # Those that changed were dropped and grown again, and start as new ones do.
            assert int(changed.sum()) <= done.dropped - int(gone.sum())
            start = 0.25 if name == "sum" else 0.0
            if name == "value":
                if part.start == "zero":
                    assert not entries[fresh | changed].any()
            elif part.state == "zero" or name == "grad":
                assert bool((entries[fresh | changed] == start).all()), name


@every_pair
def test_resumed_equals_uninterrupted(method: str, kind: str, compute: str, optimizer: str) -> None:
    if refusal(method, kind):
        return
    stop = EVERY + METHODS.index(method) % 2
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
@some_kinds
def test_state_dict_goes_round(method: str, turn: int) -> None:
    kind = kind_of(method, turn)
    case = Case(method, kind)
    for _ in range(EVERY):
        case.step()
    fresh = sparse_model(kind, "csr", torch.float64, case.composed, density=0.5)
    fresh.load_state_dict(case.model.state_dict())
    for key, tensor in case.model.state_dict().items():
        assert torch.equal(fresh.state_dict()[key], tensor)
    x = MODELS[kind].batch(50, torch.float64)
    assert torch.equal(fresh(x), case.model(x))
    again = Case(method, kind, seed=99).evolution
    again.load_state_dict(copy.deepcopy(case.evolution.state_dict()))
    states = [torch.utils._pytree.tree_flatten(e.state_dict()) for e in (again, case.evolution)]
    assert states[0][1] == states[1][1]
    for one, other in zip(states[0][0], states[1][0], strict=True):
        assert torch.equal(one, other) if isinstance(one, Tensor) else one == other


@every_method
@some_kinds
def test_copies_in_the_middle_of_training_live_on_their_own(method: str, turn: int) -> None:
    kind = kind_of(method, turn)
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
@some_kinds
def test_reference_and_native_kernels_agree(
    method: str, turn: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, compute = kind_of(method, turn), COMPUTES[turn]
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
@some_kinds
@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes_are_kept(method: str, turn: int, dtype: torch.dtype) -> None:
    case = Case(method, kind_of(method, turn), COMPUTES[turn], dtype=dtype)
    for _ in range(UNTIL):
        case.step()
    for layer in case.layers().values():
        assert layer.values.dtype == layer.values.grad.dtype == dtype
        state = case.optimizer.state[layer.values]
        assert {entry.dtype for entry in state.values() if entry.dim()} == {dtype}


@every_method
def test_the_seed_decides_and_nothing_else(method: str) -> None:
    cases = []
    for seed, noise in ((3, 0), (3, 1), (4, 0)):
        case = Case(method, kind_of(method, 0), seed=seed)
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
    expected = seed_matters(part)
    assert expected is None or differ == expected


@pytest.mark.parametrize("drop", sorted(DROP_SCORES))
def test_every_drop_rule_goes_with_every_grow_rule(drop: str) -> None:
    for grow, rule in sorted(GROW_SCORES.items()):
        method = Method("pair", drop=drop, grow=grow, every=EVERY, fraction=0.3)
        if rule.partner not in (None, DROP_SCORES[drop]):
            with pytest.raises(ValueError, match="grow of pair goes with its own drop score alone"):
                Case(method)
            continue
        case = Case(method, optimizer_name="momentum")
        first = case.nnz()
        for _ in range(2 * EVERY):
            record = case.step()
            if record is not None and rule.exact:
                assert record.dropped == record.grown, grow
                assert case.nnz() == first, grow


def test_the_rule_of_the_docs_passes_as_it_stands() -> None:
    """The page on a rule of one's own registers one; nothing else is needed for this suite."""
    known = [set(registry) for registry in (DROP_SCORES, GROW_SCORES, _METHODS)]
    page = (Path(__file__).parents[2] / "docs" / "extend.md").read_text(encoding="utf-8")
    try:
        scope: dict[str, object] = {"__name__": "__main__"}
        for block in re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL):
            exec(compile(block, "extend.md", "exec"), scope)
        assert "spread" in regrow.methods()
        for turn, kind in enumerate(MODELS):
            optimizer = list(OPTIMIZERS)[turn % len(OPTIMIZERS)]
            test_every_update_is_exact("spread", kind, optimizer, 0.3, COMPUTES[turn % 2])
    finally:
        for registry, names in zip((DROP_SCORES, GROW_SCORES, _METHODS), known, strict=True):
            for name in set(registry) - names:
                del registry[name]
