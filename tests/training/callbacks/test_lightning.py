"""Evolution in Lightning's Trainer: updates count optimiser steps, resume is exact."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import regrow

lightning = pytest.importorskip("lightning.pytorch")
from regrow.training.callbacks.lightning import EvolutionCallback  # noqa: E402

# Lightning's own remarks on small trainings, and on newer versions of torch.
pytestmark = pytest.mark.filterwarnings("ignore")


class Classifier(lightning.LightningModule):
    def __init__(self, make=torch.optim.Adam) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        model = nn.Sequential(nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 3))
        self.body = regrow.sparsify(model, 0.3, compute="csr", generator=generator)
        self.make = make
        self.losses: list[float] = []

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        x, y = batch
        loss = nn.functional.cross_entropy(self.body(x), y)
        self.losses.append(loss.item())
        return loss

    def validation_step(self, batch: list[Tensor], index: int) -> None:
        x, y = batch
        self.log("val_loss", nn.functional.cross_entropy(self.body(x), y))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.make(self.parameters(), lr=0.01)


def loader() -> DataLoader:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(32, 12, generator=generator)
    return DataLoader(TensorDataset(x, (x.sum(1) > 0).long()), batch_size=4)


def trainer(folder: Path, callback: EvolutionCallback, epochs: int, **options):
    return lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        callbacks=[callback, *options.pop("callbacks", [])],
        **options,
    )


def fresh(make=torch.optim.Adam) -> Classifier:
    torch.manual_seed(0)
    return Classifier(make)


def test_updates_count_optimiser_steps_not_batches(tmp_path: Path) -> None:
    callback = EvolutionCallback("set", every=2)
    module = fresh()
    before = [layer.topology for layer in regrow.sparse_layers(module).values()]
    trainer(tmp_path, callback, 1, accumulate_grad_batches=2).fit(module, loader())
    assert len(module.losses) == 8
    assert callback.evolution.steps == 4
    assert callback.record.step == 4
    after = [layer.topology for layer in regrow.sparse_layers(module).values()]
    assert all(a != b and a.nnz == b.nnz for a, b in zip(after, before, strict=True))


def test_steps_come_from_the_trainer(tmp_path: Path) -> None:
    callback = EvolutionCallback("set", every="epoch", until=0.75)
    trainer(tmp_path, callback, 4, accumulate_grad_batches=2).fit(fresh(), loader())
    assert callback.evolution.steps == 16
    assert callback.record.step == 12


@pytest.mark.parametrize("method", ["set", "rigl"])
@pytest.mark.parametrize("make", [torch.optim.Adam, regrow.optim.LocalAgeAdam])
def test_resumed_it_equals_uninterrupted_training(tmp_path: Path, method: str, make) -> None:
    parts = {"every": 3, "until": 100, "seed": 5}
    whole = fresh(make)
    callback = EvolutionCallback(method, **parts)
    trainer(tmp_path / "whole", callback, 3).fit(whole, loader())

    saves = lightning.callbacks.ModelCheckpoint(
        dirpath=tmp_path, filename="{step}", save_on_train_epoch_end=True, save_top_k=-1
    )
    first = trainer(tmp_path, EvolutionCallback(method, **parts), 2, callbacks=[saves])
    first.fit(fresh(make), loader())
    second = fresh(make)
    again = EvolutionCallback(method, **parts)
    last = trainer(tmp_path, again, 3)
    last.fit(second, loader(), ckpt_path=tmp_path / "step=8.ckpt")

    assert second.losses == whole.losses[8:]
    assert again.evolution.steps == callback.evolution.steps == 24
    for a, b in zip(whole.body.parameters(), second.body.parameters(), strict=True):
        assert torch.equal(a, b)
    for a, b in zip(whole.body[::2], second.body[::2], strict=True):
        assert a.topology == b.topology


def test_a_listening_density_is_told_the_validation_loss(tmp_path: Path) -> None:
    told = []

    class Told(EvolutionCallback):
        def on_train_start(self, trainer, pl_module) -> None:
            super().on_train_start(trainer, pl_module)
            self.evolution.report = told.append

    module = fresh()
    trainer(tmp_path, Told("static"), 2, num_sanity_val_steps=1).fit(module, loader(), loader())
    assert len(told) == 2
    assert told[1] < told[0]
