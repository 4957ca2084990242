"""What the estimators that train a sparse perceptron share."""

from __future__ import annotations

import copy
import math
import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from sklearn.base import BaseEstimator
from sklearn.model_selection import train_test_split
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
from torch import Tensor, nn

from regrow.estimators import checks
from regrow.estimators.learner import Learner, chosen
from regrow.estimators.network import (
    ACTIVATIONS,
    perceptron,
    shapes_of,
    topologies_for,
    weight_of,
)
from regrow.estimators.rows import Rows, batches
from regrow.evolution import Method
from regrow.evolution.fitted import fitted
from regrow.export import to_scipy
from regrow.layers import SparseLayer
from regrow.topology import Topology

DEFAULT_DENSITY = 0.1

# Numbers that the widest layer holds of a batch while rows are predicted.
_ROOM = 4_000_000


class SparsePerceptron(BaseEstimator):  # type: ignore[misc]
    """An estimator that trains a sparse perceptron, in scikit-learn's words.

    Subclasses check their data, say how large the network is, and what it is to learn.

    Attributes:
        coefs_: Weights of every layer, SciPy CSR ``[inputs, outputs]``.
        intercepts_: Biases of every layer.
        topologies_: `Topology` of every layer, ``(outputs, inputs)``.
        loss_curve_: Mean loss of every epoch, without the penalty.
        loss_: The last one.
        best_loss_: The lowest one, without early stopping.
        validation_scores_: With early stopping, the score of every epoch.
        best_validation_score_: The highest one.
        n_iter_: Epochs of the last fit.
        n_layers_: Layers, inputs and outputs counted.
        n_outputs_: Neurons of the last layer.
        out_activation_: What the outputs go through.
        n_features_in_: Number of features seen.
        feature_names_in_: Their names, where the table has some.
    """

    out_activation_: str
    loss_: float
    loss_curve_: list[float]
    best_loss_: float | None
    validation_scores_: list[float] | None
    best_validation_score_: float | None
    n_iter_: int
    _learner: Learner | None
    _best: dict[str, Tensor] | None

    def __init__(
        self,
        hidden_layer_sizes: Any = (100,),
        activation: str = "relu",
        *,
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
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.density = density
        self.epsilon = epsilon
        self.allocation = allocation
        self.method = method
        self.fraction = fraction
        self.every = every
        self.solver = solver
        self.alpha = alpha
        self.batch_size = batch_size
        self.learning_rate_init = learning_rate_init
        self.max_iter = max_iter
        self.shuffle = shuffle
        self.random_state = random_state
        self.tol = tol
        self.verbose = verbose
        self.warm_start = warm_start
        self.momentum = momentum
        self.nesterovs_momentum = nesterovs_momentum
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.n_iter_no_change = n_iter_no_change
        self.compute = compute

    @abstractmethod
    def _loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Loss of every row ``[batch]``."""

    @abstractmethod
    def _score(self, outputs: Tensor, targets: Tensor, weights: Any) -> float:
        """Score of validation rows; higher is better."""

    def _strata(self, targets: Tensor) -> Any:
        """By what rows are to be alike in training and validation part; None for nothing."""
        return None

    def _sizes(self, features: int, outputs: int) -> list[int]:
        """Neurons of every layer, inputs first."""
        return [features, *self._hidden(), outputs]

    # What subclasses call

    def _rows(self, table: Any, *, reset: bool, **options: Any) -> Any:
        """The table, checked; with targets if they are given as ``y``."""
        found = validate_data(
            self,
            table,
            reset=reset,
            accept_sparse="csr",
            dtype=[np.float32, np.float64],
            **options,
        )
        return (Rows(found[0], None), found[1]) if "y" in options else Rows(found, None)

    def _weights(self, weights: Any, table: Any) -> Tensor | None:
        if weights is None:
            return None
        found = _check_sample_weight(weights, table, dtype=np.float32, ensure_non_negative=True)
        return torch.from_numpy(np.ascontiguousarray(found))

    def _is_new(self, incremental: bool) -> bool:
        """Whether a fit starts from a network of its own."""
        return not hasattr(self, "_network") or not (self.warm_start or incremental)

    def _learn(
        self,
        rows: Rows,
        targets: Tensor | None,
        outputs: int,
        weights: Tensor | None = None,
        *,
        incremental: bool = False,
    ) -> None:
        """Train, from a fresh network or from the one that is there.

        Args:
            rows: The table.
            targets: What is to be learnt, a row of it for each row; None for the rows themselves.
            outputs: Neurons of the last layer.
            weights: Of the rows ``[rows]``, or None.
            incremental: Whether this is one epoch of a ``partial_fit``.
        """
        self._check()
        if incremental and self.early_stopping:
            raise ValueError("partial_fit takes no early_stopping: it sees one epoch at a time")
        sizes = self._sizes(rows.shape[1], outputs)
        new = self._is_new(incremental)
        if new or not incremental:
            self._random = checks.generator_of(self.random_state)
        if not new and sizes != self._built:
            raise ValueError(
                f"a network with layers of {self._built} neurons cannot be trained on as one of "
                f"{sizes}: set warm_start to False"
            )
        part, held = self._split(len(rows), targets)
        size = self._batch(len(part))
        steps = -(-len(part) // size)
        if new or not incremental or self._learner is None:
            method = self._planned(sizes, steps)
            if new:
                self._build(sizes, method)
            elif isinstance(method, Method):
                # What was pruned stays so.
                method = replace(method, density=None, redistribute=None)
            self._leave()
            self._learner = self._learner_of(method, steps)
        self.n_iter_ = 0
        try:
            for _ in range(1 if incremental else self.max_iter):
                if self._epoch(rows, targets, weights, part, held, size):
                    break
        except KeyboardInterrupt:
            warnings.warn("training was interrupted", stacklevel=3)
        if held is not None and self._best is not None:
            # Optimiser and evolution know later connections than those of the best epoch.
            self._network.load_state_dict(self._best)
            self._leave()
        self._best = None

    def _leave(self) -> None:
        """Forget what trained the network."""
        if self._learner is not None:
            self._learner.close()
        self._learner = None

    def _outputs(self, rows: Rows, part: Tensor | None = None, *, exact: bool = False) -> Tensor:
        """What the network gives for rows ``[rows, outputs]``, in double precision if ``exact``."""
        if not exact:
            return self._applied(self._network, rows, part)
        network = copy.deepcopy(self._network).double()
        return self._applied(lambda x: network(x.double()), rows, part)

    def _applied(
        self, function: Callable[[Tensor], Tensor], rows: Rows, part: Tensor | None = None
    ) -> Tensor:
        size = max(1, _ROOM // max(self._built))
        numbers = torch.arange(len(rows)) if part is None else part
        with torch.inference_mode():
            return torch.cat([function(rows.batch(some)) for some in numbers.split(size)])

    # What users see

    @property
    def coefs_(self) -> list[sparse.csr_array]:
        """Weights of every layer, SciPy CSR ``[inputs, outputs]``."""
        found = []
        for layer in self._linear():
            if isinstance(layer, SparseLayer):
                found.append(sparse.csr_array(to_scipy(layer)[""].T))
            else:
                found.append(sparse.csr_array(weight_of(layer).detach().numpy().T))
        return found

    @property
    def intercepts_(self) -> list[NDArray[np.float32]]:
        """Biases of every layer."""
        return [layer.bias.detach().numpy().copy() for layer in self._linear()]  # type: ignore[operator]

    @property
    def topologies_(self) -> list[Topology]:
        """Which connections every layer has, ``(outputs, inputs)``."""
        found = []
        for layer in self._linear():
            if isinstance(layer, SparseLayer):
                found.append(layer.topology)
            else:
                weight = weight_of(layer)
                found.append(Topology(weight.shape, torch.arange(weight.numel())))
        return found

    def _linear(self) -> list[nn.Module]:
        if not hasattr(self, "_network"):
            raise AttributeError(f"{type(self).__name__} has this only after fit")
        return list(self._network)[::2]

    # Parameters

    def _hidden(self) -> list[int]:
        given = self.hidden_layer_sizes
        sizes = list(given) if isinstance(given, Iterable) else [given]
        return [checks.whole("hidden_layer_sizes", size, 1) for size in sizes]

    def _check(self) -> None:
        self._hidden()
        checks.one_of("activation", self.activation, ACTIVATIONS)
        checks.one_of("solver", self.solver, ("adam", "sgd"))
        checks.number("alpha", self.alpha, 0)
        if self.batch_size != "auto":
            checks.whole("batch_size", self.batch_size, 1)
        checks.number("learning_rate_init", self.learning_rate_init, 0, ends="()")
        checks.whole("max_iter", self.max_iter, 1)
        checks.number("tol", self.tol, 0)
        for name in ("momentum", "beta_1", "beta_2"):
            checks.number(name, getattr(self, name), 0, 1)
        checks.number("validation_fraction", self.validation_fraction, 0, 1, "()")
        if self.n_iter_no_change != math.inf:
            checks.whole("n_iter_no_change", self.n_iter_no_change, 1)
        checks.density_or_epsilon(self.density, self.epsilon)
        checks.one_of("compute", self.compute, ("auto", "csr", "dense"))
        if self.fraction is not None:
            checks.number("fraction", self.fraction, 0, 1)
        if self.every is not None and self.every != "epoch":
            checks.whole("every", self.every, 1)

    def _batch(self, rows: int) -> int:
        return min(rows, 200 if self.batch_size == "auto" else int(self.batch_size))

    def _split(self, rows: int, targets: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Numbers of the rows to train on, and of those to validate on."""
        numbers = torch.arange(rows)
        if not self.early_stopping:
            return numbers, None
        held = max(1, round(self.validation_fraction * rows))
        if rows - held < 1:
            raise ValueError(
                f"early_stopping needs rows to train on beside those of validation, got {rows} "
                f"and a validation_fraction of {self.validation_fraction}"
            )
        strata = None if targets is None else self._strata(targets)
        if strata is not None:
            counts = np.bincount(strata)
            counts = counts[counts > 0]
            if counts.min() < 2 or not len(counts) <= held <= rows - len(counts):
                strata = None
        parts = train_test_split(
            numbers.numpy(),
            test_size=held,
            stratify=strata,
            random_state=checks.seed_of(self._random),
        )
        return torch.from_numpy(parts[0]), torch.from_numpy(parts[1])

    # Training

    def _planned(self, sizes: list[int], steps: int) -> str | Method:
        """The method, made to fit this training; ``dense`` for none."""
        method = chosen(self.method, fraction=self.fraction)
        if not isinstance(method, Method):
            return method
        shapes = shapes_of(sizes).values()
        density = self.density or DEFAULT_DENSITY
        if self.epsilon is not None:
            if method.density is not None:
                raise ValueError(
                    f"epsilon must be left out for {method.name}, which changes its density: "
                    f"give a density"
                )
            ends = sum(rows + columns for rows, columns in shapes)
            places = sum(rows * columns for rows, columns in shapes)
            density = min(1.0, self.epsilon * ends / places)
        method = fitted(
            method,
            density=density,
            total_steps=self.max_iter * steps,
            steps_per_epoch=steps,
            shapes=shapes,
        )
        return chosen(method, every=self.every)

    def _build(self, sizes: list[int], method: str | Method) -> None:
        topologies = topologies_for(
            shapes_of(sizes),
            method,
            self._random,
            density=None if self.epsilon is not None else self.density or DEFAULT_DENSITY,
            epsilon=self.epsilon,
            allocation=self.allocation,
        )
        self._network = perceptron(sizes, self.activation, topologies, self.compute, self._random)
        self._built = sizes
        self._learner = self._best = None
        self.n_layers_, self.n_outputs_ = len(sizes), sizes[-1]
        self.loss_curve_ = []
        self.best_loss_ = self.validation_scores_ = self.best_validation_score_ = None

    def _learner_of(self, method: str | Method, steps: int) -> Learner:
        network = self._network
        weights = [weight_of(layer) for layer in self._linear()]
        known = {id(weight) for weight in weights}
        others = [p for p in network.parameters() if id(p) not in known]
        groups = [{"params": weights}, {"params": others}]  # the first has a penalty
        optimizer: torch.optim.Optimizer
        if self.solver == "adam":
            betas = (self.beta_1, self.beta_2)
            optimizer = torch.optim.Adam(
                groups, lr=self.learning_rate_init, betas=betas, fused=True
            )
        else:
            optimizer = torch.optim.SGD(
                groups,
                lr=self.learning_rate_init,
                momentum=self.momentum,
                nesterov=bool(self.nesterovs_momentum) and self.momentum > 0,
            )
        self._stale = 0
        self.best_loss_ = None if self.early_stopping else math.inf
        if self.early_stopping:
            self.validation_scores_ = []
            self.best_validation_score_ = -math.inf
        return Learner(
            network,
            optimizer,
            method,
            seed=checks.seed_of(self._random),
            steps_per_epoch=steps,
            total_steps=self.max_iter * steps,
        )

    def _epoch(
        self,
        rows: Rows,
        targets: Tensor | None,
        weights: Tensor | None,
        part: Tensor,
        held: Tensor | None,
        size: int,
    ) -> bool:
        """One epoch; whether training is to end."""
        network, learner, lost = self._network, self._learner, 0.0
        assert learner is not None
        network.train()
        order = batches(len(part), size, self._random, shuffle=self.shuffle, rest=True)
        for numbers in order:
            chosen_rows = part[numbers]
            x = rows.batch(chosen_rows)
            y = x if targets is None else targets[chosen_rows]
            w = None if weights is None else weights[chosen_rows]
            loss = 0.0

            # Scikit-learn's penalty is alpha / 2 times the squares, shared by the rows of a batch.
            count = len(x) if w is None else float(w.sum()) or 1.0
            learner.optimizer.param_groups[0]["weight_decay"] = self.alpha / count

            def backward(x: Tensor = x, y: Tensor = y, w: Tensor | None = w) -> None:
                nonlocal loss
                found = self._mean(self._loss(network(self._seen(x)), y), w)
                found.backward()
                loss = found.item()

            learner.step(backward)
            lost += loss * len(x)
        network.eval()
        self.n_iter_ += 1
        self.loss_ = lost / len(part)
        if not math.isfinite(self.loss_):
            raise ValueError(
                f"training diverged in epoch {self.n_iter_}: the loss is {self.loss_}; scale the "
                f"features, or lower learning_rate_init ({self.learning_rate_init})"
            )
        self.loss_curve_.append(self.loss_)
        if self.verbose:
            print(f"Iteration {self.n_iter_}, loss = {self.loss_:.8f}")
        return self._judge(rows, targets, weights, held)

    def _seen(self, x: Tensor) -> Tensor:
        """What the network is given of a batch."""
        return x

    def _mean(self, losses: Tensor, weights: Tensor | None) -> Tensor:
        if weights is None:
            return losses.mean()
        total = weights.sum()
        # Rows that do not count leave no gradient.
        return (losses * weights).sum() / torch.where(total > 0, total, 1.0)

    def _judge(
        self, rows: Rows, targets: Tensor | None, weights: Tensor | None, held: Tensor | None
    ) -> bool:
        """Note how training goes; whether it is to end."""
        learner = self._learner
        assert learner is not None
        judged, better, improved = self.loss_, False, False
        settled = learner.settled
        if held is None:
            assert self.best_loss_ is not None
            improved = self.loss_ <= self.best_loss_ - self.tol
            self.best_loss_ = min(self.best_loss_, self.loss_)
        else:
            score, judged = self._validated(rows, targets, weights, held)
            assert self.validation_scores_ is not None
            assert self.best_validation_score_ is not None
            self.validation_scores_.append(score)
            if self.verbose:
                print(f"Validation score: {score:.6f}")
            # A network that has not its density yet is no candidate.
            if settled:
                improved = score >= self.best_validation_score_ + self.tol
                better = score > self.best_validation_score_
            if better:
                self.best_validation_score_ = score
                state = self._network.state_dict()
                self._best = {name: entry.clone() for name, entry in state.items()}
        learner.report(judged)
        self._stale = 0 if improved or not settled else self._stale + 1
        if self._stale <= self.n_iter_no_change:
            return False
        if self.verbose:
            print(f"Stopping: no better than tol={self.tol} in {self.n_iter_no_change} epochs.")
        return True

    def _validated(
        self, rows: Rows, targets: Tensor | None, weights: Tensor | None, held: Tensor
    ) -> tuple[float, float]:
        """Score and mean loss of validation rows."""
        outputs = self._outputs(rows, held)
        found = rows.batch(held) if targets is None else targets[held]
        counted = None if weights is None else weights[held]
        loss = float(self._mean(self._loss(outputs, found), counted))
        return self._score(outputs, found, None if counted is None else counted.numpy()), loss

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_network")


def fitted_rows(estimator: SparsePerceptron, table: Any) -> Rows:
    """The rows of a table for an estimator that is fitted."""
    check_is_fitted(estimator)
    rows: Rows = estimator._rows(table, reset=False)
    return rows
