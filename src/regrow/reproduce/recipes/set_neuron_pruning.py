"""SET with neuron pruning: half of the hidden neurons go during training; a reconstruction.

S. Liu, D. C. Mocanu, M. Pechenizkiy, "On improving deep learning generalization with adaptive
sparse connectivity", 2019.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from sklearn.datasets import load_breast_cancer
from torch import nn

from regrow import Evolution, SparseLinear, compact, sparse_layers
from regrow.data import Dataset, from_arrays
from regrow.evolution.neurons import NeuronPruning
from regrow.measure import pictures
from regrow.reproduce.networks import mlp
from regrow.reproduce.recipe import (
    Claim,
    Context,
    Figures,
    Outcomes,
    Part,
    Recipe,
    Scale,
    Table,
    tuned,
)
from regrow.selection.planted import planted
from regrow.training.fit import fit
from regrow.training.passes import evaluate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHRINK, KEEP = "set, neurons pruned", "the same, budget kept"
ARMS = ("dense", "dense, half the neurons", "static", "set", SHRINK, KEEP)
MADELON, CANCER = "Madelon-like", "breast-cancer"
PAPER = "S. Liu et al., 2019"
BOUND = "our bound"


@dataclass(frozen=True)
class Settings:
    """Sizes and lengths of the experiment; the window is in shares of the training."""

    data: tuple[str, ...]
    hidden: tuple[int, ...]
    epochs: int
    rates: tuple[float, ...] = (0.1, 0.03, 0.01)
    epsilon: float = 13.0
    batch: int = 100
    target: float = 0.5
    window: tuple[float, float] = (0.1, 0.5)
    limit_train: int = 2222
    limit_test: int = 1000


def accuracy(context: Context, data: str, method: str, rate: float, seed: int) -> Figures:
    """Train one perceptron; what it knows, and how much of it is left."""
    settings: Settings = context.settings
    table = _table(context, data)
    share = 1 - settings.target if method == "dense, half the neurons" else 1.0
    hidden = [round(share * size) for size in settings.hidden]
    sizes = [table.n_features, *hidden, table.n_classes or 1]
    sparsity: dict[str, Any] = {"epsilon": settings.epsilon, "full": "sparse", "compute": "csr"}
    model = mlp(sizes, seed=seed, dropout=0.3, **({} if method.startswith("dense") else sparsity))
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9, weight_decay=2e-4)
    rows = fit(
        model,
        table,
        optimizer,
        epochs=settings.epochs,
        batch_size=settings.batch,
        seed=seed,
        evolution=_evolution(model, optimizer, method, settings, len(table.x_train), seed),
        at_epoch=lambda _: {"left": _left(model, sum(hidden))},
    )
    train = evaluate(model, table.x_train, table.y_train)
    last = rows[-1]
    finite = math.isfinite(train.loss) and math.isfinite(last["test_loss"])
    small = compact(copy.deepcopy(model), table.x_test[:2])
    model.eval()
    small.eval()
    with torch.inference_mode():
        moved = float((model(table.x_test) - small(table.x_test)).abs().max())
    linear = [m for m in small if isinstance(m, (nn.Linear, SparseLinear))]
    return {
        "test": last["test"],
        "validation": last["validation"],
        "train": train.score,
        "gap": train.score - last["test"],
        "loss_gap": last["test_loss"] - train.loss if finite else None,
        "connections": last["connections"],
        "removed": 1 - last["left"],
        "compact": sum(m.out_features for m in linear[:-1]),
        "moved": moved if math.isfinite(moved) else None,
        "left": [row["left"] for row in rows],
        "curve": [row["test"] for row in rows],
    }


def _evolution(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    method: str,
    settings: Settings,
    samples: int,
    seed: int,
) -> Evolution | None:
    """SET after every epoch but the last; neurons go in the window, before SET's own step."""
    if method not in ("set", SHRINK, KEEP):
        return None
    steps = math.ceil(samples / settings.batch)
    total = steps * settings.epochs
    when: dict[str, Any] = {"seed": seed, "every": steps, "until": total - 1}
    if method == "set":
        return Evolution(model, optimizer, "set", **when)
    begin, end = (round(share * total) for share in settings.window)
    budget = "shrink" if method == SHRINK else "keep"
    rules = NeuronPruning(settings.target, begin=begin, end=end, budget=budget)
    return Evolution(model, optimizer, "set", drop=rules.drop, grow=rules.grow, **when)


def _left(model: nn.Module, neurons: int) -> float:
    """Share of the hidden neurons that have a connection."""
    layers = list(sparse_layers(model).values())
    ends = (a.topology.degrees()[0] + b.topology.degrees()[1] for a, b in pairwise(layers))
    return 1 - sum(int((end == 0).sum()) for end in ends) / neurons


def _table(context: Context, data: str) -> Dataset:
    settings: Settings = context.settings
    limits: dict[str, Any] = {
        "limit_train": settings.limit_train,
        "limit_test": settings.limit_test,
    }
    if data == MADELON:
        made = planted(2000, 500, clusters=2, separation=1.0, flipped=0.01)
        return from_arrays(made.table, made.labels, name=MADELON, **limits)
    if data == CANCER:
        x, y = load_breast_cancer(return_X_y=True)
        return from_arrays(x, y, name=CANCER, **limits)
    return context.load(data, **limits)


def parts(settings: Settings, seeds: range, done: Outcomes) -> Iterator[Part]:
    """Every kind of network on every data set, each with its own learning rate."""
    for data in settings.data:
        for method in ARMS:
            yield from tuned(accuracy, settings.rates, seeds, done, data=data, method=method)


def claims(settings: Settings, done: Outcomes) -> list[Claim]:
    """What the abstract says, in bounds set before the run."""
    done = done.final
    pruned = {data: done.of(data=data, method=SHRINK) for data in settings.data}
    of_set, dense = (
        {data: done.of(data=data, method=method) for data in settings.data}
        for method in ("set", "dense")
    )
    removed = [share for own in pruned.values() for share in own.values("removed")]
    behind = {d: of_set[d].ahead(pruned[d]) for d in pruned}
    gaps = {d: pruned[d].ahead(dense[d], "gap") for d in pruned}
    fewer = {d: 1 - pruned[d].mean("connections") / of_set[d].mean("connections") for d in pruned}
    moved = [m for own in pruned.values() for m in own.values("moved") if m is not None]
    enough = len(settings.data) - 1
    return [
        Claim(
            "45 to 55 % of the hidden neurons are removed",
            f"{100 * min(removed):.1f} to {100 * max(removed):.1f} % in {len(removed)} trainings",
            min(removed) >= 0.45 and max(removed) <= 0.55,
            PAPER,
        ),
        Claim(
            f"Test accuracy is within 1 point of SET on {enough} of {len(behind)} data sets",
            "points below SET: " + ", ".join(f"{d} {b:+.2f}" for d, b in behind.items()),
            sum(b <= 1 for b in behind.values()) >= enough,
            BOUND,
        ),
        Claim(
            f"Train minus test accuracy is not above the dense network's on {enough} of "
            f"{len(gaps)} data sets",
            "points above it: " + ", ".join(f"{d} {g:+.2f}" for d, g in gaps.items()),
            sum(g <= 0 for g in gaps.values()) >= enough,
            PAPER,
        ),
        Claim(
            "Where the budget shrinks, connections are at least 30 % fewer than SET's",
            ", ".join(f"{d} {100 * f:.1f} %" for d, f in fewer.items()),
            min(fewer.values()) >= 0.3,
            BOUND,
        ),
        Claim(
            "Taking the removed neurons out leaves the outputs as they were",
            f"largest difference {max(moved):.1e}" if moved else "no finite outputs",
            bool(moved) and max(moved) < 1e-4,
            BOUND,
        ),
    ]


def tables(settings: Settings, done: Outcomes) -> list[Table]:
    """Every data set by itself."""
    done = done.final
    heads = ["network", "neurons", "connections", "test, %", "train, %", "gap, points"]
    heads += ["test minus train loss", "rate"]
    made = []
    for data in settings.data:
        rows = []
        for method in ARMS:
            own = done.of(data=data, method=method)
            (rate,) = own.by("rate")
            losses = [loss for loss in own.values("loss_gap") if loss is not None]
            rows.append(
                [
                    method,
                    f"{own.mean('compact'):.0f}",
                    f"{own.mean('connections'):,.0f}",
                    own.text("test", percent=True),
                    own.text("train", percent=True),
                    own.text("gap", percent=True),
                    f"{sum(losses) / len(losses):.3f}" if losses else "diverged",
                    f"{rate:g}",
                ]
            )
        made.append(Table(data, heads, rows))
    note = "Neurons are the hidden ones that are left when what does nothing is taken out."
    return [*made[:-1], replace(made[-1], note=note)]


def draw(settings: Settings, done: Outcomes) -> dict[str, Figure]:
    """Accuracy against connections on the first data set, and how neurons went."""
    data = settings.data[0]
    own = done.final.of(data=data)
    shows, goes = f"Accuracy and connections, {data}", f"How the neurons went, {data}"
    short = {ARMS[1]: "dense, half", SHRINK: "pruned", KEEP: "pruned, kept"}
    marks = {
        short.get(method, method): [
            (o.figures["connections"], o.figures["test"]) for o in own.of(method=method)
        ]
        for method in ARMS
    }
    left = {
        name: own.of(method=method).curves("left")
        for name, method in (("set", "set"), ("pruned", SHRINK))
    }
    return {
        shows: pictures.trade_off(
            marks, title=shows, subtitle="test accuracy", x_label="connections", percent=True
        ),
        goes: pictures.curves(
            left, title=goes, subtitle="share of hidden neurons with a connection", percent=True
        ),
    }


_SMALL = Settings(
    data=("fashion-mnist", "digits", CANCER, MADELON), hidden=(300, 300, 300), epochs=100
)

RECIPE = Recipe(
    scales={
        "quick": Scale(
            replace(_SMALL, data=("digits", CANCER), hidden=(60, 60), epochs=20, rates=(0.1, 0.03)),
            seeds=1,
        ),
        "small": Scale(_SMALL, seeds=3, data=("fashion-mnist",)),
        "paper": Scale(
            _SMALL,
            missing="needs the paper's 15 data sets and its sizes, which its abstract does not say",
        ),
    },
    parts=parts,
    claims=claims,
    tables=tables,
    pictures=draw,
)
