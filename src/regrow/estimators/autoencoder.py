"""An autoencoder: a perceptron that learns to repeat its inputs through a narrow layer."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from regrow.estimators import checks
from regrow.estimators.base import SparsePerceptron, fitted_rows
from regrow.estimators.rows import Rows
from regrow.evolution import Method


class SparseAutoencoder(
    ClassNamePrefixFeaturesOutMixin,  # type: ignore[misc]
    TransformerMixin,  # type: ignore[misc]
    SparsePerceptron,
):
    """Transformer that learns a code from which it can tell the features again.

    The last of the ``hidden_layer_sizes`` is the code; the layers before it stand a second time
    behind it, in reverse order. It learns the mean squared error of the reconstruction.

    Args:
        hidden_layer_sizes: Neurons of the layers down to the code, which is the last.
        activation: Of all layers but the last one.
        noise: Standard deviation of Gaussian noise that is added to what the network sees, not to
            what it is to reconstruct.
        density: Kept fraction of all connections; this and all further arguments are as of
            `SparseMLPClassifier`.

    Attributes:
        coefs_: Weights of every layer, SciPy CSR ``[inputs, outputs]``; further attributes are as
            of `SparseMLPClassifier`.
        validation_scores_: With early stopping, what ``score`` is on held-out rows.

    Example:
        >>> from sklearn.datasets import load_digits
        >>> X, y = load_digits(return_X_y=True)
        >>> model = SparseAutoencoder((100, 16), density=0.2, max_iter=20, random_state=0)
        >>> codes = model.fit_transform(X / 16)
        >>> codes.shape, model.inverse_transform(codes).shape
        ((1797, 16), (1797, 64))

    References:
        Z. Atashgahi, G. Sokar, T. van der Lee, E. Mocanu, D. C. Mocanu, R. Veldhuis,
        M. Pechenizkiy, "Quick and robust feature selection: the strength of energy-efficient
        sparse training for autoencoders", 2022.
    """

    out_activation_ = "identity"

    def __init__(
        self,
        hidden_layer_sizes: Any = (100,),
        activation: str = "relu",
        *,
        noise: float = 0.0,
        density: float | None = None,
        epsilon: float | None = None,
        allocation: Any = "erk",
        method: str | Method = "set",
        fraction: float | None = None,
        every: int | str | None = None,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate_init: float = 0.001,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: bool = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        n_iter_no_change: int | float = 10,
        compute: str = "auto",
    ) -> None:
        super().__init__(
            hidden_layer_sizes,
            activation,
            density=density,
            epsilon=epsilon,
            allocation=allocation,
            method=method,
            fraction=fraction,
            every=every,
            solver=solver,
            alpha=alpha,
            batch_size=batch_size,
            learning_rate_init=learning_rate_init,
            max_iter=max_iter,
            shuffle=shuffle,
            random_state=random_state,
            tol=tol,
            verbose=verbose,
            warm_start=warm_start,
            momentum=momentum,
            nesterovs_momentum=nesterovs_momentum,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            beta_1=beta_1,
            beta_2=beta_2,
            n_iter_no_change=n_iter_no_change,
            compute=compute,
        )
        self.noise = noise

    def fit(self, X: Any, y: Any = None) -> SparseAutoencoder:  # noqa: N803
        """Train.

        Args:
            X: Table ``[rows, features]``, NumPy or SciPy sparse, without missing values.
            y: Ignored.
        """
        return self._fit(X, incremental=False)

    def partial_fit(self, X: Any, y: Any = None) -> SparseAutoencoder:  # noqa: N803
        """One epoch on these rows; see `SparseMLPClassifier.partial_fit`."""
        return self._fit(X, incremental=True)

    def transform(self, X: Any) -> NDArray[np.float32]:  # noqa: N803
        """The codes, float32 ``[rows, last of hidden_layer_sizes]``."""
        rows = fitted_rows(self, X)
        return np.asarray(self._applied(self._network[: self._middle], rows).numpy())

    def inverse_transform(self, X: Any) -> NDArray[np.float32]:  # noqa: N803
        """Features from codes.

        Args:
            X: Codes ``[rows, last of hidden_layer_sizes]``.

        Returns:
            float32 ``[rows, features]``.
        """
        check_is_fitted(self)
        codes = checks.codes(X, self._n_features_out)
        return np.asarray(self._applied(self._network[self._middle :], Rows(codes, None)).numpy())

    def score(self, X: Any, y: Any = None) -> float:  # noqa: N803
        """Minus the mean squared error of the reconstruction; higher is better."""
        rows = fitted_rows(self, X)
        lost = self._applied(lambda x: (self._network(x) - x).square_().mean(1), rows)
        return -float(lost.double().mean())

    def _fit(self, table: Any, *, incremental: bool) -> SparseAutoencoder:
        rows = self._rows(table, reset=self._is_new(incremental))
        checks.number("noise", self.noise, 0)
        self._learn(rows, None, rows.shape[1], incremental=incremental)
        self._n_features_out = self._hidden()[-1]
        return self

    def _sizes(self, features: int, outputs: int) -> list[int]:
        hidden = self._hidden()
        if not hidden:
            raise ValueError("hidden_layer_sizes must name one layer at least, the code; got none")
        return [features, *hidden, *hidden[-2::-1], outputs]

    @property
    def _middle(self) -> int:
        return len(self._built) - 1

    def _seen(self, x: Tensor) -> Tensor:
        if not self.noise:
            return x
        return x + torch.empty_like(x).normal_(0, self.noise, generator=self._random)

    def _loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - targets).square().mean(1)

    def _score(self, outputs: Tensor, targets: Tensor, weights: Any) -> float:
        return -float((outputs - targets).square().mean())

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags
