"""A regressor: a perceptron whose connections are few, and move while it learns."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score
from torch import Tensor

from regrow.estimators.base import SparsePerceptron, fitted_rows


class SparseMLPRegressor(RegressorMixin, SparsePerceptron):  # type: ignore[misc]
    """Regressor with hidden layers whose weights are sparse from the first step to the last.

    It stands where scikit-learn's ``MLPRegressor`` does. It learns half the squared error, of one
    target or of several.

    Args:
        hidden_layer_sizes: Neurons of the hidden layers.
        activation: Of the hidden layers; this and all further arguments are as of
            `SparseMLPClassifier`.

    Attributes:
        coefs_: Weights of every layer, SciPy CSR ``[inputs, outputs]``; further attributes are as
            of `SparseMLPClassifier`.
        validation_scores_: With early stopping, the coefficient of determination of every epoch.

    Example:
        >>> from sklearn.datasets import make_regression
        >>> X, y = make_regression(300, 10, noise=1.0, random_state=0)
        >>> model = SparseMLPRegressor((50,), density=0.3, max_iter=200,
        ...                            learning_rate_init=0.02, random_state=0)
        >>> model.fit(X[:200], y[:200] / 100).score(X[200:], y[200:] / 100) > 0.8
        True
    """

    out_activation_ = "identity"

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> SparseMLPRegressor:  # noqa: N803
        """Train.

        Args:
            X: Table ``[rows, features]``, NumPy or SciPy sparse, without missing values.
            y: Targets, ``[rows]`` or ``[rows, targets]``.
            sample_weight: How much each row counts, or None for alike.
        """
        return self._fit(X, y, sample_weight, incremental=False)

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> SparseMLPRegressor:  # noqa: N803
        """One epoch on these rows; see `SparseMLPClassifier.partial_fit`."""
        return self._fit(X, y, sample_weight, incremental=True)

    def predict(self, X: Any) -> NDArray[np.floating[Any]]:  # noqa: N803
        """Targets, ``[rows]`` or ``[rows, targets]`` as in ``fit``.

        They are computed in double precision, so that it does not show which rows stand together.
        """
        outputs = self._outputs(fitted_rows(self, X), exact=True)
        found = np.asarray(outputs.numpy(), dtype=self._dtype)
        return found[:, 0] if self._flat else found

    def _fit(
        self, table: Any, y: Any, sample_weight: Any, *, incremental: bool
    ) -> SparseMLPRegressor:
        reset = self._is_new(incremental)
        rows, found = self._rows(table, reset=reset, y=y, multi_output=True, y_numeric=True)
        self._flat, self._dtype = found.ndim == 1, np.result_type(found, np.float32)
        targets = torch.from_numpy(np.asarray(found, dtype=np.float32))
        targets = targets.unsqueeze(1) if self._flat else targets
        weights = self._weights(sample_weight, found)
        self._learn(rows, targets, targets.shape[1], weights, incremental=incremental)
        return self

    def _loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - targets).square().sum(1) / 2

    def _score(self, outputs: Tensor, targets: Tensor, weights: Any) -> float:
        if len(targets) < 2:
            return -float((outputs - targets).square().mean())
        return float(r2_score(targets.numpy(), outputs.numpy(), sample_weight=weights))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
