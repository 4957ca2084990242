"""A classifier: a perceptron whose connections are few, and move while it learns."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.utils import column_or_1d
from sklearn.utils.multiclass import type_of_target, unique_labels
from torch import Tensor
from torch.nn import functional

from regrow.estimators.base import SparsePerceptron, fitted_rows
from regrow.estimators.classes import encoded
from regrow.estimators.rows import Rows


class SparseMLPClassifier(ClassifierMixin, SparsePerceptron):  # type: ignore[misc]
    """Classifier with hidden layers whose weights are sparse from the first step to the last.

    It stands where scikit-learn's ``MLPClassifier`` does, and has its parameters and attributes
    where they mean the same. Memory and time of a step grow with the connections; no dense
    weight, gradient or optimiser state exists. Two classes have one output with a logistic
    function, more have a softmax, and a table of labels (multilabel) one logistic output each.

    Args:
        hidden_layer_sizes: Neurons of the hidden layers.
        activation: Of the hidden layers: ``relu``, ``tanh``, ``logistic``, ``identity``, ``srelu``
            or ``all-relu``.
        density: Kept fraction of all connections, in (0, 1]. With neither this nor an epsilon it
            is 0.1. A method that changes the density ends with it.
        epsilon: Instead of a density, SET's sparsity control: ``epsilon * (inputs + outputs)``
            connections a layer.
        allocation: How the density is shared among the layers, as of
            ``regrow.topology.allocate``. A layer that gets every connection is an ordinary one.
        method: How connections change: any name of ``regrow.methods()``, a `Method`, or ``dense``
            for a network with all connections.
        fraction: Share of the connections that an update drops and grows, in [0, 1), where it is
            no schedule; None for the method's own.
        every: Steps between updates, or ``"epoch"``; None for the method's own, but a tenth of the
            training at most.
        solver: ``adam`` or ``sgd``.
        alpha: Strength of the L2 penalty on the weights.
        batch_size: Rows of a step; ``auto`` is 200, or all where there are fewer.
        learning_rate_init: Of the solver; it stays.
        max_iter: Epochs at most. Schedules of the method end with them.
        shuffle: Whether the order of the rows is drawn anew in every epoch.
        random_state: Seed, ``numpy.random.RandomState`` or None.
        tol: What the loss, or with early stopping the score, has to get better by.
        verbose: Whether a line is printed after every epoch.
        warm_start: Whether ``fit`` goes on with the network that is there.
        momentum: Of ``sgd``, in [0, 1).
        nesterovs_momentum: Whether it looks ahead.
        early_stopping: Whether part of the rows is held out, and the network of the epoch with the
            highest score on them kept.
        validation_fraction: Share of the rows held out, in (0, 1).
        beta_1: Decay of the first moment of ``adam``.
        beta_2: Decay of its second moment.
        n_iter_no_change: Epochs in a row without getting better by ``tol`` after which it ends.
        compute: Of the sparse layers: ``auto`` (measured), ``csr`` or ``dense``.

    Attributes:
        classes_: The labels.
        coefs_: Weights of every layer, SciPy CSR ``[inputs, outputs]``.
        intercepts_: Biases of every layer.
        topologies_: `Topology` of every layer, ``(outputs, inputs)``.
        loss_curve_: Mean loss of every epoch, without the penalty.
        validation_scores_: With early stopping, the accuracy of every epoch; else None.
        best_validation_score_: The highest of them.
        n_iter_: Epochs of the last fit.

    Example:
        >>> from sklearn.datasets import load_digits
        >>> X, y = load_digits(return_X_y=True)
        >>> model = SparseMLPClassifier((100,), density=0.2, max_iter=10,
        ...                             learning_rate_init=0.01, random_state=0)
        >>> model.fit(X[:1200] / 16, y[:1200]).score(X[1200:] / 16, y[1200:]) > 0.8
        True
        >>> sum(weights.nnz for weights in model.coefs_)
        1480

    References:
        D. C. Mocanu, E. Mocanu, P. Stone, P. H. Nguyen, M. Gibescu, A. Liotta, "Scalable training
        of artificial neural networks with adaptive sparse connectivity inspired by network
        science", 2018.
    """

    classes_: NDArray[Any]

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> SparseMLPClassifier:  # noqa: N803
        """Train.

        Args:
            X: Table ``[rows, features]``, NumPy or SciPy sparse, without missing values.
            y: Class of each row, or a table of 0 and 1 ``[rows, labels]``.
            sample_weight: How much each row counts, or None for alike.
        """
        reset = self._is_new(False)
        rows, labels = self._labelled(X, y, reset=reset)
        if reset:
            self._take_classes(labels, None)
        weights = self._weights(sample_weight, labels)
        self._learn(rows, self._targets(labels), self._n_outputs, weights)
        return self

    def partial_fit(
        self,
        X: Any,  # noqa: N803
        y: Any,
        classes: Any = None,
        sample_weight: Any = None,
    ) -> SparseMLPClassifier:
        """One epoch on these rows.

        An update of the topology that is due afterwards comes before the next epoch. Epochs are
        taken to be as long as the first one.

        Args:
            X: Table ``[rows, features]``.
            y: Class of each row.
            classes: All labels that will come; needed in the first call.
            sample_weight: How much each row counts, or None for alike.
        """
        first = not hasattr(self, "_network")
        if first and classes is None:
            raise ValueError("classes must be given in the first call of partial_fit")
        rows, labels = self._labelled(X, y, reset=first)
        if first:
            self._take_classes(labels, classes)
        elif classes is not None and not np.array_equal(np.unique(classes), self.classes_):
            raise ValueError(
                f"classes must be those of the first call, {self.classes_.tolist()}, "
                f"got {np.asarray(classes).tolist()}"
            )
        weights = self._weights(sample_weight, labels)
        targets = self._targets(labels)
        self._learn(rows, targets, self._n_outputs, weights, incremental=True)
        return self

    def predict(self, X: Any) -> NDArray[Any]:  # noqa: N803
        """Class of each row; with several labels a table of 0 and 1."""
        outputs = self._outputs(fitted_rows(self, X))
        if self._multilabel:
            return np.asarray((outputs > 0).long().numpy())
        numbers = (outputs[:, 0] > 0).long() if outputs.shape[1] == 1 else outputs.argmax(1)
        return np.asarray(self.classes_[numbers.numpy()])

    def predict_proba(self, X: Any) -> NDArray[np.float32]:  # noqa: N803
        """Probability of each class, float32 ``[rows, classes]``."""
        outputs = self._outputs(fitted_rows(self, X))
        if self._multilabel:
            return np.asarray(outputs.sigmoid().numpy())
        if outputs.shape[1] == 1:
            outputs = torch.cat([-outputs, outputs], 1).sigmoid()
            return np.asarray(outputs.numpy())
        return np.asarray(outputs.softmax(1).numpy())

    def predict_log_proba(self, X: Any) -> NDArray[np.float32]:  # noqa: N803
        """Logarithm of the probability of each class, float32 ``[rows, classes]``."""
        outputs = self._outputs(fitted_rows(self, X))
        if self._multilabel:
            return np.asarray(functional.logsigmoid(outputs).numpy())
        if outputs.shape[1] == 1:
            outputs = functional.logsigmoid(torch.cat([-outputs, outputs], 1))
            return np.asarray(outputs.numpy())
        return np.asarray(outputs.log_softmax(1).numpy())

    @property
    def _n_outputs(self) -> int:
        kinds = len(self.classes_)
        return 1 if kinds == 2 and not self._multilabel else kinds

    def _labelled(self, table: Any, y: Any, *, reset: bool) -> tuple[Rows, Any]:
        rows, labels = self._rows(table, reset=reset, y=y, multi_output=True)
        if labels.ndim == 2 and labels.shape[1] == 1:
            labels = column_or_1d(labels, warn=True)
        return rows, labels

    def _take_classes(self, labels: Any, classes: Any) -> None:
        self._multilabel = type_of_target(labels).startswith("multilabel")
        if self._multilabel:
            self.classes_ = unique_labels(labels)
        elif classes is not None:
            self.classes_ = unique_labels(classes)
        else:
            self.classes_ = encoded(labels)[0]
        self.out_activation_ = "logistic" if self._n_outputs == 1 or self._multilabel else "softmax"

    def _targets(self, labels: Any) -> Tensor:
        if self._multilabel:
            return torch.from_numpy(np.asarray(labels, dtype=np.float32))
        numbers = np.searchsorted(self.classes_, labels)
        numbers[numbers == len(self.classes_)] = 0
        strange = self.classes_[numbers] != labels
        if strange.any():
            raise ValueError(
                f"y must have classes of {self.classes_.tolist()}, got "
                f"{np.unique(np.asarray(labels)[strange]).tolist()} as well"
            )
        return torch.from_numpy(numbers.astype(np.int64))

    def _loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        if targets.dim() == 1 and outputs.shape[1] > 1:
            return functional.cross_entropy(outputs, targets, reduction="none")
        if targets.dim() == 1:
            targets = targets.to(outputs.dtype).unsqueeze(1)
        losses = functional.binary_cross_entropy_with_logits(outputs, targets, reduction="none")
        return losses.sum(1)

    def _score(self, outputs: Tensor, targets: Tensor, weights: Any) -> float:
        if targets.dim() == 2 or outputs.shape[1] == 1:
            found = (outputs > 0).int()
            found = found if targets.dim() == 2 else found[:, 0]
        else:
            found = outputs.argmax(1)
        return float(accuracy_score(targets.numpy(), found.numpy(), sample_weight=weights))

    def _strata(self, targets: Tensor) -> Any:
        return targets.numpy() if targets.dim() == 1 else None

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags
