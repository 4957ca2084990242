import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from regrow.data import DataError, Dataset
from regrow.data.dataset import build
from regrow.data.splits import SplitOptions
from regrow.data.table import Column, Pixels, Raw, Table, text_column

N = 30


def toy(y: np.ndarray, official_train: int | None = None, **values: np.ndarray) -> Raw:
    x = values or {"x": np.arange(len(y)) ** 2.0}
    table = Table(tuple(Column(name, np.array(v, np.float64)) for name, v in x.items()))
    return Raw("toy", table, Column("y", np.array(y, np.float64)), official_train)


def parts(data: Dataset) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [
        (data.x_train, data.y_train),
        (data.x_validation, data.y_validation),
        (data.x_test, data.y_test),
    ]


def test_classification() -> None:
    data = build(toy(np.arange(N) % 3))
    assert (data.task, data.n_classes, data.class_names) == ("classification", 3, ("0", "1", "2"))
    assert [len(y) for _, y in parts(data)] == [22, 2, 6]
    for x, y in parts(data):
        assert (x.dtype, y.dtype, x.shape) == (torch.float32, torch.int64, (len(y), 1))
        assert x.is_contiguous()
    assert data.target_scale is None
    assert data.x_train.mean().item() == pytest.approx(0, abs=1e-6)
    assert data.x_train.std(correction=0).item() == pytest.approx(1)


def test_regression() -> None:
    y = np.linspace(-5, 40, N)
    data = build(toy(y, x=y * 2))
    assert (data.task, data.n_classes, data.class_names) == ("regression", None, ())
    assert data.y_train.dtype == torch.float32
    assert data.target_scale is not None
    mean, std = data.target_scale
    restored = torch.cat([y for _, y in parts(data)]) * std + mean
    np.testing.assert_allclose(np.sort(restored.numpy()), y, rtol=1e-4, atol=1e-4)
    # x is a multiple of y, so both are the same once standardised: rows have stayed together.
    torch.testing.assert_close(data.x_test[:, 0], data.y_test)


def test_rows_stay_with_their_targets() -> None:
    data = build(toy(np.arange(N) % 3, x=np.arange(N) % 3))
    for x, y in parts(data):
        assert [x[y == i].unique().numel() for i in range(3)] == [1, 1, 1] or len(y) < 3


def test_no_validation() -> None:
    data = build(toy(np.arange(N) % 2), options=SplitOptions(validation=0))
    assert data.x_validation.shape == (0, 1)
    assert data.y_validation.shape == (0,)


def test_images_keep_their_shape() -> None:
    pixels = Pixels(np.arange(N * 6, dtype=np.uint8).reshape(N, 6), (2, 3), 255.0)
    data = build(Raw("toy", pixels, Column("y", np.arange(N) % 2.0)))
    assert (data.image_shape, data.n_features) == ((2, 3), 6)
    mean, deviation = data.pixel_scale
    raw = data.x_train * deviation + mean
    assert torch.allclose(raw * 255, (raw * 255).round(), atol=1e-3)
    assert raw.mean().item() == pytest.approx(mean, abs=1e-6)


def test_a_table_has_no_pixel_scale() -> None:
    column = Column("x", np.arange(N, dtype=np.float64))
    data = build(Raw("toy", Table((column,)), Column("y", np.arange(N) % 2.0)))
    assert data.pixel_scale is None


@given(
    rows=st.lists(st.integers(20, N - 1), min_size=1, max_size=5),
    value=st.one_of(st.none(), st.floats(width=64), st.sampled_from(["a", "zzz", "7", "True"])),
    regression=st.booleans(),
)
def test_a_test_row_never_changes_training(
    rows: list[int], value: str | float | None, regression: bool
) -> None:
    rng = np.random.Generator(np.random.PCG64(0))
    y = Column("y", rng.random(N) if regression else np.arange(N) % 2.0)
    numbers, words = rng.random(N), [*"aabbc" * 6]

    def trained() -> list[bytes]:
        table = Table((Column("n", numbers.copy()), text_column("t", words)))
        data = build(Raw("toy", table, y, official_train=20))
        tensors = (data.x_train, data.y_train, data.x_validation, data.y_validation)
        assert all(bool(t.isfinite().all()) for t in (*tensors, data.x_test))
        return [tensor.numpy().tobytes() for tensor in tensors]

    before = trained()
    for row in rows:
        numbers[row] = value if isinstance(value, float) else np.nan
        words[row] = value
    assert trained() == before


def test_a_test_target_never_changes_the_scale() -> None:
    y = np.linspace(0, 1, N)
    before = build(toy(y, official_train=20))
    y[25] = 1e6
    after = build(toy(y, official_train=20))
    assert before.target_scale == after.target_scale
    assert torch.equal(before.y_train, after.y_train)


def test_a_class_of_one_row_trains() -> None:
    y = text_column("y", [*"ab" * 10, "c"])
    for seed in range(5):
        table = Table((Column("x", np.arange(21) % 5.0),))
        data = build(Raw("toy", table, y), options=SplitOptions(seed=seed))
        assert (data.y_train == 2).sum() == 1


def test_a_class_that_only_the_test_split_has_is_noted() -> None:
    data = build(toy(np.array([0, 1] * 10 + [2] * 5), official_train=20))
    assert data.notes == ("classes without a training row: 2",)


def test_one_class_in_training_is_refused() -> None:
    with pytest.raises(DataError) as error:
        build(toy(np.repeat([0, 1], 15), official_train=15))
    assert str(error.value) == "the training part must hold at least two classes, got one: '0'"


def test_describe() -> None:
    raw = toy(np.arange(N) % 3, x=np.arange(N) ** 2, c=np.ones(N))
    assert build(raw).describe() == (
        "toy: classification of 1 feature into 3 classes. 22 training, 2 validation and 6 test "
        "rows. dropped as constant in training: c."
    )
    text = build(toy(np.linspace(0, 1, N), a=np.arange(N) ** 2, b=np.arange(N))).describe()
    assert text.startswith("toy: regression on 2 features, target mean 0.4")


def test_to_json_has_what_a_run_keeps() -> None:
    content = build(toy(np.arange(N) % 3)).to_json()
    assert json.loads(json.dumps(content)) == content == {
        "name": "toy",
        "task": "classification",
        "n_train": 22,
        "n_validation": 2,
        "n_test": 6,
        "n_features": 1,
        "n_classes": 3,
        "class_names": ["0", "1", "2"],
        "image_shape": None,
        "notes": [],
    }  # fmt: skip
