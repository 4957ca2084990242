"""A training in transformers' Trainer on two ranks; `test_transformers.py` runs it as each."""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path

import torch
import torch.distributed as dist
import transformers

import regrow
from regrow.evolution.schedules import Cubic
from regrow.training.callbacks.transformers import EvolutionCallback

SIZES = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2}


def main(rank: int, folder: Path) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(rank)
    config = transformers.LlamaConfig(vocab_size=16, num_hidden_layers=1, **SIZES)
    model = transformers.LlamaForCausalLM(config)
    regrow.sparsify(model, 0.25, include=["*.mlp.*"], compute="csr")
    before = sum(layer.topology.nnz for layer in regrow.sparse_layers(model).values())
    ids = torch.randint(16, (64, 8), generator=torch.Generator().manual_seed(1))
    options = {"report_to": [], "use_cpu": True, "disable_tqdm": True, "ddp_backend": "gloo"}
    trainer = transformers.Trainer(
        model,
        transformers.TrainingArguments(str(folder), max_steps=10, save_strategy="no", **options),
        train_dataset=[{"input_ids": row, "labels": row} for row in ids],
        callbacks=[EvolutionCallback("rigl", every=2, until=0.8, density=Cubic(0.25, 0.1))],
    )
    trainer.train()
    layers = regrow.sparse_layers(model).values()
    report = {
        "wrapper": type(trainer.model_wrapped).__name__,
        "connections": [before, sum(layer.topology.nnz for layer in layers)],
        "positions": [layer.topology.positions.tolist() for layer in layers],
        "parameters": [parameter.tolist() for parameter in model.parameters()],
    }
    (folder / f"report-{rank}.json").write_text(json.dumps(report))
    dist.destroy_process_group()
    # Not by way of destructors: torch's reducer, gone with the model, waits for a thread of gloo
    # that may itself wait for Python.
    os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
