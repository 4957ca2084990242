"""ONNX: the file computes what the model does, in the runtime, with dense and sparse weights."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import regrow
from regrow.export import save_onnx, to_dense

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def computed(path: Path, *inputs: torch.Tensor) -> torch.Tensor:
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]
    given = {name: x.numpy() for name, x in zip(names, inputs, strict=True)}
    return torch.from_numpy(session.run(None, given)[0])


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 16)
        self.rnn = nn.LSTM(16, 16, batch_first=True)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.rnn(self.embed(ids))[0]


def models() -> dict[str, tuple[nn.Module, torch.Tensor]]:
    torch.manual_seed(0)
    block = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, dropout=0.5)
    images = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(16 * 16, 10),
    )
    return {
        "images": (images, torch.randn(2, 3, 4, 4)),
        "transformer": (block, torch.randn(2, 5, 16)),
        "recurrent": (Recurrent(), torch.randint(20, (2, 5))),
    }


@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("name", models())
def test_the_runtime_computes_what_the_model_does(name: str, sparse: bool, tmp_path: Path) -> None:
    model, x = models()[name]
    regrow.sparsify(model, 0.1, compute="csr", generator=seeded())
    before = copy.deepcopy(model.state_dict())
    path = tmp_path / "model.onnx"
    save_onnx(model, x, path, sparse=sparse)
    assert model.training
    assert all(torch.equal(model.state_dict()[key], entry) for key, entry in before.items())
    stored = onnx.load(path).graph
    assert bool(stored.sparse_initializer) == sparse
    with torch.no_grad():
        torch.testing.assert_close(computed(path, x), model.eval()(x), atol=1e-5, rtol=1e-5)


def test_a_sparse_file_is_smaller_and_holds_the_connections(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = regrow.sparsify(nn.Sequential(nn.Linear(100, 80)), 0.05, generator=seeded())
    for name in ("sparse", "dense"):
        save_onnx(model, torch.ones(1, 100), tmp_path / name, sparse=name == "sparse")
    assert (tmp_path / "sparse").stat().st_size < 0.25 * (tmp_path / "dense").stat().st_size
    (entry,) = onnx.load(tmp_path / "sparse").graph.sparse_initializer
    positions = onnx.numpy_helper.to_array(entry.indices)
    values = onnx.numpy_helper.to_array(entry.values)
    assert list(entry.dims) == [80, 100]
    assert positions.tolist() == model[0].topology.positions.tolist()
    assert values.tolist() == model[0].values.tolist()


def test_weights_that_are_not_sparse_enough_stay_dense(tmp_path: Path) -> None:
    model = regrow.sparsify(nn.Sequential(nn.Linear(20, 20)), 0.5, generator=seeded())
    save_onnx(model, torch.ones(1, 20), tmp_path / "model.onnx")
    assert not onnx.load(tmp_path / "model.onnx").graph.sparse_initializer


def test_options_reach_the_exporter(tmp_path: Path) -> None:
    model = regrow.sparsify(nn.Sequential(nn.Linear(20, 8)), 0.1, generator=seeded())
    batch: Any = torch.export.Dim("batch")
    save_onnx(model, torch.ones(2, 20), tmp_path / "model.onnx", dynamic_shapes=({0: batch},))
    x = torch.randn(7, 20)
    torch.testing.assert_close(computed(tmp_path / "model.onnx", x), model(x).detach())


def test_what_fails_leaves_no_file(tmp_path: Path) -> None:
    class Talking(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(torch.onnx.errors.OnnxExporterError):
        save_onnx(Talking(), torch.ones(2, 2), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_the_dense_copy_is_plain_and_apart() -> None:
    model = regrow.sparsify(nn.Sequential(nn.Linear(6, 5), nn.GRU(5, 4)), 0.5)
    dense = to_dense(model)
    assert [type(part) for part in dense] == [nn.Linear, nn.GRU]
    assert list(regrow.sparse_layers(model)) == ["0", "1.cells.0.input", "1.cells.0.hidden"]
    x = torch.randn(3, 2, 6)
    torch.testing.assert_close(dense(x)[0], model(x)[0])
    with torch.no_grad():
        dense[0].weight.zero_()
        dense[0].bias.zero_()
    assert model[0].bias.abs().sum() > 0
