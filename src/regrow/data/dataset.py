"""A data set that is ready for training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from regrow.data.encode import PixelEncoder, TableEncoder, fit_pixels, fit_table
from regrow.data.errors import DataError
from regrow.data.splits import Parts, SplitOptions, make_parts
from regrow.data.table import Pixels, Raw
from regrow.data.target import Target, Task, prepare_target, scale_target


@dataclass(frozen=True, eq=False)
class Dataset:
    """Three disjoint parts of a data set as tensors, and what they mean.

    Everything learned from data (medians, levels, means, deviations) is learned from the training
    part alone.

    Args:
        name: The name of the source or the file.
        task: "classification", "regression" or "language".
        x_train: Inputs, float32 [n, features]: numbers standardised, flags and levels 0 or 1,
            pixels standardised by one mean and one deviation; characters, int64 [n, features].
        y_train: Class ids, int64 [n], or standardised values, float32 [n]; next characters,
            int64 [n, features].
        x_validation: As x_train; no rows where validation is 0.
        y_validation: As y_train.
        x_test: As x_train.
        y_test: As y_train.
        feature_names: One name a feature.
        class_names: One name a class, or the characters; empty for regression.
        image_shape: Height and width where the features are pixels, behind the number of planes
            where there are several.
        target_scale: Mean and standard deviation that a regression target was standardised by.
        notes: What was dropped, converted or read from where, one sentence each.
        pixel_scale: Mean and deviation that pixels in [0, 1] were standardised by; None where the
            features are no pixels.

    Example:
        >>> from regrow.data import load
        >>> data = load("digits")
        >>> data.x_train.shape, data.n_classes, data.image_shape
        (torch.Size([1294, 64]), 10, (8, 8))
    """

    name: str
    task: Task
    x_train: Tensor
    y_train: Tensor
    x_validation: Tensor
    y_validation: Tensor
    x_test: Tensor
    y_test: Tensor
    feature_names: tuple[str, ...]
    class_names: tuple[str, ...]
    image_shape: tuple[int, ...] | None
    target_scale: tuple[float, float] | None
    notes: tuple[str, ...]
    pixel_scale: tuple[float, float] | None = None

    @property
    def n_features(self) -> int:
        """The number of features."""
        return len(self.feature_names)

    @property
    def n_classes(self) -> int | None:
        """The number of classes, None for regression."""
        return len(self.class_names) or None

    def describe(self) -> str:
        """Say in a paragraph what this is.

        Example:
            >>> from regrow.data import load
            >>> load("digits").describe().split(".")[0]
            'digits: classification of 64 features (8 x 8 pixels) into 10 classes'
        """
        features = f"{self.n_features:,} feature{'s' if self.n_features != 1 else ''}"
        if self.image_shape:
            features += f" ({' x '.join(map(str, self.image_shape))} pixels)"
        if self.task == "language":
            what = f"characters, {self.n_classes} different, in windows of {self.n_features:,}"
        elif self.target_scale is None:
            what = f"classification of {features} into {self.n_classes} classes"
        else:
            mean, std = self.target_scale
            what = f"regression on {features}, target mean {mean:.4g} and deviation {std:.4g}"
        rows = (
            f"{len(self.y_train):,} training, {len(self.y_validation):,} validation and "
            f"{len(self.y_test):,} test rows"
        )
        return " ".join(f"{part}." for part in (f"{self.name}: {what}", rows, *self.notes))

    def to_json(self) -> dict[str, Any]:
        """Return what a run keeps of its data set, as a dict that JSON can hold.

        Example:
            >>> from regrow.data import load
            >>> load("digits").to_json()["n_test"]
            359
        """
        return {
            "name": self.name,
            "task": self.task,
            "n_train": len(self.y_train),
            "n_validation": len(self.y_validation),
            "n_test": len(self.y_test),
            "n_features": self.n_features,
            "n_classes": self.n_classes,
            "class_names": list(self.class_names),
            "image_shape": list(self.image_shape) if self.image_shape else None,
            "notes": list(self.notes),
        }


def build(
    raw: Raw, *, task: str = "auto", options: SplitOptions | None = None, first: bool = False
) -> Dataset:
    """Make a data set of what was read: target, split, features.

    Args:
        raw: What a reader returned.
        task: "auto", "classification" or "regression".
        options: Fractions, limits and seed.
        first: Limits keep the first rows of an official split instead of a seeded sample.

    Raises:
        DataError: If the data cannot be trained on.

    Example:
        >>> from regrow.data.table import Column, Table
        >>> import numpy as np
        >>> x, y = Column("x", np.linspace(0, 1, 20)), Column("y", np.arange(20) % 2.0)
        >>> build(Raw("toy", Table((x,)), y)).to_json()["n_train"]
        14
    """
    target = prepare_target(raw.target, task, raw.class_names)
    parts = make_parts(
        target.rows,
        target.labels,
        options or SplitOptions(),
        official_train=raw.official_train,
        first=first,
    )
    notes = [*raw.notes, *target.notes, *_check_training(target, parts)]
    encoder: PixelEncoder | TableEncoder
    image_shape: tuple[int, ...] | None = None
    pixel_scale: tuple[float, float] | None = None
    if isinstance(raw.features, Pixels):
        encoder, image_shape = fit_pixels(raw.features, parts.train), raw.features.shape
        pixel_scale = (encoder.mean, encoder.std)
    else:
        encoder = fit_table(raw.features, parts.train)
    values, target_scale = target.values, None
    if target.task == "regression":
        values, target_scale = scale_target(values, parts.train, target.name)
    return Dataset(
        raw.name,
        target.task,
        *_tensors(encoder, values, parts.train),
        *_tensors(encoder, values, parts.validation),
        *_tensors(encoder, values, parts.test),
        feature_names=encoder.names,
        class_names=target.class_names,
        image_shape=image_shape,
        target_scale=target_scale,
        notes=(*notes, *encoder.notes),
        pixel_scale=pixel_scale,
    )


def _tensors(
    encoder: PixelEncoder | TableEncoder, values: NDArray[Any], rows: NDArray[np.int64]
) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(encoder.encode(rows)), torch.from_numpy(values[rows])


def _check_training(target: Target, parts: Parts) -> list[str]:
    if target.labels is None:
        return []
    trained = np.unique(target.labels[parts.train])
    if len(trained) < 2:
        raise DataError(
            "the training part must hold at least two classes, got one: "
            f"{target.class_names[trained[0]]!r}"
        )
    held_out = np.concatenate([parts.validation, parts.test])
    unseen = np.setdiff1d(target.labels[held_out], trained)
    names = ", ".join(target.class_names[i] for i in unseen)
    return [f"classes without a training row: {names}"] if names else []
