"""The same training in one process, with the same outcome every time."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import cycle

from torch import nn
from torch.nn import functional

from regrow.evolution import ImportancePruning
from regrow.parallel.messages import Message
from regrow.parallel.plan import Plan
from regrow.parallel.server import Server
from regrow.parallel.shards import Batches
from regrow.parallel.trained import Trained
from regrow.parallel.worker import Loss, MakeOptimizer, Worker


def simulate(
    model: nn.Module,
    batches: Batches,
    optimizer: MakeOptimizer,
    plan: Plan,
    *,
    loss: Loss = functional.cross_entropy,
    pruning: ImportancePruning | None = None,
    interleaving: Sequence[int] | None = None,
) -> Trained:
    """Train as `regrow.parallel.train` does, with workers that take turns in a fixed order.

    Server and workers are the same code; only the order in which gradients arrive is not left to
    chance. Every worker holds the weights that it was given at its last turn, and so is as stale
    as turns have passed since.

    Args:
        model: With sparse layers; it is trained in the first phase.
        batches: The data; ``batches.shards`` workers take part.
        optimizer: Makes an optimizer for parameters.
        plan: Of the training.
        loss: Of outputs and targets.
        pruning: Of importance, in the first phase.
        interleaving: Whose turn it is, numbers from 0 on, again and again; default: one after the
            other.

    Returns:
        The model, and what was counted.

    Raises:
        ValueError: The interleaving names a worker that there is not.

    Example:
        >>> import torch, regrow
        >>> from regrow.parallel import Plan, Shards, simulate
        >>> model = nn.Sequential(nn.Linear(8, 40), nn.ReLU(), nn.Linear(40, 2))
        >>> model = regrow.sparsify(model, density=0.3)
        >>> data = Shards(torch.randn(64, 8), torch.randint(2, (64,)), shards=2, batch_size=8)
        >>> trained = simulate(
        ...     model, data, lambda parameters: torch.optim.SGD(parameters, lr=0.1), Plan(epochs=4)
        ... )
        >>> trained.tally.updates, trained.tally.stale
        (24, 2)
    """
    turns = list(range(batches.shards)) if interleaving is None else list(interleaving)
    if not turns or min(turns) < 0 or max(turns) >= batches.shards:
        raise ValueError(
            f"interleaving must name workers from 0 to {batches.shards - 1}, got {interleaving}"
        )
    server = Server(model, batches, optimizer, plan, pruning)
    workers = {
        number: Worker(copy.deepcopy(model), batches, optimizer, plan, loss, pruning)
        for number in sorted(set(turns))
    }
    jobs: dict[int, Message | None] = {number: server.deal(number) for number in workers}
    for number in cycle(turns):
        if server.done:
            break
        job = jobs[number]
        if job is not None:
            server.take(number, workers[number].do(job))
        jobs[number] = server.deal(number)
    return Trained(server.result(), server.tally)
