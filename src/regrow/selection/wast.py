"""WAST: a sparse autoencoder whose connections move to the features it reconstructs worst."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from regrow.estimators.rows import Rows, Scale, batches
from regrow.evolution import Evolution
from regrow.layers import SparseLayer
from regrow.selection.autoencoder import SparseAutoencoder
from regrow.selection.selector import FeatureSelector, input_strength
from regrow.topology import Topology
from regrow.topology.select import without_nearest_zero


class WAST(FeatureSelector):
    """Unsupervised selection by attention-like rewiring after every step.

    Every feature gathers importance from how badly it is reconstructed and from the strength of
    its connections. After each step the connections of least weight times importance go, and new
    ones grow at the features of highest importance, all of whose positions fill up first. A few
    epochs are enough.

    Args:
        n_features_to_select: How many features to keep: a number, a share in (0, 1), or None for
            half of them. It does not influence the training.
        hidden: Hidden units.
        density: Kept fraction of the connections of each layer, in (0, 1].
        fraction: Share of the connections that a step drops and grows, in (0, 1).
        sensitivity: Weight of the reconstruction error in the importance, in [0, 1]; the rest is
            that of the strength. The authors use 0.4 for images, 0.9 for most other data, and 0.01
            or less for gene expression.
        rewiring: ``attention``, or what the authors compare it with in the same network, ``set``:
            once an epoch the weights nearest zero go, others grow at random, and features are
            ranked by the strength of their connections.
        epochs: Passes over the rows.
        learning_rate: Of SGD with Nesterov momentum.
        momentum: Of SGD.
        batch_size: Rows of a step; a remainder of an epoch is left out.
        noise: Standard deviation of the Gaussian noise added to the inputs.
        scale: What is done to the features first: ``standard``, ``minmax``, ``global`` or None;
            see `Rows`. With ``global``, the authors' choice, features of large variance are at an
            advantage.
        random_state: Seed, ``numpy.random.RandomState`` or None.
        verbose: Whether to show progress.

    Attributes:
        feature_importances_: Importance of every input, summed over all steps; with ``set``, its
            strength.

    Example:
        >>> from sklearn.datasets import load_digits
        >>> X, y = load_digits(return_X_y=True)
        >>> selector = WAST(16, epochs=2, random_state=0).fit(X)
        >>> selector.transform(X).shape
        (1797, 16)

    References:
        G. Sokar, Z. Atashgahi, M. Pechenizkiy, D. C. Mocanu, "Where to pay attention in sparse
        training for feature selection?", 2022.

    Differs from the paper:
        Counts are exact from the start. A dropped connection is gone at once, with its momentum,
        where the published code's lives on until the next step. Features with one value only come
        last.
    """

    def __init__(
        self,
        n_features_to_select: int | float | None = None,
        *,
        hidden: int = 200,
        density: float = 0.2,
        fraction: float = 0.3,
        sensitivity: float = 0.9,
        rewiring: str = "attention",
        epochs: int = 10,
        learning_rate: float = 0.1,
        momentum: float = 0.9,
        batch_size: int = 128,
        noise: float = 0.2,
        scale: Scale = "global",
        random_state: Any = None,
        verbose: bool = False,
    ) -> None:
        self.n_features_to_select = n_features_to_select
        self.hidden = hidden
        self.density = density
        self.fraction = fraction
        self.sensitivity = sensitivity
        self.rewiring = rewiring
        self.epochs = epochs
        self.learning_rate = learning_rate
        self.momentum = momentum
        self.batch_size = batch_size
        self.noise = noise
        self.scale = scale
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any = None) -> WAST:  # noqa: N803
        """Train for ``epochs`` epochs from a fresh start and rank the features.

        Args:
            X: Table ``[rows, features]``, NumPy or SciPy sparse, without missing values.
            y: Ignored.
        """
        rows = self._rows(X)
        self._start(rows)
        for epoch in self._epochs(self.epochs):
            self._epoch(rows, first=epoch == 0)
        self._finish(rows)
        return self

    def partial_fit(self, X: Any, y: Any = None) -> WAST:  # noqa: N803
        """One more epoch, on these rows; the scaling is made from them anew.

        Args:
            X: Table ``[rows, features]``.
            y: Ignored.
        """
        first = not hasattr(self, "_network_")
        rows = self._rows(X, reset=first)
        if first:
            self._start(rows)
        self._epoch(rows, first=first)
        self._finish(rows)
        return self

    def _start(self, rows: Rows) -> None:
        if self.rewiring not in ("attention", "set"):
            raise ValueError(f"rewiring must be attention or set, got {self.rewiring!r}")
        features = rows.shape[1]
        self._random_ = self._generator()
        connections = max(1, round(self.density * features * self.hidden))
        self._network_ = SparseAutoencoder(features, self.hidden, connections, self._random_)
        with torch.no_grad():
            # As published: drawn as for layers with all connections. Larger values would drown in
            # random outputs what the first reconstruction errors say.
            for parameter in self._network_.parameters():
                parameter.mul_(math.sqrt(self._network_.encoder.density))
        self._optimizer_ = torch.optim.SGD(
            self._network_.parameters(),
            lr=self.learning_rate,
            momentum=self.momentum,
            nesterov=self.momentum > 0,
        )
        seed = int(torch.randint(2**31 - 1, (1,), generator=self._random_))
        self._evolution_ = Evolution(
            self._network_,
            self._optimizer_,
            "set" if self.rewiring == "set" else "static",
            fraction=self.fraction,
            every=None,
            start="zero",
            seed=seed,
        )
        self._inputs_ = torch.zeros(features)
        self._outputs_ = torch.zeros(features)

    def _finish(self, rows: Rows) -> None:
        strength = input_strength(self._network_.encoder)
        self._rank(strength if self.rewiring == "set" else self._inputs_, rows.constant)

    def _epoch(self, rows: Rows, *, first: bool) -> None:
        if self.rewiring == "set" and not first:
            self._evolution_.update()
        network, random = self._network_, self._random_
        encoder, decoder = network.encoder, network.decoder
        for chosen in batches(len(rows), self.batch_size, random):
            x = rows.batch(chosen)
            noise = torch.empty_like(x).normal_(0, self.noise, generator=random)
            error = network(x + noise) - x
            error.square().mean().backward()
            self._optimizer_.step()
            self._optimizer_.zero_grad()
            if self.rewiring == "set":
                continue
            sensed = self.sensitivity * error.detach().abs().mean(0)
            rest = 1 - self.sensitivity
            self._inputs_ += sensed + rest * input_strength(encoder)
            outgoing = decoder.topology.sums(decoder.values.detach().abs(), axis=0)
            self._outputs_ += sensed + rest * outgoing
            self._rewire("encoder", encoder, self._inputs_, axis=1)
            self._rewire("decoder", decoder, self._outputs_, axis=0)

    def _rewire(self, path: str, layer: SparseLayer, importance: Tensor, axis: int) -> None:
        topology = layer.topology
        ends = topology.csr()[1] if axis else topology.rows
        score = layer.values.detach() * importance[ends]
        room = topology.shape.numel() - topology.nnz
        count = min(round(self.fraction * topology.nnz), topology.nnz - 1, room)
        keep = without_nearest_zero(score, count)
        left = topology.kept(keep)
        grown = most_important_free(left, importance, count, self._random_, axis)
        self._evolution_.rewire(path, keep, grown)


def most_important_free(
    topology: Topology, importance: Tensor, count: int, generator: torch.Generator, axis: int
) -> Tensor:
    """Free positions where the importance of their row or column is highest.

    The product of a row's and a column's importance, all of one side being equal, needs no score
    of every position: the lines of highest importance are filled one after the other, in
    O(connections + rows + columns), and the last of them at random.

    Args:
        topology: Connections that are there.
        importance: Of every line: row (``axis`` 0) or column (``axis`` 1).
        count: How many positions, at most as many as are free.
        generator: For the line that is not filled up, and for lines of equal importance.
        axis: Which side the importance belongs to.

    Returns:
        Flat positions int64 ``[count]``.

    Example:
        >>> topology = Topology((2, 3), torch.tensor([1]))
        >>> best = torch.tensor([1.0, 3.0, 2.0])
        >>> most_important_free(topology, best, 3, torch.Generator(), axis=1).sort().values
        tensor([2, 4, 5])
    """
    across = topology.matrix_shape[1 - axis]
    columns = topology.matrix_shape[1]
    lots = torch.randperm(len(importance), generator=generator)
    order = lots[importance[lots].argsort(descending=True, stable=True)]
    free = across - topology.degrees()[axis][order]
    ends = free.cumsum(0)
    lines = order[: int(torch.searchsorted(ends, count)) + 1]
    # The lines that get any: which of their positions are free?
    place = torch.full((len(importance),), -1, dtype=torch.int64)
    place[lines] = torch.arange(len(lines))
    along, crossing = topology.rows, topology.csr()[1].long()
    if axis:
        along, crossing = crossing, along
    there = place[along] >= 0
    taken = torch.zeros(len(lines), across, dtype=torch.bool)
    taken[place[along[there]], crossing[there]] = True
    line, other = (~taken).nonzero(as_tuple=True)
    surplus = len(line) - count
    if surplus:
        # All are wanted but some of the last line's, which stand at the end.
        last = int(free[len(lines) - 1])
        chosen = torch.randperm(last, generator=generator)[: last - surplus]
        wanted = torch.cat([torch.arange(len(line) - last), len(line) - last + chosen])
        line, other = line[wanted], other[wanted]
    row, column = (other, lines[line]) if axis else (lines[line], other)
    return row * columns + column
