"""What a trained network holds and does, for ``result.json``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from regrow.layers import sparse_layers
from regrow.measure import summary
from regrow.training.compute import decision_for
from regrow.training.loop import Trainer

_RECURRENT = ("RNN", "LSTM", "GRU")  # torch's, which hold several weights


def describe_result(trainer: Trainer) -> dict[str, Any]:
    """Connections, bytes and FLOPs of a trained network, in all and by layer.

    FLOPs count a multiply-add as two and only what a connection causes, also where a layer
    computes with the dense product. Those of a sample are of the network as it is at its end, those
    of the training are summed over its steps, with the gradients of free positions where a method
    looks at them.
    """
    job = trainer.job
    found = summary(trainer.model, trainer.dataset.x_train[:1])
    values = sum(parameter.nbytes for parameter in trainer.model.parameters())
    indices = sum(layer.topology.nbytes for layer in sparse_layers(trainer.model).values())
    moments = optimizer_bytes(trainer.optimizer)
    layers = []
    for layer in found.layers:
        if len(layer.shape) < 2 and layer.kind not in _RECURRENT:
            continue
        given = job.decisions.get(layer.path)
        decision = decision_for(given, layer.nnz) if given else None
        layers.append(
            {
                "path": layer.path,
                "kind": layer.kind,
                "shape": list(layer.shape),
                "density": layer.density,
                "nnz": layer.nnz,
                "compute": layer.compute,
                "reason": decision["reason"] if decision else "every position is connected",
                "milliseconds": decision["milliseconds"] if decision else {},
                "bytes": layer.bytes,
            }
        )
    return {
        "connections": trainer.connections,
        "dense_connections": trainer.dense_connections,
        "bytes_values": values,
        "bytes_indices": indices,
        "bytes_optimizer": moments,
        "bytes_total": values + indices + moments,
        "flops_forward_per_sample": trainer.flop_count.forward,
        "flops_backward_per_sample": trainer.flop_count.backward,
        "flops_training_total": trainer.flops,
        "layers": layers,
    }


def optimizer_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Bytes of an optimizer's state."""
    return sum(
        entry.nbytes
        for state in optimizer.state.values()
        for entry in state.values()
        if isinstance(entry, Tensor)
    )
