"""The engine: when it acts, what it keeps, what it refuses."""

from __future__ import annotations

import copy
import gc
import io
import re
import shutil
import warnings
import weakref
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import regrow
from regrow import Evolution, Method, SparseLinear, Topology
from regrow.evolution import Candidates, LayerUpdate, growth
from regrow.evolution.drop import taylor
from regrow.evolution.schedules import Cosine, Cubic
from regrow.kernels import capture
from regrow.topology.allocation import allocate

RIGL = {"method": "rigl", "every": 2, "until": 100}


def kept_now() -> list[capture.Captured]:
    """What is kept for each armed layer."""
    return [kept.passes for kept in capture._armed.values()]


@pytest.fixture(autouse=True)
def _nothing_stays_armed() -> Iterator[None]:
    capture._armed.clear()
    yield
    capture._armed.clear()


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def mlp(compute: str = "csr", dtype: torch.dtype = torch.float64, density: float = 0.3):
    generator = seeded()
    options = {"generator": generator, "compute": compute, "dtype": dtype}
    return nn.Sequential(
        SparseLinear(12, 10, density=density, **options),
        nn.Tanh(),
        SparseLinear(10, 8, density=density, **options),
    )


def batch(step: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(6, 12, generator=seeded(100 + step), dtype=dtype)


class Run:
    """A model, its optimiser and its evolution, stepped on fixed batches."""

    def __init__(
        self,
        method: str | Method = "set",
        model: nn.Module | None = None,
        make: Callable = torch.optim.SGD,
        options: dict | None = None,
        **overrides: object,
    ) -> None:
        self.model = mlp() if model is None else model
        self.optimizer = make(self.model.parameters(), **(options or {"lr": 0.05}))
        self.evolution = Evolution(self.model, self.optimizer, method, **overrides)
        self.at = 0

    def backward(self) -> None:
        dtype = next(self.model.parameters()).dtype
        self.model(batch(self.at, dtype)).square().sum().backward()
        self.at += 1

    def step(self, accumulate: int = 1):
        for _ in range(accumulate):
            self.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return self.evolution.step()

    def layers(self) -> dict[str, SparseLinear]:
        return regrow.sparse_layers(self.model)

    def nnz(self) -> list[int]:
        return [layer.topology.nnz for layer in self.layers().values()]


def when(run: Run, steps: int) -> list[int]:
    return [step for step in range(1, steps + 1) if run.step() is not None]


# When


def test_updates_come_every_so_many_steps_and_until_inclusive() -> None:
    assert when(Run(every=3, until=9), 14) == [3, 6, 9]
    assert when(Run(every=3, until=8), 14) == [3, 6]
    assert when(Run(every=1), 3) == [1, 2, 3]
    assert when(Run(every=4), 9) == [4, 8]
    assert when(Run(every="epoch", steps_per_epoch=2), 5) == [2, 4]
    assert when(Run("static"), 5) == []


def test_step_does_nothing_without_an_optimiser_step() -> None:
    run = Run(every=1)
    assert run.evolution.step() is None
    assert run.step() is not None
    before = copy.deepcopy(run.model.state_dict())
    assert run.evolution.step() is None
    assert run.evolution.steps == 1
    assert all(torch.equal(v, before[k]) for k, v in run.model.state_dict().items())


def test_accumulated_gradients_are_one_step() -> None:
    run = Run(every=2)
    assert run.step(accumulate=3) is None
    assert run.step(accumulate=3) is not None
    assert run.evolution.steps == 2


def test_the_topology_freezes_after_the_end() -> None:
    run = Run(every=1, until=2)
    when(run, 2)
    topologies = [layer.topology for layer in run.layers().values()]
    when(run, 4)
    assert all(
        a is layer.topology for a, layer in zip(topologies, run.layers().values(), strict=True)
    )


# Counts


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("drop", ["magnitude", "sign-split", "random", "taylor"])
@pytest.mark.parametrize("grow", ["random", "gradient", "random-unfired"])
@pytest.mark.parametrize("regrow_", [True, False])
def test_counts_are_exact(drop: str, grow: str, scope: str, regrow_: bool) -> None:
    run = Run(drop=drop, grow=grow, scope=scope, regrow=regrow_, every=1, fraction=0.3)
    before = run.nnz()
    for _ in range(3):
        masks = [layer.topology.mask() for layer in run.layers().values()]
        nnz = run.nnz()
        record = run.step()
        assert list(record.layers) == ["0", "2"]
        assert sum(run.nnz()) == sum(before)
        assert record.dropped == record.grown
        if scope == "layer":
            assert [done.dropped for done in record.layers.values()] == [
                round(0.3 * n) for n in nnz
            ]
        else:
            assert record.dropped == round(0.3 * sum(nnz))
        for done, mask, layer in zip(
            record.layers.values(), masks, run.layers().values(), strict=True
        ):
            gone = int((mask & ~layer.topology.mask()).sum())
            assert done.nnz == layer.topology.nnz == layer.values.numel()
            assert gone <= done.dropped
            if not regrow_:
                assert gone == done.dropped


@pytest.mark.parametrize("regrow_", [True, False])
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_a_nearly_full_layer_drops_what_it_can_regrow(scope: str, regrow_: bool) -> None:
    model = mlp(density=0.97)
    run = Run(model=model, scope=scope, regrow=regrow_, every=1, fraction=0.5)
    free = [layer.topology.shape.numel() - layer.topology.nnz for layer in run.layers().values()]
    before = sum(run.nnz())
    record = run.step()
    assert record.dropped == sum(free)
    assert sum(run.nnz()) == before


def test_a_full_layer_is_left_alone() -> None:
    model = mlp(density=1.0)
    record = Run(model=model, every=1).step()
    assert record.layers["0"] == LayerUpdate(0, 0, 120)


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("method", ["set", "rigl"])
@pytest.mark.parametrize("fraction", [0.3, 1.0])
def test_layers_of_one_connection_keep_it(scope: str, method: str, fraction: float) -> None:
    run = Run(method, model=mlp(density=1e-9), scope=scope, every=1, until=9, fraction=fraction)
    assert run.nnz() == [1, 1]
    for _ in range(3):
        run.step()
        assert sum(run.nnz()) == 2
        assert min(run.nnz()) >= 1


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_a_layer_without_connections_is_no_obstacle(scope: str) -> None:
    model = mlp()
    model[2] = SparseLinear(
        10, 8, topology=Topology((8, 10), torch.zeros(0).long()), dtype=torch.float64
    )
    run = Run(model=model, scope=scope, every=1)
    total = sum(run.nnz())
    for _ in range(3):
        run.step()
    assert sum(run.nnz()) == total


def test_no_layer_dies_out_under_global_scope() -> None:
    model = mlp()
    with torch.no_grad():
        model[2].values.mul_(1e-9)
    run = Run(model=model, scope="global", drop="magnitude", fraction=0.9, every=1)
    run.step()
    assert run.nnz()[1] >= 1


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("method", ["set", "rigl"])
@pytest.mark.parametrize("density", [Cubic(0.3, 0.05), Cubic(0.3, 0.9), Cubic(0.1, 1.0)])
def test_density_schedules_shrink_and_expand(scope: str, method: str, density: Cubic) -> None:
    run = Run(method, scope=scope, density=density, every=2, until=8)
    shapes = {path: layer.topology.shape for path, layer in run.layers().items()}
    for step in range(1, 12):
        record = run.step()
        if record is not None:
            assert sum(run.nnz()) == round(density(step, 8) * 200)
            for done in record.layers.values():
                assert done.nnz >= 1
    if scope == "layer":  # both layers started at one density, so they have one
        assert run.nnz() == list(
            allocate(shapes, density=density.end, allocation="uniform").values()
        )


def test_prune_drops_without_growing() -> None:
    run = Run("set", every=2, make=torch.optim.Adam, options={"lr": 0.01})
    run.step()
    values = {path: layer.values.detach().clone() for path, layer in run.layers().items()}
    masks = {path: layer.topology.mask() for path, layer in run.layers().items()}
    before = run.nnz()
    record = run.evolution.prune(0.25)
    assert record.grown == 0
    assert [done.dropped for done in record.layers.values()] == [round(0.25 * n) for n in before]
    for path, layer in run.layers().items():
        assert not (layer.topology.mask() & ~masks[path]).any()
        assert set(layer.values.tolist()) <= set(values[path].tolist())
        assert run.optimizer.state[layer.values]["exp_avg"].shape == layer.values.shape
    assert run.evolution.prune().fraction == 0.3
    run.step()
    for fraction in (-0.1, 1.0, float("nan")):
        sentence = f"fraction to prune must be in [0, 1), got {fraction}"
        with pytest.raises(ValueError, match=re.escape(sentence)):
            run.evolution.prune(fraction)


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_prune_leaves_every_layer_a_connection(scope: str) -> None:
    run = Run("set", every=2, scope=scope)
    run.evolution.prune(0.9999)
    assert min(run.nnz()) == 1


@pytest.mark.parametrize("parts", [{"scope": "global"}, {"redistribute": "ranking"}])
def test_prune_compares_layers_where_the_method_does(parts: dict) -> None:
    run = Run("rigl", every=None, **parts)
    first, second = run.layers().values()
    with torch.no_grad():
        second.values.mul_(1000)
    before = second.topology
    assert run.evolution.prune(0.5).layers["2"] == LayerUpdate(0, 0, before.nnz)
    assert first.topology.nnz == round(0.5 * (before.nnz + 36)) - before.nnz


@pytest.mark.parametrize("every", [None, 1])
def test_an_update_at_once_looks_at_passes_aside_from_training(every: int | None) -> None:
    run = Run("rigl", model=mlp(density=1.0), every=every, until=100, fraction=0.5)
    run.evolution.prune(0.8)
    run.backward()
    x = batch(50)
    gradients = {path: dense_gradient(run, path, [x]).abs() for path in run.layers()}
    kept = {path: layer.values.detach().abs().sort().values for path, layer in run.layers().items()}
    record = run.evolution.update(lambda: run.model(x).square().sum().backward())
    for path, layer in run.layers().items():
        done = record.layers[path]
        assert done.dropped == done.grown == round(0.5 * done.nnz)
        new = layer.values == 0
        assert torch.equal(
            layer.values[~new].detach().abs().sort().values, kept[path][done.dropped :]
        )
        ways = gradients[path].view(-1)
        taken = layer.topology.positions[~new]
        free = ways.clone().index_fill_(0, taken, -1.0)
        best = free.topk(done.grown).values
        found = ways[layer.topology.positions[new]].sort(descending=True).values
        torch.testing.assert_close(found, best)
    run.optimizer.zero_grad()
    for _ in range(2):  # and training goes on
        assert (run.step() is None) == (every is None)


# What is kept


OPTIMIZERS = {
    "sgd": (torch.optim.SGD, {"lr": 0.05}),
    "nesterov": (torch.optim.SGD, {"lr": 0.05, "momentum": 0.9, "nesterov": True}),
    "adam-fused": (torch.optim.Adam, {"lr": 0.01, "fused": True}),
    "amsgrad": (torch.optim.AdamW, {"lr": 0.01, "amsgrad": True}),
    "rmsprop": (torch.optim.RMSprop, {"lr": 0.01, "centered": True, "momentum": 0.5}),
    "adagrad": (torch.optim.Adagrad, {"lr": 0.1, "initial_accumulator_value": 0.125}),
}


def spread(layer: SparseLinear, entries: Tensor) -> Tensor:
    """One entry per connection, at its place in the dense shape; NaN elsewhere."""
    dense = torch.full((layer.topology.shape.numel(),), torch.nan, dtype=entries.dtype)
    return dense.index_put((layer.topology.positions,), entries.detach())


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_survivors_keep_value_gradient_and_state_and_new_ones_start(name: str, scope: str):
    make, options = OPTIMIZERS[name]
    run = Run(**RIGL, make=make, options=options, scope=scope, regrow=False, fraction=0.4)
    run.step()
    run.backward()
    run.optimizer.step()  # no zero_grad: the gradient is carried too

    def photograph() -> dict[tuple[str, str], Tensor]:
        found = {}
        for path, layer in run.layers().items():
            found[path, "mask"] = layer.topology.mask().view(-1)
            found[path, "value"] = spread(layer, layer.values)
            found[path, "grad"] = spread(layer, layer.values.grad)
            for key, entry in run.optimizer.state[layer.values].items():
                if isinstance(entry, Tensor) and entry.dim():
                    found[path, key] = spread(layer, entry)
        return found

    before, held = photograph(), [layer.values for layer in run.layers().values()]
    steps = [run.optimizer.state[values].get("step") for values in held]
    record = run.evolution.step()
    after = photograph()
    assert record.grown > 0
    assert after.keys() == before.keys()
    for (path, key), entries in after.items():
        stayed = before[path, "mask"] & after[path, "mask"]
        fresh = after[path, "mask"] & ~before[path, "mask"]
        assert torch.equal(entries[stayed], before[path, key][stayed]), key
        if key != "mask":
            start = 0.125 if key == "sum" else 0.0
            assert bool((entries[fresh] == start).all()), key
    held_now = [values for group in run.optimizer.param_groups for values in group["params"]]
    for layer, old, step in zip(run.layers().values(), held, steps, strict=True):
        assert any(layer.values is values for values in held_now)
        assert (layer.values is old) == (layer.values.shape == old.shape)
        assert run.optimizer.state[layer.values].get("step") is step
        if layer.values is not old:
            assert old not in run.optimizer.state
    assert len(held_now) == 4
    run.step()
    run.step()


def test_unknown_state_is_named_and_nothing_is_changed() -> None:
    run = Run(every=1, make=torch.optim.Adam, options={"lr": 0.01})
    run.step()
    run.backward()
    run.optimizer.step()
    run.optimizer.state[run.model[2].values]["curvature"] = torch.zeros(2, 2)
    before = copy.deepcopy(run.model.state_dict())
    sentence = "optimiser state 'curvature' of 2 must be a scalar or have shape (24,)"
    with pytest.raises(TypeError, match=re.escape(sentence)):
        run.evolution.step()
    assert all(torch.equal(v, before[k]) for k, v in run.model.state_dict().items())


def test_the_mean_policy_reaches_the_state() -> None:
    run = Run(every=2, state="mean", regrow=False, options={"lr": 0.05, "momentum": 0.9})
    run.step()
    run.backward()
    run.optimizer.step()
    layer = run.model[0]
    before, mask = spread(layer, run.optimizer.state[layer.values]["momentum_buffer"]), None
    mask = layer.topology.mask().view(-1)
    run.evolution.step()
    after, now = spread(layer, run.optimizer.state[layer.values]["momentum_buffer"]), None
    now = layer.topology.mask().view(-1)
    torch.testing.assert_close(
        after[now & ~mask], before[now & mask].mean().expand(int((now & ~mask).sum()))
    )


def test_starts_of_new_values() -> None:
    def fresh_values(**overrides: object) -> Tensor:
        run = Run(every=1, regrow=False, **overrides)
        mask = run.model[0].topology.mask()
        run.step()
        return run.model[0].weight[run.model[0].topology.mask() & ~mask]

    assert not fresh_values(start="zero").any()
    assert fresh_values(start="init").abs().min() > 0
    assert (
        fresh_values(start=lambda layer, count, generator: torch.full((count,), 0.5)).unique()
        == 0.5
    )
    sentence = "start of grown connections must have shape (11,), got (1,)"
    with pytest.raises(ValueError, match=re.escape(sentence)):
        fresh_values(start=lambda layer, count, generator: torch.ones(1))


# Scores of one's own


def test_functions_of_ones_own() -> None:
    run = Run(
        every=1,
        drop=lambda site: -site.topology.positions,
        grow=lambda site, candidates: -candidates.positions.float(),
        fraction=0.2,
        regrow=False,
    )
    layer = run.model[0]
    old, total = layer.topology.positions.tolist(), layer.topology.shape.numel()
    run.step()
    count = round(0.2 * len(old))
    free = [p for p in range(total) if p not in old]
    assert layer.topology.positions.tolist() == sorted(old[:-count] + free[:count])


def test_a_registered_function_keeps_what_it_was_registered_with() -> None:
    given, named = (Run(every=1, drop=drop, start="zero") for drop in (taylor, "taylor"))
    assert given.step() == named.step()
    assert given.model[0].topology == named.model[0].topology


def test_a_score_before_the_step_sees_the_values_before_it() -> None:
    run = Run(every=1, drop="taylor", fraction=0.3, regrow=False)
    layer = run.model[0]
    run.backward()
    score = (layer.values * layer.values.grad).abs().detach()
    positions = layer.topology.positions
    run.optimizer.step()
    run.optimizer.zero_grad()
    record = run.evolution.step()
    lowest = positions[score.topk(record.layers["0"].dropped, largest=False).indices]
    assert not layer.topology.mask().view(-1)[lowest].any()


def test_a_drop_score_of_another_size_is_refused() -> None:
    run = Run(every=1, drop=lambda site: torch.zeros(3))
    sentence = "drop score in 0 must have shape (36,), got (3,)"
    with pytest.raises(ValueError, match=re.escape(sentence)):
        run.step()


# Growth by gradient


def dense_gradient(run: Run, path: str, inputs: list[Tensor]) -> Tensor:
    """Of the weight of one layer, with every other layer as it is: brute force."""
    model = regrow.densify(copy.deepcopy(run.model))
    model.zero_grad()
    for x in inputs:
        model(x).square().sum().backward()
    return model.get_submodule(path).weight.grad


@pytest.mark.parametrize("compute", ["csr", "dense"])
@pytest.mark.parametrize("tile", [1, 13, 25, 10**6])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_growth_by_gradient_equals_brute_force(
    compute: str, tile: int, accumulate: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(growth, "TILE", tile)
    run = Run(model=mlp(compute), **RIGL, regrow=False, fraction=Cosine(0.4))
    run.step()
    inputs = [batch(run.at + i) for i in range(accumulate)]
    gradients = {path: dense_gradient(run, path, inputs).abs() for path in run.layers()}
    masks = {path: layer.topology.mask() for path, layer in run.layers().items()}
    record = run.step(accumulate)
    for path, layer in run.layers().items():
        grown = layer.topology.mask() & ~masks[path]
        assert int(grown.sum()) == record.layers[path].grown > 0
        best = gradients[path].masked_fill(masks[path], -1).view(-1).topk(int(grown.sum()))
        assert set(grown.view(-1).nonzero().view(-1).tolist()) == set(best.indices.tolist())


class Largest(TorchDispatchMode):
    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(out):
            if isinstance(tensor, Tensor):
                self.numel = max(self.numel, tensor.numel())
        return out


def test_an_update_by_gradient_makes_nothing_dense(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "TILE", 512)
    layer = SparseLinear(300, 200, density=0.01, compute="csr", generator=seeded())
    optimizer = torch.optim.Adam(layer.parameters())
    evolution = Evolution(layer, optimizer, "rigl", every=1, until=9)
    layer(torch.ones(3, 300)).square().sum().backward()
    optimizer.step()
    with Largest() as largest:
        record = evolution.step()
    assert record.grown > 0
    assert largest.numel <= 3 * 512 < 300 * 200


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_gradients_that_are_not_numbers_do_no_harm(scope: str) -> None:
    run = Run(**RIGL, scope=scope)
    run.step()
    before = sum(run.nnz())
    (run.model(batch(1)).square().sum() * torch.nan).backward()
    run.optimizer.step()
    assert run.evolution.step().grown > 0
    assert sum(run.nnz()) == before


def test_nothing_is_kept_after_an_update_nor_between() -> None:
    run = Run(method="rigl", every=3, until=100)
    for step in range(1, 8):
        run.backward()
        kept = sum(len(passes) for passes in kept_now())
        assert kept == (2 if step % 3 == 0 else 0)
        run.optimizer.step()
        run.evolution.step()
        assert sum(len(passes) for passes in kept_now()) == 0


def test_activations_of_an_update_are_freed() -> None:
    run = Run(**RIGL)
    run.step()
    run.backward()
    kept = [weakref.ref(x) for passes in kept_now() for x, _, _ in passes]
    assert len(kept) == 2
    run.optimizer.step()
    run.evolution.step()
    gc.collect()
    assert [ref() for ref in kept] == [None, None]


def test_nothing_is_kept_after_the_end_also_when_resumed_there() -> None:
    finished = Run("rigl", every=1, until=2)
    when(finished, 4)
    assert len(capture._armed) == 0
    again = Run("rigl", every=1, until=2)
    again.evolution.load_state_dict(finished.evolution.state_dict())
    assert len(capture._armed) == 0


def test_who_stops_calling_keeps_no_more_than_one_step() -> None:
    run = Run("rigl", every=1, until=100)
    for _ in range(4):
        run.backward()
        run.optimizer.step()
    assert [len(passes) for passes in kept_now()] == [1, 1]
    assert run.evolution.step() is not None


def test_pruning_between_steps_leaves_growth_working() -> None:
    run = Run("rigl", every=1, until=100)
    run.step()
    run.evolution.prune(0.2)
    assert run.step().grown > 0
    run.backward()
    run.evolution.prune(0.2)  # between backward pass and step
    run.optimizer.step()
    assert run.evolution.step().grown > 0


def test_growth_by_gradient_without_a_backward_pass_is_refused() -> None:
    run = Run("rigl", every=1, until=100)
    run.optimizer.step()
    with pytest.raises(RuntimeError, match="growth by gradient in 0 needs a backward pass"):
        run.evolution.step()


# State


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("method", ["set", "rigl"])
@pytest.mark.parametrize("stop", [2, 3])
def test_resumed_equals_uninterrupted(method: str, name: str, scope: str, stop: int) -> None:
    make, options = OPTIMIZERS[name]

    def new(model: nn.Module | None = None, seed: int = 3) -> Run:
        return Run(
            method, model, make, options, every=2, until=8, scope=scope, fraction=Cosine(0.5),
            seed=seed,
        )  # fmt: skip

    whole, first = new(), new()
    for _ in range(stop):
        whole.step()
        first.step()
    buffer = io.BytesIO()
    parts = {"m": first.model, "o": first.optimizer, "e": first.evolution}
    torch.save({key: part.state_dict() for key, part in parts.items()}, buffer)
    buffer.seek(0)
    saved = torch.load(buffer, weights_only=True)
    second = new(mlp(density=0.5), seed=99)
    second.model.load_state_dict(saved["m"])
    second.optimizer.load_state_dict(saved["o"])
    second.evolution.load_state_dict(saved["e"])
    second.at = first.at
    for _ in range(6):
        assert whole.step() == second.step()
    for path, layer in whole.layers().items():
        other = second.layers()[path]
        assert other.topology == layer.topology
        states = [r.optimizer.state[x.values] for r, x in ((whole, layer), (second, other))]
        assert states[0].keys() == states[1].keys()
        for key, entry in states[0].items():
            same = entry is states[1][key] if entry is None else torch.equal(entry, states[1][key])
            assert same, key
    for one, other in zip(whole.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("method", ["set", "rigl", "mest"])
def test_an_update_that_is_due_is_saved_along(method: str) -> None:
    whole, second = (Run(method, every=2, until=8, total_steps=8, seed=3) for _ in range(2))
    whole.step()
    whole.backward()
    whole.optimizer.step()
    whole.optimizer.zero_grad()
    second.model.load_state_dict(whole.model.state_dict())
    second.optimizer.load_state_dict(whole.optimizer.state_dict())
    second.evolution.load_state_dict(whole.evolution.state_dict())
    second.at = whole.at
    done = whole.evolution.step()
    assert done is not None
    assert done == second.evolution.step()
    for _ in range(3):
        assert whole.step() == second.step()
    for one, other in zip(whole.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_state_of_another_method_or_model_is_refused() -> None:
    state = Run("set", every=2).evolution.state_dict()
    sentence = "state of evolution must be of method 'rigl', got 'set'"
    with pytest.raises(ValueError, match=sentence):
        Run(**RIGL).evolution.load_state_dict(state)
    sentence = "state of evolution must be of the layers 0, got 0, 2"
    with pytest.raises(ValueError, match=sentence):
        Run("set", mlp()[:1], every=2).evolution.load_state_dict(state)


def test_the_seed_decides() -> None:
    first, again, other = (Run(every=1, seed=seed) for seed in (1, 1, 2))
    for run in (first, again, other):
        torch.manual_seed(run.at)
        run.step()
    assert first.model[0].topology == again.model[0].topology
    assert first.model[0].topology != other.model[0].topology


def test_updates_draw_no_global_random_numbers() -> None:
    run = Run(every=1)
    run.backward()
    run.optimizer.step()
    before = torch.get_rng_state()
    run.evolution.step()
    assert torch.equal(torch.get_rng_state(), before)


# By hand


def test_an_update_may_come_when_one_likes() -> None:
    run = Run(every=None)
    before = run.nnz()
    record = run.evolution.update()
    assert record.dropped == record.grown == sum(round(0.3 * n) for n in before)
    assert run.nnz() == before


@pytest.mark.parametrize("grown", [3, 11, 20])
def test_a_decision_of_ones_own_is_carried_out(grown: int) -> None:
    run = Run(every=None, make=torch.optim.Adam, options={"lr": 0.01}, start="zero")
    run.step()
    layer = run.model[0]
    keep = torch.ones(layer.topology.nnz, dtype=torch.bool)
    keep[:11] = False
    free = (~layer.topology.mask().view(-1)).nonzero().view(-1)[:grown]
    before = {"value": spread(layer, layer.values)}
    before["moment"] = spread(layer, run.optimizer.state[layer.values]["exp_avg"])
    stay = layer.topology.positions[keep]
    update = run.evolution.rewire("0", keep, free)
    assert update == LayerUpdate(11, grown, 25 + grown)
    after = {"value": spread(layer, layer.values)}
    after["moment"] = spread(layer, run.optimizer.state[layer.values]["exp_avg"])
    for name, entries in after.items():
        assert torch.equal(entries[stay], before[name][stay])
        assert not entries[free].any()
    run.step()
    with pytest.raises(ValueError, match="path to rewire must be one of 0, 2, got '1'"):
        run.evolution.rewire("1", keep, free)


def test_a_probe_knows_gradients_and_leaves_everything_as_it_was() -> None:
    run = Run(**RIGL)
    run.step()
    run.backward()
    grads = [parameter.grad.clone() for parameter in run.model.parameters()]
    state = copy.deepcopy(run.model.state_dict())
    x = batch(50)
    sites = run.evolution.probe(lambda: run.model(x).square().sum().backward())
    for path, site in sites.items():
        expected = dense_gradient(run, path, [x])
        rows, columns = site.topology.matrix_shape
        everything = Candidates(columns, block=slice(0, rows))
        torch.testing.assert_close(site.gradient(everything).view(rows, columns), expected)
        torch.testing.assert_close(site.grad, expected.view(-1)[site.topology.positions])
    for parameter, grad in zip(run.model.parameters(), grads, strict=True):
        assert torch.equal(parameter.grad, grad)
    assert all(torch.equal(v, state[k]) for k, v in run.model.state_dict().items())
    assert sum(len(passes) for passes in kept_now()) == 2  # those of training are still there
    run.optimizer.step()
    assert run.evolution.step().grown > 0


def test_rules_hear_of_the_validation_loss() -> None:
    run = Run(every=1)
    for loss in (3.0, 2.0, 5.0, 4.0):
        run.step()
        run.evolution.report(loss)
    memory = run.evolution.sites()["0"].memory
    assert memory == {"loss": 4.0, "best_loss": 2.0, "best_step": 2, "reports_since_best": 2}


def test_shares_of_the_training_say_when() -> None:
    assert when(Run(every=2, begin=0.2, until=0.8, total_steps=10), 10) == [4, 6, 8]


# What is refused


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        ({"method": "best"}, ValueError, "method must be one of "),
        ({"every": "epoch"}, ValueError, 'every="epoch" of set needs steps_per_epoch=len(loader)'),
        ({"every": 0}, ValueError, "every of set must be a positive number of steps"),
        ({"every": 2.5}, ValueError, '"epoch" or None, got 2.5'),
        ({"every": 1, "drop": "luck"}, ValueError, "drop must be one of "),
        ({"every": 1, "grow": "luck"}, ValueError, "grow must be one of "),
        ({"every": 1, "start": "one"}, ValueError, "start must be one of init, zero, got 'one'"),
        ({"every": 1, "state": "luck"}, ValueError, "state must be one of "),
        (
            {"every": 1, "scope": "net"},
            ValueError,
            "scope of set must be one of layer, global, gate, row, column, got 'net'",
        ),
        ({"every": 1, "scope": 3}, ValueError, "scope of set must be a name or a form, got 3"),
        ({"every": 1, "compare": "row"}, ValueError, "compare of set must be one of budget, layer"),
        ({"every": 1, "unit": "atom"}, ValueError, "unit of set must be one of element, kernel, "),
        ({"every": 1, "regrow": "twice"}, ValueError, "regrow of set must be one of revive, "),
        ({"every": 1, "adjust": "net"}, ValueError, "adjust of set must be one of layer, row, "),
        ({"every": 1, "redistribute": "luck"}, ValueError, "redistribute of set must be one of "),
        (
            {"every": 1, "redistribute": "momentum", "scope": "global"},
            ValueError,
            "redistribute of set must be None where scope is global",
        ),
        ({"every": 1, "active": 0.0}, ValueError, "active of set must be in (0, 1], got 0.0"),
        (
            {"every": 1, "until": 0.5},
            ValueError,
            "until of set is a share of the training (0.5) and needs total_steps",
        ),
        ({"every": 1, "until": 7.5}, ValueError, "share of the training in [0, 1], got 7.5"),
        ({"every": 1, "begin": -1}, ValueError, "begin of set must be a number of optimiser steps"),
        (
            {"every": 1, "begin": 9, "until": 5},
            ValueError,
            "until of set must not be before begin (9), got 5",
        ),
        ({"every": 1, "fraction": 1.5}, ValueError, "fraction of set must be in [0, 1], got 1.5"),
        ({"every": 1, "fraction": Cosine(0.3)}, ValueError, "the cosine schedule needs its end"),
        (
            {"every": 1, "until": 5, "density": Cubic(0.5, 0.1), "scope": "gate"},
            ValueError,
            "density of set must be None where scope is gate: each part of a layer keeps its",
        ),
        (
            {"every": 1, "until": 5, "density": Cubic(1.5, 0.1)},
            ValueError,
            "density of set at step 0 must be in (0, 1], got 1.5",
        ),
        ({"every": 1, "speed": 3}, TypeError, "Evolution takes the parts of a method: active, a"),
        ({"every": 1, "name": "x"}, TypeError, "got 'name'"),
    ],
)
def test_bad_requests_are_refused(options: dict, error: type, sentence: str) -> None:
    with pytest.raises(error, match=re.escape(sentence)):
        Run(**{"method": "set", **options})


def test_a_model_without_sparse_layers_is_refused() -> None:
    sentence = "model to evolve must have a sparse layer, got none; call sparsify"
    with pytest.raises(ValueError, match=sentence):
        Run(model=nn.Linear(2, 2), every=1)


def test_a_method_may_be_given_as_a_value() -> None:
    mine = Method(name="mine", drop="random", fraction=0.5, every=1)
    record = Run(mine).step()
    assert record.fraction == 0.5
    assert record.layers["0"].dropped == 18
    assert Run(mine, every=2).step() is None


# Compiled


def compiled_equals_eager(backend: str, method: str) -> None:
    torch._dynamo.reset()
    plain, fast = (
        Run(method, mlp(dtype=torch.float32), every=2, until=9, regrow=False) for _ in range(2)
    )
    model = fast.model
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled = torch.compile(model, fullgraph=True, backend=backend)
        for _ in range(6):
            record = plain.step()
            x = batch(fast.at, torch.float32)
            fast.at += 1
            compiled(x).square().sum().backward()
            fast.optimizer.step()
            fast.optimizer.zero_grad()
            assert fast.evolution.step() == record
            for path, layer in plain.layers().items():
                assert fast.layers()[path].topology == layer.topology
    for one, other in zip(plain.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(one, other)
    torch._dynamo.reset()


@pytest.mark.parametrize("method", ["set", "rigl"])
def test_evolution_of_a_compiled_model(method: str) -> None:
    compiled_equals_eager("aot_eager", method)


@pytest.mark.skipif(shutil.which("g++") is None, reason="no compiler for inductor")
def test_growth_by_gradient_under_inductor() -> None:
    compiled_equals_eager("inductor", "rigl")
