"""Labels as numbers, and a part of the rows kept for validation."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split
from sklearn.utils.multiclass import check_classification_targets
from torch import Tensor


def encoded(labels: Any) -> tuple[NDArray[Any], Tensor]:
    """The classes in order, and the number of each row's class, int64 ``[rows]``.

    Raises:
        ValueError: The labels are no classes, or all the same.

    Example:
        >>> encoded(np.array(["b", "a", "b"]))
        (array(['a', 'b'], dtype='<U1'), tensor([1, 0, 1]))
    """
    check_classification_targets(labels)
    classes, numbers = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        raise ValueError(
            f"y must have at least two classes, got one class: {classes.tolist()[0]!r}"
        )
    return classes, torch.from_numpy(numbers.astype(np.int64).ravel())


def split(numbers: Tensor, fraction: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Rows to train on and rows to validate on, each class in both where it can be.

    Args:
        numbers: Class of each row, int64 ``[rows]``.
        fraction: Share of the rows to validate on, in (0, 1).
        generator: Of the choice.

    Returns:
        Row numbers of both parts.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"validation_fraction must be in (0, 1), got {fraction}")
    rows, kinds = len(numbers), int(numbers.max()) + 1
    held = round(fraction * rows)
    fits = int(numbers.bincount().min()) >= 2 and kinds <= held <= rows - kinds
    parts = train_test_split(
        torch.arange(rows).numpy(),
        test_size=min(max(1, held), rows - 1),
        stratify=numbers.numpy() if fits else None,
        random_state=int(torch.randint(2**31 - 1, (1,), generator=generator)),
    )
    return torch.from_numpy(parts[0]), torch.from_numpy(parts[1])
