"""All-ReLU, importance pruning, and WASAP-SGD, which trains one sparse network on many processes.

S. Curci, D. C. Mocanu, M. Pechenizkiy, "Truly sparse neural networks at scale", 2021.
"""

from __future__ import annotations

import socket
import statistics
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from multiprocessing.queues import SimpleQueue
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from regrow import AllReLU, Evolution, sparse_layers
from regrow.data import Dataset
from regrow.evolution import ImportancePruning
from regrow.evolution.starts import FanInUniform
from regrow.measure import pictures
from regrow.optim import decayed
from regrow.parallel import Plan, Shards, Trained, simulate, train
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
from regrow.training.fit import fit
from regrow.training.passes import connections, evaluate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HE = FanInUniform(6.0)
EVOLVES: dict[str, Any] = {"fraction": 0.3, "start": HE}
MODES = ("incoming_only", "remove_neuron")
PAPER, BOUND = "S. Curci et al., 2021", "our bound"


@dataclass(frozen=True)
class Settings:
    """Sizes and lengths of the experiments."""

    data: str
    limits: tuple[int | None, int | None]
    hidden: tuple[int, ...]
    epsilon: float
    epochs: int
    prune_from: int
    prune_every: int
    workers: tuple[int, ...]
    processes: int
    table: str
    table_hidden: tuple[int, ...]
    table_epochs: int
    table_rates: tuple[float, ...] = (0.03, 0.01, 0.001)
    percentile: float = 20.0
    slope: float = 0.6
    batch: int = 128
    rate: float = 0.01
    dropout: float = 0.3
    decay: float = 0.0002


def perceptron(
    context: Context, activation: str, method: str, pruning: str, decay: float, seed: int
) -> Figures:
    """Train on one process."""
    settings: Settings = context.settings
    data = _load(context)
    model = network(data, settings, activation, seed)
    before = connections(model)
    steps = len(data.x_train) // settings.batch + bool(len(data.x_train) % settings.batch)
    prunes = ImportancePruning(
        settings.percentile,
        every=settings.prune_every * steps,
        begin=settings.prune_from * steps,
        until=settings.epochs * steps - 1 if pruning else settings.prune_from * steps,
        mode=pruning or MODES[0],
    )
    optimizer = decayed(sgd(model.parameters(), settings.rate), decay)
    options = {**EVOLVES, "grow": prunes.grow} if method == "set" else {}
    until = settings.epochs * steps - 1
    evolution = Evolution(model, optimizer, method, seed=seed, every=steps, until=until, **options)
    rows = fit(
        model,
        data,
        optimizer,
        epochs=settings.epochs,
        batch_size=settings.batch,
        seed=seed,
        evolution=evolution,
        after_step=lambda _: prunes.step(evolution),
    )
    return {
        "test": rows[-1]["test"],
        "train_loss": rows[-1]["train_loss"],
        "losses": [row["train_loss"] for row in rows],
        "curve": [row["test"] for row in rows],
        "fallen": 1 - connections(model) / before,
        "neurons": _living(model, len(settings.hidden)),
        "connections": connections(model),
        "train_seconds": sum(row["seconds"] for row in rows),
    }


def _living(model: nn.Module, hidden: int) -> int:
    """Hidden neurons that have inputs."""
    layers = list(sparse_layers(model).values())[:hidden]
    return sum(int((layer.topology.degrees()[0] > 0).sum()) for layer in layers)


def _load(context: Context) -> Dataset:
    settings: Settings = context.settings
    train, test = settings.limits
    return context.load(settings.data, limit_train=train, limit_test=test, validation=0.0)


def network(data: Dataset, settings: Settings, activation: str, seed: int) -> nn.Module:
    """The perceptron: the dense output layer comes of its epsilon, values are those of the code."""
    layer = iter(range(1, len(settings.hidden) + 1))
    model = mlp(
        [data.n_features, *settings.hidden, data.n_classes or 1],
        seed=seed,
        epsilon=settings.epsilon,
        activation=(lambda: AllReLU(settings.slope, next(layer))) if activation else nn.ReLU,
        dropout=settings.dropout,
    )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model:
            if isinstance(module, nn.Linear):
                bound = (6 / module.in_features) ** 0.5
                module.weight.uniform_(-bound, bound, generator=generator)
                module.bias.zero_()
        for sparse in sparse_layers(model).values():
            sparse.values.copy_(HE(sparse, sparse.topology.nnz, generator))
            if sparse.bias is not None:
                sparse.bias.zero_()
    return model


def sgd(parameters: Iterable[nn.Parameter], rate: float) -> torch.optim.Optimizer:
    """The optimizer of everything here."""
    return torch.optim.SGD(parameters, lr=rate, momentum=0.9)


def simulated(context: Context, workers: int, synchronous: bool, seed: int) -> Figures:
    """Train on processes that are played by one, in a fixed order."""
    data, model, shards, plan = _parallel(context, workers, synchronous, seed)
    before = _by_layer(model)
    rate = context.settings.rate
    return _found(simulate(model, shards, lambda p: sgd(p, rate), plan), before, data)


def _parallel(
    context: Context, workers: int, synchronous: bool, seed: int
) -> tuple[Dataset, nn.Module, Shards, Plan]:
    settings: Settings = context.settings
    data = _load(context)
    plan = Plan(settings.epochs, synchronous=synchronous, seed=seed, options=EVOLVES)
    shards = Shards(data.x_train, data.y_train, workers, settings.batch, seed)
    return data, network(data, settings, "allrelu", seed), shards, plan


def _by_layer(model: nn.Module) -> list[int]:
    return [layer.topology.nnz for layer in sparse_layers(model).values()]


def _found(trained: Trained, before: list[int], data: Dataset) -> Figures:
    pairs = zip(_by_layer(trained.model), before, strict=True)
    return {
        "test": evaluate(trained.model, data.x_test, data.y_test, data.task).score,
        "off": max(abs(after - own) / own for after, own in pairs),
        **asdict(trained.tally),
        "late": trained.tally.mean_delay,
    }


def processes(context: Context, workers: int, seed: int) -> Figures:
    """Train on real processes: a server and workers, on this machine."""
    spawn = get_context("spawn")
    answers: SimpleQueue[Figures] = spawn.SimpleQueue()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    members = [
        spawn.Process(target=_process, args=(context, workers, seed, rank, port, answers))
        for rank in range(workers + 1)
    ]
    for member in members:
        member.start()
    for member in members:
        member.join()
    if members[0].exitcode:
        raise RuntimeError(f"server must end well, got exit code {members[0].exitcode}")
    return answers.get()


def _process(context: Context, workers: int, seed: int, rank: int, port: int, answers: Any) -> None:
    torch.set_num_threads(1)
    data, model, shards, plan = _parallel(context, workers, False, seed)
    before, times, rate = _by_layer(model), [], context.settings.rate

    def look(epochs: float) -> None:
        if epochs:
            times.append(time.perf_counter())

    trained = train(
        *(model, shards, lambda p: sgd(p, rate), plan),
        progress=look,
        rank=rank,
        address="127.0.0.1",
        port=port,
    )
    if trained is not None:
        answers.put({**_found(trained, before, data), "train_seconds": times[-1] - times[0]})


def tabular(context: Context, method: str, rate: float, seed: int) -> Figures:
    """Train on the table."""
    settings: Settings = context.settings
    data = context.load(settings.table, test=600 / 2600)
    model = mlp(
        [data.n_features, *settings.table_hidden, data.n_classes or 1],
        seed=seed,
        epsilon=None if method == "dense" else settings.epsilon,
    )
    optimizer = sgd(model.parameters(), rate)
    evolution = None
    if method != "dense":
        options: dict[str, Any] = EVOLVES if method == "set" else {}
        steps = -(-len(data.x_train) // settings.batch)
        until = settings.table_epochs * steps - 1
        evolution = Evolution(
            model, optimizer, method, seed=seed, every=steps, until=until, **options
        )
    rows = fit(
        model,
        data,
        optimizer,
        epochs=settings.table_epochs,
        batch_size=settings.batch,
        seed=seed,
        evolution=evolution,
    )
    return {name: rows[-1][name] for name in ("test", "validation", "connections")}


def parts(settings: Settings, seeds: range, done: Outcomes) -> Iterator[Part]:
    """Activations, pruning, workers that are played and real ones, and the table."""
    for seed in seeds:
        for arm in _arms(settings):
            yield part(perceptron, **arm, seed=seed)
        for workers in settings.workers:
            yield part(simulated, workers=workers, synchronous=False, seed=seed)
        yield part(simulated, workers=settings.workers[-1], synchronous=True, seed=seed)
        # Both are timed.
        yield part(perceptron, **_sequential(), seed=seed, alone=True)
        yield part(processes, workers=settings.processes, seed=seed, alone=True)
    for method in ("set", "static", "dense"):
        yield from tuned(tabular, settings.table_rates, seeds, done, method=method)


def _arms(settings: Settings) -> list[dict[str, Any]]:
    arms = [("", "set", ""), ("allrelu", "set", ""), ("allrelu", "static", "")]
    arms += [("allrelu", "set", mode) for mode in MODES]
    return [_arm(*arm, settings.decay) for arm in arms]


def _arm(activation: str, method: str, pruning: str, decay: float) -> dict[str, Any]:
    return {"activation": activation, "method": method, "pruning": pruning, "decay": decay}


def _sequential() -> dict[str, Any]:
    """What parallel training is compared with: as workers do, it has no weight decay."""
    return _arm("allrelu", "set", "", 0.0)


def claims(settings: Settings, done: Outcomes) -> list[Claim]:
    """What must come out."""
    done = done.final
    relu, allrelu = (done.of(perceptron, **arm) for arm in _arms(settings)[:2])
    losses = [_mean(arm.values("losses")) for arm in (relu, allrelu)]
    lower = sum(ours < theirs for theirs, ours in zip(*losses, strict=True))
    gain = allrelu.ahead(relu)
    found = [
        Claim(
            "The training loss of All-ReLU is lower than that of ReLU after every epoch",
            f"in {lower} of {settings.epochs} epochs; at the end {losses[1][-1]:.3f} and "
            f"{losses[0][-1]:.3f}",
            lower == settings.epochs,
            BOUND,
        ),
        Claim(
            "Test accuracy of All-ReLU is at least that of ReLU",
            f"{gain:+.2f} points",
            gain >= 0,
            PAPER,
        ),
        Claim(
            "Test accuracy of All-ReLU is at most 0.3 points below that of ReLU",
            f"{gain:+.2f} points",
            gain >= -0.3,
            BOUND,
        ),
    ]
    for mode in MODES:
        pruned = done.of(perceptron, activation="allrelu", pruning=mode)
        lost = allrelu.ahead(pruned)
        found.append(
            Claim(
                f"Importance pruning, {mode}, takes at least 20 % of the connections and at most "
                "1 point of accuracy",
                f"{100 * pruned.mean('fallen'):.1f} % fewer connections, accuracy {-lost:+.2f} "
                "points",
                pruned.mean("fallen") >= 0.2 and lost <= 1,
                BOUND,
            )
        )
    return [*found, *_parallel_claims(settings, done), _table_claim(settings, done)]


def _mean(seeds: list[list[float]]) -> list[float]:
    return [statistics.fmean(epoch) for epoch in zip(*seeds, strict=True)]


def _parallel_claims(settings: Settings, done: Outcomes) -> list[Claim]:
    sequential = done.of(perceptron, **_sequential())
    several = {
        f"{n} workers, simulated": done.of(simulated, workers=n, synchronous=False)
        for n in settings.workers
    } | {f"{settings.processes} processes": done.of(processes)}
    gaps = {name: sequential.ahead(arm) for name, arm in several.items()}
    off = max(max(arm.values("off")) for arm in several.values())
    times = [arm.mean("train_seconds") for arm in (sequential, several[list(several)[-1]])]
    lost = sum(done.of(processes).values("lost"))
    return [
        Claim(
            "After WASAP-SGD every layer has its initial number of connections, within 1 %",
            f"largest difference {100 * off:.2f} %",
            off <= 0.01,
            BOUND,
        ),
        Claim(
            "WASAP-SGD is at most 1 point below sequential SET with as many samples seen",
            ", ".join(f"{-gap:+.2f} points ({name})" for name, gap in gaps.items()),
            max(gaps.values()) <= 1,
            BOUND,
        ),
        Claim(
            "Time of training, without starting processes: WASAP-SGD against sequential SET",
            f"{times[1]:.1f} s on {settings.processes} workers, {times[0]:.1f} s on one process; "
            f"{lost} jobs lost",
            None,
            BOUND,
        ),
    ]


def _table_claim(settings: Settings, done: Outcomes) -> Claim:
    scores = {method: done.of(tabular, method=method) for method in ("set", "static", "dense")}
    text = ", ".join(f"{m} {arm.text('test', percent=True)} %" for m, arm in scores.items())
    return Claim("Madelon: SET, static and dense", text, None, BOUND)


def tables(settings: Settings, done: Outcomes) -> list[Table]:
    """One process; many; and the table of numbers."""
    done = done.final
    rows = []
    for arm in [*_arms(settings), _sequential()]:
        some = done.of(perceptron, **arm)
        rows.append(
            [
                arm["method"],
                "All-ReLU" if arm["activation"] else "ReLU",
                arm["pruning"] or "none",
                f"{arm['decay']:g}",
                some.text("test", percent=True),
                some.text("train_loss"),
                f"{some.mean('connections'):,.0f}",
                f"{some.mean('neurons'):,.0f}",
            ]
        )
    heads = ["method", "activation", "importance pruning", "weight decay", "test accuracy, %"]
    heads += ["training loss", "connections", "hidden neurons with inputs"]
    first = Table(f"{settings.data}, one process, {settings.epochs} epochs", heads, rows)
    rows = []
    for name, some in _parallels(settings, done).items():
        entries = sum(some.values("entries"))
        rows.append(
            [
                name,
                some.text("test", percent=True),
                f"{100 * max(some.values('off')):.2f}",
                f"{some.mean('updates'):,.0f}",
                f"{some.mean('late'):.2f}",
                f"{some.mean('stale'):.0f}",
                f"{100 * sum(some.values('discarded')) / max(1, entries):.3f}",
            ]
        )
    heads = ["training", "test accuracy, %", "connections off, %", "updates of phase 1"]
    heads += ["updates a gradient is late", "gradients of an old topology", "entries discarded, %"]
    second = Table("Parallel training, All-ReLU, no weight decay", heads, rows)
    rows = [
        [
            method,
            f"{own.found[0].arguments['rate']:g}",
            own.text("test", percent=True),
            f"{own.mean('connections'):,.0f}",
        ]
        for method, own in done.of(tabular).by("method").items()
    ]
    heads = ["network", "learning rate", "test accuracy, %", "connections"]
    return [first, second, Table(f"{settings.table}, {settings.table_epochs} epochs", heads, rows)]


def _parallels(settings: Settings, done: Outcomes) -> dict[str, Outcomes]:
    played = {
        f"{'WASSP' if synchronous else 'WASAP'}, {workers} workers, simulated": arm
        for synchronous, some in done.of(simulated).by("synchronous").items()
        for workers, arm in some.by("workers").items()
    }
    return {**played, f"WASAP, {settings.processes} processes": done.of(processes)}


def draw(settings: Settings, done: Outcomes) -> dict[str, Figure]:
    """Loss and accuracy, epoch by epoch."""
    epochs = list(range(1, settings.epochs + 1))
    names = ("ReLU", "All-ReLU", "static", *MODES)
    arms = dict(zip(names, (done.of(perceptron, **a) for a in _arms(settings)), strict=True))
    loss = {
        name: [(epochs, losses) for losses in arms[name].values("losses")] for name in names[:3]
    }
    since = max(0, settings.prune_from - 3)
    test = {
        name: [(epochs[since:], curve[since:]) for curve in arms[name].values("curve")]
        for name in ("All-ReLU", *MODES)
    }
    shows = f"Importance pruning from epoch {settings.prune_from} on"
    return {
        "Training loss": pictures.curves(loss, title="Training loss", subtitle=settings.data),
        shows: pictures.curves(
            test, title=shows, subtitle=f"test accuracy, {settings.data}", percent=True
        ),
    }


_SMALL = Settings(
    data="fashion-mnist",
    limits=(5120, 1000),
    hidden=(1000, 1000, 1000),
    epsilon=20,
    epochs=40,
    prune_from=24,
    prune_every=1,
    workers=(2, 4),
    processes=2,
    table="feature-selection/madelon.mat",
    table_hidden=(400, 100, 400),
    table_epochs=60,
)
_QUICK = Settings(
    data="digits",
    limits=(1024, 300),
    hidden=(100, 100),
    epsilon=5,
    epochs=10,
    prune_from=6,
    prune_every=1,
    workers=(2,),
    processes=2,
    table="digits",
    table_hidden=(60, 60),
    table_epochs=4,
    table_rates=(0.1, 0.01),
    rate=0.05,
)
_PAPER = Settings(
    data="fashion-mnist",
    limits=(59_520, None),
    hidden=(1000, 1000, 1000),
    epsilon=20,
    epochs=500,
    prune_from=200,
    prune_every=10,
    workers=(5,),
    processes=5,
    table="feature-selection/madelon.mat",
    table_hidden=(400, 100, 400),
    table_epochs=500,
)

RECIPE = Recipe(
    scales={
        "quick": Scale(_QUICK, seeds=1),
        "small": Scale(_SMALL, seeds=3, data=("fashion-mnist", _SMALL.table)),
        "paper": Scale(_PAPER, seeds=3, data=("fashion-mnist", _PAPER.table)),
    },
    parts=parts,
    claims=claims,
    tables=tables,
    pictures=draw,
)
