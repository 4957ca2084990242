"""The digits that come with the package, for a first run without any download."""

from __future__ import annotations

from importlib.resources import as_file, files

import numpy as np

from regrow.data.table import Column, Pixels, Raw


def read_digits() -> Raw:
    """Read 1,797 handwritten digits of 8 x 8 pixels, 0 to 16, in 10 classes.

    There is no test split of their own.

    Example:
        >>> len(read_digits().target.values)
        1797

    References:
        E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning
        Repository, 1998, CC BY 4.0.
    """
    with (
        as_file(files("regrow.data") / "_embedded" / "digits.npz") as path,
        np.load(path, allow_pickle=False) as archive,
    ):
        images, labels = archive["x"], archive["y"]
    return Raw(
        "digits",
        Pixels(images.reshape(len(images), -1), (8, 8), 16.0),
        Column("digit", labels.astype(np.float64)),
        class_names=tuple("0123456789"),
        notes=("E. Alpaydin and C. Kaynak, UCI Machine Learning Repository, CC BY 4.0",),
    )
