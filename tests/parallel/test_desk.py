"""Workers that queue, without processes: links that are lists."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

import regrow
from regrow.parallel import Plan, Shards, wasap
from regrow.parallel.messages import Message
from regrow.parallel.server import Server
from regrow.parallel.worker import Worker


class Near:
    """A link to a worker of this process, that breaks after some jobs."""

    def __init__(self, worker: Worker, kinds: list[str], jobs: int) -> None:
        self.worker, self.kinds, self.jobs = worker, kinds, jobs
        self.job: Message | None = None

    def send(self, job: Message) -> None:
        self.kinds.append(job.kind)
        self.job = job

    def receive(self) -> Message:
        assert self.job is not None
        if self.job.kind == "wait":
            return self.job
        self.jobs -= 1
        if self.jobs < 0:
            raise RuntimeError("Connection closed by peer")
        return self.worker.do(self.job)


class Here:
    """A meeting of workers that are here already."""

    def __init__(self, links: list[Near]) -> None:
        self.links, self.store = links, self

    def add(self, key: str, number: int) -> int:
        return len(self.links)

    def link(self, ticket: int, rank: int) -> Near:
        return self.links[ticket - 1]


def sgd(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.05)


def meeting(plan: Plan, jobs: list[int], shards: int) -> tuple[Server, Any, list[list[str]]]:
    model = nn.Sequential(regrow.SparseLinear(4, 6, density=0.5), nn.ReLU(), nn.Linear(6, 2))
    data = Shards(torch.randn(32, 4), torch.randint(2, (32,)), shards, batch_size=4)
    given: list[list[str]] = [[] for _ in jobs]
    links = [
        Near(Worker(copy.deepcopy(model), data, sgd, plan, functional.cross_entropy), kinds, n)
        for kinds, n in zip(given, jobs, strict=True)
    ]
    return Server(model, data, sgd, plan), Here(links), given


def test_all_is_done_though_links_break() -> None:
    server, here, given = meeting(Plan(4, local=0.5), [1000, 2, 5], 3)
    seen: list[float] = []
    wasap.Desk(server, here, 3, 60.0).run(seen.append)
    assert server.tally.gradients == 2 * 3 * 2
    assert server.progress == 4
    assert server.tally.lost <= 2
    assert given[0][-1] == "end"


def test_who_waits_is_asked_whether_it_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wasap, "_PULSE", 0.0)
    # One shard: there is nothing for the second worker.
    server, here, given = meeting(Plan(3, local=0.0), [1000, 0], 1)
    wasap.Desk(server, here, 2, 60.0).run(None)
    assert set(given[1]) <= {"wait", "end", "gradient"}
    assert server.tally.gradients == 3 * 8


def test_nobody_comes() -> None:
    server, here, _ = meeting(Plan(2), [], 2)
    with pytest.raises(RuntimeError, match="must have a worker, got none for"):
        wasap.Desk(server, here, 2, 0.1).run(None)


def test_what_goes_wrong_at_the_server_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    server, here, _ = meeting(Plan(2), [1000], 1)
    monkeypatch.setattr(server, "take", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        wasap.Desk(server, here, 1, 60.0).run(None)
