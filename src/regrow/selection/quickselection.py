"""QuickSelection: inputs ranked by their strength in a sparse denoising autoencoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from regrow.estimators.rows import Rows, Scale, batches
from regrow.evolution import Evolution
from regrow.selection.autoencoder import SparseAutoencoder
from regrow.selection.selector import FeatureSelector, input_strength
from regrow.topology.select import without_nearest_zero


class QuickSelection(FeatureSelector):
    """Unsupervised selection by the strength of input neurons in an autoencoder trained with SET.

    A sparse autoencoder learns to reconstruct rows to which noise was added; after every epoch it
    drops the connections nearest zero and grows as many at random. Inputs that matter gather
    strong connections. Time and memory grow with the connections, ``2 * epsilon * (features +
    hidden)``, not with ``features * hidden``.

    Args:
        n_features_to_select: How many features to keep: a number, a share in (0, 1), or None for
            half of them. It does not influence the training.
        hidden: Hidden units.
        epsilon: Sparsity control: ``epsilon * (features + hidden)`` connections a layer.
        fraction: Share of the connections that an update drops and grows, in (0, 1).
        epochs: Passes over the rows.
        learning_rate: Of SGD.
        momentum: Of SGD.
        weight_decay: Share that every step takes off the weights, not multiplied by the rate.
        batch_size: Rows of a step; a remainder of an epoch is left out.
        dropout: Probability that a hidden unit is muted in a step; the others are not rescaled.
        noise: Standard deviation of the Gaussian noise added to the inputs.
        tanh: Whether outputs go through a tanh, as the authors do for Madelon.
        scale: What is done to the features first: ``standard``, ``minmax``, ``global`` or None;
            see `Rows`.
        random_state: Seed, ``numpy.random.RandomState`` or None.
        verbose: Whether to show progress.

    Attributes:
        feature_importances_: Strength of every input: the sum of the absolute values of its
            connections, the weakest ``fraction`` of all connections left out.
        degrees_: How many of these connections each input has, int64 ``[features]``: the ranking
            that the authors set against strength.

    Example:
        >>> from sklearn.datasets import load_digits
        >>> X, y = load_digits(return_X_y=True)
        >>> selector = QuickSelection(16, hidden=100, epochs=5, random_state=0).fit(X)
        >>> selector.transform(X).shape
        (1797, 16)

    References:
        Z. Atashgahi, G. Sokar, T. van der Lee, E. Mocanu, D. C. Mocanu, R. Veldhuis,
        M. Pechenizkiy, "Quick and robust feature selection: the strength of energy-efficient
        sparse training for autoencoders", 2022.

    Differs from the paper:
        Connections are placed without repetition, so there are exactly as many as asked for. The
        ranking uses the last epoch too, where the published code ranks what the second-to-last has
        left. Noise on SciPy tables, and in ``partial_fit``, is drawn anew for every batch: kept
        noise would be dense. Features with one value only come last.
    """

    degrees_: NDArray[np.int64]

    def __init__(
        self,
        n_features_to_select: int | float | None = None,
        *,
        hidden: int = 1000,
        epsilon: float = 13,
        fraction: float = 0.2,
        epochs: int = 100,
        learning_rate: float = 0.01,
        momentum: float = 0.9,
        weight_decay: float = 1e-5,
        batch_size: int = 100,
        dropout: float = 0.2,
        noise: float = 0.2,
        tanh: bool = False,
        scale: Scale = "standard",
        random_state: Any = None,
        verbose: bool = False,
    ) -> None:
        self.n_features_to_select = n_features_to_select
        self.hidden = hidden
        self.epsilon = epsilon
        self.fraction = fraction
        self.epochs = epochs
        self.learning_rate = learning_rate
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.dropout = dropout
        self.noise = noise
        self.tanh = tanh
        self.scale = scale
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any = None) -> QuickSelection:  # noqa: N803
        """Train for ``epochs`` epochs from a fresh start and rank the features.

        Args:
            X: Table ``[rows, features]``, NumPy or SciPy sparse, without missing values.
            y: Ignored.
        """
        rows = self._rows(X)
        self._start(rows)
        noise = None if rows.sparse else self._noise(rows.shape)
        for epoch in self._epochs(self.epochs):
            if epoch:
                self._evolution_.update()
            self._train(rows, noise)
        self._finish(rows)
        return self

    def partial_fit(self, X: Any, y: Any = None) -> QuickSelection:  # noqa: N803
        """One more epoch, on these rows; the scaling is made from them anew.

        Args:
            X: Table ``[rows, features]``.
            y: Ignored.
        """
        first = not hasattr(self, "_network_")
        rows = self._rows(X, reset=first)
        if first:
            self._start(rows)
        else:
            self._evolution_.update()
        self._train(rows)
        self._finish(rows)
        return self

    def _start(self, rows: Rows) -> None:
        features = rows.shape[1]
        self._random_ = self._generator()
        connections = round(self.epsilon * (features + self.hidden))
        network = SparseAutoencoder(
            features, self.hidden, connections, self._random_, tanh=self.tanh
        )
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                spread = 0.1 if name.endswith("values") else 0.0
                parameter.normal_(0, spread, generator=self._random_)
        self._network_ = network
        self._optimizer_ = torch.optim.SGD(
            network.parameters(), lr=self.learning_rate, momentum=self.momentum
        )
        seed = int(torch.randint(2**31 - 1, (1,), generator=self._random_))
        self._evolution_ = Evolution(
            network,
            self._optimizer_,
            "set",
            fraction=self.fraction,
            every=None,
            seed=seed,
        )

    def _noise(self, shape: Sequence[int]) -> Tensor:
        return torch.empty(*shape).normal_(0, self.noise, generator=self._random_)

    def _train(self, rows: Rows, noise: Tensor | None = None) -> None:
        network, random = self._network_, self._random_
        weights = [network.encoder.values, network.decoder.values]
        for chosen in batches(len(rows), self.batch_size, random):
            x = rows.batch(chosen)
            added = self._noise(x.shape) if noise is None else noise[chosen]
            muted = torch.rand(len(x), self.hidden, generator=random) < self.dropout
            loss = (network(x + added, muted) - x).square_().sum() / (2 * len(x))
            loss.backward()
            with torch.no_grad():
                for weight in weights:
                    weight.mul_(1 - self.weight_decay)
            self._optimizer_.step()
            self._optimizer_.zero_grad()

    def _finish(self, rows: Rows) -> None:
        encoder = self._network_.encoder
        weakest = round(self.fraction * encoder.topology.nnz)
        keep: Tensor = without_nearest_zero(encoder.values.detach(), weakest)
        self._rank(input_strength(encoder, keep), rows.constant)
        self.degrees_ = encoder.topology.kept(keep).degrees()[1].numpy().copy()
