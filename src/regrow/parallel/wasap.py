"""WASAP-SGD on processes: one that holds the model, and workers that come and go."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn import functional

from regrow.evolution import ImportancePruning
from regrow.parallel.link import Meeting
from regrow.parallel.messages import Message
from regrow.parallel.plan import Plan
from regrow.parallel.server import Server
from regrow.parallel.shards import Batches
from regrow.parallel.trained import Trained
from regrow.parallel.worker import Loss, MakeOptimizer, Worker

_LOOK = 0.05  # seconds between two looks at who has joined
_PULSE = 10.0  # seconds after which a worker that waits is asked whether it lives
_LAST = 1.0  # seconds that one who never came is waited for in the end


def train(
    model: nn.Module,
    batches: Batches,
    optimizer: MakeOptimizer,
    plan: Plan,
    *,
    loss: Loss = functional.cross_entropy,
    pruning: ImportancePruning | None = None,
    progress: Callable[[float], object] | None = None,
    rank: int | None = None,
    address: str | None = None,
    port: int | None = None,
    name: str = "wasap",
    patience: float = 1800.0,
) -> Trained | None:
    """Weight averaging after sparse asynchronous parallel training, on several processes.

    Process 0 is the server; the others are workers, as many as there are shards. In the first
    phase workers form gradients of batches of their own shard, and the server takes each as soon as
    it comes. Once an epoch it changes the topology; what a gradient formed before says of
    connections that are gone is left out. In the second phase each worker trains alone and evolves
    a topology of its own. The outcome is the average of all, pruned to the number of connections
    that the server's model has.

    Workers may die at any time and others may join late. The job of a dead worker is done
    again by another one, and its shard is seen to by those who are left, or taken over by one that
    joins. If the server dies, the training is over.

    All processes call this with equal arguments. Under torchrun nothing else is needed. It stops
    all processes of its node when one dies, so give each its own torchrun, as on several
    machines, where the training is to survive that.

    Args:
        model: With sparse layers; that of the server counts.
        batches: The data, such as `Shards`; workers read their own shard, and those of dead ones.
        optimizer: Makes an optimizer for parameters.
        plan: Of the training.
        loss: Of outputs and targets.
        pruning: Of importance, in the first phase: its numbers count updates at the server.
        progress: Called at the server with the epochs done so far, some times a second.
        rank: Number of this process; default: ``RANK`` of the environment.
        address: Of the server; default: ``MASTER_ADDR``.
        port: Free port of the server; default: ``MASTER_PORT``.
        name: Of this training; a second one of the same processes needs another.
        patience: Seconds that a process waits for one that is silent, but not known to be dead: as
            long as a local epoch may take.

    Returns:
        At the server, the model and what was counted; at a worker None.

    Raises:
        ValueError: Rank, address or port are neither given nor in the environment, or the method
            grows by gradients.
        RuntimeError: At the server: there is no worker left. At a worker: the server is gone.

    References:
        S. Curci, D. C. Mocanu, M. Pechenizkiy, "Truly sparse neural networks at scale", 2021.
    """
    own = os.environ.get("RANK") if rank is None else rank
    if own is None:
        raise ValueError("rank must be given where torchrun does not say it, got none")
    meeting = Meeting(int(own), address, port, name, patience)
    if int(own) == 0:
        server = Server(model, batches, optimizer, plan, pruning)
        Desk(server, meeting, batches.shards, patience).run(progress)
        return Trained(server.result(), server.tally)
    _work(Worker(model, batches, optimizer, plan, loss, pruning), meeting)
    return None


class Desk:
    """Where workers queue: one thread for each, of which one at a time talks to the server.

    Args:
        server: Deals the jobs.
        meeting: Where workers take their tickets.
        expected: Workers to wait for before the first job.
        patience: Seconds to wait for somebody.
    """

    def __init__(self, server: Server, meeting: Meeting, expected: int, patience: float) -> None:
        self._server, self._meeting, self._patience = server, meeting, patience
        self._expected, self._opened = expected, time.monotonic()
        self._turn = threading.Condition()
        self._threads: dict[int, threading.Thread] = {}
        self._linked: set[int] = set()
        self._fault: Exception | None = None

    def run(self, progress: Callable[[float], object] | None) -> None:
        """Serve until all is done."""
        alone_since = time.monotonic()
        while not self._server.done:
            self._admit()
            if any(thread.is_alive() for thread in self._threads.values()):
                alone_since = time.monotonic()
            elif time.monotonic() - alone_since > self._patience:
                raise RuntimeError(
                    f"parallel training must have a worker, got none for {self._patience:g} seconds"
                )
            if self._fault is not None:
                raise self._fault
            if progress is not None:
                progress(self._server.progress)
            time.sleep(_LOOK)
        self._admit()  # whoever comes now is sent home
        for ticket, thread in self._threads.items():
            thread.join(None if ticket in self._linked else _LAST)

    def _admit(self) -> None:
        """Open a link for everyone who has taken a ticket since."""
        tickets = self._meeting.store.add("tickets", 0)
        for ticket in range(len(self._threads) + 1, tickets + 1):
            thread = threading.Thread(target=self._serve, args=(ticket,), daemon=True)
            self._threads[ticket] = thread
            thread.start()

    def _serve(self, ticket: int) -> None:
        try:
            link = self._meeting.link(ticket, 0)
        except RuntimeError:
            return  # gone before it came
        self._linked.add(ticket)
        outcome: Message | None = None
        while True:
            try:
                job = self._next(ticket, outcome)
            except Exception as error:  # noqa: BLE001 - raised again where somebody sees it
                self._fault = error
                return
            try:
                link.send(job)
                if job.kind == "end":
                    return
                outcome = link.receive()
            except RuntimeError:
                with self._turn:
                    self._server.lose(ticket)
                    self._turn.notify_all()
                return

    def _next(self, ticket: int, outcome: Message | None) -> Message:
        """Hand in what was found, and wait for the next job."""
        with self._turn:
            if outcome is not None and outcome.kind != "wait":
                self._server.take(ticket, outcome)
            self._turn.notify_all()
            begin = time.monotonic()
            while not self._server.done:
                job = self._server.deal(ticket) if self._begun() else None
                if job is not None:
                    return job
                if time.monotonic() - begin > min(_PULSE, self._patience / 4):
                    return Message("wait")
                self._turn.wait(1.0)
            return Message("end")

    def _begun(self) -> bool:
        """Whether all are here, or have been waited for long enough."""
        late = time.monotonic() - self._opened > self._patience
        if len(self._linked) >= self._expected or late:
            self._expected = 0
        return self._expected == 0


def _work(worker: Worker, meeting: Meeting) -> None:
    """Do jobs until there are none."""
    with _server_needed():
        link = meeting.link(meeting.store.add("tickets", 1), 1)
        job = link.receive()
    while job.kind != "end":
        outcome = job if job.kind == "wait" else worker.do(job)
        with _server_needed():
            link.send(outcome)
            job = link.receive()


@contextmanager
def _server_needed() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise RuntimeError(
            "server of a parallel training must live until it is over, got no answer"
        ) from error
