"""A network with what trains it: pickled, copied and continued as one thing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from regrow.evolution import Evolution, Method
from regrow.evolution.methods import methods
from regrow.evolution.starts import Normal
from regrow.kernels import capture
from regrow.layers import sparse_layers
from regrow.optim import decayed


class Learner:
    """A network, its optimiser, and the evolution of its topology.

    An update that is due happens before the step that follows it, so that a network is used as it
    was trained, without connections that never were, and the last update of all is left out.

    Args:
        network: With sparse layers, or none.
        optimizer: Of the network.
        method: How connections change; ``dense`` for not at all.
        decay: Share that every step takes off all parameters, whatever the learning rate.
        options: Further arguments of `Evolution`.

    Example:
        >>> import copy, regrow
        >>> layer = regrow.SparseLinear(8, 4, density=0.5)
        >>> learner = Learner(layer, torch.optim.SGD(layer.parameters(), lr=0.1), "set", every=1)
        >>> for _ in range(2):
        ...     learner.step(lambda: layer(torch.ones(2, 8)).sum().backward())
        >>> copy.deepcopy(learner).evolution.steps
        2
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        method: str | Method,
        *,
        decay: float = 0.0,
        **options: Any,
    ) -> None:
        self.network = network
        self.optimizer = optimizer
        self._method = method
        self._decay = decay
        self._options = options
        self._connect()

    def step(self, backward: Callable[[], object]) -> None:
        """The update that is due, if one is, and one step of training.

        Args:
            backward: Leaves gradients of all parameters.
        """
        if self.evolution is not None:
            self.evolution.step()
        backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def prune(self) -> None:
        """Drop what an update would drop now, and grow nothing."""
        if self.evolution is not None and self.evolution.method.every is not None:
            self.evolution.prune()

    def report(self, loss: float) -> None:
        """Tell a method that decides by it the loss on validation data."""
        if self.evolution is not None:
            self.evolution.report(loss)

    @property
    def settled(self) -> bool:
        """Whether the network has the density it is to end with."""
        if self.evolution is None or self.evolution.method.density is None:
            return True
        until = self.evolution.method.until
        return isinstance(until, int) and self.evolution.steps > until

    def close(self) -> None:
        """Leave the network to another learner: nothing of this one listens to it any more."""
        for module in self.network.modules():
            module._forward_hooks.clear()
        for layer in sparse_layers(self.network).values():
            capture.take(layer)

    def _connect(self) -> None:
        decayed(self.optimizer, self._decay)
        self.evolution: Evolution | None = None
        if sparse_layers(self.network) and self._method != "dense":
            self.evolution = Evolution(
                self.network, self.optimizer, self._method, alone=True, **self._options
            )

    def __getstate__(self) -> dict[str, Any]:
        # An optimiser loses its hooks, by which the evolution counts steps, when it is pickled.
        state = dict(self.__dict__)
        state["evolution"] = None if self.evolution is None else self.evolution.state_dict()
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.close()
        self._connect()
        if self.evolution is not None:
            self.evolution.load_state_dict(state["evolution"])


def chosen(method: str | Method, **parts: Any) -> str | Method:
    """A method by name with some parts replaced, those that are None being left as they are.

    Args:
        method: Name of a registered method, ``dense``, or a method.
        parts: ``normal`` is the standard deviation of new values where the method draws them
            normally; others are fields of `Method`.

    Raises:
        ValueError: There is no such method.

    Example:
        >>> chosen("set", fraction=0.1, normal=0.05).start
        Normal(std=0.05)
        >>> chosen("dense", fraction=0.1)
        'dense'
    """
    if method == "dense":
        return method
    if isinstance(method, str):
        known = methods()
        if method not in known:
            raise ValueError(
                f"method must be dense or one of {', '.join(sorted(known))}, got {method!r}"
            )
        method = known[method]
    normal = parts.pop("normal", None)
    if normal is not None and isinstance(method.start, Normal):
        parts["start"] = Normal(normal)
    return replace(method, **{name: part for name, part in parts.items() if part is not None})
