"""CTRE: at extreme sparsity, connections grow between neurons whose activations are alike.

Z. Atashgahi, J. Pieterse, S. Liu, D. C. Mocanu, R. Veldhuis, M. Pechenizkiy, "A brain-inspired
algorithm for training highly sparse neural networks", 2022.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from regrow import Evolution, SparseLinear
from regrow.data import Dataset, from_arrays
from regrow.evolution.grow import cosine_until_plateau
from regrow.evolution.starts import FanInUniform
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
    part,
    tuned,
)
from regrow.selection.planted import planted
from regrow.training.fit import Row, fit

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BASELINES = ("static", "set", "rigl")
OURS = ("ctre-seq", "ctre")
NAMES = {"static": "static", "set": "SET", "rigl": "RigL", "ctre-seq": "CTRE_seq"} | {
    "ctre": "CTRE_sim",
    "dense": "dense",
}
MADELON = "Madelon-like"
SPEC = "a trial of this set-up in NumPy"
BOUND = "our bound"


@dataclass(frozen=True)
class Settings:
    """Sizes and lengths of the experiment."""

    data: str
    limit_train: int | None
    hidden: tuple[int, ...]
    sparse: float
    dense: float
    epochs: int
    batch: int
    rate: float
    rates: tuple[float, ...]
    rows: int
    zeta: float = 0.2
    patience: int = 40


def accuracy(
    context: Context, data: str, method: str, epsilon: float, rate: float, seed: int
) -> Figures:
    """Train one perceptron; the test accuracy is that of the epoch of best validation accuracy."""
    settings: Settings = context.settings
    table = _table(context, data)
    sizes = [table.n_features, *settings.hidden, table.n_classes or 1]
    sparsity: dict[str, Any] = {"epsilon": epsilon, "compute": "csr"} if method != "dense" else {}
    model = _glorot(mlp(sizes, seed=seed, **sparsity), seed)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=rate, momentum=0.9, nesterov=True, weight_decay=1e-4
    )
    steps = math.ceil(len(table.x_train) / settings.batch)
    evolution = None
    if method not in ("dense", "static"):
        evolution = Evolution(model, optimizer, seed=seed, **_rules(method, settings, steps))
    softmax = nn.Softmax(1)

    def look(_: int) -> Row:
        """Similarities are those of the whole training set, with the weights at the epoch's end."""
        if evolution is not None and method in OURS:
            validation = _share(model, table)
            evolution.look(lambda: softmax(model(table.x_train)))
            evolution.report(-validation)
        return {}

    rows = fit(
        model,
        table,
        optimizer,
        epochs=settings.epochs,
        batch_size=settings.batch,
        seed=seed,
        evolution=evolution,
        at_epoch=look,
    )
    best = max(rows, key=lambda row: row["validation"])
    return {
        "test": best["test"],
        "validation": best["validation"],
        "epoch": best["epoch"],
        "connections": best["connections"],
        "curve": [row["test"] for row in rows],
    }


def _rules(method: str, settings: Settings, steps: int) -> dict[str, Any]:
    """All drop the same share of the smallest weights after every epoch."""
    common = {"fraction": settings.zeta, "every": steps}
    if method == "rigl":
        return {"method": "rigl", "until": None, **common}
    if method == "set":  # as in CTRE's code: its drop and its start, but random growth
        drawn = {"drop": "magnitude", "start": FanInUniform(6.0)}
        return {"method": "set", **drawn, **common}
    if method == "ctre-seq":
        return {"method": method, "grow": cosine_until_plateau(settings.patience), **common}
    return {"method": method, **common}


def _share(model: nn.Module, table: Dataset) -> float:
    """Accuracy on the validation part."""
    model.eval()
    with torch.inference_mode():
        found = model(table.x_validation).argmax(1)
    return float((found == table.y_validation).float().mean())


def _table(context: Context, data: str) -> Dataset:
    """Pixels in [0, 1] by the training part; the generated table is standardised."""
    if data == MADELON:
        made = planted(context.settings.rows, 500)
        return from_arrays(made.table, made.labels, name=MADELON, seed=42)
    limit = context.settings.limit_train
    table = context.load(data, seed=42, limit_train=limit)
    low, high = table.x_train.amin(0), table.x_train.amax(0)
    width = torch.where(high > low, high - low, 1)
    scaled = {
        name: (getattr(table, name) - low) / width for name in ("x_train", "x_validation", "x_test")
    }
    return replace(table, **scaled)


def _glorot(model: nn.Sequential, seed: int) -> nn.Sequential:
    """Weights uniform in the bounds of a dense layer of the same size, biases 0."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in model:
            if isinstance(layer, (nn.Linear, SparseLinear)):
                weight = layer.values if isinstance(layer, SparseLinear) else layer.weight
                bound = math.sqrt(6 / (layer.in_features + layer.out_features))
                weight.uniform_(-bound, bound, generator=generator)
                assert layer.bias is not None
                layer.bias.zero_()
    return model


def parts(settings: Settings, seeds: range, done: Outcomes) -> Iterator[Part]:
    """Every method at both numbers of connections: at the published rate, and at its best one."""
    methods = (*BASELINES, *OURS)
    common: dict[str, Any] = {"data": settings.data}
    for epsilon in (settings.sparse, settings.dense):
        for method in methods:
            arm = {**common, "method": method, "epsilon": epsilon}
            yield from (part(accuracy, **arm, rate=settings.rate, seed=seed) for seed in seeds)
            yield from tuned(accuracy, settings.rates, seeds, done, **arm)
    dense = {**common, "method": "dense", "epsilon": 0.0}
    yield from tuned(accuracy, settings.rates, seeds, done, **dense)
    for method in (*methods, "dense"):
        epsilon = 0.0 if method == "dense" else settings.sparse
        arm = {"data": MADELON, "method": method, "epsilon": epsilon, "rate": settings.rate}
        yield from (part(accuracy, **arm, seed=seed) for seed in seeds)


def claims(settings: Settings, done: Outcomes) -> list[Claim]:
    """What must come out, at the published rate; and what is left of it when rates are tuned."""
    data = Outcomes([o for o in done if o.arguments["data"] == settings.data])
    few, many = settings.sparse, settings.dense

    def at_rate(method: str, epsilon: float) -> float:
        own = data.final.of(accuracy, method=method, epsilon=epsilon, rate=settings.rate)
        return own.mean("test")

    ours = {m: at_rate(m, few) for m in OURS}
    others = {m: at_rate(m, few) for m in BASELINES}
    lead = 100 * (min(ours.values()) - max(others.values()))
    tuned_ours = {m: data.of(accuracy, method=m, epsilon=few).chosen.mean("test") for m in OURS}
    tuned_others = {
        m: data.of(accuracy, method=m, epsilon=few).chosen.mean("test") for m in BASELINES
    }
    tuned_lead = 100 * (min(tuned_ours.values()) - max(tuned_others.values()))
    dense = data.of(accuracy, method="dense", epsilon=0.0).chosen.mean("test")
    gaps = {m: 100 * (dense - at_rate(m, many)) for m in (*BASELINES, *OURS)}
    tuned_gaps = {
        m: 100 * (dense - data.of(accuracy, method=m, epsilon=many).chosen.mean("test"))
        for m in (*BASELINES, *OURS)
    }
    return [
        Claim(
            f"At eps = {few:g} both forms of CTRE reach 85 %",
            _percent(ours),
            min(ours.values()) >= 0.85,
            SPEC,
        ),
        Claim(
            f"At eps = {few:g} both are at least 10 points above SET, RigL and static",
            f"{lead:+.1f} points from the better of the others to the worse of these "
            f"({_percent(others)})",
            lead >= 10,
            SPEC,
        ),
        Claim(
            "So they are when every method has the learning rate that is best for it",
            f"{tuned_lead:+.1f} points ({_percent({**tuned_others, **tuned_ours})})",
            tuned_lead >= 10,
            BOUND,
        ),
        Claim(
            f"At eps = {many:g} all methods are within 3 points of dense",
            f"points below: {_points(gaps)}; each at its best rate: {_points(tuned_gaps)}",
            max(gaps.values()) <= 3,
            SPEC,
        ),
    ]


def _percent(shares: dict[str, float]) -> str:
    return ", ".join(f"{NAMES[m]} {100 * share:.1f}" for m, share in shares.items())


def _points(gaps: dict[str, float]) -> str:
    return ", ".join(f"{NAMES[m]} {gap:.1f}" for m, gap in gaps.items())


def tables(settings: Settings, done: Outcomes) -> list[Table]:
    """Accuracy of every method, data set by data set."""
    data = Outcomes([o for o in done if o.arguments["data"] == settings.data])
    rows = []
    for epsilon in (settings.sparse, settings.dense):
        for method in (*BASELINES, *OURS):
            own = data.final.of(method=method, epsilon=epsilon, rate=settings.rate)
            best = data.of(accuracy, method=method, epsilon=epsilon).chosen
            (rate,) = best.by("rate")
            rows.append(
                [
                    NAMES[method],
                    f"{epsilon:g}",
                    int(own.mean("connections")),
                    own.text("test", percent=True),
                    best.text("test", percent=True),
                    f"{rate:g}",
                ]
            )
    best = data.of(accuracy, method="dense", epsilon=0.0).chosen
    (rate,) = best.by("rate")
    own_rate = data.final.of(method="dense", rate=settings.rate)
    texts = [own.text("test", percent=True) for own in (own_rate, best)]
    rows.append(["dense", "", int(best.mean("connections")), *texts, f"{rate:g}"])
    heads = ["method", "eps", "connections", f"rate {settings.rate:g}", "best rate", "which"]
    note = "Test accuracy, %, at the epoch of best validation accuracy."
    made = done.of(data=MADELON)
    generated = [
        [
            NAMES[method],
            int(made.of(method=method).mean("connections")),
            made.of(method=method).text("test", percent=True),
        ]
        for method in made.by("method")
    ]
    return [
        Table(settings.data, heads, rows, note),
        Table(
            f"{MADELON} data, eps = {settings.sparse:g}, rate {settings.rate:g}",
            ["method", "connections", "test accuracy, %"],
            generated,
        ),
    ]


def draw(settings: Settings, done: Outcomes) -> dict[str, Figure]:
    """Test accuracy over the epochs, at the smaller number of connections."""
    shows = "Where growth finds its way with few connections"
    colours = {"CTRE_sim": "green", "CTRE_seq": "teal", "SET": "blue", "RigL": "purple"}
    arms = {}
    for method in (*OURS, *BASELINES):
        own = done.final.of(
            data=settings.data, method=method, epsilon=settings.sparse, rate=settings.rate
        )
        arms[NAMES[method]] = own.curves("curve")
    return {
        shows: pictures.curves(
            arms,
            title=shows,
            subtitle=f"test accuracy, {settings.data}, eps = {settings.sparse:g}",
            colours=colours | {"static": "orange"},
            percent=True,
        )
    }


_SMALL = Settings(
    data="digits",
    limit_train=None,
    hidden=(200, 200, 200),
    sparse=1.0,
    dense=13.0,
    epochs=100,
    batch=32,
    rate=0.01,
    rates=(0.1, 0.03, 0.01),
    rows=2600,
)

RECIPE = Recipe(
    scales={
        "quick": Scale(
            replace(_SMALL, limit_train=500, epochs=12, rates=(0.03, 0.01), rows=300, patience=5),
            seeds=1,
        ),
        "small": Scale(_SMALL, seeds=3),
        "paper": Scale(
            replace(
                _SMALL,
                data="fashion-mnist",
                hidden=(1000, 1000, 1000),
                epochs=500,
                batch=100,
            ),
            seeds=3,
            data=("fashion-mnist",),
        ),
    },
    parts=parts,
    claims=claims,
    tables=tables,
    pictures=draw,
)
