"""Evolution in transformers' Trainer: updates count optimiser steps, resume is exact."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import regrow
from regrow.evolution.schedules import Cubic

transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")
from regrow.training.callbacks.transformers import EvolutionCallback  # noqa: E402

# The trainer's own remarks on small trainings, and on newer versions of torch.
pytestmark = pytest.mark.filterwarnings("ignore")

CONFIG = transformers.LlamaConfig(
    vocab_size=16,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=2,
    max_position_embeddings=8,
)


def model() -> nn.Module:
    torch.manual_seed(0)
    dense = transformers.LlamaForCausalLM(CONFIG)
    generator = torch.Generator().manual_seed(0)
    return regrow.sparsify(
        dense, 0.25, include=["*.mlp.*", "*.self_attn.*"], compute="csr", generator=generator
    )


class Sequences(torch.utils.data.Dataset):
    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(1)
        self.ids = torch.randint(16, (32, 8), generator=generator)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self.ids[index], "labels": self.ids[index]}


def trainer(folder: Path, callback: EvolutionCallback, **options):
    optimizers = options.pop("optimizers", (None, None))
    network = options.pop("model", None) or model()
    arguments = transformers.TrainingArguments(
        output_dir=str(folder),
        **{
            "max_steps": 16,
            "per_device_train_batch_size": 4,
            "learning_rate": 0.01,
            "logging_steps": 1,
            "save_strategy": "no",
            "report_to": [],
            "use_cpu": True,
            "disable_tqdm": True,
            "seed": 3,
            **options,
        },
    )
    return transformers.Trainer(
        network,
        arguments,
        train_dataset=Sequences(),
        eval_dataset=Sequences(),
        callbacks=[callback],
        optimizers=optimizers,
    )


def losses(run) -> list[float]:
    return [entry["loss"] for entry in run.state.log_history if "loss" in entry]


def same(one: nn.Module, other: nn.Module) -> None:
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
    layers = [regrow.sparse_layers(m).values() for m in (one, other)]
    for a, b in zip(*layers, strict=True):
        assert a.topology == b.topology


def test_updates_count_optimiser_steps_not_batches(tmp_path: Path) -> None:
    callback = EvolutionCallback("set", every=2)
    run = trainer(tmp_path, callback, gradient_accumulation_steps=2, max_steps=4)
    before = {path: layer.topology for path, layer in regrow.sparse_layers(run.model).items()}
    run.train()
    assert callback.evolution.steps == 4
    assert callback.record.step == 4
    assert set(callback.record.layers) == set(before)
    for path, layer in regrow.sparse_layers(run.model).items():
        assert layer.topology != before[path]
        assert layer.topology.nnz == before[path].nnz


def test_steps_come_from_the_trainer(tmp_path: Path) -> None:
    callback = EvolutionCallback("set", every="epoch", until=0.75)
    trainer(tmp_path, callback, max_steps=-1, num_train_epochs=4).train()
    assert callback.evolution.steps == 32
    assert callback.record.step == 24


@pytest.mark.parametrize(
    "parts",
    [
        {"method": "set"},
        {"method": "rigl", "until": 0.9},
        {"method": "set", "density": Cubic(0.25, 0.1), "until": 1.0},
    ],
)
def test_resumed_it_equals_uninterrupted_training(tmp_path: Path, parts: dict) -> None:
    parts = {**parts, "every": 3, "seed": 5}
    whole = trainer(tmp_path / "whole", EvolutionCallback(**parts))
    whole.train()
    trainer(tmp_path, EvolutionCallback(**parts), save_strategy="steps", save_steps=7).train()
    moved = (tmp_path / "checkpoint-7").rename(tmp_path / "elsewhere")
    callback = EvolutionCallback(**parts)
    again = trainer(tmp_path / "again", callback)
    again.train(resume_from_checkpoint=str(moved))
    assert callback.evolution.steps == 16
    assert losses(again) == losses(whole)
    same(again.model, whole.model)


def test_a_callback_that_the_trainer_restores_is_the_same(tmp_path: Path) -> None:
    parts = {"method": "rigl", "every": 3, "until": 0.9, "seed": 5}
    whole = trainer(tmp_path / "whole", EvolutionCallback(**parts))
    whole.train()
    saving = {"save_strategy": "steps", "save_steps": 7}
    trainer(tmp_path, EvolutionCallback(**parts), **saving).train()
    again = trainer(
        tmp_path / "again",
        EvolutionCallback(**parts),
        restore_callback_states_from_checkpoint=True,
    )
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-7"))
    same(again.model, whole.model)


def test_an_optimiser_of_ones_own(tmp_path: Path) -> None:
    network = model()
    optimizer = regrow.optim.LocalAgeAdam(network.parameters(), lr=0.01, warmup=3)
    callback = EvolutionCallback("set", every=3, state="age")
    trainer(tmp_path, callback, model=network, optimizers=(optimizer, None), max_steps=6).train()
    ages = optimizer.state[network.model.layers[0].mlp.up_proj.values]["age"]
    assert set(ages.tolist()) == {0, 3, 6}


def test_a_listening_density_is_told_the_validation_loss(tmp_path: Path) -> None:
    told = []

    class Told(EvolutionCallback):
        def on_train_begin(self, *args, **options) -> None:
            super().on_train_begin(*args, **options)
            self.evolution.report = told.append

    trainer(tmp_path, Told("static"), eval_strategy="steps", eval_steps=8).train()
    assert len(told) == 2
    assert told[1] < told[0]


def test_the_sparse_model_that_it_saved_is_read_back(tmp_path: Path) -> None:
    run = trainer(tmp_path, EvolutionCallback("set", every=3))
    run.train()
    run.save_model(str(tmp_path / "model"))
    from safetensors.torch import load_file

    other = model()
    other.load_state_dict(load_file(tmp_path / "model" / "model.safetensors"), strict=False)
    same(other, run.model)


def test_two_ranks_have_one_topology_of_any_number_of_connections(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
    script = Path(__file__).with_name("two_ranks.py")
    ranks = [
        subprocess.Popen(
            [sys.executable, script, str(rank), tmp_path],
            env={**os.environ, **meeting, "WORLD_SIZE": "2", "RANK": str(rank)}
            | {"LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    try:
        errors = [rank.communicate(timeout=400)[1] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.returncode for rank in ranks] == [0, 0], errors
    one, other = (json.loads((tmp_path / f"report-{r}.json").read_text()) for r in (0, 1))
    assert one == other
    assert one["wrapper"] == "DistributedDataParallel"
    before, after = one["connections"]
    assert after == round(before * 0.1 / 0.25)
