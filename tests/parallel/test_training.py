"""Server and workers in one process: what a training is, step by step."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

import regrow
from regrow.evolution import ImportancePruning
from regrow.optim import union_average
from regrow.parallel import Plan, Shards, simulate
from regrow.parallel.messages import Message, packed, topologies_of, unpacked
from regrow.parallel.server import Server
from regrow.parallel.worker import Worker


def network(seed: int = 0, dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(8, 30), nn.ReLU(), nn.Dropout(dropout), nn.Linear(30, 20))
    model = nn.Sequential(*model, nn.ReLU(), nn.Linear(20, 2))
    generator = torch.Generator().manual_seed(seed)
    return regrow.sparsify(model, 0.2, compute="csr", exclude=["5"], generator=generator)


def shards(number: int) -> Shards:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(96, 8, generator=generator)
    return Shards(x, (x[:, 0] > 0).long(), number, batch_size=8)


def sgd(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9)


def same(first: nn.Module, second: nn.Module) -> bool:
    a, b = first.state_dict(), second.state_dict()
    return all(a[name].equal(b[name]) for name in a)


def accuracy(model: nn.Module, data: Shards) -> float:
    return float((model.eval()(data.x).argmax(1) == data.y).float().mean())


def test_one_worker_is_training_as_always() -> None:
    data, model, plan = shards(1), network(), Plan(3, local=0.0, seed=4)
    plain = copy.deepcopy(model)
    optimizer = sgd(plain.parameters())
    evolution = regrow.Evolution(plain, optimizer, "set", every=12, until=35, seed=4)
    for number in range(36):
        x, y = data.batch(0, number)
        functional.cross_entropy(plain(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
        evolution.step()
    trained = simulate(model, data, sgd, plan)
    assert same(trained.model, plain)
    assert trained.tally.mean_delay == 0
    assert trained.tally.stale == trained.tally.discarded == 0


def test_a_synchronous_step_takes_the_mean_gradient() -> None:
    data, model = shards(3), network()
    plain = copy.deepcopy(model)
    optimizer = sgd(plain.parameters())
    for number in range(4):
        for shard in range(3):
            x, y = data.batch(shard, number)
            (functional.cross_entropy(plain(x), y) / 3).backward()
        optimizer.param_groups[0]["lr"] = 0.05 * (1 + 2 * number / 4 / 2)
        optimizer.step()
        optimizer.zero_grad()
    plan = Plan(1, local=0.0, synchronous=True, warm_up=2.0)
    trained = simulate(model, data, sgd, plan)
    assert trained.tally.updates == 4
    for found, wanted in zip(trained.model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(found, wanted)


def test_workers_are_as_stale_as_turns_have_passed() -> None:
    tally = simulate(network(), shards(3), sgd, Plan(4, local=0.0)).tally
    assert tally.gradients == tally.updates == 4 * 12
    assert tally.delay == 0 + 1 + 2 * (tally.gradients - 2)
    # Of the three rewirings (none after the last epoch), each meets two gradients under way.
    assert tally.stale == 3 * 2
    assert 0 < tally.discarded < tally.entries * 0.3


@pytest.mark.parametrize("synchronous", [False, True])
def test_the_outcome_repeats_and_keeps_its_connections(synchronous: bool) -> None:
    plan = Plan(6, local=0.34, synchronous=synchronous)
    start = network(dropout=0.2)
    first, second = (simulate(copy.deepcopy(start), shards(3), sgd, plan).model for _ in range(2))
    assert same(first, second)
    nnz = [layer.topology.nnz for layer in regrow.sparse_layers(first).values()]
    assert nnz == [layer.topology.nnz for layer in regrow.sparse_layers(start).values()]
    assert topologies_of(first) != topologies_of(start)


def test_it_learns() -> None:
    data = shards(2)
    assert accuracy(simulate(network(), data, sgd, Plan(40)).model, data) > 0.9


def test_another_interleaving_is_another_training() -> None:
    plan, start = Plan(2, local=0.0), network()
    turns = [0, 0, 1]
    first, second = (
        simulate(copy.deepcopy(start), shards(2), sgd, plan, interleaving=order)
        for order in (turns, None)
    )
    assert first.tally.gradients == second.tally.gradients
    assert not same(first.model, second.model)


def test_a_stale_gradient_moves_what_is_still_there() -> None:
    model, data, plan = network(), shards(2), Plan(4, local=0.0)
    server = Server(model, data, lambda p: torch.optim.SGD(p, lr=0.1), plan)
    workers = [
        Worker(copy.deepcopy(model), data, sgd, plan, functional.cross_entropy) for _ in range(2)
    ]
    late = server.deal(1)
    assert late is not None
    for _ in range(12):  # a whole epoch by the other worker: the topology changes
        job = server.deal(0)
        assert job is not None
        server.take(0, workers[0].do(job))
    old, outcome = late.topologies["0"], workers[1].do(late)
    layer = regrow.sparse_layers(model)["0"]
    assert layer.topology != old
    before = layer.values.detach().clone()
    server.take(1, outcome)
    gradient = torch.zeros(layer.topology.shape.numel())
    gradient[old.positions] = outcome.tensors["0.values"]
    moved = before - 0.1 * gradient[layer.topology.positions]
    torch.testing.assert_close(layer.values.detach(), moved)
    gone = ~torch.isin(old.positions, layer.topology.positions)
    assert server.tally.stale == 1
    assert server.tally.discarded >= int(gone.sum()) > 0


def run(server: Server, workers: dict[int, Worker], lost_at: dict[int, int]) -> None:
    """Turns in order; a worker is lost, with its job, at its so-and-so-manieth turn."""
    turns = dict.fromkeys(workers, 0)
    while not server.done:
        for number, worker in list(workers.items()):
            job = server.deal(number)
            turns[number] += 1
            if turns[number] == lost_at.get(number):
                server.lose(number)
                del workers[number]
            elif job is not None:
                server.take(number, worker.do(job))


def team(plan: Plan, size: int = 3) -> tuple[Server, dict[int, Worker]]:
    data, model = shards(size), network(dropout=0.3)
    workers = {
        number: Worker(copy.deepcopy(model), data, sgd, plan, functional.cross_entropy)
        for number in range(size)
    }
    return Server(model, data, sgd, plan), workers


@pytest.mark.parametrize("synchronous", [False, True])
def test_every_batch_is_seen_though_workers_are_lost(synchronous: bool) -> None:
    plan = Plan(4, local=0.5, synchronous=synchronous)
    server, workers = team(plan)
    seen = []
    take = server.take
    server.take = lambda n, out: (seen.append(tuple(out.head.values())), take(n, out))[1]  # type: ignore[method-assign]
    run(server, workers, {1: 3, 2: 5})
    batches = [(shard, number) for shard in range(3) for number in range(2 * 4)]
    local = [(shard, epoch) for shard in range(3) for epoch in range(2)]
    assert sorted(seen) == sorted([*batches, *local])
    assert server.tally.lost == 2


def test_a_local_training_goes_on_with_another_worker_as_if_nothing_had_been() -> None:
    plan = Plan(4, local=1.0)
    whole, broken = team(plan), team(plan)
    run(*whole, {})
    run(*broken, {0: 2, 2: 4})
    assert broken[0].tally.lost == 2
    assert same(whole[0].result(), broken[0].result())


def test_who_joins_late_takes_over_the_shard_that_is_free() -> None:
    server, workers = team(Plan(4, local=0.0))
    for number in (0, 1, 2):
        job = server.deal(number)
        assert job is not None
        assert job.head["shard"] == number
        server.take(number, workers[number].do(job))
    server.lose(1)
    job = server.deal(7)
    assert job is not None
    assert job.head == {"shard": 1, "number": 1}
    assert server.deal(8) is None  # there is nothing for a fourth


@pytest.mark.parametrize("mode", ["incoming_only", "remove_neuron"])
def test_importance_pruning_at_the_server(mode: str) -> None:
    pruning = ImportancePruning(20, every=12, begin=12, until=24, mode=mode)
    plan = Plan(4, local=0.25, options={"grow": pruning.grow})
    model = network()
    before = {path: topology.nnz for path, topology in topologies_of(model).items()}
    trained = simulate(model, shards(2), sgd, plan, pruning=pruning).model
    after = {path: topology.nnz for path, topology in topologies_of(trained).items()}
    assert after["0"] < before["0"]
    if mode == "remove_neuron":
        gone = pruning.state_dict()["gone"]["0"][0]
        assert gone.any()
        assert not trained[0].topology.degrees()[0][gone].any()  # type: ignore[index]


def test_shards_divide_the_data_and_order_it_anew() -> None:
    data = Shards(torch.arange(100), torch.arange(100), shards=3, batch_size=8)
    passes = [
        [torch.cat([data.batch(k, 4 * turn + i)[0] for i in range(4)]) for k in range(3)]
        for turn in (0, 1)
    ]
    for parts in passes:
        assert len(torch.cat(parts).unique()) == 96
    for first, second in zip(*passes, strict=True):
        assert first.sort().values.equal(second.sort().values)
        assert not first.equal(second)


@settings(deadline=None, max_examples=30)
@given(
    shapes=st.lists(st.lists(st.integers(0, 4), max_size=3), max_size=4),
    kind=st.sampled_from([torch.float32, torch.float64, torch.int64, torch.uint8, torch.bool]),
)
def test_messages_survive_as_bytes(shapes: list[list[int]], kind: torch.dtype) -> None:
    tensors = {str(i): torch.ones(shape).to(kind) for i, shape in enumerate(shapes)}
    topology = regrow.Topology((3, 4), torch.tensor([0, 5, 11]))
    message = Message("local", {"shard": 1}, tensors, {"": topology})
    found = unpacked(*packed(message))
    assert (found.kind, found.head, found.topologies) == ("local", {"shard": 1}, {"": topology})
    assert found.tensors.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found.tensors[name].dtype == tensor.dtype
        assert found.tensors[name].equal(tensor)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 100), models=st.integers(1, 4), less=st.floats(0, 1))
def test_the_union_average(seed: int, models: int, less: float) -> None:
    torch.manual_seed(seed)
    several = [
        nn.Sequential(regrow.SparseLinear(6, 5, density=0.3), nn.BatchNorm1d(5))
        for _ in range(models)
    ]
    mean = torch.stack([model[0].weight for model in several]).mean(0)
    whole = union_average(several)
    torch.testing.assert_close(whole[0].weight, mean)  # type: ignore[index]
    bias = torch.stack([model[0].bias for model in several]).mean(0)
    torch.testing.assert_close(whole[0].bias, bias)  # type: ignore[index]
    nnz = whole[0].topology.nnz  # type: ignore[index, union-attr]
    wanted = round(less * nnz)
    fewer = union_average(several, {"0": wanted})[0]  # type: ignore[index]
    assert fewer.topology.nnz == wanted  # type: ignore[union-attr]
    kept = fewer.weight != 0  # type: ignore[union-attr]
    torch.testing.assert_close(fewer.weight[kept], mean[kept])  # type: ignore[index]


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="models to average must be at least one"):
        union_average([])
    with pytest.raises(ValueError, match="must have the same sparse layers"):
        union_average([network(), nn.Linear(2, 2)])
    for wrong in ({"epochs": 0}, {"epochs": 3, "local": 1.5}, {"epochs": 3, "warm_up": -1.0}):
        with pytest.raises(ValueError, match="of a plan must be"):
            Plan(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"must grow without gradients .* got rigl"):
        simulate(network(), shards(2), sgd, Plan(2, method="rigl"))
    with pytest.raises(ValueError, match="shards must be at least 1, with a batch"):
        shards(13)
    with pytest.raises(ValueError, match="must be as many, got 3 and 2"):
        Shards(torch.zeros(3), torch.zeros(2), 1, 1)
    with pytest.raises(ValueError, match="interleaving must name workers from 0 to 1"):
        simulate(network(), shards(2), sgd, Plan(2), interleaving=[0, 2])
