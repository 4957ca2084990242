"""What a trained network holds and does, for ``result.json``."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from regrow.layers import sparse_layers
from regrow.measure import summary
from regrow.training.loop import Trainer


def describe_result(trainer: Trainer) -> dict[str, Any]:
    """Connections, bytes and FLOPs of a trained network, in all and by layer.

    FLOPs count a multiply-add as two and only what a connection causes, also where a layer
    computes with the dense product.
    """
    job, dataset = trainer.job, trainer.dataset
    found = summary(trainer.model, dataset.x_train[:1])
    total = found.total
    values = sum(parameter.nbytes for parameter in trainer.model.parameters())
    indices = sum(layer.topology.nbytes for layer in sparse_layers(trainer.model).values())
    moments = optimizer_bytes(trainer.optimizer)
    per_sample = total.flops_forward + total.flops_backward
    layers = []
    for layer in found.layers:
        decision = job.decisions.get(layer.path)
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
        "dense_connections": sum(math.prod(layer.shape) for layer in found.layers),
        "bytes_values": values,
        "bytes_indices": indices,
        "bytes_optimizer": moments,
        "bytes_total": values + indices + moments,
        "flops_forward_per_sample": total.flops_forward,
        "flops_backward_per_sample": total.flops_backward,
        "flops_training_total": per_sample * len(dataset.y_train) * job.epochs,
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
