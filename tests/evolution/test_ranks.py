"""Two processes with one topology: their cases are in ``two_ranks.py``."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import regrow
from regrow import Evolution, SparseLinear
from regrow.evolution.ranks import Ranks, average_gradients, synchronize, unwrapped
from regrow.training.checkpoint import load_checkpoint

pytestmark = pytest.mark.skipif(
    not torch.distributed.is_available(), reason="this torch has no torch.distributed"
)


def run_ranks(script: str, *arguments: object) -> list[tuple[int, str]]:
    """Exit code and errors of both ranks of a script beside this one."""
    path = Path(__file__).with_name(script)
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [sys.executable, path, str(rank), *map(str, arguments)],
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for rank in (0, 1)
    ]
    try:
        errors = [rank.communicate(timeout=400)[1] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    return [(rank.returncode, error) for rank, error in zip(ranks, errors, strict=True)]


def test_two_ranks_have_one_topology(tmp_path: Path) -> None:
    for code, errors in run_ranks("two_ranks.py", tmp_path):
        assert code == 0, errors
    for rank in (0, 1):
        report = json.loads((tmp_path / f"report-{rank}.json").read_text())
        assert not report["failures"], "\n".join(report["failures"].values())
        assert report["passed"] > len(regrow.methods()) + 10


def test_a_rank_that_is_killed_leaves_a_checkpoint_that_resumes_exactly(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    codes = [code for code, _ in run_ranks("killed_rank.py", tmp_path / "first", 8, broken)]
    assert codes[1] == -signal.SIGKILL
    assert codes[0] not in (0, -signal.SIGKILL)  # it is told, and does not wait for ever
    assert load_checkpoint(broken)["step"] == 6
    again = run_ranks("killed_rank.py", tmp_path / "second", 0, broken, whole)
    assert [code for code, _ in again] == [0, 0], again
    expected, found = load_checkpoint(whole), load_checkpoint(broken)
    assert found["step"] == expected["step"] == 12
    assert found["evolution"]["steps"] == 12
    for name, entry in expected["model"].items():
        assert torch.equal(found["model"][name], entry), name
    for index, state in expected["optimizer"]["state"].items():
        for name, entry in state.items():
            assert torch.equal(found["optimizer"]["state"][index][name], entry), name


def test_one_process_sends_nothing() -> None:
    layer = SparseLinear(6, 4, density=0.5)
    ranks = Ranks.of(layer)
    tensor = torch.ones(3)
    assert ranks.size == 1
    assert ranks.mean(tensor) is tensor
    assert ranks.first(tensor) is tensor
    assert ranks.first_of_any_shape(tensor) is tensor
    layer(torch.ones(2, 6)).sum().backward()
    gradient = layer.values.grad.clone()
    synchronize(layer)
    average_gradients(layer)
    assert torch.equal(layer.values.grad, gradient)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.compile's own imports
def test_the_model_inside_of_a_compiled_one() -> None:
    model = nn.Sequential(SparseLinear(6, 4, density=0.5))
    assert unwrapped(model) is model
    assert unwrapped(torch.compile(model)) is model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    assert Evolution(torch.compile(model), optimizer, "set", every=1).model is model
