"""Models of the package transformers: their projections, tied heads and fused weights."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

import regrow
from regrow import densify, sparsify
from regrow.layers import SparseProjection

transformers = pytest.importorskip("transformers")

IDS = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])


def gpt2(**options: Any) -> Any:
    torch.manual_seed(0)
    sizes = {"vocab_size": 12, "n_positions": 8, "n_embd": 8, "n_layer": 2, "n_head": 2}
    config = transformers.GPT2Config(**{**sizes, "bos_token_id": 0, "eos_token_id": 0, **options})
    return transformers.GPT2LMHeadModel(config).eval()


def llama() -> Any:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=12,
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=16,
    )
    return transformers.LlamaForCausalLM(config).eval()


def bert() -> Any:
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=12,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=8,
    )
    return transformers.BertForMaskedLM(config).eval()


@pytest.mark.parametrize("make", [gpt2, llama, bert])
def test_every_model_is_the_function_of_its_dense_twin(make: Any) -> None:
    model = sparsify(make(), 0.4, compute="csr", generator=torch.Generator().manual_seed(0))
    kinds = {type(layer).__name__ for layer in regrow.sparse_layers(model).values()}
    assert kinds == {
        "SparseEmbedding",
        "SparseProjection" if make is gpt2 else "SparseLinear",
        *(["SparseLinear"] if make is bert else []),
    }
    dense = densify(copy.deepcopy(model))
    assert {type(m) for m in dense.modules()} == {type(m) for m in make().modules()}
    sparse_out = model(IDS, labels=IDS)
    dense_out = dense(IDS, labels=IDS)
    torch.testing.assert_close(sparse_out.logits, dense_out.logits)
    sparse_out.loss.backward()
    dense_out.loss.backward()
    for path, layer in regrow.sparse_layers(model).items():
        weight = dense.get_submodule(path).weight.grad
        weight = weight.t() if isinstance(layer, SparseProjection) else weight
        wanted = weight.reshape(-1)[layer.topology.positions]
        torch.testing.assert_close(layer.values.grad, wanted, msg=path)


@pytest.mark.parametrize("values", ["keep", "rescale", "init"])
def test_values_of_a_projection_are_those_of_its_columns(values: str) -> None:
    dense = gpt2().transformer.h[0].mlp.c_fc
    weight, bias = dense.weight.detach().clone(), dense.bias
    layer = sparsify(dense, 0.3, values=values)
    assert layer.topology.shape == (32, 8)
    assert (layer.nx, layer.nf) == (8, 32)
    assert layer.bias is bias
    kept = weight.t()[layer.topology.mask()]
    if values == "init":
        assert not torch.equal(layer.values, kept)
    else:
        scale = layer.density**0.5 if values == "rescale" else 1.0
        torch.testing.assert_close(layer.values.detach(), kept / scale)


def test_there_and_back_is_bit_equal() -> None:
    model = gpt2()
    before = copy.deepcopy(model.state_dict())
    after = densify(sparsify(model, 1.0, full="sparse")).state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert model.lm_head.weight is model.transformer.wte.weight


def test_a_frozen_projection_stays_frozen() -> None:
    model = gpt2()
    model.transformer.h[0].requires_grad_(False)
    sparsify(model, 0.3)
    frozen = [p.requires_grad for p in model.transformer.h[0].parameters()]
    assert not any(frozen)
    assert all(p.requires_grad for p in model.transformer.h[1].parameters())


@pytest.mark.parametrize("method", ["set", "rigl"])
def test_fused_parts_keep_their_budgets_and_the_head_its_tie(method: str) -> None:
    model = sparsify(gpt2(), 0.3, groups={"*.c_attn": ["q", "k", "v"]}).train()
    fused = model.transformer.h[0].attn.c_attn
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    evolution = regrow.Evolution(model, optimizer, method=method, every=2, scope="gate")

    def counts() -> list[int]:
        degrees = fused.topology.degrees()[0]
        return [int(degrees[rows].sum()) for rows in fused.row_groups.values()]

    budgets, before = counts(), fused.topology
    assert max(budgets) - min(budgets) <= 1
    losses = []
    for _ in range(30):
        loss = model(IDS, labels=IDS).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        evolution.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
    assert counts() == budgets
    assert fused.topology != before
    assert model.lm_head.values is model.transformer.wte.values


@pytest.mark.parametrize("make", [gpt2, bert])
def test_saves_with_its_ties_as_the_package_does(make: Any, tmp_path: Path) -> None:
    model = sparsify(make(), 0.4)
    model.save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    lead = next(iter(regrow.sparse_layers(model)))
    assert {f"{lead}.{part}" for part in ("values", "shape", "indptr", "indices")} <= set(state)
    other = sparsify(make(), 0.4)
    other.load_state_dict(state, strict=False)
    assert torch.equal(other(IDS).logits, model(IDS).logits)


@pytest.mark.parametrize("make", [gpt2, bert])
def test_the_package_ties_what_is_tied_already(make: Any) -> None:
    model = sparsify(make(), 0.4)
    before = model(IDS).logits
    first, *_ = regrow.sparse_layers(model).values()
    values = first.values
    model.tie_weights()
    assert first.values is values is first.tied[0].values
    assert torch.equal(model(IDS).logits, before)


@pytest.mark.parametrize("make", [gpt2, bert, llama])
def test_names_of_ties_come_back_with_the_dense_layers(make: Any) -> None:
    model, plain = densify(sparsify(make(), 0.4)), make()
    assert model._tied_weights_keys == plain._tied_weights_keys
    assert model.all_tied_weights_keys == plain.all_tied_weights_keys


def test_generates() -> None:
    model = sparsify(gpt2(), 0.3)
    made = model.generate(IDS[:, :2], max_new_tokens=3, do_sample=False, pad_token_id=0)
    assert made.shape == (2, 5)
