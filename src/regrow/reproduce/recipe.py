"""What a recipe is made of: scales, parts, what they found, claims, tables."""

from __future__ import annotations

import hashlib
import json
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from regrow.data import Dataset, load

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Figures = dict[str, Any]
"""What a part found: names to plain values that JSON can hold."""

SCALES = ("quick", "small", "paper")

TRIAL = 10_000
"""Seed of trainings that only choose a learning rate."""


@dataclass(frozen=True)
class Scale:
    """One size of an experiment.

    Args:
        settings: A frozen dataclass of the recipe's own: data, sizes, lengths.
        seeds: How many seeds, where the user does not say.
        data: What must be in the data folder: sources as `regrow.data.load` takes them.
        memory: GiB that it needs.
        missing: What it needs beyond data and memory, and nobody here can give; a sentence.
    """

    settings: Any
    seeds: int = 3
    data: tuple[str, ...] = ()
    memory: float = 0.0
    missing: str = ""


@dataclass(frozen=True)
class Context:
    """What every part is called with.

    Attributes:
        settings: Of the scale.
        data_dir: Folder of the data, or None.
    """

    settings: Any
    data_dir: str | None = None

    def load(self, source: str, **options: Any) -> Dataset:
        """A data set, as `regrow.data.load` reads it; kept for the next part that asks."""
        return _load(source, self.data_dir, tuple(sorted(options.items())))


@lru_cache(maxsize=2)
def _load(source: str, data_dir: str | None, options: tuple[tuple[str, Any], ...]) -> Dataset:
    return load(source, data_dir=data_dir, **dict(options))


@dataclass(frozen=True)
class Part:
    """One piece of work that needs no other: most often, one training.

    Args:
        run: A function at the top of a module: ``run(context, **arguments)`` gives the figures.
        arguments: Plain values; they tell the parts of a recipe apart.
        alone: Whether nothing may run beside it, since it takes the time.
    """

    run: Callable[..., Figures]
    arguments: Mapping[str, Any]
    alone: bool = False

    @property
    def label(self) -> str:
        """The part in a few words."""
        return " ".join([self.run.__name__, *map(str, self.arguments.values())])

    def key(self, settings: Any) -> str:
        """Name of the file that keeps what it found; another with other settings."""
        what = [self.run.__module__, self.run.__name__, dict(self.arguments), asdict(settings)]
        digest = hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode())
        words = "".join(c if c.isalnum() or c in ".-" else "-" for c in self.label)
        return f"{words[:80]}-{digest.hexdigest()[:12]}"


def part(run: Callable[..., Figures], *, alone: bool = False, **arguments: Any) -> Part:
    """A part, its arguments given as they are to its function.

    Example:
        >>> def accuracy(context, method, seed): ...
        >>> part(accuracy, method="set", seed=0).label
        'accuracy set 0'
    """
    return Part(run, arguments, alone)


def tuned(
    run: Callable[..., Figures],
    rates: Sequence[float],
    seeds: range,
    done: Outcomes,
    *,
    judge: str = "validation",
    **arguments: Any,
) -> Iterator[Part]:
    """Parts that try every learning rate once, and then train every seed with the best.

    Args:
        run: Takes ``rate`` and ``seed`` beside the arguments.
        rates: To choose from.
        seeds: Of the trainings that count.
        done: What is done.
        judge: Figure by which rates are compared, the higher the better; never one of test data.
        arguments: The others of ``run``.

    Example:
        >>> def accuracy(context, method, rate, seed): ...
        >>> [p.label for p in tuned(accuracy, (0.1, 0.01), range(3), Outcomes(), method="set")]
        ['accuracy set 0.1 10000', 'accuracy set 0.01 10000']
    """
    yield from (part(run, **arguments, rate=rate, seed=TRIAL) for rate in rates)
    tried = done.of(run, **arguments, seed=TRIAL)
    if len(tried) == len(rates):
        best = tried.best(judge, "rate")
        yield from (part(run, **arguments, rate=best, seed=seed) for seed in seeds)


@dataclass(frozen=True)
class Outcome:
    """What one part found.

    Attributes:
        experiment: Name of the function that ran.
        arguments: What it ran with.
        figures: What it found.
        seconds: How long it took.
        commit: Of the code, where that is known.
    """

    experiment: str
    arguments: Mapping[str, Any]
    figures: Figures
    seconds: float = 0.0
    commit: str | None = None


@dataclass(frozen=True)
class Outcomes:
    """What the parts of a recipe found, to be asked for by experiment and arguments.

    Example:
        >>> done = Outcomes([Outcome("mlp", {"method": "set", "seed": s}, {"test": 0.9 + s / 100})
        ...                  for s in (0, 1)])
        >>> done.of("mlp", method="set").values("test")
        [0.9, 0.91]
        >>> round(done.of("mlp").mean("test"), 3), len(done.of("cnn"))
        (0.905, 0)
    """

    found: Sequence[Outcome] = field(default_factory=list)

    def __iter__(self) -> Iterator[Outcome]:
        return iter(self.found)

    def __len__(self) -> int:
        return len(self.found)

    def of(self, experiment: str | Callable[..., Any] | None = None, **arguments: Any) -> Outcomes:
        """Those of an experiment, by its function or its name, with these arguments."""
        name = getattr(experiment, "__name__", experiment)
        return Outcomes(
            [
                outcome
                for outcome in self.found
                if (name is None or outcome.experiment == name)
                and all(outcome.arguments.get(key) == value for key, value in arguments.items())
            ]
        )

    def by(self, *arguments: str) -> dict[Any, Outcomes]:
        """Apart by the value of an argument, or of several together, in the order they come in."""
        keys = dict.fromkeys(tuple(map(o.arguments.get, arguments)) for o in self.found)
        return {
            key if len(arguments) > 1 else key[0]: self.of(**dict(zip(arguments, key, strict=True)))
            for key in keys
        }

    @property
    def final(self) -> Outcomes:
        """Without the trials that only chose a learning rate."""
        return Outcomes([o for o in self.found if o.arguments.get("seed") != TRIAL])

    @property
    def chosen(self) -> Outcomes:
        """Those of one arm at the rate that its trials chose; others may have had another."""
        return self.final.of(rate=self.of(seed=TRIAL).best("validation", "rate"))

    def best(self, figure: str, argument: str) -> Any:
        """The value of an argument with which a figure has the highest mean."""
        means = {value: some.mean(figure) for value, some in self.by(argument).items()}
        return max(means, key=lambda value: (means[value] == means[value], means[value]))

    def values(self, figure: str) -> list[Any]:
        """One figure of each, in order."""
        return [outcome.figures[figure] for outcome in self.found]

    def curves(self, figure: str) -> list[tuple[range, list[float]]]:
        """A figure that is a list, one value an epoch, of each: with its epochs, to be drawn."""
        return [(range(1, len(curve) + 1), curve) for curve in self.values(figure)]

    def mean(self, figure: str) -> float:
        """Mean of a figure; not a number where there is none."""
        values = self.values(figure)
        return statistics.fmean(values) if values else float("nan")

    def ahead(self, other: Outcomes, figure: str = "test") -> float:
        """How far the mean of a share is above that of others, in points of percent."""
        return 100 * (self.mean(figure) - other.mean(figure))

    def text(self, figure: str, *, percent: bool = False, digits: int | None = None) -> str:
        """Mean and standard deviation of a figure, to be read."""
        return spread(self.values(figure), percent=percent, digits=digits)


def spread(values: Sequence[float], *, percent: bool = False, digits: int | None = None) -> str:
    """Mean and standard deviation, to be read.

    Args:
        values: One a seed.
        percent: Whether they are shares to be shown in percent.
        digits: Behind the point; default: 2 in percent, else 3.

    Example:
        >>> spread([0.81, 0.83], percent=True)
        '82.00 ± 1.41'
        >>> spread([])
        'not run'
    """
    if not values:
        return "not run"
    digits = (2 if percent else 3) if digits is None else digits
    scaled = [100 * value if percent else value for value in values]
    mean = f"{statistics.fmean(scaled):.{digits}f}"
    return f"{mean} ± {statistics.stdev(scaled):.{digits}f}" if len(scaled) > 1 else mean


def short_name(source: str) -> str:
    """Name of a source without folder and ending.

    Example:
        >>> short_name("feature-selection/COIL20.mat"), short_name("fashion-mnist")
        ('COIL20', 'fashion-mnist')
    """
    return source.rsplit("/")[-1].removesuffix(".mat")


@dataclass(frozen=True)
class Claim:
    """Something that must come out, and what came out.

    Args:
        statement: What must come out.
        found: What came out, in figures.
        held: Whether it did; None where it is only reported.
        source: Who says so: the paper, its code's logs, or a bound of our own.
    """

    statement: str
    found: str
    held: bool | None
    source: str = ""

    @property
    def verdict(self) -> str:
        """The answer in a word or two."""
        return {True: "held", False: "not held", None: "reported"}[self.held]


@dataclass(frozen=True)
class Table:
    """A table of results.

    Args:
        title: What it shows.
        columns: Heads.
        rows: Cells; numbers are shown as they are.
        note: What a reader must know.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    note: str = ""


@dataclass(frozen=True)
class Recipe:
    """How to reproduce a system: one short file that reads as the experiment does.

    Args:
        scales: Of `SCALES`. ``quick`` needs no data folder and takes half a minute; ``small`` is
            the reproduction that is reported; ``paper`` is the original configuration.
        parts: ``parts(settings, seeds, done)`` gives all parts that can be named by now. It is
            asked again with what is done until it names nothing new, so that later parts may
            depend on what earlier ones found, such as a learning rate.
        claims: ``claims(settings, done)``: what must come out, and whether it did.
        tables: ``tables(settings, done)``.
        pictures: ``pictures(settings, done)`` gives figures by what they show.
    """

    scales: Mapping[str, Scale]
    parts: Callable[[Any, range, Outcomes], Iterable[Part]]
    claims: Callable[[Any, Outcomes], Sequence[Claim]]
    tables: Callable[[Any, Outcomes], Sequence[Table]]
    pictures: Callable[[Any, Outcomes], Mapping[str, Figure]]
