"""Neuron attribution: inputs ranked by how much the class probabilities depend on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn

from regrow.estimators.classes import encoded, split
from regrow.estimators.rows import Rows, Scale, batches
from regrow.evolution import Evolution
from regrow.evolution.schedules import Cosine
from regrow.layers import SparseLayer, sparse_layers, sparsify
from regrow.selection.selector import FeatureSelector, input_strength

Metric = Callable[[nn.Sequential, Tensor], Tensor]


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Nothing in here asks for gradients of parameters, so that none are computed."""
    held = [p for p in network.parameters() if p.requires_grad]
    for parameter in held:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in held:
            parameter.requires_grad_(True)


def attribution(network: nn.Sequential, x: Tensor) -> Tensor:
    """Mean size of the derivative of the class probabilities by every input, summed over classes.

    One backward pass a class gives the derivatives of all rows, for rows do not influence each
    other.

    Args:
        network: Maps ``[batch, features]`` to logits ``[batch, classes]``.
        x: Inputs ``[batch, features]``.

    Returns:
        ``[features]``.
    """
    x = x.detach().requires_grad_()
    total = torch.zeros(x.shape[1])
    with torch.enable_grad(), frozen(network):
        chances = network(x).softmax(1)
        for chance in chances.unbind(1):
            (slope,) = torch.autograd.grad(chance.sum(), x, retain_graph=True)
            total += slope.abs().mean(0)
    return total


def strength(network: nn.Sequential, x: Tensor) -> Tensor:
    """Sum of the absolute weights of every input in the first layer ``[features]``."""
    first = network[0]
    if isinstance(first, SparseLayer):
        return input_strength(first)
    return cast(nn.Linear, first).weight.detach().abs().sum(0)


METRICS: dict[str, Metric] = {"attribution": attribution, "strength": strength}


class NeuronAttribution(FeatureSelector):
    """Supervised selection by attribution to the inputs of a sparse classifier while it learns.

    Before every step, the derivatives of the class probabilities with respect to the inputs are
    taken; an input's importance is their mean absolute value, summed over classes and over all
    steps of the training. Early steps count, for a network that is sure of itself has no
    derivatives left.

    Args:
        n_features_to_select: How many features to keep: a number, a share in (0, 1), or None for
            half of them. It does not influence the training.
        hidden: Units of the hidden layers.
        method: How connections change: ``set``, ``rigl`` or another of ``regrow.methods()``, or
            ``dense`` for a network with all connections.
        density: Kept fraction of all connections, in (0, 1); ERK shares it among the layers.
        fraction: Share of its connections that an update drops and grows, at the start; it falls
            along half a cosine wave.
        every: Steps between updates.
        metric: ``attribution``, or ``strength``, the sum of an input's absolute weights.
        over: What the importance is summed over: ``all`` steps, those of the ``last epoch``, or
            the ``last step``.
        epochs: Passes over the rows at most.
        patience: Epochs without a lower validation loss after which the training stops.
        validation_fraction: Share of the rows that the training does not see, in (0, 1).
        learning_rate: Of Adam.
        weight_decay: Of Adam.
        batch_size: Rows of a step; a remainder of an epoch is left out. None takes 32 below 200
            rows, else 100.
        scale: What is done to the features first: ``standard``, ``minmax``, ``global`` or None;
            see `Rows`.
        random_state: Seed, ``numpy.random.RandomState`` or None.
        verbose: Whether to show progress.

    Attributes:
        feature_importances_: Importance of every input.
        classes_: The labels.
        n_iter_: Epochs trained.

    Example:
        >>> from sklearn.datasets import load_digits
        >>> X, y = load_digits(return_X_y=True)
        >>> selector = NeuronAttribution(16, hidden=(100,), epochs=2, random_state=0).fit(X, y)
        >>> selector.transform(X).shape
        (1797, 16)

    References:
        Z. Atashgahi, T. Liu, M. Pechenizkiy, R. Veldhuis, D. C. Mocanu, M. van der Schaar,
        "Unveiling the power of sparse neural networks for feature selection", 2024.

    Differs from the paper:
        The network ends in one softmax over the classes, where the published code normalises over
        the batch and then once more. Density and weight
        decay are arguments, to be chosen by a search; the paper takes those of lowest validation
        loss. Features with one value only come last.
    """

    n_iter_: int

    def __init__(
        self,
        n_features_to_select: int | float | None = None,
        *,
        hidden: tuple[int, ...] = (1000, 100),
        method: str = "set",
        density: float = 0.2,
        fraction: float = 0.3,
        every: int = 10,
        metric: str = "attribution",
        over: str = "all",
        epochs: int = 200,
        patience: int = 50,
        validation_fraction: float = 0.2,
        learning_rate: float = 0.001,
        weight_decay: float = 1e-4,
        batch_size: int | None = None,
        scale: Scale = "standard",
        random_state: Any = None,
        verbose: bool = False,
    ) -> None:
        self.n_features_to_select = n_features_to_select
        self.hidden = hidden
        self.method = method
        self.density = density
        self.fraction = fraction
        self.every = every
        self.metric = metric
        self.over = over
        self.epochs = epochs
        self.patience = patience
        self.validation_fraction = validation_fraction
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.scale = scale
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any) -> NeuronAttribution:  # noqa: N803
        """Train from a fresh start until the validation loss stops falling, and rank the features.

        Args:
            X: Table ``[rows, features]``, NumPy or SciPy sparse, without missing values.
            y: Class of each row.
        """
        if self.metric not in METRICS:
            raise ValueError(f"metric must be one of {', '.join(METRICS)}, got {self.metric!r}")
        if self.over not in ("all", "last epoch", "last step"):
            raise ValueError(f"over must be all, last epoch or last step, got {self.over!r}")
        rows, labels = self._rows(X, y=y)
        self.classes_, numbers = encoded(labels)
        random = self._generator()
        seen, held = split(numbers, self.validation_fraction, random)
        size = self.batch_size or (32 if len(rows) < 200 else 100)
        network = self._network(rows.shape[1], random)
        optimizer = torch.optim.Adam(
            network.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay
        )
        steps = max(1, len(seen) // min(size, len(seen)))
        evolution = self._evolution(network, optimizer, steps, random)
        importance = torch.zeros(rows.shape[1])
        best, stale = float("inf"), 0
        for epoch in self._epochs(self.epochs):
            self.n_iter_ = epoch + 1
            if self.over == "last epoch":
                importance.zero_()
            for step, chosen in enumerate(batches(len(seen), size, random), start=1):
                x, target = rows.batch(seen[chosen]), numbers[seen[chosen]]
                if self.over != "last step":
                    importance += METRICS[self.metric](network, x)
                elif step == steps:  # the training ends with an epoch
                    importance = METRICS[self.metric](network, x)
                nn.functional.cross_entropy(network(x), target).backward()
                optimizer.step()
                optimizer.zero_grad()
                if evolution:
                    evolution.step()
            loss = mean_loss(network, rows, numbers, held)
            stale = 0 if loss < best else stale + 1
            best = min(best, loss)
            if stale >= self.patience:
                break
        self._rank(importance, rows.constant)
        return self

    def _network(self, features: int, random: torch.Generator) -> nn.Sequential:
        seed = int(torch.randint(2**31 - 1, (1,), generator=random))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = perceptron((features, *self.hidden, len(self.classes_)), nn.ReLU)
        if self.method != "dense":
            # As published: a dense start of which most is left out. Larger values would drown in
            # random strength what the inputs learn.
            sparsify(network, self.density, allocation="erk", generator=random, values="keep")
        return network

    def _evolution(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        steps: int,
        random: torch.Generator,
    ) -> Evolution | None:
        if not sparse_layers(network):
            return None
        seed = int(torch.randint(2**31 - 1, (1,), generator=random))
        last = self.epochs * steps
        return Evolution(
            network,
            optimizer,
            self.method,
            fraction=Cosine(self.fraction, 0.005),
            every=self.every,
            until=last,
            start="zero",
            seed=seed,
        )


def perceptron(sizes: tuple[int, ...], activation: type[nn.Module]) -> nn.Sequential:
    """Linear layers of these sizes with activations between them.

    Example:
        >>> [type(layer).__name__ for layer in perceptron((4, 3, 2), nn.Tanh)]
        ['Linear', 'Tanh', 'Linear']
    """
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), activation()]
    return nn.Sequential(*layers[:-1])


@torch.no_grad()
def mean_loss(network: nn.Module, rows: Rows, numbers: Tensor, chosen: Tensor) -> float:
    """Mean cross-entropy of some rows."""
    total = 0.0
    for part in chosen.split(1000):
        logits = network(rows.batch(part))
        total += float(nn.functional.cross_entropy(logits, numbers[part], reduction="sum"))
    return total / len(chosen)
