"""A connection between the server and one worker, that may break without harm to others."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

import torch
import torch.distributed
from torch import Tensor

from regrow.parallel.messages import Message, packed, unpacked

# The types that torch declares leave out much of these classes.
_dist: Any = torch.distributed
_MEET = 300.0  # seconds at most to wait for a process that has announced itself


class Link:
    """A process group of two, made when a worker joins: nobody else has a part in it.

    Args:
        store: Where both find each other.
        ticket: Number of this link, new for each worker that joins.
        rank: 0 for the server, 1 for the worker.
        patience: Seconds to wait for the other side.
    """

    def __init__(self, store: Any, ticket: int, rank: int, patience: float) -> None:
        place = _dist.PrefixStore(f"link-{ticket}", store)
        self._group = _dist.ProcessGroupGloo(place, rank, 2, timedelta(seconds=patience))
        self._other = 1 - rank

    def send(self, message: Message) -> None:
        """Send a message.

        Raises:
            RuntimeError: The other side is gone.
        """
        head, payload = packed(message)
        words = torch.frombuffer(bytearray(head), dtype=torch.uint8)
        self._put(torch.tensor([words.numel(), payload.numel()]))
        self._put(words)
        if payload.numel():
            self._put(payload)

    def receive(self) -> Message:
        """Wait for a message.

        Raises:
            RuntimeError: The other side is gone, or silent for too long.
        """
        sizes = self._get(torch.empty(2, dtype=torch.int64))
        words, payload = (torch.empty(int(n), dtype=torch.uint8) for n in sizes)
        self._get(words)
        if payload.numel():
            self._get(payload)
        return unpacked(words.numpy().tobytes(), payload)

    def _put(self, tensor: Tensor) -> None:
        self._group.send([tensor], self._other, 0).wait()

    def _get(self, tensor: Tensor) -> Tensor:
        self._group.recv([tensor], self._other, 0).wait()
        return tensor


class Meeting:
    """Where processes meet: the store of torchrun, or one that the server opens.

    Args:
        rank: Of this process.
        address: Of the server; default: ``MASTER_ADDR``.
        port: Of the server; default: ``MASTER_PORT``.
        name: Of the training.
        patience: Seconds to wait for others.

    Raises:
        ValueError: There is no address or port, neither given nor in the environment.
    """

    def __init__(
        self, rank: int, address: str | None, port: int | None, name: str, patience: float
    ) -> None:
        self._host = address or os.environ.get("MASTER_ADDR", "")
        self._port = port or int(os.environ.get("MASTER_PORT", "0"))
        if not self._host or not self._port:
            raise ValueError(
                "processes to train together need an address and a port to meet: start them by "
                "torchrun, or give both"
            )
        self._name, self._patience = name, patience
        opened = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True" and port is None
        self.store = self._open(rank == 0 and not opened)

    def link(self, ticket: int, rank: int) -> Link:
        """The connection of a ticket.

        Raises:
            RuntimeError: The other side does not come.
        """
        # Through a connection of its own: who waits in a store keeps others out of it.
        return Link(self._open(False), ticket, rank, self._patience)

    def _open(self, master: bool) -> Any:
        store = _dist.TCPStore(
            self._host,
            self._port,
            None,
            is_master=master,
            timeout=timedelta(seconds=min(self._patience, _MEET)),
            wait_for_workers=False,
        )
        return _dist.PrefixStore(f"regrow-{self._name}", store)
