"""A restricted Boltzmann machine whose weights are sparse while it learns."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor, nn
from torch.nn.functional import softplus

from regrow.estimators import checks
from regrow.estimators.learner import Learner, chosen
from regrow.estimators.rows import Rows, batches
from regrow.evolution import Method
from regrow.evolution.fitted import beginning, fitted
from regrow.export import to_scipy
from regrow.kernels import ops
from regrow.layers import SparseLinear
from regrow.topology import Topology
from regrow.topology.initial import pattern_of

# SET's sparsity control where nothing else is said, as published for these machines.
_EPSILON = 11

# Numbers that hold a batch while rows are transformed or scored.
_ROOM = 4_000_000


class Machine(nn.Module):
    """Visible and hidden units with sparse connections between them.

    Args:
        topology: Connections, ``(hidden, visible)``.
        spread: Standard deviation of the first weights; biases start at 0.
        compute: Of the layer.
        generator: Of the weights.

    Example:
        >>> topology = Topology((4, 6), torch.arange(0, 24, 2))
        >>> machine = Machine(topology, 0.05, "csr", torch.Generator().manual_seed(0))
        >>> v = torch.ones(2, 6)
        >>> machine.hidden(v).shape, machine.visible(machine.hidden(v)).shape
        (torch.Size([2, 4]), torch.Size([2, 6]))
    """

    def __init__(
        self, topology: Topology, spread: float, compute: str, generator: torch.Generator
    ) -> None:
        super().__init__()
        hidden, visible = topology.matrix_shape
        self.layer = SparseLinear(
            visible, hidden, topology=topology, compute=compute, generator=generator
        )
        self.activation = nn.Sigmoid()
        self.bias = nn.Parameter(torch.zeros(visible))
        with torch.no_grad():
            self.layer.values.normal_(0, spread, generator=generator)
            assert self.layer.bias is not None
            self.layer.bias.zero_()

    def hidden(self, v: Tensor) -> Tensor:
        """Probabilities of hidden units ``[batch, hidden]``, from visible ones."""
        return self._up(v).sigmoid_()

    def visible(self, h: Tensor) -> Tensor:
        """Probabilities of visible units ``[batch, visible]``, from hidden ones."""
        like = h.new_empty(len(h), self.layer.in_features)  # only its shape counts
        back = self._back(h, like, True, False)[0]
        return back.add_(self.bias.detach()).sigmoid_()

    def _up(self, v: Tensor) -> Tensor:
        layer, bias = self.layer, self.layer.bias
        assert bias is not None
        values, operands = layer.values.detach(), layer.operands()
        return ops.forward(v, values, bias.detach(), operands, layer.compute, True)

    def _back(self, h: Tensor, v: Tensor, need_v: bool, need_values: bool) -> tuple[Tensor, ...]:
        values, operands, compute = self.layer.values, self.layer.operands(), self.layer.compute
        return ops.backward(h, v, values, operands, compute, need_v, need_values)

    @torch.no_grad()
    def diverge(self, v: Tensor, steps: int, generator: torch.Generator) -> float:
        """Leave the gradient of contrastive divergence in the parameters.

        Correlations of the data less those of the reconstruction are formed at the connections
        only.

        Args:
            v: Data in [0, 1], ``[batch, visible]``.
            steps: Of the Markov chain, at least one.
            generator: Of its draws.

        Returns:
            Mean squared error of the reconstruction.
        """
        # As modules, for a growth by activations listens to what goes through them.
        first = h = torch.bernoulli(self.activation(self.layer(v)), generator=generator)
        for _ in range(steps):
            back = self.visible(h)
            h = torch.bernoulli(self.hidden(back), generator=generator)
        share = 1 / len(v)
        signed = torch.cat([first.mul_(-share), h.mul_(share)])
        self.layer.values.grad = self._back(signed, torch.cat([v, back]), False, True)[1]
        assert self.layer.bias is not None
        self.layer.bias.grad = signed.sum(0)
        difference = back.sub_(v)
        self.bias.grad = difference.mean(0)
        return float(difference.square_().mean())

    @torch.no_grad()
    def pseudo_likelihood(self, v: Tensor) -> Tensor:
        """Sum over the visible units of the logarithm of each one's probability given the others.

        To turn one unit changes the input of those hidden units only that it is connected with, so
        that all of them are turned in O(batch × connections).

        Args:
            v: ``[batch, visible]``.

        Returns:
            ``[batch]``.
        """
        topology, values = self.layer.topology, self.layer.values
        rows, columns = topology.rows, topology.csr()[1].long()
        up = self._up(v)
        turn = 1 - 2 * v
        change = softplus(up[:, rows] + turn[:, columns] * values) - softplus(up)[:, rows]
        energy = -self.bias * turn
        energy.index_add_(1, columns, change, alpha=-1)
        return -softplus(-energy).sum(1)


class SparseRBM(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Restricted Boltzmann machine with sparse weights that are rewired while it learns.

    It stands where scikit-learn's ``BernoulliRBM`` does: features in [0, 1] go in, probabilities of
    hidden units come out. It learns by contrastive divergence. Weights, their gradient and
    their momentum exist at the connections only, and after every epoch some connections drop
    and as many grow elsewhere.

    Args:
        n_components: Hidden units.
        density: Kept fraction of all connections, in (0, 1].
        epsilon: Instead of a density, SET's sparsity control: ``epsilon * (n_features +
            n_components)`` connections. With neither it is 11.
        method: How connections change: ``set``, ``static`` or another of ``regrow.methods()``, a
            `Method`, or ``dense`` for a machine with all connections. Schedules of a method end
            with ``n_iter`` epochs.
        fraction: Share of the connections that an update drops and grows, in [0, 1); None for the
            method's own, 0.3 of ``set``.
        final_removal: Whether ``fit`` ends with an update that only drops, as published.
        learning_rate: Of all parameters.
        batch_size: Rows of a step.
        n_iter: Epochs of ``fit``.
        cd_steps: Steps of the Markov chain: the k of CD-k.
        momentum: Of the steps, in [0, 1).
        weight_decay: Share that every step takes off the parameters, not multiplied by the rate.
        init_std: Standard deviation of the first weights, and of new ones where the method draws
            them from a normal distribution.
        shuffle: Whether the order of the rows is drawn anew in every epoch.
        compute: ``csr`` never forms a dense weight or gradient; ``auto`` measures whether a
            dense product would be faster; ``dense``.
        verbose: Whether a line is printed after every epoch.
        random_state: Seed, ``numpy.random.RandomState`` or None.

    Attributes:
        components_: Weights, SciPy CSR ``[n_components, n_features]``.
        intercept_hidden_: Biases of the hidden units ``[n_components]``.
        intercept_visible_: Biases of the visible units ``[n_features]``.
        topology_: `Topology` of the connections, ``(n_components, n_features)``.
        loss_curve_: Mean squared error of the reconstructions of each epoch, as it learnt.
        n_iter_: Epochs done.
        n_features_in_: Number of features seen.
        feature_names_in_: Their names, where the table has some.

    Example:
        >>> from sklearn.datasets import load_digits
        >>> X, y = load_digits(return_X_y=True)
        >>> rbm = SparseRBM(100, n_iter=2, random_state=0).fit(X / 16)
        >>> rbm.transform(X / 16).shape, rbm.components_.nnz < 0.3 * 64 * 100
        ((1797, 100), True)

    References:
        D. C. Mocanu, E. Mocanu, P. Stone, P. H. Nguyen, M. Gibescu, A. Liotta, "Scalable training
        of artificial neural networks with adaptive sparse connectivity inspired by network
        science", 2018.

    Differs from the paper:
        Connections are placed without repetition and an update drops exactly the fraction. Rows
        that do not fill the last batch of an epoch are used too.
    """

    def __init__(
        self,
        n_components: int = 256,
        *,
        density: float | None = None,
        epsilon: float | None = None,
        method: str | Method = "set",
        fraction: float | None = None,
        final_removal: bool = True,
        learning_rate: float = 0.1,
        batch_size: int = 10,
        n_iter: int = 10,
        cd_steps: int = 1,
        momentum: float = 0.0,
        weight_decay: float = 2e-7,
        init_std: float = 0.05,
        shuffle: bool = True,
        compute: str = "csr",
        verbose: bool = False,
        random_state: Any = None,
    ) -> None:
        self.n_components = n_components
        self.density = density
        self.epsilon = epsilon
        self.method = method
        self.fraction = fraction
        self.final_removal = final_removal
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.n_iter = n_iter
        self.cd_steps = cd_steps
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.init_std = init_std
        self.shuffle = shuffle
        self.compute = compute
        self.verbose = verbose
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> SparseRBM:  # noqa: N803
        """Learn for ``n_iter`` epochs from a fresh start.

        Args:
            X: Table ``[rows, features]``, NumPy or SciPy sparse, with values in [0, 1], which is
                not checked.
            y: Ignored.
        """
        rows = self._rows(X)
        self._start(rows)
        for _ in range(self.n_iter):
            self._epoch(rows)
        if self.final_removal:
            self.prune()
        return self

    def partial_fit(self, X: Any, y: Any = None) -> SparseRBM:  # noqa: N803
        """One more epoch, on these rows.

        The update of the topology that is due after an epoch comes before the next one, and
        ``prune`` ends a training as ``fit`` does.

        Args:
            X: Table ``[rows, features]``.
            y: Ignored.
        """
        first = not hasattr(self, "_learner")
        rows = self._rows(X, reset=first)
        if first:
            self._start(rows)
        self._epoch(rows)
        return self

    def prune(self) -> SparseRBM:
        """Drop what an update would drop now, and grow nothing.

        It does nothing where the method does not change connections.
        """
        check_is_fitted(self)
        self._learner.prune()
        return self

    def transform(self, X: Any) -> NDArray[np.float32]:  # noqa: N803
        """Probabilities of the hidden units, float32 ``[rows, n_components]``."""
        machine, rows = self._fitted(X)
        return applied(machine.hidden, rows, self.n_components)

    def inverse_transform(self, X: Any) -> NDArray[np.float32]:  # noqa: N803
        """Probabilities of the visible units, given hidden ones or their probabilities.

        Args:
            X: ``[rows, n_components]``.

        Returns:
            float32 ``[rows, n_features]``.
        """
        check_is_fitted(self)
        table = checks.codes(X, self._n_features_out)
        machine = self._machine
        return applied(machine.visible, Rows(table, None), machine.layer.in_features)

    def gibbs(self, v: Any) -> NDArray[np.bool_]:
        """One step of Gibbs sampling: draw hidden units, and visible ones from them.

        Args:
            v: Visible units ``[rows, n_features]``.

        Returns:
            Visible units, bool ``[rows, n_features]``.
        """
        machine, rows = self._fitted(v)

        def step(x: Tensor) -> Tensor:
            h = torch.bernoulli(machine.hidden(x), generator=self._random)
            return torch.bernoulli(machine.visible(h), generator=self._random)

        return applied(step, rows, self.n_components).astype(bool)

    def score_samples(self, X: Any) -> NDArray[np.float32]:  # noqa: N803
        """Pseudo-likelihood of each row: summed log-probabilities of its features given the others.

        ``BernoulliRBM`` turns one feature drawn at random and takes it for all of them; here all
        are turned, at the cost of one number for each connection and row.

        Returns:
            float32 ``[rows]``.
        """
        machine, rows = self._fitted(X)
        room = machine.layer.topology.nnz
        return applied(lambda x: machine.pseudo_likelihood(x), rows, room)

    def score(self, X: Any, y: Any = None) -> float:  # noqa: N803
        """Mean of ``score_samples``; higher is better."""
        return float(self.score_samples(X).mean(dtype=np.float64))

    @property
    def topology_(self) -> Topology:
        """Which connections there are."""
        return self._machine.layer.topology

    @property
    def components_(self) -> sparse.csr_array:
        """Weights, SciPy CSR ``[n_components, n_features]``."""
        return to_scipy(self._machine.layer)[""]

    @property
    def intercept_hidden_(self) -> NDArray[np.float32]:
        """Biases of the hidden units."""
        bias = self._machine.layer.bias
        assert bias is not None
        return np.asarray(bias.detach().numpy())

    @property
    def intercept_visible_(self) -> NDArray[np.float32]:
        """Biases of the visible units."""
        return np.asarray(self._machine.bias.detach().numpy())

    @property
    def _machine(self) -> Machine:
        if not hasattr(self, "_learner"):
            raise AttributeError(f"{type(self).__name__} has this only after fit")
        network = self._learner.network
        assert isinstance(network, Machine)
        return network

    def _rows(self, table: Any, *, reset: bool = True) -> Rows:
        table = validate_data(
            self, table, reset=reset, accept_sparse="csr", dtype=[np.float32, np.float64]
        )
        return Rows(table, None)

    def _fitted(self, table: Any) -> tuple[Machine, Rows]:
        check_is_fitted(self)
        return self._machine, self._rows(table, reset=False)

    def _check(self) -> None:
        for name in ("n_components", "batch_size", "cd_steps"):
            checks.whole(name, getattr(self, name), 1)
        checks.whole("n_iter", self.n_iter, 0)
        checks.one_of("compute", self.compute, ("csr", "dense", "auto"))
        checks.density_or_epsilon(self.density, self.epsilon)
        checks.number("learning_rate", self.learning_rate, 0, ends="()")
        checks.number("momentum", self.momentum, 0, 1)
        checks.number("weight_decay", self.weight_decay, 0, 1)
        checks.number("init_std", self.init_std, 0)
        if self.fraction is not None:
            checks.number("fraction", self.fraction, 0, 1)

    def _start(self, rows: Rows) -> None:
        self._check()
        self._random = checks.generator_of(self.random_state)
        steps = -(-len(rows) // min(self.batch_size, len(rows)))
        total = max(1, self.n_iter) * steps
        shape = self.n_components, rows.shape[1]
        method = chosen(self.method, fraction=self.fraction, normal=self.init_std)
        epsilon = _EPSILON if self.epsilon is None else self.epsilon
        density = self.density or min(1.0, epsilon * sum(shape) / math.prod(shape))
        if isinstance(method, Method):
            given: dict[str, Any] = {"total_steps": total, "steps_per_epoch": steps}
            method = fitted(method, density=density, shapes=[shape], **given)
            first, pattern = beginning(method)
            density = getattr(pattern, "density", density if first is None else first)
            topology = pattern_of(pattern)(
                shape, max(1, round(density * math.prod(shape))), generator=self._random
            )
        else:
            topology = Topology(shape, torch.arange(math.prod(shape)))
        machine = Machine(topology, self.init_std, self.compute, self._random)
        self._learner = Learner(
            machine,
            torch.optim.SGD(machine.parameters(), lr=self.learning_rate, momentum=self.momentum),
            method,
            decay=self.weight_decay,
            seed=checks.seed_of(self._random),
            steps_per_epoch=steps,
            total_steps=total,
        )
        self._n_features_out = self.n_components
        self.n_iter_ = 0
        self.loss_curve_: list[float] = []

    def _epoch(self, rows: Rows) -> None:
        begin, machine, lost = time.perf_counter(), self._machine, 0.0
        order = batches(len(rows), self.batch_size, self._random, shuffle=self.shuffle, rest=True)
        for numbers in order:
            v = rows.batch(numbers)
            error = 0.0

            def backward(v: Tensor = v) -> None:
                nonlocal error
                error = machine.diverge(v, self.cd_steps, self._random)

            self._learner.step(backward)
            lost += error * len(v)
        self.n_iter_ += 1
        self.loss_curve_.append(lost / len(rows))
        if self.verbose:
            print(
                f"[{type(self).__name__}] epoch {self.n_iter_}, reconstruction error "
                f"{self.loss_curve_[-1]:.5f}, {time.perf_counter() - begin:.2f} s"
            )

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags


def applied(function: Any, rows: Rows, width: int) -> NDArray[Any]:
    """What a function of a batch gives for all rows, batch by batch.

    Args:
        function: From ``[batch, features]`` to one row of results for each.
        rows: The table.
        width: Numbers that a row needs on the way, which decides how large a batch may be.
    """
    size = max(1, _ROOM // max(1, width, rows.shape[1]))
    with torch.no_grad():
        parts = [function(rows.batch(part)) for part in torch.arange(len(rows)).split(size)]
    return np.asarray(torch.cat(parts).numpy())
