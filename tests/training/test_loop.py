"""The loop: its data order, its scores, the parts of a method that it decides."""

import math

import pytest
import torch

from regrow.data import load
from regrow.evolution import Method
from regrow.evolution.methods import _METHODS, register
from regrow.evolution.schedules import Cosine, Cubic, Phases
from regrow.layers import sparse_layers
from regrow.training import DivergedError, OptionError, TrainOptions
from regrow.training.arm import beginning, method_parts
from regrow.training.flops import FlopCount
from regrow.training.history import snapshot_epochs
from regrow.training.loop import Job, Trainer
from regrow.training.model import Beginning, build_model
from regrow.training.optimizers import GRIDS, make_optimizer
from regrow.training.options import option_fields
from regrow.training.passes import data_order
from regrow.training.score import Score, score_of

from .conftest import pictures, table, words

DIGITS = table(64, 10)


def trainer(arm: str = "set", **changes: object) -> Trainer:
    options = TrainOptions(hidden=(8,), batch_size=50, **changes)  # type: ignore[arg-type]
    dataset = load("digits", limit_train=200, limit_test=20)
    chosen = [{"connections": 50, "compute": "csr", "reason": "", "milliseconds": {}}]
    decisions = {} if arm == "dense" else {"hidden1": chosen, "output": chosen}
    return Trainer(options, dataset, Job(arm, 0, 0.05, 2, decisions))


def test_order_is_decided_by_seed_and_epoch() -> None:
    torch.rand(3)
    assert torch.equal(data_order(50, 1, 2), data_order(50, 1, 2))
    assert sorted(data_order(50, 1, 2).tolist()) == list(range(50))
    assert not torch.equal(data_order(50, 1, 2), data_order(50, 2, 1))


def test_an_epoch_sees_every_sample_once() -> None:
    seen: list[int] = []
    one = trainer()
    tally = one.train_epoch(lambda inner, loss: seen.append(inner.tally.samples))
    assert seen == [50, 100, 150, 180]
    assert (tally.samples, tally.batches, one.steps, one.epoch) == (180, 4, 4, 1)
    assert one.tally.samples == 0


def test_accuracy_and_loss() -> None:
    output = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0], [0.0, 0.5]])
    score = score_of(output, torch.tensor([0, 1, 1, 1]), "classification")
    assert score.score == 0.75
    assert score.loss == pytest.approx(0.9908, abs=1e-4)


def test_r2() -> None:
    y = torch.tensor([1.0, 2.0, 3.0])
    assert score_of(y[:, None], y, "regression") == Score(0.0, 1.0)
    assert score_of(torch.full((3, 1), 2.0), y, "regression").score == 0.0
    same = torch.ones(3)
    assert score_of(torch.ones(3, 1), same, "regression").score == 1.0
    assert score_of(torch.zeros(3, 1), same, "regression").score == 0.0


def test_better_than() -> None:
    assert Score(1.0, 0.5).better_than(None)
    assert Score(0.9, 0.5).better_than(Score(1.0, 0.5))
    assert not Score(0.1, 0.5).better_than(Score(1.0, 0.6))
    assert not Score(1.0, 0.5).better_than(Score(1.0, 0.5))
    bits = Score(1.0, 1.5, rising=False)
    assert bits.better_than(Score(1.1, 1.6, rising=False))
    assert not bits.better_than(Score(0.9, 1.4, rising=False))


def test_bits_per_character() -> None:
    output = torch.zeros(2, 3, 4)
    score = score_of(output, torch.zeros(2, 3, dtype=torch.int64), "language")
    assert score.score == pytest.approx(2)
    assert score.loss == pytest.approx(2 * math.log(2))
    assert not score.rising


def test_rates_of_a_schedule_reach_the_optimizer() -> None:
    one = trainer(rate_schedule="step", warm_up=0.25)
    seen: list[float] = []
    while not one.finished:
        one.train_epoch(lambda inner, _: seen.append(inner.optimizer.param_groups[0]["lr"]))
    wanted = [0.025, 0.05, 0.05, 0.05, 0.005, 0.005, 0.0005, 0.0005]
    assert seen == pytest.approx(wanted)


def test_clipping_bounds_the_step() -> None:
    one = trainer(clip=1e-3, momentum=0.0, weight_decay=0.0)
    before = [parameter.detach().clone() for parameter in one.model.parameters()]
    one._step(torch.arange(50))
    moved = [p.detach() - b for p, b in zip(one.model.parameters(), before, strict=True)]
    assert torch.cat([m.flatten() for m in moved]).norm().item() == pytest.approx(0.05e-3, rel=1e-3)


def test_flops_follow_the_connections() -> None:
    one = trainer()
    one.train_epoch(lambda inner, _: None)
    per_sample = one.flop_count.forward + one.flop_count.backward
    assert one.flops == 180 * per_sample
    layer = sparse_layers(one.model)["hidden1"]
    few = torch.arange(layer.topology.nnz) < 10
    change = layer.topology.rewire(few, torch.empty(0, dtype=torch.int64))
    lost = layer.topology.nnz - 10
    layer.set_topology(change.topology, layer.values.detach()[few])
    assert one.flop_count.forward + one.flop_count.backward == per_sample - 2 * 2 * lost


def test_divergence_names_epoch_and_rate() -> None:
    one = trainer()
    with torch.no_grad():
        one.model.hidden1.values.fill_(float("nan"))
    with pytest.raises(DivergedError) as caught:
        one.train_epoch(lambda inner, loss: None)
    assert str(caught.value) == "training of set diverged in epoch 1 at learning rate 0.05"


def test_looking_at_gradients_costs() -> None:
    one = trainer("rigl", every=2)
    one.train_epoch(lambda inner, _: None)
    updates = 2
    per_sample = one.flop_count.forward + one.flop_count.backward
    everywhere = 2 * (64 * 8 + 8 * 10)
    assert one.flops == 180 * per_sample + updates * 50 * everywhere


@pytest.mark.parametrize("model", ["convnet", "transformer", "lstm"])
def test_flops_of_a_dense_twin_are_those_of_all_connections(model: str) -> None:
    options = TrainOptions(model=model, width=8, depth=2, density=0.3)
    data = pictures((1, 8, 8), 4) if model == "convnet" else words(12, 9)
    x = torch.zeros(1, data.n_features, dtype=data.x_train.dtype)
    dense, full = (
        FlopCount(build_model(options, arm, data, 0, Beginning(density)), x)
        for arm, density in (("dense", None), ("set", 1.0))
    )
    assert dense.forward == full.forward > 0
    assert dense.backward == full.backward > dense.forward


def test_parts_of_a_method() -> None:
    assert method_parts(TrainOptions(), "static", 100, DIGITS) == {}
    assert method_parts(TrainOptions(), "set", 100, DIGITS) == {"until": 99}
    options = TrainOptions(fraction=0.5, every=7)
    assert method_parts(options, "set", 100, DIGITS) == {"until": 99, "every": 7, "fraction": 0.5}
    expected = {"until": 75, "every": 7, "fraction": Cosine(0.5)}
    assert method_parts(options, "rigl", 100, DIGITS) == expected
    assert method_parts(TrainOptions(until=0.5), "set", 100, DIGITS) == {"until": 50}
    assert method_parts(TrainOptions(scope="global"), "set", 100, DIGITS)["scope"] == "global"
    assert method_parts(TrainOptions(start="init"), "set", 100, DIGITS)["start"] == "init"


def test_a_method_that_goes_up_and_down_does_so_in_tenths() -> None:
    register(Method(name="waves", density=Phases(1.0, 0.5, 1000), every=1))
    try:
        parts = method_parts(TrainOptions(density=0.2), "waves", 101, DIGITS)
        assert parts["density"] == Phases(1.0, 0.2, 10)
        assert parts["density"](95, parts["until"]) == 0.2
    finally:
        _METHODS.pop("waves")


def test_a_method_that_prunes_ends_with_the_density_of_the_options() -> None:
    register(Method(name="prunes", density=Cubic(1.0, 0.5), every=1))
    try:
        parts = method_parts(TrainOptions(density=0.2), "prunes", 100, DIGITS)
        assert parts["density"] == Cubic(1.0, 0.2)
        assert parts["until"] == 99
        options = TrainOptions(density=0.2, every=7)
        assert method_parts(options, "prunes", 100, DIGITS)["until"] == 98
        assert beginning("prunes", parts) == Beginning(1.0)
        one = trainer("prunes", density=0.2)
        assert one.connections == one.dense_connections == 64 * 8 + 8 * 10
        while not one.finished:
            one.train_epoch(lambda inner, _: None)
        assert one.connections == round(0.2 * one.dense_connections)
        per_sample = one.flop_count.forward + one.flop_count.backward
        assert one.flops > 1.2 * 360 * per_sample
        with pytest.raises(OptionError, match="epsilon must be left out for prunes"):
            method_parts(TrainOptions(epsilon=3), "prunes", 100, DIGITS)
    finally:
        _METHODS.pop("prunes")


def test_evolution_counts_steps_of_the_optimizer() -> None:
    one = trainer("rigl", every=2)
    tally = one.train_epoch(lambda inner, loss: None)
    assert tally.dropped == tally.grown > 0
    assert trainer("dense").evolution is None


@pytest.mark.parametrize("name", sorted(GRIDS))
def test_optimizers_have_rate_decay_and_grid(name: str) -> None:
    model = torch.nn.Linear(2, 2)
    optimizer = make_optimizer(model, TrainOptions(optimizer=name, weight_decay=0.01), 0.02)
    group = optimizer.param_groups[0]
    assert (group["lr"], group["weight_decay"]) == (0.02, 0.01)
    assert type(optimizer).__name__.lower() == name.replace("-", "")
    assert list(GRIDS[name]) == sorted(GRIDS[name], reverse=True)
    assert name in option_fields()["optimizer"].metadata["must"]


@pytest.mark.parametrize("epochs", [1, 2, 7, 8, 50, 1000])
def test_snapshots_are_few_and_have_both_ends(epochs: int) -> None:
    found = snapshot_epochs(epochs)
    assert found[0] == 0
    assert found[-1] == epochs
    assert len(found) == len(set(found)) == min(8, epochs + 1)
