"""torch's transformer modules with sparse layers inside: same function, no way around them."""

from __future__ import annotations

import copy
import shutil
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

import regrow
from regrow import densify, sparsify
from regrow.kernels import ops

WIDTH = 8
PADDING = torch.tensor([[0, 0, 0, 1], [0, 0, 0, 0]]).bool()


def layer(**options: Any) -> nn.TransformerEncoderLayer:
    torch.manual_seed(0)
    defaults = {"batch_first": True, "dropout": 0.0}
    return nn.TransformerEncoderLayer(WIDTH, 2, 16, **{**defaults, **options})


def products(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Computes of the sparse products that are carried out from now on."""
    seen: list[str] = []
    original = ops.linear

    def watched(*args: Any) -> torch.Tensor:
        seen.append(args[4])
        return original(*args)

    monkeypatch.setattr(ops, "linear", watched)
    return seen


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
def test_an_encoder_layer_is_the_function_of_its_dense_twin(
    norm_first: bool, batch_first: bool
) -> None:
    block = layer(norm_first=norm_first, batch_first=batch_first)
    sparsify(block, 0.4, compute="csr")
    dense = densify(copy.deepcopy(block))
    x = torch.randn(2, 4, WIDTH)
    mask = nn.Transformer.generate_square_subsequent_mask(4 if batch_first else 2)
    for call in ({}, {"src_mask": mask}, {"src_mask": mask, "is_causal": True}):
        torch.testing.assert_close(block(x, **call), dense(x, **call))


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")  # of the dense twin
@pytest.mark.parametrize("exclude", [(), ("*self_attn",), ("*linear?",)])
def test_inference_goes_through_the_sparse_layers(
    exclude: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = nn.TransformerEncoder(layer(), 2).eval()
    dense = copy.deepcopy(encoder)
    sparsify(encoder, 0.5, compute="csr", exclude=exclude)
    x = torch.randn(2, 4, WIDTH)
    seen = products(monkeypatch)
    with torch.inference_mode():
        for call in ({}, {"src_key_padding_mask": PADDING}):
            seen.clear()
            y = encoder(x, **call)
            assert len(seen) == len(regrow.sparse_layers(encoder))
            wanted = densify(copy.deepcopy(encoder))(x, **call)
            real = ~call.get("src_key_padding_mask", torch.zeros(2, 4).bool())
            torch.testing.assert_close(y[real], wanted[real])
    densify(encoder)
    for name in ("activation_relu_or_gelu", "use_nested_tensor"):
        modules = zip(encoder.modules(), dense.modules(), strict=True)
        assert [getattr(a, name, None) == getattr(b, name, None) for a, b in modules]
    assert encoder.use_nested_tensor
    assert encoder.layers[1].activation_relu_or_gelu == 1


def test_gelu_and_other_activations_are_told_apart_on_the_way_back() -> None:
    for activation, code in (("gelu", 2), (nn.GELU(), 2), (torch.tanh, 0), (nn.ReLU(), 1)):
        block = sparsify(layer(activation=activation), 0.5)
        assert block.activation_relu_or_gelu == 0
        assert densify(block).activation_relu_or_gelu == code


def test_a_dense_transformer_beside_a_sparse_one_keeps_its_kernels() -> None:
    model = nn.ModuleList([layer(), layer()])
    sparsify(model, 0.5, include="0.*")
    assert [part.activation_relu_or_gelu for part in model] == [0, 1]


def test_the_whole_transformer(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = nn.Transformer(WIDTH, 2, 1, 1, 16, dropout=0.0, batch_first=True)
    sparsify(model, 0.5, compute="csr")
    assert len(regrow.sparse_layers(model)) == 3 * 4 + 2 * 2
    dense = densify(copy.deepcopy(model))
    source, target = torch.randn(2, 5, WIDTH), torch.randn(2, 3, WIDTH)
    mask = nn.Transformer.generate_square_subsequent_mask(3)
    call = {"tgt_mask": mask, "tgt_is_causal": True}
    torch.testing.assert_close(model(source, target, **call), dense(source, target, **call))
    model.eval()
    with torch.no_grad():
        torch.testing.assert_close(model(source, target, **call), dense(source, target, **call))


@pytest.mark.parametrize("method", ["set", "rigl"])
def test_a_decoder_trains_and_evolves(method: str) -> None:
    torch.manual_seed(0)
    model = nn.TransformerDecoder(
        nn.TransformerDecoderLayer(WIDTH, 2, 16, batch_first=True, dropout=0.0), 1
    )
    sparsify(model, 0.5, generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    evolution = regrow.Evolution(model, optimizer, method=method, every=2)
    memory, x = torch.randn(4, 6, WIDTH), torch.randn(4, 5, WIDTH)
    wanted = torch.tanh(x.flip(1))
    losses = []
    for _ in range(40):
        loss = (model(x, memory) - wanted).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        evolution.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what a compiler of torch warns of is its own affair
        yield
    torch._dynamo.reset()


@pytest.mark.parametrize("compute", ["csr", "dense", "auto"])
def test_compiled_is_as_eager(compute: str, fresh_compiler: None) -> None:
    """With inductor once, and else with its front half: the operators are opaque to it."""
    block = sparsify(layer(), 0.4, compute=compute, generator=torch.Generator().manual_seed(0))
    eager = copy.deepcopy(block)
    x = torch.randn(2, 4, WIDTH)
    block(x)  # decisions are made and column orders built
    eager.load_state_dict(block.state_dict())
    backend = "inductor" if compute == "csr" and shutil.which("g++") else "aot_eager"
    compiled = torch.compile(block, backend=backend, fullgraph=True)
    for _ in range(2):
        given = x.clone().requires_grad_()
        same = x.clone().requires_grad_()
        compiled(given).square().sum().backward()
        eager(same).square().sum().backward()
        torch.testing.assert_close(given.grad, same.grad)
        for (name, p), (_, q) in zip(
            block.named_parameters(), eager.named_parameters(), strict=True
        ):
            torch.testing.assert_close(p.grad, q.grad, msg=name)
    torch.testing.assert_close(compiled(x), eager(x))
    block.eval()
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), eager.eval()(x))


def test_compiled_sees_a_new_topology_and_is_not_compiled_again(
    fresh_compiler: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch._dynamo.config, "error_on_recompile", True)
    block = sparsify(layer(), 0.4, compute="csr", generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.SGD(block.parameters(), lr=0.01)
    evolution = regrow.Evolution(block, optimizer, method="rigl", every=1)
    compiled = torch.compile(block, backend="aot_eager", fullgraph=True)
    x = torch.randn(2, 4, WIDTH)
    for _ in range(3):
        y = compiled(x)
        torch.testing.assert_close(y, block(x))
        y.square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        assert evolution.step().grown
