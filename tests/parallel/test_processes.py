"""Real processes: started by torchrun, killed in the middle, joining late."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import regrow
from regrow.parallel import train
from regrow.parallel.messages import topologies_of

pytestmark = pytest.mark.skipif(
    not (torch.distributed.is_available() and torch.distributed.is_gloo_available()),
    reason="this torch has no gloo",
)

PROGRAM = Path(__file__).with_name("program.py")
LONG = 300  # seconds; a crowded machine takes its time to start processes


def _program() -> ModuleType:
    spec = importlib.util.spec_from_file_location("program", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def start(rank: int, port: int, *arguments: object, size: int = 3) -> subprocess.Popen[str]:
    environment = {
        **os.environ,
        "RANK": str(rank),
        "WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "GLOO_SOCKET_IFNAME": "lo",
        "OMP_NUM_THREADS": "1",
    }
    words = [sys.executable, str(PROGRAM), *map(str, arguments)]
    return subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=environment)


def finish(processes: list[subprocess.Popen[str]]) -> list[int]:
    try:
        errors = [process.communicate(timeout=LONG)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    codes = [process.returncode for process in processes]
    assert codes[0] == 0, "\n".join(errors)
    return codes


def check(out: Path, local: float) -> dict[str, Any]:
    """The model is whole, and every gradient was taken that there should be."""
    program = _program()
    model = program.network()
    before = {path: topology.nnz for path, topology in topologies_of(model).items()}
    model.load_state_dict(torch.load(out / "model.pt"))
    after = {path: topology.nnz for path, topology in topologies_of(model).items()}
    assert after == before
    assert all(bool(p.isfinite().all()) for p in model.parameters())
    tally: dict[str, Any] = json.loads((out / "tally.json").read_text())
    assert tally["gradients"] == tally["updates"] == round((1 - local) * program.EPOCHS) * 40
    return tally


def torchrun(*words: object) -> subprocess.Popen[str]:
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", *map(str, words)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)


def test_under_torchrun(tmp_path: Path) -> None:
    where = "--master-addr=127.0.0.1", f"--master-port={free_port()}"
    assert finish([torchrun("--nproc-per-node=3", *where, PROGRAM, tmp_path)]) == [0]
    assert check(tmp_path, 0.5)["lost"] == 0


def test_torchrun_starts_killed_workers_again(tmp_path: Path) -> None:
    options = "--nnodes=3", "--max-restarts=1", "--master-addr=127.0.0.1"
    options = *options, f"--master-port={free_port()}"
    codes = finish(
        [
            torchrun(*options, f"--node-rank={rank}", PROGRAM, tmp_path, 0.5, "1,2")
            for rank in (0, 1, 2)
        ]
    )
    assert codes == [0, 0, 0]
    assert check(tmp_path, 0.5)["lost"] == 2


def test_a_killed_worker_loses_nothing_but_its_batch(tmp_path: Path) -> None:
    port = free_port()
    codes = finish([start(rank, port, tmp_path, 0.5, 2) for rank in (0, 1, 2)])
    assert codes == [0, 0, -signal.SIGKILL]
    assert check(tmp_path, 0.5)["lost"] == 1


def test_one_that_joins_late_goes_on_where_local_trainings_were_killed(tmp_path: Path) -> None:
    port = free_port()
    processes = [start(rank, port, tmp_path, 1.0, "1,2") for rank in (0, 1, 2)]
    try:
        for victim in processes[1:]:
            victim.wait(timeout=LONG)
        processes.append(start(3, port, tmp_path, 1.0))
        codes = finish(processes)
    finally:
        for process in processes:
            process.kill()
    assert codes == [0, -signal.SIGKILL, -signal.SIGKILL, 0]
    assert check(tmp_path, 1.0)["lost"] == 2


def test_a_worker_says_that_the_server_is_gone(tmp_path: Path) -> None:
    port = free_port()
    server, worker = (start(rank, port, tmp_path, 0.0, 0, size=2) for rank in (0, 1))
    try:
        errors = worker.communicate(timeout=LONG)[1]
        server.communicate(timeout=LONG)
    finally:
        server.kill()
        worker.kill()
    assert (server.returncode, worker.returncode) == (-signal.SIGKILL, 1)
    assert "server of a parallel training must live until it is over" in errors


def test_processes_must_know_where_to_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    program = _program()
    given = program.network(), program.data(2), program.optimizer, regrow.parallel.Plan(2)
    with pytest.raises(ValueError, match="rank must be given"):
        train(*given)
    with pytest.raises(ValueError, match="need an address and a port"):
        train(*given, rank=1)
