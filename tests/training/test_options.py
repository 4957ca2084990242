"""Options: every refusal is one exact sentence."""

import pytest

from regrow.training import OptionError, TrainOptions
from regrow.training.options import option_fields


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"epochs": 0}, "epochs must be a whole number >= 1, got 0"),
        ({"epochs": 1.5}, "epochs must be a whole number >= 1, got 1.5"),
        ({"epochs": True}, "epochs must be a whole number >= 1, got True"),
        ({"seed": -1}, "seed must be a whole number >= 0, got -1"),
        ({"threads": 0}, "threads must be a whole number >= 1, got 0"),
        ({"density": 1.5}, "density must be a number in (0, 1], got 1.5"),
        ({"density": 0}, "density must be a number in (0, 1], got 0"),
        ({"density": float("nan")}, "density must be a number in (0, 1], got nan"),
        ({"epsilon": -3}, "epsilon must be a number > 0, got -3"),
        (
            {"density": 0.1, "epsilon": 20},
            "density must be left out when epsilon is given, got 0.1",
        ),
        (
            {"epsilon": 20, "allocation": "uniform"},
            "allocation must be left out when epsilon is given, got uniform",
        ),
        ({"dropout": 1}, "dropout must be a number in [0, 1), got 1"),
        ({"momentum": 1}, "momentum must be a number in [0, 1), got 1"),
        ({"hidden": [8, 0]}, "hidden must be whole numbers >= 1, got 8 0"),
        ({"hidden": 8}, "hidden must be whole numbers >= 1, got 8"),
        ({"every": "day"}, "every must be a whole number >= 1 or epoch, got day"),
        ({"fraction": 0}, "fraction must be a number in (0, 1], got 0"),
        ({"learning_rate": "fast"}, "learning_rate must be a number > 0 or auto, got fast"),
        ({"learning_rate": 0}, "learning_rate must be a number > 0 or auto, got 0"),
        ({"weight_decay": -1}, "weight_decay must be a number >= 0, got -1"),
        (
            {"model": "cnn"},
            "model must be one of mlp, convnet, resnet-20, transformer, lstm, got cnn",
        ),
        ({"until": 0}, "until must be a number in (0, 1], got 0"),
        ({"warm_up": 1}, "warm_up must be a number in [0, 1), got 1"),
        ({"clip": 0}, "clip must be a number > 0, got 0"),
        ({"augment": "yes"}, "augment must be true or false, got yes"),
        (
            {"rate_schedule": "linear"},
            "rate_schedule must be one of constant, cosine, step, got linear",
        ),
        ({"compute": "gpu"}, "compute must be one of auto, csr, dense, got gpu"),
        ({"data": ""}, "data must be the name of a data set or the path of a file, got "),
        ({"compare": ["set"]}, "compare must be names of other methods, each once, got set"),
        (
            {"compare": ["dense", "dense"]},
            "compare must be names of other methods, each once, got dense dense",
        ),
    ],
)
def test_refused(values: dict[str, object], sentence: str) -> None:
    with pytest.raises(OptionError) as caught:
        TrainOptions(**values)  # type: ignore[arg-type]
    assert str(caught.value) == sentence


def test_round_trip_through_plain_values() -> None:
    options = TrainOptions(hidden=(3, 4), compare=("dense",), every="epoch", seeds=2, seed=5)
    plain = options.to_dict()
    assert plain["hidden"] == [3, 4]
    assert TrainOptions.from_dict({**plain, "torch": "2"}) == options


def test_arms_and_seeds() -> None:
    options = TrainOptions(method="rigl", compare=["dense", "static"], seed=3, seeds=2)
    assert options.arms == ("rigl", "dense", "static")
    assert list(options.all_seeds) == [3, 4]


def test_no_hidden_layer_is_allowed() -> None:
    assert TrainOptions(hidden=[]).hidden == ()


def test_every_option_explains_itself() -> None:
    for entry in option_fields().values():
        assert entry.metadata["help"]
        assert entry.metadata["must"].startswith("be ")
        assert entry.metadata["check"](entry.default)
