"""NNSTD: networks that start almost alike, and how far apart SET drives them while they learn.

S. Liu, T. van der Lee, A. Yaman, Z. Atashgahi, D. Ferraro, G. Sokar, M. Pechenizkiy, D. C. Mocanu,
"Topological insights into sparse neural networks", 2020.
"""

from __future__ import annotations

import copy
import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import nn

from regrow import Evolution, Topology, align, sparse_layers
from regrow.data import Dataset
from regrow.measure import distance_matrix, pictures, topology_distance
from regrow.reproduce.networks import mlp
from regrow.reproduce.recipe import (
    TRIAL,
    Claim,
    Context,
    Figures,
    Outcomes,
    Part,
    Recipe,
    Scale,
    Table,
    part,
    spread,
    tuned,
)
from regrow.topology import redrawn, renumbered
from regrow.training.fit import Row, fit

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FRACTION = 0.3
PAPER = "S. Liu et al., 2020"
BOUND = "our bound"

Chain = list[Topology]


@dataclass(frozen=True)
class Settings:
    """Sizes and lengths; ``snapshots`` are epochs, of which the last ends the training."""

    data: str
    limit_train: int | None
    hidden: tuple[int, ...]
    density: float
    snapshots: tuple[int, ...]
    batch: int = 128
    networks: int = 5
    moved: float = 0.01
    rates: tuple[float, ...] = (0.1, 0.03, 0.01)

    @property
    def epochs(self) -> int:
        """Of a whole training."""
        return self.snapshots[-1]


def single(context: Context, method: str, rate: float, seed: int) -> Figures:
    """Train one network: dense, sparse and static, or with SET."""
    settings: Settings = context.settings
    data = context.load(settings.data, limit_train=settings.limit_train)
    model = _network(settings, data, seed, dense=method == "dense")
    rows = _trained(settings, data, model, rate, seed, evolves=method == "set")
    return {name: rows[-1][name] for name in ("test", "validation", "connections")}


def family(context: Context, rate: float, seed: int) -> Figures:
    """Train networks of which each has a share of its connections elsewhere than the one before.

    Topologies are looked at before training, and at the end of epochs before the update that is
    due there: as they were trained.
    """
    settings: Settings = context.settings
    data = context.load(settings.data, limit_train=settings.limit_train)
    generator = torch.Generator().manual_seed(seed)
    models = [_network(settings, data, seed)]
    while len(models) < settings.networks:
        models.append(_neighbour(models[-1], settings.moved, generator))
    seen: dict[int, list[Chain]] = {0: [_chain(model) for model in models]}
    seen |= {epoch: [] for epoch in settings.snapshots}
    scores = []
    for number, model in enumerate(models):

        def look(epoch: int, model: nn.Module = model) -> None:
            if epoch in seen:
                seen[epoch].append(_chain(model))

        own = 1000 * (seed + 1) + number
        rows = _trained(settings, data, model, rate, own, evolves=True, at_epoch=look)
        scores.append(rows[-1]["test"])
    first, last = seen[0], seen[settings.epochs]
    stranger = _chain(_network(settings, data, seed + 1000))
    return {
        "distances": {str(e): distance_matrix(nets).tolist() for e, nets in seen.items()},
        "tests": scores,
        "test": statistics.fmean(scores),
        "from_own_start": statistics.fmean(
            topology_distance(a, b).mean for a, b in zip(first, last, strict=True)
        ),
        "of_strangers": topology_distance(first[0], stranger).mean,
        "of_copies": {
            str(e): [topology_distance(net, renumbered(net, generator)).mean for net in nets]
            for e, nets in seen.items()
        },
    }


def _network(settings: Settings, data: Dataset, seed: int, *, dense: bool = False) -> nn.Sequential:
    """A perceptron; where it is sparse, its last layer is dense all the same."""
    sizes = [data.n_features, *settings.hidden, data.n_classes or 1]
    if dense:
        return mlp(sizes, seed=seed)
    last = str(2 * len(settings.hidden))
    return mlp(sizes, seed=seed, density=settings.density, allocation="uniform", exclude=last)


def _neighbour(model: nn.Sequential, share: float, generator: torch.Generator) -> nn.Sequential:
    """The same network with a share of its connections elsewhere, and new values there."""
    near, drawn = copy.deepcopy(model), copy.deepcopy(model)
    for layer in sparse_layers(drawn).values():
        topology = redrawn(layer.topology, share, generator)
        layer.set_topology(topology, layer.start_values(topology.nnz, generator))
    align(near, drawn)
    return near


def _chain(model: nn.Module) -> Chain:
    return [layer.topology for layer in sparse_layers(model).values()]


def _trained(
    settings: Settings,
    data: Dataset,
    model: nn.Sequential,
    rate: float,
    seed: int,
    *,
    evolves: bool = False,
    **options: Any,
) -> list[Row]:
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
    steps = math.ceil(len(data.x_train) / settings.batch)
    evolution = (
        Evolution(model, optimizer, "set", seed=seed, steps_per_epoch=steps, fraction=FRACTION)
        if evolves
        else None
    )
    return fit(
        model,
        data,
        optimizer,
        epochs=settings.epochs,
        batch_size=settings.batch,
        seed=seed,
        evolution=evolution,
        **options,
    )


def parts(settings: Settings, seeds: range, done: Outcomes) -> Iterator[Part]:
    """Dense and static networks, and the families, with the rate that is best for SET."""
    for method in ("dense", "static"):
        yield from tuned(single, settings.rates, seeds, done, method=method)
    yield from tuned(single, settings.rates, range(0), done, method="set")
    tried = done.of(single, method="set", seed=TRIAL)
    if len(tried) == len(settings.rates):
        rate = tried.best("validation", "rate")
        yield from (part(family, rate=rate, seed=seed) for seed in seeds)


def _pairs(settings: Settings, some: Outcomes, epoch: int) -> dict[int, list[float]]:
    """Distances at the end of an epoch by how far apart two networks stood at the start."""
    found: dict[int, list[float]] = {}
    for distances in some.values("distances"):
        for i, j in combinations(range(settings.networks), 2):
            found.setdefault(j - i, []).append(distances[str(epoch)][i][j])
    return dict(sorted(found.items()))


def _order(settings: Settings, some: Outcomes, epoch: int) -> float:
    """Rank correlation of a distance with how far apart the two stood at the start."""
    pairs = _pairs(settings, some, epoch)
    x, y = zip(*((apart, one) for apart, own in pairs.items() for one in own), strict=True)
    return float(spearmanr(x, y)[0])


def _mean(pairs: dict[int, list[float]]) -> float:
    return statistics.fmean(one for own in pairs.values() for one in own)


def claims(settings: Settings, done: Outcomes) -> list[Claim]:
    """The four of the specification."""
    some = done.of(family)
    epochs = (0, *settings.snapshots)
    start, *_, end = by_epoch = [_pairs(settings, some, epoch) for epoch in epochs]
    means = [statistics.fmean(own) for own in start.values()]
    closer = sum(
        after <= before
        for apart in start
        for before, after in zip(start[apart], end[apart], strict=True)
    )
    course = [_mean(pairs) for pairs in by_epoch]
    order = [_order(settings, some, epoch) for epoch in (0, settings.epochs)]
    gaps = [100 * (max(tests) - min(tests)) for tests in some.values("tests")]
    copies = [[max(own[str(e)]) for own in some.values("of_copies")] for e in (0, settings.epochs)]
    return [
        Claim(
            "Before training, distance grows with |i - j| and is at most 0.1 between neighbours",
            f"{', '.join(f'{mean:.3f}' for mean in means)} for |i - j| from 1 on; neighbours at "
            f"most {max(start[1]):.3f}",
            means == sorted(means) and max(start[1]) <= 0.1,
            BOUND,
        ),
        Claim(
            "All pairs move apart in training, and |i - j| tells less and less",
            f"mean distance {' '.join(f'{mean:.3f}' for mean in course)} at epochs "
            f"{' '.join(map(str, epochs))}; {closer} pairs closer at the end; rank correlation of "
            f"distance and |i - j| {order[0]:.2f} at first, {order[1]:.2f} at last",
            course == sorted(course) and closer == 0 and order[1] < order[0],
            PAPER,
        ),
        Claim(
            "Networks whose mean distance is over 0.3 have accuracies within 1 point of each other",
            f"mean distance {course[-1]:.3f}; highest less lowest accuracy "
            f"{', '.join(f'{gap:.2f}' for gap in gaps)} points",
            max(gaps) <= 1 and course[-1] > 0.3,
            PAPER,
        ),
        Claim(
            "A network is at distance 0 from a copy of itself with its neurons in another order",
            f"at most {max(copies[0]):.4f} before and {max(copies[1]):.4f} after training",
            max(map(max, copies)) < 1e-9,
            "the definition",
        ),
    ]


def tables(settings: Settings, done: Outcomes) -> list[Table]:
    """Distances over the training, and accuracies."""
    some = done.of(family)
    rows = []
    for epoch in (0, *settings.snapshots):
        pairs = _pairs(settings, some, epoch)
        copies = [statistics.fmean(own[str(epoch)]) for own in some.values("of_copies")]
        cells = [spread(own) for own in pairs.values()]
        rows.append([epoch, *cells, f"{_order(settings, some, epoch):.2f}", spread(copies)])
    heads = ["epoch", *(f"|i - j| = {apart}" for apart in range(1, settings.networks))]
    heads += ["rank correlation", "permuted copy"]
    sizes = "-".join(map(str, settings.hidden))
    note = (
        f"Mean over the hidden layers {sizes} at density {settings.density:g}. Two networks drawn "
        f"independently are {some.mean('of_strangers'):.3f} apart; after training a network is "
        f"{some.mean('from_own_start'):.3f} away from its own start. The topology of an epoch is "
        f"that before the update at its end."
    )
    tests = [one for own in some.values("tests") for one in own]
    networks: list[Sequence[Any]] = []
    for name, own in (("dense", "dense"), ("static", "static")):
        arm = done.final.of(single, method=own)
        (rate,) = arm.by("rate")
        networks.append([name, f"{rate:g}", arm.text("test", percent=True)])
    (rate,) = some.by("rate")
    networks.append(["SET, all of the families", f"{rate:g}", spread(tests, percent=True)])
    return [
        Table("Distance of two networks (NNSTD)", heads, rows, note),
        Table(f"Accuracy on {settings.data}, %", ["network", "rate", "test"], networks),
    ]


def draw(settings: Settings, done: Outcomes) -> dict[str, Figure]:
    """Distances of all pairs at the start and at the end, and on the way."""
    some = done.of(family)
    names = [f"w{number}" for number in range(settings.networks)]
    drawn = {}
    for epoch, when in ((0, "before training"), (settings.epochs, "after training with SET")):
        mean = np.mean([own[str(epoch)] for own in some.values("distances")], axis=0)
        shows = f"Distances {when}"
        drawn[shows] = pictures.heat_map(
            mean, names, title=shows, subtitle="NNSTD of two networks", top=1
        )
    epochs = (0, *settings.snapshots)
    lines = {
        f"|i - j| = {apart}": [
            (epochs, [statistics.fmean(_pairs(settings, Outcomes([o]), e)[apart]) for e in epochs])
            for o in some
        ]
        for apart in (1, settings.networks - 1)
    }
    lines["permuted copy"] = [
        (epochs, [statistics.fmean(o.figures["of_copies"][str(e)]) for e in epochs]) for o in some
    ]
    drawn["Networks drift apart"] = pictures.curves(
        lines, title="Networks drift apart", subtitle="distance (NNSTD)"
    )
    return drawn


_SMALL = Settings(
    data="fashion-mnist",
    limit_train=12_000,
    hidden=(300, 300, 300),
    density=0.02,
    snapshots=(2, 6, 16, 30),
)
_QUICK = Settings(
    data="digits",
    limit_train=None,
    hidden=(100, 100, 100),
    density=0.05,
    snapshots=(2, 5, 10),
    batch=40,
    rates=(0.1, 0.03),
)
_PAPER = Settings(
    data="fashion-mnist",
    limit_train=None,
    hidden=(784, 784, 784),
    density=0.0061,
    snapshots=(10, 30, 50, 100, 200),
    networks=10,
)

RECIPE = Recipe(
    scales={
        "quick": Scale(_QUICK, seeds=1),
        "small": Scale(_SMALL, seeds=3, data=("fashion-mnist",)),
        "paper": Scale(_PAPER, seeds=1, data=("fashion-mnist",)),
    },
    parts=parts,
    claims=claims,
    tables=tables,
    pictures=draw,
)
