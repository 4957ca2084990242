"""How the sparse layers of an arm compute, decided once for a whole run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from regrow.kernels import dispatch
from regrow.layers import SparseLayer, sparse_layers

Decision = dict[str, Any]
# By layer path, one for each number of connections that was measured.
Decisions = dict[str, list[Decision]]


def decide_compute(model: nn.Module, batch: Tensor, compute: str) -> Decisions:
    """What each sparse layer is to compute with, by measurement or as asked.

    The computes differ in the last bits, so a run that can be continued bit for bit must not
    measure anew.

    Args:
        model: The network, as it starts; it is not to be used afterwards.
        batch: A training batch ``[batch, ...]``.
        compute: ``auto`` to measure, or what to use everywhere.

    Returns:
        By layer path: connections, compute, reason, and the milliseconds of each candidate.
    """
    layers = sparse_layers(model)
    situations: dict[str, dispatch.Situation] = {}

    def note(path: str, layer: SparseLayer) -> Any:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            situations[path] = layer.situation(inputs[0])

        return layer.register_forward_pre_hook(hook)

    handles = [note(path, layer) for path, layer in layers.items()]
    model.train()(batch).sum().backward()  # measures, and warms up what torch sets up once
    for handle in handles:
        handle.remove()
    decided: Decisions = {}
    for path, layer in layers.items():
        entry: Decision = {"connections": layer.topology.nnz}
        if compute != "auto":
            entry |= {"compute": compute, "reason": "asked for", "milliseconds": {}}
        else:
            decision = dispatch.lookup(situations[path])
            assert decision is not None
            entry |= {
                "compute": decision.compute,
                "reason": decision.reason,
                "milliseconds": dict(decision.milliseconds),
            }
        decided[path] = [entry]
    return decided


def decision_for(decisions: Sequence[Decision], connections: int) -> Decision:
    """The decision that was made for about so many connections."""
    return min(decisions, key=lambda entry: abs(math.log(entry["connections"] / connections)))


def fix_compute(model: nn.Module, decisions: Mapping[str, Sequence[Decision]]) -> None:
    """Make the sparse layers of a model compute as decided for the connections they have."""
    for path, layer in sparse_layers(model).items():
        layer.compute = str(decision_for(decisions[path], layer.topology.nnz)["compute"])
