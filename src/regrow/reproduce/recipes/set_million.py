"""SET on a million neurons: time and memory in proportion to the connections, on a processor.

S. Liu, D. C. Mocanu, A. R. Ramapuram Matavalam, Y. Pei, M. Pechenizkiy, "Sparse evolutionary deep
learning with over one million artificial neurons on commodity hardware", 2021.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.datasets import make_classification
from sklearn.feature_selection import SelectKBest, f_classif
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC
from torch import nn
from torch.nn import functional

from regrow import Evolution, SparseLinear, sparse_layers
from regrow.data import Dataset, from_arrays
from regrow.measure import memory, pictures
from regrow.optim import decayed
from regrow.reproduce.networks import mlp
from regrow.reproduce.recipe import (
    TRIAL,
    Claim,
    Context,
    Figures,
    Outcome,
    Outcomes,
    Part,
    Recipe,
    Scale,
    Table,
    part,
    short_name,
)
from regrow.topology import allocate, random_topology
from regrow.training.fit import fit
from regrow.training.machine import PeakMemory
from regrow.training.passes import connections

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FEATURES, CLASSES, ROWS = 3312, 5, 135  # of the lung data, and of their training part
ZETA, DECAY, MOMENTUM = 0.3, 0.0002, 0.9
ARMS = ("set", "set-init", "static", "dense")
PAPER, BOUND = "S. Liu et al., 2021", "our bound"
TWO_PHASE = "SelectKBest + SVM"


@dataclass(frozen=True)
class Settings:
    """Sizes of the scaling law; data and lengths of the trainings."""

    neurons: tuple[int, ...]
    data: tuple[str, ...]
    hidden: tuple[int, ...]
    epochs: int
    steps: int = 10
    epsilon_scaling: float = 20
    epsilon: float = 10
    batch: int = 2
    dropout: float = 0.3
    rates: tuple[float, ...] = (0.01, 0.003, 0.001)
    kept: int = 100
    generated: tuple[int, int, int, int] = (200, 3000, 60, 40)


def scaling(context: Context, neurons: int) -> Figures:
    """Build 3312-h-h-h-5, take some steps with two rows each, rewire once; seconds and bytes."""
    settings: Settings = context.settings
    _steps(_wide(50, 1), settings)  # what torch loads at its first step is nobody's memory
    peak = PeakMemory()
    peak.begin()
    begin = time.process_time()
    model = _wide(neurons, settings.epsilon_scaling)
    built = time.process_time() - begin
    step, update, held = _steps(model, settings)
    return {
        "neurons": FEATURES + 3 * neurons + CLASSES,
        "connections": connections(model),
        "build": built,
        "step": step,
        "update": update,
        "epoch": step * math.ceil(ROWS / settings.batch) + update,
        "held": held,
        "peak": peak.read(),
    }


def _wide(neurons: int, epsilon: float) -> nn.Sequential:
    """The network, layer by layer: no dense weight of this size could ever be there."""
    sizes = [FEATURES, neurons, neurons, neurons, CLASSES]
    shapes = {str(i): (sizes[i + 1], sizes[i]) for i in range(4)}
    modules: list[nn.Module] = []
    for path, count in allocate(shapes, epsilon=epsilon).items():
        outputs, inputs = shapes[path]
        full = count == outputs * inputs
        modules.append(
            nn.Linear(inputs, outputs)
            if full
            else SparseLinear(inputs, outputs, topology=random_topology(shapes[path], count))
        )
        modules.append(nn.ReLU())
    return nn.Sequential(*modules[:-1])


def _steps(model: nn.Sequential, settings: Settings) -> tuple[float, float, int]:
    """Median seconds of a step, seconds of an update, bytes held between steps."""
    for layer in sparse_layers(model).values():
        layer.compute = "csr"
    x, y = torch.randn(settings.batch, FEATURES), torch.randint(CLASSES, (settings.batch,))
    optimizer = decayed(torch.optim.SGD(model.parameters(), lr=0.01, momentum=MOMENTUM), DECAY)
    evolution = Evolution(model, optimizer, "set", every=settings.steps, fraction=ZETA)
    seconds = []
    for _ in range(settings.steps):
        begin = time.process_time()
        functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.process_time() - begin)
    held = memory(model, optimizer).total
    begin = time.process_time()
    assert evolution.step() is not None
    return statistics.median(seconds), time.process_time() - begin, held


def accuracy(context: Context, data: str, method: str, rate: float, seed: int) -> Figures:
    """Train on one split of a table of few rows and many columns."""
    settings: Settings = context.settings
    table = _table(context, data, seed)
    model = mlp(
        [table.n_features, *settings.hidden, table.n_classes or 1],
        seed=seed,
        epsilon=None if method == "dense" else settings.epsilon,
        dropout=settings.dropout,
    )
    optimizer = decayed(torch.optim.SGD(model.parameters(), lr=rate, momentum=MOMENTUM), DECAY)
    evolution, steps = None, math.ceil(len(table.x_train) / settings.batch)
    if method.startswith("set"):
        last = steps * settings.epochs - 1
        own: Any = {"start": "init"} if method == "set-init" else {}
        evolution = Evolution(
            model, optimizer, "set", seed=seed, every=steps, until=last, fraction=ZETA, **own
        )
    rows = fit(
        model,
        table,
        optimizer,
        epochs=settings.epochs,
        batch_size=settings.batch,
        seed=seed,
        evolution=evolution,
    )
    return {
        "test": rows[-1]["test"],
        "validation": rows[-1].get("validation"),
        "connections": rows[-1]["connections"],
        "curve": [row["test"] for row in rows],
    }


def two_phase(context: Context, data: str, seed: int) -> Figures:
    """Keep the columns that differ most between classes, and separate by a linear SVM."""
    table = _table(context, data, seed)
    columns = SelectKBest(f_classif, k=min(context.settings.kept, table.n_features))
    model = make_pipeline(columns, SVC(kernel="linear")).fit(table.x_train, table.y_train)
    return {"test": float(model.score(table.x_test, table.y_test))}


def _table(context: Context, data: str, seed: int) -> Dataset:
    """Two thirds to train on, standardised; a quarter of these to choose by, where that is due."""
    validation = 0.25 if seed == TRIAL else 0.0
    if data != "generated":
        return context.load(data, test=1 / 3, validation=validation, seed=seed)
    rows, features, informative, redundant = context.settings.generated
    x, y = make_classification(
        rows,
        features,
        n_informative=informative,
        n_redundant=redundant,
        n_classes=4,
        weights=[0.4, 0.3, 0.2, 0.1],
        class_sep=1.5,
        random_state=0,
    )
    return from_arrays(x, y, name=data, test=1 / 3, validation=validation, seed=seed)


def parts(settings: Settings, seeds: range, done: Outcomes) -> Iterator[Part]:
    """Sizes one after another; trials of the rates on all data together; then the splits."""
    yield from (part(scaling, alone=True, neurons=neurons) for neurons in settings.neurons)
    for data in settings.data:
        yield from (part(two_phase, data=data, seed=seed) for seed in seeds)
    for method in ARMS:
        trials = [
            part(accuracy, data=data, method=method, rate=rate, seed=TRIAL)
            for rate in settings.rates
            for data in settings.data
        ]
        yield from trials
        tried = done.of(accuracy, method=method, seed=TRIAL)
        if len(tried) == len(trials):
            rate = tried.best("validation", "rate")
            for data in settings.data:
                arm = {"data": data, "method": method, "rate": rate}
                yield from (part(accuracy, **arm, seed=seed) for seed in seeds)


def claims(settings: Settings, done: Outcomes) -> list[Claim]:
    """Of the scaling law, and of the accuracies, means over data and splits."""
    done = done.final
    sizes = sorted(done.of(scaling), key=lambda o: o.arguments["neurons"])
    wide = sizes[-1].figures
    large = sizes[1:] if len(sizes) > 2 else sizes
    slopes = {name: _slope(large, name) for name in ("step", "update", "held")}
    formula = _formula(settings.neurons[-1], settings.epsilon_scaling)
    seconds = wide["build"] + wide["step"] + wide["update"]
    peak = wide["peak"]
    means = {method: 100 * done.of(accuracy, method=method).mean("test") for method in ARMS}
    gain, gap = means["set"] - means["static"], means["set"] - means["dense"]
    return [
        Claim(
            f"{wide['neurons']:,} neurons have the connections of the formula, "
            "epsilon (n_in + n_out) a layer",
            f"{wide['connections']:,} of {formula:,}",
            wide["connections"] == formula,
            PAPER,
        ),
        Claim(
            f"From {large[0].figures['neurons']:,} neurons on, time and memory grow in proportion "
            "to the connections: slope 0.9 to 1.15, both logarithmic",
            ", ".join(
                f"{what} {slopes[name]:.2f}"
                for name, what in (("step", "a step"), ("update", "a rewiring"), ("held", "bytes"))
            ),
            all(0.9 <= slope <= 1.15 for slope in slopes.values()),
            BOUND,
        ),
        Claim(
            f"{wide['neurons']:,} neurons are built, take a step and rewire in less than 60 s and "
            "4 GiB",
            f"{seconds:.2g} s and {_gib(peak)}",
            None if peak is None else seconds < 60 and peak < 4 * 2**30,
            BOUND,
        ),
        Claim(
            "The peak of memory is below 96 bytes a connection: nothing dense was ever there",
            "not known on this system"
            if peak is None
            else f"{peak / wide['connections']:.0f} bytes a connection",
            None if peak is None else peak < 96 * wide["connections"],
            BOUND,
        ),
        Claim(
            "SET is not below the static topology, mean over data and splits",
            f"{gain:+.2f} points",
            gain >= 0,
            BOUND,
        ),
        Claim(
            "SET is at most 2 points below the dense twin, mean over data and splits",
            f"{gap:+.2f} points",
            gap >= -2,
            BOUND,
        ),
        Claim(
            "SET whose new weights have the scale of the first ones (set-init)",
            f"{means['set-init'] - means['static']:+.2f} points over static, "
            f"{means['set-init'] - means['dense']:+.2f} over dense",
            None,
        ),
        Claim(
            "SET against selecting features first",
            f"{means['set'] - 100 * done.of(two_phase).mean('test'):+.2f} points",
            None,
            PAPER,
        ),
    ]


def _slope(sizes: list[Outcome], figure: str) -> float:
    """Exponent of a figure in the number of connections."""
    x, y = ([math.log(o.figures[name]) for o in sizes] for name in ("connections", figure))
    return float(np.polyfit(x, y, 1)[0])


def _formula(neurons: int, epsilon: float) -> int:
    sizes = [FEATURES, neurons, neurons, neurons, CLASSES]
    return sum(min(round(epsilon * (a + b)), a * b) for a, b in pairwise(sizes))


def _gib(size: int | None) -> str:
    return "unknown memory" if size is None else f"{size / 2**30:.2g} GiB"


def tables(settings: Settings, done: Outcomes) -> list[Table]:
    """The sizes; then every data set in a row."""
    done = done.final
    rows: list[list[Any]] = []
    for outcome in done.of(scaling):
        found = outcome.figures
        peak = "unknown" if found["peak"] is None else f"{found['peak'] / found['connections']:.0f}"
        times = [f"{found[name]:.2g}" for name in ("build", "step", "update", "epoch")]
        held = f"{found['held'] / found['connections']:.0f}"
        rows.append([f"{found['neurons']:,}", f"{found['connections']:,}", *times, held, peak])
    heads = ["neurons", "connections", "building, s", "a step, s", "a rewiring, s", "an epoch, s"]
    heads += ["bytes held a connection", "at the peak"]
    note = (
        f"{FEATURES}-h-h-h-{CLASSES}, epsilon {settings.epsilon_scaling:g}, batch "
        f"{settings.batch}; seconds of one core. An epoch is that of {ROWS} rows."
    )
    law = Table("Networks ever wider", heads, rows, note)
    rows = []
    for data in settings.data:
        arms = [done.of(accuracy, data=data, method=method) for method in ARMS]
        scores = [arm.text("test", percent=True) for arm in [*arms, done.of(two_phase, data=data)]]
        rows.append([short_name(data), *scores])
    arms = [done.of(accuracy, method=method) for method in ARMS]
    means = [f"{100 * arm.mean('test'):.2f}" for arm in [*arms, done.of(two_phase)]]
    rows.append(["mean", *means])
    hidden = "-".join(map(str, settings.hidden))
    best = ", ".join(
        f"{m} {arm.found[0].arguments['rate']:g}" for m, arm in zip(ARMS, arms, strict=True)
    )
    note = (
        f"Hidden layers {hidden}, epsilon {settings.epsilon:g}, batch {settings.batch}, "
        f"{settings.epochs} epochs; learning rates {best}."
    )
    heads = ["data", *ARMS, TWO_PHASE]
    return [law, Table("Test accuracy in %, mean ± deviation over splits", heads, rows, note)]


def draw(settings: Settings, done: Outcomes) -> dict[str, Figure]:
    """Time against connections."""
    found = [outcome.figures for outcome in done.of(scaling)]
    lines = {
        what: [(figures["connections"], figures[name]) for figures in found]
        for what, name in (("rewiring", "update"), ("building", "build"), ("step", "step"))
    }
    shows = "Time of one core over connections"
    picture = pictures.scaling(
        lines,
        title=shows,
        subtitle="seconds; pale: in proportion",
        x_label="connections",
    )
    return {shows: picture}


_SMALL = Settings(
    neurons=(3_000, 30_000, 100_000, 300_000),
    data=(
        "generated",
        *(f"feature-selection/{name}.mat" for name in ("colon", "leukemia", "GLIOMA", "lymphoma")),
    ),
    hidden=(1000, 1000),
    epochs=40,
)
_QUICK = Settings(
    neurons=(300, 1_000, 3_000),
    data=("generated",),
    hidden=(100, 100),
    epochs=10,
    epsilon=5,
    rates=(0.01, 0.003),
    generated=(120, 300, 20, 10),
)
_PAPER = Settings(
    neurons=(3_000, 30_000, 300_000, 600_000),
    data=_SMALL.data,
    hidden=(3000, 3000),
    epochs=100,
)

RECIPE = Recipe(
    scales={
        "quick": Scale(_QUICK, seeds=1),
        "small": Scale(_SMALL, seeds=5, data=_SMALL.data[1:], memory=3),
        "paper": Scale(
            _PAPER,
            seeds=5,
            missing="needs the lung, CLL-SUB-111, SMK-CAN-187 and GLI-85 expression data",
        ),
    },
    parts=parts,
    claims=claims,
    tables=tables,
    pictures=draw,
)
