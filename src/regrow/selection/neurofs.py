"""NeuroFS: a sparse classifier that lets its input neurons go, and tries some of them again."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from regrow.estimators.classes import encoded
from regrow.estimators.rows import Scale, batches
from regrow.evolution import Evolution
from regrow.evolution.growth import best_free, each_tile, single
from regrow.evolution.site import Candidates, Site
from regrow.layers import SparseLinear
from regrow.selection.selector import FeatureSelector, input_strength
from regrow.topology import Topology
from regrow.topology.select import without_nearest_zero

# Rows whose gradient decides where to grow; more say little more and cost time.
_PROBED = 2000


class NeuroFS(FeatureSelector):
    """Supervised selection by neuron evolution in a sparse multilayer perceptron.

    While the network learns to classify, its weakest inputs lose all their connections, epoch by
    epoch, until about ``n_features_to_select`` and a small reserve are left; inputs that were let
    go may come back where the loss asks for them. The connections of the inputs that stay are
    rewired as those of the hidden layers are.

    Args:
        n_features_to_select: How many features to keep: a number, a share in (0, 1), or None for
            half of them. The training aims at it.
        hidden: Units of each of the three hidden layers.
        epsilon: Sparsity control: ``epsilon * (inputs + outputs)`` connections of each of the
            first three layers; the last one is dense.
        fraction_in: Share of the first layer's connections that an update drops and grows, and
            of the inputs that is kept in reserve, in [0, 1).
        fraction_hidden: Share of the connections of the next two layers, in [0, 1).
        removal: Share of the epochs in which inputs are removed for good, in (0, 1].
        growth: ``gradient``: where the loss has the largest gradient; ``random``.
        epochs: Passes over the rows.
        learning_rate: Of SGD, whose momentum starts anew in every epoch.
        momentum: Of SGD.
        weight_decay: Of SGD.
        batch_size: Rows of a step; a remainder of an epoch is left out.
        activation: ``tanh`` or ``relu``.
        scale: What is done to the features first: ``standard``, ``minmax``, ``global`` or None;
            see `Rows`.
        random_state: Seed, ``numpy.random.RandomState`` or None.
        verbose: Whether to show progress.

    Attributes:
        feature_importances_: Strength of every input: the sum of the absolute values of its
            connections; 0 of those that were let go.
        classes_: The labels.
        active_: Inputs that have connections at the end, bool ``[features]``.

    Example:
        >>> from sklearn.datasets import load_digits
        >>> X, y = load_digits(return_X_y=True)
        >>> selector = NeuroFS(12, hidden=100, epochs=5, random_state=0).fit(X, y)
        >>> selector.transform(X).shape
        (1797, 12)

    References:
        Z. Atashgahi, X. Zhang, N. Kichler, S. Liu, L. Yin, M. Pechenizkiy, R. Veldhuis,
        D. C. Mocanu, "Supervised feature selection with neuron evolution in sparse neural
        networks", 2023.

    Differs from the paper:
        Growth follows the gradient of the loss on at most 2,000 rows; the published code takes
        that of the sum of all class probabilities, which is 0 but for rounding. Counts are exact
        from the start. Which inputs are active is written down, not read off their weights. Scaling
        sees the training rows only. Features with one value only come last.
    """

    def __init__(
        self,
        n_features_to_select: int | float | None = None,
        *,
        hidden: int = 1000,
        epsilon: float = 30,
        fraction_in: float = 0.2,
        fraction_hidden: float = 0.3,
        removal: float = 0.65,
        growth: str = "gradient",
        epochs: int = 100,
        learning_rate: float = 0.01,
        momentum: float = 0.9,
        weight_decay: float = 1e-5,
        batch_size: int = 100,
        activation: str = "tanh",
        scale: Scale = "minmax",
        random_state: Any = None,
        verbose: bool = False,
    ) -> None:
        self.n_features_to_select = n_features_to_select
        self.hidden = hidden
        self.epsilon = epsilon
        self.fraction_in = fraction_in
        self.fraction_hidden = fraction_hidden
        self.removal = removal
        self.growth = growth
        self.epochs = epochs
        self.learning_rate = learning_rate
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.activation = activation
        self.scale = scale
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any) -> NeuroFS:  # noqa: N803
        """Train for ``epochs`` epochs from a fresh start and rank the features.

        Args:
            X: Table ``[rows, features]``, NumPy or SciPy sparse, without missing values.
            y: Class of each row.
        """
        if self.growth not in ("gradient", "random"):
            raise ValueError(f"growth must be gradient or random, got {self.growth!r}")
        if self.activation not in ("tanh", "relu"):
            raise ValueError(f"activation must be tanh or relu, got {self.activation!r}")
        rows, labels = self._rows(X, y=y)
        self.classes_, numbers = encoded(labels)
        features = rows.shape[1]
        random = self._generator()
        network = self._network(features, random)
        first = cast(SparseLinear, network[0])
        optimizer = torch.optim.SGD(
            network.parameters(),
            lr=self.learning_rate,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
        )
        evolution = Evolution(network, optimizer, "static", start="zero")
        inputs = Inputs(features, self._count(features), self.fraction_in, self.removal)
        connections = first.topology.nnz
        for epoch in self._epochs(self.epochs):
            optimizer.state.clear()
            for chosen in batches(len(rows), self.batch_size, random):
                logits = network(rows.batch(chosen))
                nn.functional.cross_entropy(logits, numbers[chosen]).backward()
                optimizer.step()
                optimizer.zero_grad()
            probed = torch.randperm(len(rows), generator=random)[:_PROBED]

            def loss(probed: Tensor = probed) -> None:
                logits = network(rows.batch(probed))
                nn.functional.cross_entropy(logits, numbers[probed]).backward()

            sites = evolution.probe(loss)
            for path, site in sites.items():
                if path == "0" and epoch >= 2:
                    self._evolve_inputs(evolution, site, inputs, epoch, connections, random)
                else:
                    self._rewire(evolution, site, random)
            if epoch < 2:
                inputs.age += 1
        self.active_ = inputs.active.numpy().copy()
        self._rank(input_strength(first), rows.constant)
        return self

    def _network(self, features: int, random: torch.Generator) -> nn.Sequential:
        activation = nn.Tanh if self.activation == "tanh" else nn.ReLU
        layers: list[nn.Module] = []
        for n_in in (features, self.hidden, self.hidden):
            density = min(1.0, self.epsilon * (n_in + self.hidden) / (n_in * self.hidden))
            layers += [
                SparseLinear(n_in, self.hidden, density=density, generator=random),
                activation(),
            ]
        classes = len(self.classes_)
        layers.append(SparseLinear(self.hidden, classes, density=1.0, generator=random))
        for layer in layers[::2]:
            assert isinstance(layer, SparseLinear)
            # As published: drawn as for layers with all connections. Larger values would drown
            # in random strength what the inputs learn.
            bound = math.sqrt(6 / sum(layer.topology.matrix_shape))
            with torch.no_grad():
                layer.values.uniform_(-bound, bound, generator=random)
                cast(Tensor, layer.bias).zero_()
        return nn.Sequential(*layers)

    def _rewire(self, evolution: Evolution, site: Site, random: torch.Generator) -> None:
        """Drop the weights nearest zero of a layer and grow as many."""
        nnz = site.topology.nnz
        count = min(round(self.fraction_hidden * nnz), nnz - 1, site.free)
        if count == 0:
            return
        keep = without_nearest_zero(site.values, count)
        left = site.topology.kept(keep)
        evolution.rewire(site.path, keep, self._grown(site, left, count, random))

    def _grown(
        self,
        site: Site,
        taken: Topology,
        count: int,
        random: torch.Generator,
        active: Tensor | None = None,
    ) -> Tensor:
        """The free positions that promise most, of active inputs only if these are given."""

        def score(site: Site, candidates: Candidates) -> Tensor:
            promise = self._promise(site, candidates, random)
            if active is not None:
                promise.view(-1, len(active)).masked_fill_(~active, -torch.inf)
            return promise

        return best_free(site, taken, count, score)[1]

    def _promise(self, site: Site, candidates: Candidates, random: torch.Generator) -> Tensor:
        """What each candidate promises."""
        if self.growth == "random":
            return torch.rand(len(candidates), generator=random)
        return site.gradient(candidates).abs()

    def _evolve_inputs(
        self,
        evolution: Evolution,
        site: Site,
        inputs: Inputs,
        epoch: int,
        connections: int,
        random: torch.Generator,
    ) -> None:
        """Remove and exchange inputs, then rewire the connections of those that stay."""
        back = inputs.remove(input_strength(site.layer), epoch, self.epochs)
        columns = site.topology.csr()[1].long()
        stays = inputs.active[columns]
        values = site.values[stays]
        kept = without_nearest_zero(values, round(self.fraction_in * len(values)))
        keep = stays.clone()
        keep[stays] = kept
        if not keep.any():
            keep[site.values.abs().argmax()] = True
        grown = torch.empty(0, dtype=torch.int64)
        if back:
            inputs.restore(self._worth(site, random), back)
            left = site.topology.kept(keep)
            room = int(inputs.active.sum()) * site.topology.matrix_shape[0] - left.nnz
            count = min(connections - left.nnz, room)
            grown = self._grown(site, left, count, random, inputs.active)
        evolution.rewire(site.path, keep, grown)

    def _worth(self, site: Site, random: torch.Generator) -> Tensor:
        """The most that a position of each input promises ``[columns]``."""
        best = torch.full((site.topology.matrix_shape[1],), -torch.inf)

        def take(tile: Tensor, first: int, last: int) -> None:
            torch.maximum(best, tile.view(last - first, -1).amax(0), out=best)

        def score(site: Site, candidates: Candidates) -> Tensor:
            return self._promise(site, candidates, random)

        each_tile(take, site, score, single(site))
        return best


@dataclass
class Inputs:
    """Which inputs of the network are alive, and when the next ones go.

    Args:
        features: Inputs at the start.
        wanted: Inputs to end with.
        reserve: Share of all inputs that is kept besides.
        removal: Share of the epochs in which inputs are removed for good.
    """

    features: int
    wanted: int
    reserve: float
    removal: float

    def __post_init__(self) -> None:
        self.active = torch.ones(self.features, dtype=torch.bool)
        self.age = torch.zeros(self.features, dtype=torch.int64)
        self.removed = 0

    def remove(self, strength: Tensor, epoch: int, epochs: int) -> int:
        """Let the weakest inputs go, none of them younger than one epoch while some are to go.

        Args:
            strength: Of every input.
            epoch: From 0.
            epochs: In all.

        Returns:
            How many inputs may come back in exchange.
        """
        goal = max(0, int((1 - self.reserve) * self.features - self.wanted))
        removing = self.removed < goal
        exchange = int(self.removed * self.reserve * (1 - epoch / epochs))
        going = 0
        if removing:
            left = max(1, int(self.removal * epochs) - epoch)
            going = math.ceil((goal - self.removed) / left)
        target = self.features - self.removed - going - exchange
        strength = torch.where(self.active, strength, -1.0)
        order = strength.argsort(descending=True, stable=True)
        weak = torch.zeros_like(self.active)
        weak[order[max(1, target) :]] = True
        weak &= self.active
        gone = weak & (self.age >= 1) if removing else weak
        missing = int(weak.sum() - gone.sum())
        exchange, missing = max(0, exchange - missing), max(0, missing - exchange)
        self.removed += max(0, going - missing)
        self.active &= ~gone
        self.age[self.active] += 1
        self.age[~self.active] = 0
        return exchange

    def restore(self, worth: Tensor, count: int) -> None:
        """Bring back the inputs that promise most."""
        promising = torch.where(self.active, -torch.inf, worth)
        count = min(count, int((~self.active).sum()))
        self.active[promising.topk(count).indices] = True
