"""Evolution in a loop of accelerate: accumulation, and states that are saved and loaded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import regrow

accelerate = pytest.importorskip("accelerate")
from regrow.training.callbacks.accelerate import AcceleratedEvolution  # noqa: E402

# accelerate's own remarks on newer versions of torch.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def _its_state_is_gone_afterwards() -> Iterator[None]:
    yield
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)


class Run:
    def __init__(self, method: str, accumulate: int = 1, mixed: str = "no", **parts) -> None:
        generator = torch.Generator().manual_seed(0)
        model = nn.Sequential(nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 3))
        regrow.sparsify(model, 0.3, compute="csr", generator=generator)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        self.accelerator = accelerate.Accelerator(
            cpu=True, gradient_accumulation_steps=accumulate, mixed_precision=mixed
        )
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        self.evolution = AcceleratedEvolution(
            self.accelerator, self.model, self.optimizer, method, **parts
        )
        self.at = 0

    def batch(self) -> Tensor:
        self.at += 1
        return torch.randn(4, 12, generator=torch.Generator().manual_seed(self.at))

    def train(self, batches: int) -> None:
        for _ in range(batches):
            with self.accelerator.accumulate(self.model):
                self.accelerator.backward(self.model(self.batch()).square().mean())
                self.optimizer.step()
                self.evolution.step()
                self.optimizer.zero_grad()


def test_updates_count_optimiser_steps_not_batches() -> None:
    run = Run("rigl", accumulate=3, every=2, until=100)
    before = run.model[0].topology
    run.train(3)
    assert run.evolution.steps == 1
    assert run.model[0].topology is before
    run.train(3)
    assert run.evolution.steps == 2
    assert run.model[0].topology != before


@pytest.mark.parametrize("mixed", ["no", "bf16"])
@pytest.mark.parametrize("method", ["set", "rigl"])
def test_resumed_it_equals_uninterrupted_training(tmp_path: Path, method: str, mixed: str) -> None:
    parts = {"mixed": mixed, "every": 3, "until": 100}
    torch.manual_seed(0)
    whole = Run(method, **parts)
    whole.train(7)
    whole.accelerator.save_state(str(tmp_path))
    whole.train(8)
    torch.manual_seed(1)
    again = Run(method, **parts, seed=9)
    again.accelerator.load_state(str(tmp_path))
    again.at = 7
    again.train(8)
    assert again.evolution.steps == 15
    for a, b in zip(whole.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(a, b)
    for a, b in zip(whole.model[::2], again.model[::2], strict=True):
        assert a.topology == b.topology
