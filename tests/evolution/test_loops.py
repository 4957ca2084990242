"""What training loops do around a step: accumulation, clipping, AMP, schedulers, closures."""

from __future__ import annotations

import copy
import io
import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler

import regrow
from regrow import Evolution, SparseLinear
from regrow.evolution import DropScore, Site
from regrow.evolution.schedules import Cubic
from regrow.evolution.trackers import Tracker
from regrow.optim import SNTASGD, LocalAgeAdam

OPTIMIZERS: dict[str, Callable] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "amsgrad": lambda p: torch.optim.Adam(p, lr=0.01, amsgrad=True),
    "adamw-fused": lambda p: torch.optim.AdamW(p, lr=0.01, fused=True),
    "adamw-foreach": lambda p: torch.optim.AdamW(p, lr=0.01, foreach=True),
    "adadelta": lambda p: torch.optim.Adadelta(p),
    "adafactor": lambda p: torch.optim.Adafactor(p, lr=0.01),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.05, initial_accumulator_value=0.1),
    "adamax": lambda p: torch.optim.Adamax(p, lr=0.01),
    "asgd": lambda p: torch.optim.ASGD(p, lr=0.05, t0=2),
    "nadam": lambda p: torch.optim.NAdam(p, lr=0.01),
    "radam": lambda p: torch.optim.RAdam(p, lr=0.01),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, centered=True, momentum=0.5),
    "rprop": lambda p: torch.optim.Rprop(p, lr=0.01),
    "local-age-adam": lambda p: LocalAgeAdam(p, lr=0.01, warmup=2),
    "snt-asgd": lambda p: SNTASGD([{"params": list(p), "averaging": True}], lr=0.05),
}


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Run:
    def __init__(self, make: Callable = OPTIMIZERS["adam"], method="rigl", **parts) -> None:
        options = {"generator": seeded(0), "compute": "csr"}
        self.model = nn.Sequential(
            SparseLinear(12, 16, density=0.3, **options),
            nn.Tanh(),
            SparseLinear(16, 8, density=0.3, **options),
        )
        self.optimizer = make(self.model.parameters())
        parts = {"every": 2, "until": 100, **parts}
        self.evolution = Evolution(self.model, self.optimizer, method, seed=1, **parts)

    def loss(self, seed: int, rows: int = 6) -> Tensor:
        return (self.model(torch.randn(rows, 12, generator=seeded(seed))) - 1).square().mean()

    def step(self, seed: int):
        self.loss(seed).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return self.evolution.step()

    def topologies(self) -> list[regrow.Topology]:
        return [layer.topology for layer in regrow.sparse_layers(self.model).values()]


def same(one: Run, other: Run) -> None:
    assert one.topologies() == other.topologies()
    for a, b in zip(one.model.parameters(), other.model.parameters(), strict=True):
        assert torch.equal(a, b)
        states = one.optimizer.state[a], other.optimizer.state[b]
        assert states[0].keys() == states[1].keys()
        for name, entry in states[0].items():
            assert entry is states[1][name] or torch.equal(entry, states[1][name]), name


# Optimisers


@pytest.mark.parametrize("density", [None, Cubic(0.3, 0.15)])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimiser_follows_and_resumes_exactly(name: str, density: object) -> None:
    parts = {"density": density, "until": 8, "scope": "global"}
    run = Run(OPTIMIZERS[name], **parts)
    for seed in range(5):
        run.step(seed)
    file = io.BytesIO()
    saved = (run.model, run.optimizer, run.evolution)
    torch.save([part.state_dict() for part in saved], file)
    file.seek(0)
    again = Run(OPTIMIZERS[name], **parts)
    for part, state in zip(
        (again.model, again.optimizer, again.evolution),
        torch.load(file, weights_only=True),
        strict=True,
    ):
        part.load_state_dict(state)
    same(run, again)
    for seed in range(5, 10):
        for one in (run, again):
            one.step(seed)
    same(run, again)
    for parameter in run.model.parameters():
        assert parameter.isfinite().all()
        held = [p for group in run.optimizer.param_groups for p in group["params"]]
        assert any(p is parameter for p in held)
        for entry in run.optimizer.state[parameter].values():
            if isinstance(entry, Tensor) and entry.dim():
                assert entry.shape == parameter.shape


def test_lbfgs_trains_a_topology_that_stays_and_no_other() -> None:
    def lbfgs(parameters):
        return torch.optim.LBFGS(parameters, lr=0.1, max_iter=3)

    run = Run(lbfgs, "static", every=None)

    def closure() -> Tensor:
        run.optimizer.zero_grad()
        loss = run.loss(0)
        loss.backward()
        return loss

    first = run.optimizer.step(closure)
    assert run.loss(0) < first
    assert run.evolution.step() is None
    with pytest.raises(TypeError, match="must keep its state parameter by parameter, got LBFGS"):
        Run(lbfgs)


# Accumulation, clipping, closures


def test_accumulated_gradients_decide_as_those_of_one_batch() -> None:
    whole, parts = Run(every=1), Run(every=1)
    for run in (whole, parts):
        run.model.double()
    for seed in range(4):
        x = torch.randn(12, 12, generator=seeded(seed), dtype=torch.float64)
        (whole.model(x) - 1).square().mean().backward()
        for micro in x.split(4):
            ((parts.model(micro) - 1).square().mean() / 3).backward()
            assert parts.evolution.step() is None
        for run in (whole, parts):
            run.optimizer.step()
            run.optimizer.zero_grad()
            assert run.evolution.step() is not None
    assert whole.evolution.steps == parts.evolution.steps == 4
    assert whole.topologies() == parts.topologies()


@pytest.mark.parametrize(
    "clip",
    [
        lambda p: nn.utils.clip_grad_norm_(p, 0.01),
        lambda p: nn.utils.clip_grad_norm_(p, 0.01, foreach=False),
        lambda p: nn.utils.clip_grad_value_(p, 1e-3),
    ],
)
def test_clipping_bounds_the_step_and_leaves_the_update_as_it_was(clip: Callable) -> None:
    free, clipped = (Run(lambda p: torch.optim.SGD(p, lr=1e-9), every=1) for _ in range(2))
    before = free.topologies()
    for run in (free, clipped):
        run.loss(0).backward()
    clip(clipped.model.parameters())
    gradients = [parameter.grad for parameter in clipped.model.parameters()]
    assert nn.utils.get_total_norm(gradients) < 0.1
    for run in (free, clipped):
        run.optimizer.step()
        run.optimizer.zero_grad()
        assert run.evolution.step().dropped > 0
    assert free.topologies() == clipped.topologies() != before


@pytest.mark.parametrize("keyword", [True, False])
@pytest.mark.parametrize("drop", ["taylor", "magnitude"])
def test_a_closure_is_the_same_as_a_backward_pass_before(keyword: bool, drop: str) -> None:
    plain, closed = Run(drop=drop), Run(drop=drop)
    for seed in range(6):
        plain.step(seed)

        def closure(seed: int = seed) -> Tensor:
            closed.optimizer.zero_grad()
            loss = closed.loss(seed)
            loss.backward()
            return loss

        loss = closed.optimizer.step(closure=closure) if keyword else closed.optimizer.step(closure)
        assert loss.requires_grad
        closed.evolution.step()
    assert plain.topologies() == closed.topologies()
    assert plain.evolution.steps == closed.evolution.steps == 6


# AMP


@pytest.mark.parametrize("method", ["set", "rigl"])
def test_autocast(method: str) -> None:
    run = Run(method=method)
    before = run.topologies()
    for seed in range(4):
        with torch.autocast("cpu", torch.bfloat16):
            output = run.model(torch.randn(6, 12, generator=seeded(seed)))
        assert output.dtype == torch.bfloat16
        (output.float() - 1).square().mean().backward()
        assert run.model[0].values.grad.dtype == torch.float32
        run.optimizer.step()
        run.optimizer.zero_grad()
        run.evolution.step()
    assert all(a != b for a, b in zip(run.topologies(), before, strict=True))


@pytest.mark.parametrize("first", ["evolution", "zero_grad"])
@pytest.mark.parametrize("name", ["sgd", "adam", "adamw-fused"])
def test_steps_that_the_scaler_skips_do_not_count(name: str, first: str) -> None:
    """The run is as if batches with an overflow had never been there."""
    plain, scaled = Run(OPTIMIZERS[name]), Run(OPTIMIZERS[name])
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8, growth_interval=1000)
    seeds = iter(range(6))
    for overflow in (False, True, False, True, True, False, False, False, True, False):
        seed = 99 if overflow else next(seeds)
        loss = scaled.loss(seed)
        if overflow:  # in the second layer only; what the first one sees stays finite
            loss = loss + scaled.model[2].values.sum() * torch.inf
        scaler.scale(loss).backward()
        scaler.step(scaled.optimizer)
        scaler.update(2.0**8)
        after = [scaled.evolution.step, scaled.optimizer.zero_grad]
        results = [call() for call in (after if first == "evolution" else after[::-1])]
        if overflow:
            assert results == [None, None]
        else:
            plain.step(seed)
    assert plain.evolution.steps == scaled.evolution.steps == 6
    same(plain, scaled)


@pytest.mark.parametrize("name", ["adamw-foreach", "adamw-fused"])
def test_what_is_tracked_knows_no_scale_and_no_skipped_step(name: str) -> None:
    seen = []

    def update(site: Site, total: Tensor) -> Tensor:
        seen.append(site.path)
        return total + site.grad

    rule = DropScore(
        lambda site: site.tracked["sum"], tracks=(Tracker("sum", update, before=True),)
    )
    plain, scaled = (Run(OPTIMIZERS[name], "set", drop=rule, every=100) for _ in range(2))
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    for seed, overflow in enumerate([False, True, False]):
        loss = scaled.loss(seed)
        scaler.scale(loss * torch.inf if overflow else loss).backward()
        scaler.step(scaled.optimizer)
        scaler.update(2.0**8)
        scaled.optimizer.zero_grad()
        if not overflow:
            plain.step(seed)
    assert len(seen) == 8
    sums = [run.evolution.sites()["0"].tracked["sum"] for run in (plain, scaled)]
    assert torch.equal(*sums)


# Schedulers


SCHEDULERS: dict[str, Callable] = {
    "step": lambda o: lr_scheduler.StepLR(o, 2, 0.5),
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, 8),
    "restarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 3),
    "one-cycle": lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=10),
    "cyclic": lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.1, step_size_up=2),
    "lambda": lambda o: lr_scheduler.LambdaLR(o, lambda step: 0.9**step),
    "sequential": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o), lr_scheduler.ExponentialLR(o, 0.9)], [3]
    ),
}


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.filterwarnings("ignore:The epoch parameter")  # SequentialLR's own use of it
def test_schedulers_know_the_parameters_that_there_are_now(name: str) -> None:
    parts = {"density": Cubic(0.3, 0.1), "until": 8}
    run = Run(OPTIMIZERS["nesterov"], **parts)
    alone = nn.Linear(2, 2)
    expected = OPTIMIZERS["nesterov"](alone.parameters())
    scheduler, twin = SCHEDULERS[name](run.optimizer), SCHEDULERS[name](expected)
    rates = []
    for seed in range(9):
        run.step(seed)
        scheduler.step()
        expected.step()
        twin.step()
        rates.append((scheduler.get_last_lr(), twin.get_last_lr()))
        group = run.optimizer.param_groups[0]
        assert [id(p) for p in group["params"]] == [id(p) for p in run.model.parameters()]
    assert all(ours == theirs for ours, theirs in rates)
    assert run.topologies()[0].nnz < 25
    again = copy.deepcopy(scheduler.state_dict())
    scheduler.load_state_dict(again)


def test_a_scheduler_made_before_the_evolution_counts_too() -> None:
    model = nn.Sequential(SparseLinear(12, 8, density=0.3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = lr_scheduler.StepLR(optimizer, 1)  # replaces optimizer.step by a method of its own
    evolution = Evolution(model, optimizer, "set", every=2)
    for _ in range(4):
        model(torch.ones(2, 12)).sum().backward()
        optimizer.step()
        scheduler.step()
        evolution.step()
    assert evolution.steps == 4


def test_state_age_is_refused_before_anything_has_changed() -> None:
    run = Run(method="set", state="age")
    run.loss(0).backward()
    run.optimizer.step()
    before = run.topologies()
    sentence = (
        "optimiser of 0 must count the age of connections for state 'age', as LocalAgeAdam does, "
        "got Adam"
    )
    with pytest.raises(TypeError, match=re.escape(sentence)):
        run.evolution.update()
    assert all(a is b for a, b in zip(run.topologies(), before, strict=True))
