"""What two ranks owe each other; `test_ranks.py` runs this file once as each of them.

Ranks start with other seeds and see other data. Each case is a function that asserts.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import regrow
from regrow import Evolution, Method
from regrow.evolution.ranks import average_gradients, synchronize
from regrow.evolution.schedules import Cubic

CASES: dict[str, Callable[[int], None]] = {}


def case(function: Callable[[int], None]) -> Callable[[int], None]:
    CASES[function.__name__] = function
    return function


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network(seed: int, pattern: Any = "random", density: float | None = 0.3) -> nn.Module:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 8)).double()
    options = {"compute": "csr", "generator": seeded(seed), "full": "sparse"}
    return regrow.sparsify(model, density, pattern=pattern, allocation="uniform", **options)


def data(rank: int, step: int) -> Tensor:
    return torch.randn(6, 12, generator=seeded(100 * step + rank), dtype=torch.float64)


def loss_of(output: Tensor) -> Tensor:
    return (output - 1).square().mean()


def adam(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=0.02)


def digest(model: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> str:
    """Of everything that must be the same on all ranks."""
    found = hashlib.sha256()
    for name, entry in sorted(model.state_dict().items()):
        found.update(name.encode())
        found.update(entry.contiguous().numpy().tobytes())
    for parameter in model.parameters() if optimizer else ():
        for name, entry in sorted(optimizer.state.get(parameter, {}).items()):
            found.update(name.encode())
            found.update(torch.as_tensor(entry).contiguous().numpy().tobytes())
    return found.hexdigest()


def agree(model: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> None:
    digests: list[str] = ["", ""]
    dist.all_gather_object(digests, digest(model, optimizer))
    assert digests[0] == digests[1]


def numbers(model: nn.Module) -> list[int]:
    return [layer.topology.nnz for layer in regrow.sparse_layers(model).values()]


def topologies(model: nn.Module) -> list[regrow.Topology]:
    return [layer.topology for layer in regrow.sparse_layers(model).values()]


def in_one_process(method: str | Method, steps: int, make=adam, **parts: Any) -> nn.Module:
    """The training of two ranks in one process: their batches together."""
    model = network(10)
    optimizer = make(model)
    evolution = Evolution(model, optimizer, method, seed=20, alone=True, **parts)
    for step in range(steps):
        loss_of(model(torch.cat([data(0, step), data(1, step)]))).backward()
        optimizer.step()
        optimizer.zero_grad()
        evolution.step()
    return model


def same_as(model: nn.Module, expected: nn.Module) -> None:
    assert topologies(model) == topologies(expected)
    for a, b in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def settled(method: Method) -> dict[str, Any]:
    """Parts that make a method act within a few steps."""
    if method.every is None:
        return {}
    return {"every": 2, "until": 8, "begin": 0, "total_steps": 10}


def each_method(name: str) -> Callable[[int], None]:
    def run(rank: int) -> None:
        method = regrow.methods()[name]
        density = None if hasattr(method.pattern, "density") else 0.3
        model = network(10 + rank, method.pattern, density)
        wrapper = DistributedDataParallel(model)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        evolution = Evolution(wrapper, optimizer, name, seed=20 + rank, **settled(method))
        agree(model)
        before, updates = topologies(model), 0
        for step in range(8):
            loss_of(wrapper(data(rank, step))).backward()
            optimizer.step()
            optimizer.zero_grad()
            updates += evolution.step() is not None
            evolution.report(1.0 + rank / (1 + step))
            agree(model, optimizer)
        assert updates == (0 if method.every is None else 4)
        assert (topologies(model) == before) == (method.every is None)

    return run


for _name in sorted(regrow.methods()):
    CASES[f"method {_name}"] = each_method(_name)


@case
def gradients_of_all_ranks_decide(rank: int) -> None:
    parts = {"every": 2, "until": 100}
    model = network(10 + rank)
    wrapper = DistributedDataParallel(model)
    optimizer = torch.optim.Adam(wrapper.parameters(), lr=0.02)
    evolution = Evolution(wrapper, optimizer, "rigl", seed=20 + rank, **parts)
    for step in range(9):
        loss_of(wrapper(data(rank, step))).backward()
        optimizer.step()
        optimizer.zero_grad()
        evolution.step()
    same_as(model, in_one_process("rigl", 9, **parts))


SHRINKING = {"density": Cubic(0.3, 0.1), "every": 2, "until": 8, "scope": "global"}


@case
def a_wrapper_learns_of_another_number_of_connections(rank: int) -> None:
    model = network(10 + rank)
    wrapper = DistributedDataParallel(model, gradient_as_bucket_view=True, bucket_cap_mb=3)
    seen = []
    wrapper.register_forward_hook(lambda *_: seen.append(rank))
    sent = []

    def counted(state, bucket):
        state.append(bucket.buffer().numel())
        return default_hooks.allreduce_hook(None, bucket)

    wrapper.register_comm_hook(sent, counted)
    optimizer = adam(model)
    evolution = Evolution(wrapper, optimizer, "rigl", seed=20, **SHRINKING)
    start = sum(numbers(model))
    for step in range(10):
        loss_of(wrapper(data(rank, step))).backward()
        optimizer.step()
        optimizer.zero_grad()
        evolution.step()
        agree(model, optimizer)
    assert sum(numbers(model)) == start // 3
    assert len(seen) == 10
    assert sent[-1] < sent[0]
    assert wrapper.training
    assert wrapper.gradient_as_bucket_view
    assert wrapper.bucket_bytes_cap == 3 * 2**20
    same_as(model, in_one_process("rigl", 10, **SHRINKING))


@case
def averaged_gradients_stand_in_for_the_wrapper(rank: int) -> None:
    model = network(10 + rank)
    optimizer = adam(model)
    evolution = Evolution(model, optimizer, "rigl", seed=20 + rank, **SHRINKING)
    for step in range(10):
        loss_of(model(data(rank, step))).backward()
        average_gradients(model)
        optimizer.step()
        optimizer.zero_grad()
        evolution.step()
        agree(model, optimizer)
    same_as(model, in_one_process("rigl", 10, **SHRINKING))


@case
def a_wrapper_is_found_where_only_the_model_inside_was_given(rank: int) -> None:
    model = network(10 + rank)
    optimizer = adam(model)
    evolution = Evolution(model, optimizer, "rigl", seed=20, **SHRINKING)
    wrapper = DistributedDataParallel(model)  # by a trainer, later
    for step in range(10):
        loss_of(wrapper(data(rank, step))).backward()
        optimizer.step()
        optimizer.zero_grad()
        evolution.step()
    same_as(model, in_one_process("rigl", 10, **SHRINKING))


@case
def another_number_that_nobody_would_know_of_is_refused(rank: int) -> None:
    model = network(10)
    optimizer = adam(model)
    evolution = Evolution(model, optimizer, "set", **SHRINKING)
    loss_of(model(data(rank, 0))).backward()
    optimizer.step()
    before = digest(model, optimizer)
    sentence = (
        "number of connections of 0 can change on 2 ranks only where it is known who averages its "
        "gradient: train it in DistributedDataParallel, or call average_gradients(model) before "
        "each optimiser step"
    )
    with pytest.raises(RuntimeError, match=re.escape(sentence)):
        evolution.prune(0.5)
    assert digest(model, optimizer) == before


@case
def accumulated_gradients_are_one_step(rank: int) -> None:
    model = network(10 + rank)
    wrapper = DistributedDataParallel(model)
    optimizer = adam(model)
    evolution = Evolution(wrapper, optimizer, "rigl", every=1, until=3)
    expected = network(10)
    adam_of_one = adam(expected)
    alone = Evolution(expected, adam_of_one, "rigl", every=1, until=3, alone=True)
    for step in range(3):
        with wrapper.no_sync():
            (loss_of(wrapper(data(rank, 2 * step))) / 2).backward()
            assert evolution.step() is None
        (loss_of(wrapper(data(rank, 2 * step + 1))) / 2).backward()
        optimizer.step()
        optimizer.zero_grad()
        assert evolution.step() is not None
        batches = [data(r, 2 * step + part) for part in (0, 1) for r in (0, 1)]
        loss_of(expected(torch.cat(batches))).backward()
        adam_of_one.step()
        adam_of_one.zero_grad()
        alone.step()
    same_as(model, expected)


@case
def rules_that_draw_for_themselves_follow_rank_0(rank: int) -> None:
    torch.manual_seed(rank)
    method = Method(
        name="own",
        drop=lambda site: torch.rand(site.topology.nnz),
        grow=lambda site, candidates: torch.rand(len(candidates)),
        start=lambda layer, count, generator: torch.randn(count),
        every=1,
    )
    for scope in ("layer", "global", "row"):
        model = network(10, "fan-in" if scope == "row" else "random")
        wrapper = DistributedDataParallel(model)
        optimizer = adam(model)
        evolution = Evolution(wrapper, optimizer, replace(method, scope=scope))
        for step in range(4):
            loss_of(wrapper(data(rank, step))).backward()
            optimizer.step()
            optimizer.zero_grad()
            assert evolution.step().dropped > 0
            agree(model, optimizer)


@case
def calls_outside_of_the_schedule_agree_too(rank: int) -> None:
    model = network(10 + rank)
    wrapper = DistributedDataParallel(model)
    optimizer = adam(model)
    evolution = Evolution(wrapper, optimizer, "rigl", seed=rank, every=100)
    sites = evolution.probe(lambda: loss_of(model(data(rank, 0))).backward())
    block = regrow.evolution.Candidates(12, block=slice(0, 16))
    gradient = sites["0"].gradient(block)
    twin = copy.deepcopy(model)
    loss_of(twin(torch.cat([data(0, 0), data(1, 0)]))).backward()
    at = model[0].topology.positions
    torch.testing.assert_close(gradient[at], twin[0].values.grad)
    torch.testing.assert_close(sites["0"].grad, twin[0].values.grad)
    keep = torch.rand(model[0].topology.nnz, generator=seeded(rank)) < 0.5
    grown = torch.tensor([int((~model[0].topology.mask()).view(-1).nonzero()[rank])])
    evolution.rewire("0", keep, grown)
    evolution.prune(0.2)
    agree(model, optimizer)
    loss_of(wrapper(data(rank, 1))).backward()
    optimizer.step()
    agree(model, optimizer)


@case
def one_process_of_several_may_stay_alone(rank: int) -> None:
    model = network(10 + rank)
    before = topologies(model)
    optimizer = adam(model)
    evolution = Evolution(model, optimizer, "set", seed=rank, every=1, alone=True)
    assert topologies(model) == before
    if rank == 0:  # the other one would wait for ever if this one waited for it
        loss_of(model(data(rank, 0))).backward()
        optimizer.step()
        assert evolution.step() is not None


@case
def saved_by_one_and_loaded_by_all_it_goes_on_exactly(rank: int) -> None:
    def made(seed: int) -> tuple[nn.Module, DistributedDataParallel, Any, Evolution]:
        model = network(seed)
        wrapper = DistributedDataParallel(model)
        optimizer = adam(model)
        return model, wrapper, optimizer, Evolution(wrapper, optimizer, "set", seed=seed, every=2)

    def trained(parts: tuple[Any, ...], steps: range) -> None:
        _, wrapper, optimizer, evolution = parts
        for step in steps:
            loss_of(wrapper(data(rank, step))).backward()
            optimizer.step()
            optimizer.zero_grad()
            evolution.step()

    whole = made(10)
    trained(whole, range(3))
    saved = [copy.deepcopy([part.state_dict() for part in (whole[0], *whole[2:])])]
    dist.broadcast_object_list(saved, 0)
    trained(whole, range(3, 8))
    again = made(30 + rank)
    for part, state in zip((again[0], *again[2:]), saved[0], strict=True):
        part.load_state_dict(state)
    trained(again, range(3, 8))
    assert digest(again[0], again[2]) == digest(whole[0], whole[2])


@case
def synchronised_ranks_have_the_model_of_rank_0(rank: int) -> None:
    model = network(10 + rank, density=0.3 + 0.1 * rank)
    parameter = model[0].values
    synchronize(model)
    agree(model)
    assert model[0].values is parameter
    assert topologies(model) == topologies(network(10))


@case
def gradients_that_only_one_rank_has_are_averaged(rank: int) -> None:
    layers = nn.ModuleList([nn.Linear(2, 1, bias=False) for _ in range(3)])
    layers[rank](torch.full((1, 2), 4.0)).sum().backward()
    average_gradients(layers)
    for layer in layers[:2]:
        assert torch.equal(layer.weight.grad, torch.full((1, 2), 2.0))
    assert layers[2].weight.grad is None


@case
def shards_beside_whole_values_evolve(rank: int) -> None:
    model = network(10 + rank)
    model.append(nn.Linear(8, 4).double())
    synchronize(model)
    expected = copy.deepcopy(model)
    values = {layer.values for layer in regrow.sparse_layers(model).values()}
    fully_shard(model, ignored_params=values)
    optimizer, of_one = adam(model), adam(expected)
    evolution = Evolution(model, optimizer, "rigl", seed=20 + rank, **SHRINKING)
    alone = Evolution(expected, of_one, "rigl", seed=20, alone=True, **SHRINKING)
    for step in range(10):
        loss_of(model(data(rank, step))).backward()
        average_gradients(model)
        optimizer.step()
        optimizer.zero_grad()
        evolution.step()
        loss_of(expected(torch.cat([data(0, step), data(1, step)]))).backward()
        of_one.step()
        of_one.zero_grad()
        alone.step()
    assert topologies(model) == topologies(expected)
    for a, b in zip(model.parameters(), expected.parameters(), strict=True):
        whole = a.full_tensor() if hasattr(a, "full_tensor") else a
        torch.testing.assert_close(whole, b, rtol=1e-9, atol=1e-12)


@case
def values_in_shards_train_on_a_topology_that_stays(rank: int) -> None:
    model = network(10 + rank)
    synchronize(model)
    expected = copy.deepcopy(model)
    for layer in regrow.sparse_layers(model).values():
        fully_shard(layer)
    fully_shard(model)
    optimizer, of_one = adam(model), adam(expected)
    Evolution(model, optimizer, "static")
    for step in range(4):
        loss_of(model(data(rank, step))).backward()
        optimizer.step()
        optimizer.zero_grad()
        loss_of(expected(torch.cat([data(0, step), data(1, step)]))).backward()
        of_one.step()
        of_one.zero_grad()
    for a, b in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(a.full_tensor(), b, rtol=1e-9, atol=1e-12)


@case
def values_in_shards_do_not_change_their_topology(rank: int) -> None:
    model = network(10)
    fully_shard(model)
    sentence = (
        "values of 0 must be whole on every rank for set to change their topology, got shards: "
        "give them to fully_shard as ignored_params, and call average_gradients(model) before "
        "each optimiser step"
    )
    with pytest.raises(ValueError, match=re.escape(sentence)):
        Evolution(model, adam(model), "set", every=1)


@case
def shards_of_different_topologies_are_refused(rank: int) -> None:
    model = network(10 + rank)
    fully_shard(model)
    sentence = (
        "topology of 0 must be the same on all ranks where its values are sharded, got different "
        "ones: call synchronize before fully_shard"
    )
    with pytest.raises(ValueError, match=re.escape(sentence)):
        synchronize(model)


def main(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("error")
    # FSDP2 remarks that the output of a sparse layer is a view.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module")
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/store",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=120),
    )
    failures, passed = {}, 0
    for name, run in CASES.items():
        try:
            print(name, file=sys.stderr, flush=True)
            run(rank)
            dist.barrier()
            passed += 1
        except Exception:  # noqa: BLE001 - whatever goes wrong is reported by the test
            failures[name] = traceback.format_exc()
            break  # the ranks may be at different places now
    report = {"failures": failures, "passed": passed}
    (folder / f"report-{rank}.json").write_text(json.dumps(report))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
    # On a busy machine a thread of torch's process groups can outlive them, and then the process is
    # aborted on its way out; what it had to say is written.
    os._exit(0)
