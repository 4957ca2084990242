"""The options of a run, checked once at the border."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import Field, asdict, dataclass, field, fields
from typing import Any

from regrow.training.errors import OptionError

MODELS = ("mlp", "convnet", "resnet-20", "transformer", "lstm")
OPTIMIZERS = ("sgd", "adam", "adamw", "rmsprop", "adagrad", "local-age-adam", "snt-asgd")
RATE_SCHEDULES = ("constant", "cosine", "step")

Check = Callable[[Any], bool]


def _option(default: Any, help: str, must: str, check: Check, **cli: Any) -> Any:
    metadata = {"help": help, "must": must, "check": check, **cli}
    return field(default=default, metadata=metadata)


def _is_int(value: Any, low: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= low


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _optional(check: Check) -> Check:
    return lambda value: value is None or check(value)


def _text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _texts(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(map(_text, value))


def _choice(default: str, choices: tuple[str, ...], help: str, **cli: Any) -> Any:
    return _option(
        default,
        f"{help}: {', '.join(choices)}",
        f"be one of {', '.join(choices)}",
        lambda value: value in choices,
        **cli,
    )


def _positive_int(default: int | None, help: str, *, low: int = 1, **cli: Any) -> Any:
    check: Check = lambda value: _is_int(value, low)  # noqa: E731
    if default is None:
        check = _optional(check)
    return _option(default, help, f"be a whole number >= {low}", check, **cli)


@dataclass(frozen=True)
class TrainOptions:
    """Everything that decides a run: data, network, method, training, place.

    Every field has its help text, its rule and its default in one place; the command line and the
    run directory are made from them. Lists may be given as lists or tuples.

    Raises:
        OptionError: A value is of the wrong kind or out of range, or two exclude each other.

    Example:
        >>> options = TrainOptions(epochs=3, density=0.05, compare=["dense"])
        >>> options.arms
        ('set', 'dense')
        >>> TrainOptions(epochs=0)
        Traceback (most recent call last):
        ...
        regrow.training.errors.OptionError: epochs must be a whole number >= 1, got 0
    """

    data: str = _option(
        "digits",
        "what to learn: digits (comes with regrow); mnist, fashion-mnist, cifar10 (images); "
        "tiny-shakespeare, wikitext-2, gutenberg (characters); "
        "or the path of a .csv, .parquet, .npz, .mat or .txt file",
        "be the name of a data set or the path of a file",
        _text,
        group="data",
    )
    target: str | None = _option(
        None,
        "column to predict, for a file: its name, or its position from 0 (-1 is the last)",
        "be the name or position of a column",
        _optional(_text),
        group="data",
        metavar="COLUMN",
    )
    task: str = _choice(
        "auto", ("auto", "classification", "regression"), "what to predict", group="data"
    )
    data_dir: str | None = _option(
        None,
        "folder that holds data sets which do not come with regrow; default: $REGROW_DATA",
        "be the path of a folder",
        _optional(_text),
        group="data",
        metavar="DIR",
    )
    limit_train: int | None = _positive_int(
        None, "train on this many samples only", group="data", metavar="N"
    )
    limit_test: int | None = _positive_int(
        None, "test on this many samples only", group="data", metavar="N"
    )
    context: int = _positive_int(
        128, "characters of a sample, where text is learned", group="data", metavar="N"
    )
    augment: bool = _option(
        False,
        "crop and flip the images of each training step at random",
        "be true or false",
        lambda value: isinstance(value, bool),
        group="data",
    )
    model: str = _choice("mlp", MODELS, "kind of network", group="network")
    hidden: tuple[int, ...] = _option(
        (256, 256),
        "neurons of each hidden layer of an mlp",
        "be whole numbers >= 1",
        lambda value: isinstance(value, (list, tuple)) and all(_is_int(n, 1) for n in value),
        group="network",
        metavar="N",
    )
    width: int | None = _positive_int(
        None,
        "channels of the first stage, or features of a state; default: that of the model",
        group="network",
        metavar="N",
    )
    depth: int | None = _positive_int(
        None,
        "stages of a convnet, layers of a transformer or lstm; default: that of the model",
        group="network",
        metavar="N",
    )
    dropout: float = _option(
        0.0,
        "probability that a hidden activation is left out of a training step",
        "be a number in [0, 1)",
        lambda value: _is_number(value) and 0 <= value < 1,
        group="network",
        metavar="P",
    )
    method: str = _option(
        "set",
        "how connections change: set, rigl, static (sparse, fixed), dense; see `regrow methods`",
        "be the name of a method",
        _text,
        group="method",
    )
    density: float | None = _option(
        None,
        "kept fraction of all connections of the layers that are sparse; default: 0.1",
        "be a number in (0, 1]",
        _optional(lambda value: _is_number(value) and 0 < value <= 1),
        group="method",
    )
    epsilon: float | None = _option(
        None,
        "instead of a density: a layer gets EPSILON * (inputs + outputs) connections",
        "be a number > 0",
        _optional(lambda value: _is_number(value) and value > 0),
        group="method",
    )
    allocation: str = _option(
        "erk",
        "how the density is shared among layers: erk, er, uniform, ...",
        "be the name of an allocation",
        _text,
        group="method",
    )
    fraction: float | None = _option(
        None,
        "fraction of its connections that a layer drops and grows in an update; "
        "default: that of the method",
        "be a number in (0, 1]",
        _optional(lambda value: _is_number(value) and 0 < value <= 1),
        group="method",
    )
    every: int | str | None = _option(
        None,
        "optimizer steps from one update to the next, or `epoch`; default: that of the method",
        "be a whole number >= 1 or epoch",
        _optional(lambda value: value == "epoch" or _is_int(value, 1)),
        group="method",
        metavar="STEPS",
    )
    until: float | None = _option(
        None,
        "share of the training after which the topology stays; default: that of the method",
        "be a number in (0, 1]",
        _optional(lambda value: _is_number(value) and 0 < value <= 1),
        group="method",
        metavar="SHARE",
    )
    scope: str | None = _option(
        None,
        "what keeps its number of connections: layer, global, gate, ...; "
        "default: that of the method",
        "be the name of a scope",
        _optional(_text),
        group="method",
    )
    start: str | None = _option(
        None,
        "values of new connections: zero, init, ...; default: that of the method",
        "be the name of a value start",
        _optional(_text),
        group="method",
    )
    compare: tuple[str, ...] = _option(
        (),
        "twins to train beside it under the same budget, e.g. dense static",
        "be names of other methods, each once",
        _texts,
        group="method",
        metavar="METHOD",
    )
    optimizer: str = _choice("sgd", OPTIMIZERS, "optimizer", group="training")
    learning_rate: float | str = _option(
        "auto",
        "learning rate, or auto: each arm gets the best of one grid on the validation part",
        "be a number > 0 or auto",
        lambda value: value == "auto" or (_is_number(value) and value > 0),
        group="training",
        metavar="RATE",
    )
    rate_schedule: str = _choice(
        "constant",
        RATE_SCHEDULES,
        "how the learning rate falls (step: to a tenth at a half, again at three quarters)",
        group="training",
    )
    warm_up: float = _option(
        0.0,
        "share of the training in which the learning rate rises to its full value",
        "be a number in [0, 1)",
        lambda value: _is_number(value) and 0 <= value < 1,
        group="training",
        metavar="SHARE",
    )
    clip: float | None = _option(
        None,
        "largest norm of the gradient; longer ones are shortened",
        "be a number > 0",
        _optional(lambda value: _is_number(value) and value > 0),
        group="training",
        metavar="NORM",
    )
    momentum: float = _option(
        0.9,
        "momentum of sgd",
        "be a number in [0, 1)",
        lambda value: _is_number(value) and 0 <= value < 1,
        group="training",
    )
    weight_decay: float = _option(
        0.0002,
        "weight decay of the optimizer",
        "be a number >= 0",
        lambda value: _is_number(value) and value >= 0,
        group="training",
    )
    epochs: int = _positive_int(50, "passes over the training part", group="training", metavar="N")
    batch_size: int = _positive_int(64, "samples of a step", group="training", metavar="N")
    seed: int = _positive_int(
        0, "seed of the split, the start, the data order and the updates", low=0, group="training"
    )
    seeds: int = _positive_int(
        1, "repeat with this many seeds, counted up from --seed", group="training", metavar="N"
    )
    threads: int | None = _positive_int(
        None, "threads; default: those of torch", group="machine", metavar="N"
    )
    compute: str = _choice(
        "auto", ("auto", "csr", "dense"), "arithmetic of sparse layers", group="machine"
    )
    out: str | None = _option(
        None,
        "run directory; default: runs/<data>-<method>-<time>",
        "be the path of a folder",
        _optional(_text),
        group="machine",
        metavar="DIR",
    )
    checkpoint_every: int | None = _positive_int(
        None,
        "optimizer steps from one checkpoint to the next, besides that of each epoch",
        group="machine",
        metavar="STEPS",
    )

    def __post_init__(self) -> None:
        for entry in fields(self):
            value = getattr(self, entry.name)
            if not entry.metadata["check"](value):
                raise OptionError(entry.name, entry.metadata["must"], value)
            if isinstance(value, list):
                object.__setattr__(self, entry.name, tuple(value))
        if self.density is not None and self.epsilon is not None:
            raise OptionError("density", "be left out when epsilon is given", self.density)
        if self.epsilon is not None and self.allocation not in ("er", "erk"):
            raise OptionError("allocation", "be left out when epsilon is given", self.allocation)
        if len(set(self.arms)) < len(self.arms):
            raise OptionError("compare", "be names of other methods, each once", self.compare)

    @property
    def arms(self) -> tuple[str, ...]:
        """Names of the arms: the method first, then its twins."""
        return (self.method, *self.compare)

    @property
    def all_seeds(self) -> range:
        """The seeds that every arm is trained with."""
        return range(self.seed, self.seed + self.seeds)

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainOptions:
        """Options from a mapping that may hold other entries too, as ``config.json`` does."""
        return cls(**{name: values[name] for name in option_fields() if name in values})


def option_fields() -> dict[str, Field[Any]]:
    """The fields of `TrainOptions` by name, in their order."""
    return {entry.name: entry for entry in fields(TrainOptions)}
