"""Sparse attention against torch's own, made dense again: outputs, weights, masks, gradients."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest
import torch
from torch import nn

import regrow
from regrow import densify, sparsify
from regrow.layers import SparseMultiheadAttention
from regrow.topology import Topology

WIDTH, HEADS, BATCH, TARGETS, SOURCES = 8, 2, 3, 4, 5


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def twins(**options: Any) -> tuple[SparseMultiheadAttention, nn.MultiheadAttention]:
    torch.manual_seed(0)
    module = nn.MultiheadAttention(WIDTH, HEADS, **options)
    for name, parameter in module.named_parameters():
        if "bias" in name:
            nn.init.normal_(parameter)
    sparse = sparsify(module, 0.5, compute="csr", generator=seeded())
    dense = densify(copy.deepcopy(sparse))
    assert type(dense) is nn.MultiheadAttention
    return sparse, dense


def inputs(module: Any, unbatched: bool = False) -> list[torch.Tensor]:
    sizes = ((TARGETS, WIDTH), (SOURCES, module.kdim), (SOURCES, module.vdim))
    made = [torch.randn(length, BATCH, width) for length, width in sizes]
    if unbatched:
        return [x[:, 0] for x in made]
    return [x.transpose(0, 1) if module.batch_first else x for x in made]


def causal(targets: int = TARGETS, sources: int = SOURCES) -> torch.Tensor:
    return torch.ones(targets, sources, dtype=torch.bool).triu(1)


PADDING = torch.tensor([[0, 0, 0, 0, 0], [0, 0, 0, 0, 1], [0, 0, 1, 1, 1]]).bool()

OPTIONS: list[dict[str, Any]] = [
    {},
    {"batch_first": True},
    {"bias": False},
    {"kdim": 6, "vdim": 10},
    {"add_bias_kv": True},
    {"add_zero_attn": True, "batch_first": True},
    {"add_bias_kv": True, "add_zero_attn": True, "kdim": 6},
]
CALLS: list[dict[str, Any]] = [
    {},
    {"need_weights": False},
    {"average_attn_weights": False},
    {"attn_mask": causal()},
    {"attn_mask": causal(), "need_weights": False},
    {"attn_mask": causal(), "need_weights": False, "is_causal": True},
    {"attn_mask": torch.linspace(-1, 1, TARGETS * SOURCES).view(TARGETS, SOURCES)},
    {"attn_mask": causal().repeat(BATCH * HEADS, 1, 1), "need_weights": False},
    {"key_padding_mask": PADDING},
    {"key_padding_mask": PADDING, "need_weights": False},
    {"key_padding_mask": PADDING, "attn_mask": causal(), "need_weights": False},
]


@pytest.mark.parametrize("call", CALLS, ids=lambda c: "-".join(c) or "plain")
@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(o) or "plain")
def test_is_the_function_of_its_dense_twin(options: dict[str, Any], call: dict[str, Any]) -> None:
    if call.get("is_causal") and ("add_bias_kv" in options or "add_zero_attn" in options):
        call = {**call, "is_causal": False}  # torch hides what was added under the hint
    sparse, dense = twins(**options)
    q, k, v = inputs(sparse)
    y, weights = sparse(q, k, v, **call)
    wanted, wanted_weights = dense(q, k, v, **call)
    torch.testing.assert_close(y, wanted)
    assert (weights is None) == (wanted_weights is None)
    if weights is not None:
        torch.testing.assert_close(weights, wanted_weights)


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("options", OPTIONS[:5], ids=lambda o: "-".join(o) or "plain")
def test_without_a_batch(options: dict[str, Any], need_weights: bool) -> None:
    sparse, dense = twins(**options)
    q, k, v = inputs(sparse, unbatched=True)
    for mask in (None, PADDING[1]):
        call = {"key_padding_mask": mask, "need_weights": need_weights}
        y, weights = sparse(q, k, v, **call)
        wanted, wanted_weights = dense(q, k, v, **call)
        torch.testing.assert_close(y, wanted)
        if need_weights:
            torch.testing.assert_close(weights, wanted_weights)


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(o) or "plain")
def test_gradients_are_those_of_the_dense_twin(options: dict[str, Any]) -> None:
    sparse, dense = twins(**options)
    given = [x.requires_grad_() for x in inputs(sparse)]
    dense_given = [x.detach().clone().requires_grad_() for x in given]
    for module, xs in ((sparse, given), (dense, dense_given)):
        module(*xs, need_weights=False)[0].square().sum().backward()
    for x, dense_x in zip(given, dense_given, strict=True):
        torch.testing.assert_close(x.grad, dense_x.grad)
    if dense.in_proj_weight is None:
        grads = [getattr(dense, f"{name}_proj_weight").grad for name in "qkv"]
    else:
        grads = list(dense.in_proj_weight.grad.chunk(3))
    for name, grad in zip("qkv", grads, strict=True):
        layer = getattr(sparse, f"{name}_proj")
        wanted = grad.reshape(-1)[layer.topology.positions]
        torch.testing.assert_close(layer.values.grad, wanted)
        if dense.in_proj_bias is not None:
            part = dense.in_proj_bias.grad.chunk(3)["qkv".index(name)]
            torch.testing.assert_close(layer.bias.grad, part)
    if dense.bias_k is not None:
        torch.testing.assert_close(sparse.bias_k.grad, dense.bias_k.grad)
        torch.testing.assert_close(sparse.bias_v.grad, dense.bias_v.grad)


def test_dropout_falls_on_weights_in_training_only() -> None:
    sparse, _ = twins(dropout=0.5)
    q, k, v = inputs(sparse)
    torch.manual_seed(1)
    assert (sparse(q, k, v)[1] == 0).any()
    sparse.eval()
    assert torch.equal(sparse(q, k, v)[0], sparse(q, k, v)[0])


def test_autocast_gives_its_dtype() -> None:
    sparse, _ = twins(batch_first=True)
    q, k, v = inputs(sparse)
    for need_weights in (True, False):
        with torch.autocast("cpu", torch.bfloat16):
            y, _ = sparse(q, k, v, attn_mask=causal(), need_weights=need_weights)
        assert y.dtype == torch.bfloat16
        exact, _ = sparse(q, k, v, attn_mask=causal(), need_weights=need_weights)
        torch.testing.assert_close(y.float(), exact, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(o) or "plain")
def test_there_and_back_is_bit_equal(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    module = nn.MultiheadAttention(WIDTH, HEADS, **options)
    before = copy.deepcopy(module.state_dict())
    everything = sparsify(module, 1.0, full="sparse")
    assert list(regrow.sparse_layers(everything)) == ["q_proj", "k_proj", "v_proj", "out_proj"]
    after = densify(everything)
    assert after.state_dict().keys() == before.keys()
    for name, tensor in after.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert [name for name, _ in after.named_parameters()] == list(before)


def test_frozen_parts_mode_and_dtype_are_kept() -> None:
    module = nn.MultiheadAttention(WIDTH, HEADS, dtype=torch.float64).eval()
    module.in_proj_weight.requires_grad_(False)
    module.out_proj.bias.requires_grad_(False)
    sparse = sparsify(module, 0.5)
    frozen = {name for name, p in sparse.named_parameters() if not p.requires_grad}
    assert frozen == {"q_proj.values", "k_proj.values", "v_proj.values", "out_proj.bias"}
    assert not sparse.training
    assert not sparse.q_proj.training
    assert sparse.q_proj.values.dtype == torch.float64
    dense = densify(sparse)
    frozen = {name for name, p in dense.named_parameters() if not p.requires_grad}
    assert frozen == {"in_proj_weight", "out_proj.bias"}


def test_values_may_be_drawn_anew_and_biases_start_at_zero() -> None:
    module = nn.MultiheadAttention(WIDTH, HEADS)
    nn.init.ones_(module.in_proj_bias)
    nn.init.zeros_(module.in_proj_weight)
    sparse = sparsify(module, 0.5, values="init", generator=seeded())
    assert sparse.q_proj.values.abs().min() > 0
    assert sparse.q_proj.bias.eq(0).all()


def test_a_projection_may_stay_dense() -> None:
    sparse = sparsify(nn.MultiheadAttention(WIDTH, HEADS), 0.5, exclude="v_proj")
    assert type(sparse.v_proj) is nn.Linear
    assert list(regrow.sparse_layers(sparse)) == ["q_proj", "k_proj", "out_proj"]


@pytest.mark.parametrize("method", ["set", "rigl"])
def test_evolves_with_a_budget_for_each_projection(method: str) -> None:
    sparse, _ = twins(batch_first=True)
    before = {path: x.topology for path, x in regrow.sparse_layers(sparse).items()}
    optimizer = torch.optim.Adam(sparse.parameters())
    evolution = regrow.Evolution(sparse, optimizer, method=method, every=1)
    for _ in range(3):
        sparse(*inputs(sparse))[0].square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        evolution.step()
    for path, layer in regrow.sparse_layers(sparse).items():
        assert layer.topology.nnz == before[path].nnz
        assert layer.topology != before[path]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"density": 1.5}, "density of SparseMultiheadAttention must be in (0, 1], got 1.5"),
        ({}, "SparseMultiheadAttention needs a density or topologies, not both or neither"),
        (
            {"num_heads": 3, "density": 0.5},
            "num_heads of SparseMultiheadAttention must divide embed_dim, got 3 and 8",
        ),
        (
            {"topologies": {"qkv": Topology((8, 8), torch.arange(3))}},
            "topologies of SparseMultiheadAttention must be of q_proj, k_proj, v_proj, out_proj, "
            "got qkv",
        ),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        SparseMultiheadAttention(**{"embed_dim": 8, "num_heads": 2, **options})


def test_inputs_that_cannot_be_are_refused() -> None:
    layer = SparseMultiheadAttention(8, 2, density=0.5)
    x = torch.ones(4, 3, 8)
    calls: list[tuple[tuple[torch.Tensor, ...], dict[str, Any], str]] = [
        ((x, x[0], x), {}, "must all have a batch or all have none, and not be nested, got shape"),
        ((x, x[..., :6], x), {}, "must have (8, 8, 8) features, got (8, 6, 8)"),
        ((x, x[:2], x), {}, "must have one batch size, and key and value one length, got (batch"),
        ((x, x, x), {"is_causal": True}, "attn_mask of attention must be given where is_causal"),
        ((x, x, x), {"attn_mask": torch.ones(3, 4)}, "must have shape (4, 4) or (6, 4, 4), got"),
        ((x, x, x), {"key_padding_mask": torch.ones(4, 4)}, "must have shape (3, 4), got (4, 4)"),
    ]
    for given, options, sentence in calls:
        with pytest.raises(ValueError, match=re.escape(sentence)):
            layer(*given, **options)
