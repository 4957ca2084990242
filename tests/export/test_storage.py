"""safetensors: what is written is read back, into dense models and sparse ones, ties included."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import nn

import regrow
from regrow import sparsify
from regrow.export import load_safetensors, save_safetensors


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Everything(nn.Module):
    """One layer of each kind, a tie, a norm with buffers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(12, 6, padding_idx=0)
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
        self.fused = nn.Linear(6, 12)
        self.conv = nn.Conv1d(12, 6, 3, padding=1)
        self.norm = nn.BatchNorm1d(6)
        self.rnn = nn.GRU(6, 6, batch_first=True)
        self.head = nn.Linear(6, 12, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.embed(ids)
        x = x + self.attention(x, x, x, need_weights=False)[0]
        x = self.norm(self.conv(torch.relu(self.fused(x)).transpose(1, 2))).transpose(1, 2)
        return self.head(self.rnn(x)[0])


IDS = torch.tensor([[1, 5, 7], [2, 2, 11]])


def sparse(seed: int = 0, density: float = 0.4, **options: Any) -> Everything:
    groups = {"fused": ["a", "b"]}
    model = sparsify(Everything(), density, groups=groups, generator=seeded(seed), **options)
    model(IDS).sum().backward()
    model.norm.running_mean.add_(0.5)
    return model.eval()


@pytest.mark.parametrize("start", ["dense", "sparse", "of another density"])
def test_round_trip(start: str, tmp_path: Path) -> None:
    model = sparse()
    save_safetensors(model, tmp_path / "model.safetensors")
    others = {
        "dense": Everything,
        "sparse": lambda: sparse(1),
        "of another density": lambda: sparse(1, 0.2),
    }
    other = others[start]()
    assert load_safetensors(other, tmp_path / "model.safetensors") is other
    state, loaded = model.state_dict(), other.state_dict()
    assert list(loaded) == list(state)
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())
    assert torch.equal(other.eval()(IDS), model(IDS))
    assert other.head.values is other.embed.values
    assert (
        other.fused.row_groups
        == model.fused.row_groups
        == {
            "a": slice(0, 6),
            "b": slice(6, 12),
        }
    )


def test_what_is_shared_is_stored_once(tmp_path: Path) -> None:
    model = sparse()
    save_safetensors(model, tmp_path / "model.safetensors")
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        names, tied = set(file.keys()), json.loads(file.metadata()["tied"])
    assert tied["head.values"] == "embed.values"
    assert tied["head.indices"] == "embed.indices"
    assert names.isdisjoint(tied)
    assert names | set(tied) == set(model.state_dict())


def test_some_layers_may_be_dense(tmp_path: Path) -> None:
    model = sparse(exclude=["conv", "*.q_proj", "*.hidden"])
    save_safetensors(model, tmp_path / "model.safetensors")
    other = load_safetensors(Everything(), tmp_path / "model.safetensors")
    assert regrow.sparse_layers(other).keys() == regrow.sparse_layers(model).keys()
    assert torch.equal(other.eval()(IDS), model(IDS))


def test_a_dense_model_and_a_single_layer(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    dense = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
    save_safetensors(dense, path)
    other = load_safetensors(nn.Sequential(nn.Linear(4, 3), nn.ReLU()), path)
    assert torch.equal(other[0].weight, dense[0].weight)
    layer = regrow.SparseLinear(6, 5, density=0.5)
    save_safetensors(layer, path)
    loaded = load_safetensors(nn.Linear(6, 5), path)
    assert torch.equal(loaded.weight, layer.weight)


def test_views_of_one_storage_are_stored_apart(tmp_path: Path) -> None:
    model = nn.Module()
    whole = torch.arange(6.0)
    model.register_buffer("whole", whole)
    model.register_buffer("tail", whole[4:])
    model.register_buffer("flipped", whole.view(2, 3).t())
    save_safetensors(model, tmp_path / "model.safetensors")
    other = copy.deepcopy(model)
    for buffer in other.buffers():
        buffer.zero_()
    other.flipped = torch.zeros(3, 2)
    load_safetensors(other, tmp_path / "model.safetensors")
    assert other.tail.tolist() == [4, 5]
    assert torch.equal(other.flipped, whole.view(2, 3).t())


def test_a_write_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.safetensors"
    save_safetensors(sparse(), path)
    before = path.read_bytes()

    def half(tensors: object, name: str, header: object) -> None:
        Path(name).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("regrow.export.storage.save_file", half)
    with pytest.raises(OSError, match="disk full"):
        save_safetensors(sparse(1), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


class Odd(nn.Linear):
    def get_extra_state(self) -> int:
        return 3


def test_what_cannot_be_stored_or_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    sentence = "_extra_state of a model to store as safetensors must be a tensor, got int"
    with pytest.raises(TypeError, match=sentence):
        save_safetensors(Odd(2, 2), path)
    assert not path.exists()
    path.write_bytes(b"no such file")
    with pytest.raises(ValueError, match="must be a whole safetensors file"):
        load_safetensors(nn.Linear(2, 2), path)
    from safetensors.torch import save_file

    save_file({"weight": torch.ones(2, 2)}, path)
    sentence = re.escape("must be written by save_safetensors in format 1, got none")
    with pytest.raises(ValueError, match=sentence):
        load_safetensors(nn.Linear(2, 2), path)
    save_safetensors(sparsify(nn.Sequential(nn.Linear(4, 4)), 0.5), path)
    with pytest.raises(
        ValueError, match=r"the model cannot take the sparse layers of .*: path glo"
    ):
        load_safetensors(nn.ModuleDict({"a": nn.Linear(4, 4)}), path)
    with pytest.raises(ValueError, match="topology of 0 must have shape"):
        load_safetensors(nn.Sequential(nn.Linear(4, 5)), path)
