"""One of two ranks of a training that `test_ranks.py` kills and starts again.

Arguments: rank, file to meet at, the step in whose update rank 1 kills itself (or 0), and one or
more folders of checkpoints; in each a training is begun, or continued.
"""

from __future__ import annotations

import os
import signal
import sys
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import regrow
from regrow import Evolution
from regrow.evolution.scores import DROP_SCORES
from regrow.training.checkpoint import load_checkpoint, save_checkpoint

STEPS = 12


def train(rank: int, folder: Path, last_of_rank_1: int) -> None:
    torch.manual_seed(rank)
    model = nn.Sequential(nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 8))
    model = regrow.sparsify(
        model, 0.3, compute="csr", generator=torch.Generator().manual_seed(rank)
    )
    wrapper = DistributedDataParallel(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)

    def magnitude(site: regrow.evolution.Site) -> Tensor:
        if rank == 1 and site.step == last_of_rank_1 and site.path == "2":
            os.kill(os.getpid(), signal.SIGKILL)  # when the first layer has been updated
        return DROP_SCORES["magnitude"].score(site)

    evolution = Evolution(wrapper, optimizer, "rigl", drop=magnitude, every=2, until=10, seed=rank)
    parts = {"model": model, "optimizer": optimizer, "evolution": evolution}
    step = 0
    if state := load_checkpoint(folder):
        step = state["step"]
        for name, part in parts.items():
            part.load_state_dict(state[name])
    while step < STEPS:
        generator = torch.Generator().manual_seed(2 * step + rank)
        wrapper(torch.randn(6, 12, generator=generator)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        evolution.step()
        step += 1
        if rank == 0 and step % 3 == 0:
            saved = {name: part.state_dict() for name, part in parts.items()}
            save_checkpoint(folder, {"step": step, **saved})
    dist.barrier()


def main(rank: int, meeting: str, last_of_rank_1: int, folders: list[str]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{meeting}",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=120),
    )
    for folder in folders:
        train(rank, Path(folder), last_of_rank_1)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4:])
