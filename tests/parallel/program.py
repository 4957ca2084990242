"""What a user starts: a server and workers. ``program.py OUT [LOCAL [VICTIMS]]``.

Victims are ranks that die by SIGKILL in the middle, such as ``1,2``.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import nn

import regrow
from regrow.parallel import Plan, Shards, train

EPOCHS = 4


def network() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 30), nn.ReLU(), nn.Linear(30, 20), nn.ReLU())
    model = nn.Sequential(*model, nn.Linear(20, 2))
    generator = torch.Generator().manual_seed(0)
    return regrow.sparsify(model, density=0.2, compute="csr", generator=generator)


def data(shards: int) -> Shards:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(320, 8, generator=generator)
    return Shards(x, (x[:, 0] * x[:, 1] > 0).long(), shards, batch_size=8)


def optimizer(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9)


def main(out: Path, local: float, victims: list[str]) -> None:
    rank, batches = os.environ["RANK"], 0
    if os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0":
        victims = []  # one that was started again lives

    def loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        nonlocal batches
        batches += 1
        time.sleep(0.005)  # so that no worker has done all before the others have begun
        if rank in victims and batches == 8:
            os.kill(os.getpid(), signal.SIGKILL)
        return nn.functional.cross_entropy(output, target)

    def progress(epochs: float) -> None:
        if rank in victims and epochs > 0.2:
            os.kill(os.getpid(), signal.SIGKILL)

    model, shards = network(), int(os.environ["WORLD_SIZE"]) - 1
    trained = train(
        *(model, data(shards), optimizer, Plan(EPOCHS, local=local)),
        loss=loss,
        progress=progress,
        patience=120,
    )
    if trained is not None:
        torch.save(trained.model.state_dict(), out / "model.pt")
        (out / "tally.json").write_text(json.dumps(vars(trained.tally)))


if __name__ == "__main__":
    folder, share, killed = [*sys.argv[1:], *("", "0.5", "")[len(sys.argv) - 1 :]]
    main(Path(folder), float(share), killed.split(","))
