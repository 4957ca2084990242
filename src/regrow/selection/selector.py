"""What all selectors share: scikit-learn's conventions, the ranking, the strength of inputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.feature_selection import SelectorMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor
from tqdm.auto import tqdm

from regrow.estimators.rows import SCALES, Rows
from regrow.layers import SparseLayer


class FeatureSelector(SelectorMixin, BaseEstimator):  # type: ignore[misc]
    """A selector that trains a sparse network and keeps the features of highest importance.

    Attributes:
        feature_importances_: One number per feature, float64 ``[features]``, larger is better;
            features with one value only have 0.
        ranking_: Rank of every feature, int64 ``[features]``; 1 is the best.
        n_features_in_: Number of features seen.
        feature_names_in_: Their names, where the table has some.
    """

    feature_importances_: NDArray[np.float64]
    ranking_: NDArray[np.int64]

    def _generator(self) -> torch.Generator:
        """One source of all random draws of a fit; torch's own is left alone."""
        seed = check_random_state(self.random_state).randint(np.iinfo(np.int32).max)
        return torch.Generator().manual_seed(int(seed))

    def _rows(self, table: Any, *, reset: bool = True, **checks: Any) -> Any:
        """The table, checked; with targets if they are given as ``y``."""
        checked = validate_data(
            self,
            table,
            reset=reset,
            accept_sparse="csr",
            dtype=[np.float32, np.float64],
            ensure_min_samples=2,
            **checks,
        )
        table = checked[0] if "y" in checks else checked
        if self.scale not in SCALES:
            raise ValueError(f"scale must be one of {SCALES}, got {self.scale!r}")
        self._count(table.shape[1])
        rows = Rows(table, self.scale)
        return (rows, checked[1]) if "y" in checks else rows

    def _epochs(self, epochs: int) -> Any:
        """Numbers of the epochs, with a progress bar where ``verbose`` asks for one."""
        return tqdm(range(epochs), desc=type(self).__name__, disable=not self.verbose, leave=False)

    def _rank(self, importance: Tensor, constant: NDArray[np.bool_]) -> None:
        found = importance.detach().to("cpu", torch.float64).numpy().copy()
        found[constant] = 0.0
        self.feature_importances_ = found
        self.ranking_ = ranks(found)

    def _count(self, features: int) -> int:
        """How many features to keep of this many."""
        wanted = self.n_features_to_select
        if wanted is None:
            return max(1, features // 2)
        if isinstance(wanted, (int, np.integer)) and not isinstance(wanted, bool):
            if 1 <= wanted <= features:
                return int(wanted)
        elif isinstance(wanted, (float, np.floating)) and 0 < wanted < 1:
            return max(1, round(float(wanted) * features))
        raise ValueError(
            f"n_features_to_select must be a whole number in [1, {features}] (the number of "
            f"features), a share in (0, 1), or None for half of them, got {wanted!r}"
        )

    def _get_support_mask(self) -> NDArray[np.bool_]:
        check_is_fitted(self)
        return self.ranking_ <= self._count(len(self.ranking_))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.allow_nan = False
        return tags


def input_strength(layer: SparseLayer, keep: Tensor | None = None) -> Tensor:
    """Strength of every input of a layer: the sum of its absolute values ``[columns]``.

    Args:
        layer: Sparse.
        keep: Which connections count, bool ``[nnz]``; all if None.

    References:
        Z. Atashgahi et al., "Quick and robust feature selection: the strength of energy-efficient
        sparse training for autoencoders", 2022.
    """
    size = layer.values.detach().abs()
    return layer.topology.sums(size if keep is None else size * keep, axis=1)


def ranks(importances: NDArray[np.float64]) -> NDArray[np.int64]:
    """Rank of every feature in every row, 1 the best; of equal ones the first is better.

    Args:
        importances: ``[..., features]``.

    Example:
        >>> ranks(np.array([[0.1, 0.7, 0.2], [0.5, 0.0, 0.5]])).tolist()
        [[3, 1, 2], [1, 3, 2]]
    """
    order = np.argsort(-importances, axis=-1, kind="stable")
    return np.asarray(np.argsort(order, axis=-1, kind="stable") + 1)
