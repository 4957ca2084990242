"""SparseLinear against the dense linear map with the same weight."""

from __future__ import annotations

import copy
import math
import re
import shutil
import warnings
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

import regrow
from regrow import SparseLinear, Topology
from regrow.export import to_dense
from regrow.kernels import capture, dispatch, native, ops, reference
from regrow.topology import nm_topology

COMPUTES = ("csr", "dense", "auto")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def layer_of(
    n_in: int = 6, n_out: int = 4, density: float = 0.4, dtype: torch.dtype = torch.float64, **kw
) -> SparseLinear:
    return SparseLinear(n_in, n_out, density=density, generator=seeded(), dtype=dtype, **kw)


def randn(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 1) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=seeded(seed))


@pytest.fixture(params=["reference", "native"])
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each kernel path; the native one where it was built."""
    if request.param == "native" and not native.available():
        pytest.skip("the C++ extension was not built")
    chosen = {"reference": reference, "native": native}[request.param]
    monkeypatch.setattr(ops, "sparse_kernels", lambda values: chosen)
    return request.param


def test_hand_made_product() -> None:
    # [[2 0 3], [0 0 0]]
    layer = SparseLinear(3, 2, topology=Topology((2, 3), torch.tensor([0, 2])), compute="csr")
    with torch.no_grad():
        layer.values.copy_(torch.tensor([2.0, 3.0]))
        layer.bias.copy_(torch.tensor([0.5, -1.0]))
    x = torch.tensor([[1.0, 5.0, 10.0]], requires_grad=True)
    y = layer(x)
    assert y.tolist() == [[32.5, -1.0]]
    y.sum().backward()
    assert x.grad.tolist() == [[2.0, 0.0, 3.0]]
    assert layer.values.grad.tolist() == [1.0, 10.0]
    assert layer.bias.grad.tolist() == [1.0, 1.0]
    assert layer.weight.tolist() == [[2.0, 0.0, 3.0], [0.0, 0.0, 0.0]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("compute", COMPUTES)
@pytest.mark.parametrize("shape", [(6,), (5, 6), (2, 3, 6), (1, 2, 3, 6), (0, 6), (3, 0, 6)])
@pytest.mark.usefixtures("kernels")
def test_equals_the_dense_map_for_every_batch_shape(
    shape: tuple[int, ...], compute: str, dtype: torch.dtype
) -> None:
    layer = layer_of(dtype=dtype, compute=compute)
    x = randn(*shape, dtype=dtype).requires_grad_()
    same = x.detach().clone().requires_grad_()
    weight = layer.weight.detach().requires_grad_()
    bias = layer.bias.detach().clone().requires_grad_()
    y, expected = layer(x), functional.linear(same, weight, bias)
    assert y.shape == expected.shape
    assert y.dtype == dtype
    grad = randn(*y.shape, dtype=dtype, seed=2)
    y.backward(grad)
    expected.backward(grad)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(x.grad, same.grad)
    torch.testing.assert_close(layer.bias.grad, bias.grad)
    torch.testing.assert_close(layer.values.grad, weight.grad.reshape(-1)[layer.topology.positions])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("compute", COMPUTES)
@pytest.mark.parametrize("shape", [(6,), (5, 6), (2, 3, 6), (0, 6), (40, 6)])
def test_an_activation_is_that_of_a_module_behind_the_layer(
    shape: tuple[int, ...], compute: str, dtype: torch.dtype
) -> None:
    one = layer_of(dtype=dtype, compute=compute, activation="relu")
    two = nn.Sequential(layer_of(dtype=dtype, compute=compute), nn.ReLU())
    found = []
    for model in (one, two):
        x = randn(*shape, dtype=dtype).requires_grad_()
        y = model(x)
        y.backward(randn(*y.shape, dtype=dtype, seed=2))
        found.append((y, x.grad, *(p.grad for p in model.parameters())))
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs)
    if shape == (40, 6):
        assert 0 < (found[0][0] == 0).float().mean() < 1


@pytest.mark.parametrize("compute", ["auto", "nm"])
def test_an_activation_behind_a_structure(compute: str) -> None:
    topology = nm_topology((4, 6), 1, 2, generator=seeded())
    layer = SparseLinear(6, 4, topology=topology, compute=compute, activation="relu")
    x = randn(5, 6, dtype=torch.float32)
    torch.testing.assert_close(layer(x), functional.linear(x, layer.weight, layer.bias).relu())


@pytest.mark.parametrize("compute", COMPUTES)
def test_growth_sees_the_gradient_that_an_activation_lets_through(compute: str) -> None:
    layer = layer_of(compute=compute, activation="relu")
    x, grad = randn(5, 6), randn(5, 4, seed=2)
    capture.arm(layer)
    y = layer(x)
    y.backward(grad)
    (seen,) = capture.take(layer)
    torch.testing.assert_close(seen.grad, grad * (y > 0))


def test_an_activation_goes_where_the_layer_goes() -> None:
    layer = layer_of(8, 4, activation="relu")
    x = randn(3, 8)
    assert str(layer).endswith("compute=auto, activation=relu)")
    assert copy.deepcopy(layer).activation == "relu"
    torch.testing.assert_close(to_dense(nn.Sequential(layer))(x), layer(x))
    with pytest.raises(
        ValueError, match=r"^activation of SparseLinear must be relu or None, got 'x'$"
    ):
        layer_of(activation="x")


@pytest.mark.parametrize("compute", COMPUTES)
@pytest.mark.parametrize("density", [1e-9, 0.5, 1.0])
def test_from_one_connection_to_dense(density: float, compute: str) -> None:
    layer = layer_of(density=density, compute=compute)
    assert layer.topology.nnz == max(1, round(density * 24))
    x = randn(3, 6)
    torch.testing.assert_close(layer(x), functional.linear(x, layer.weight, layer.bias))


@pytest.mark.parametrize("compute", COMPUTES)
def test_no_connection_gives_the_bias(compute: str) -> None:
    empty = Topology((4, 6), torch.tensor([], dtype=torch.int64))
    layer = SparseLinear(6, 4, topology=empty, compute=compute)
    x = torch.ones(2, 6, requires_grad=True)
    y = layer(x)
    assert torch.equal(y, layer.bias.expand(2, 4))
    y.sum().backward()
    assert layer.values.grad.shape == (0,)
    assert not x.grad.any()


@pytest.mark.parametrize("compute", ["csr", "dense"])
def test_gradients_pass_gradcheck(compute: str) -> None:
    layer = layer_of(compute=compute)

    def apply(x: Tensor, values: Tensor, bias: Tensor) -> Tensor:
        return torch.func.functional_call(layer, {"values": values, "bias": bias}, x)

    inputs = (randn(3, 6).requires_grad_(), layer.values, layer.bias)
    assert torch.autograd.gradcheck(apply, inputs)


@pytest.mark.parametrize("compute", COMPUTES)
def test_only_what_is_asked_for_gets_a_gradient(compute: str) -> None:
    layer = layer_of(compute=compute)
    layer.values.requires_grad_(False)
    x = randn(3, 6).requires_grad_()
    layer(x).sum().backward()
    assert layer.values.grad is None
    torch.testing.assert_close(x.grad, layer.weight.sum(0).expand(3, 6))
    layer.values.requires_grad_(True)
    layer.bias.requires_grad_(False)
    plain = randn(3, 6)
    layer.bias.grad = None
    layer(plain).sum().backward()
    assert layer.bias.grad is None
    assert layer.values.grad is not None
    with torch.no_grad():
        assert not layer(plain).requires_grad


@pytest.mark.parametrize("compute", COMPUTES)
def test_input_need_not_be_contiguous(compute: str) -> None:
    layer = layer_of(compute=compute)
    x = randn(6, 5).t()
    assert not x.is_contiguous()
    torch.testing.assert_close(layer(x), functional.linear(x, layer.weight, layer.bias))
    strided = randn(10, 3, 12)[::2, :, ::2].requires_grad_()
    y = layer(strided)
    y.transpose(0, 1).square().sum().backward()  # a gradient that is not contiguous either
    torch.testing.assert_close(strided.grad, 2 * y.detach() @ layer.weight.detach())
    expanded = layer(randn(1, 6).expand(4, 6))
    assert torch.equal(expanded[0], expanded[3])


def test_without_bias() -> None:
    layer = layer_of(bias=False)
    assert layer.bias is None
    assert [name for name, _ in layer.named_parameters()] == ["values"]
    x = randn(2, 6)
    torch.testing.assert_close(layer(x), functional.linear(x, layer.weight))
    layer(x).sum().backward()
    assert layer.values.grad is not None
    layer.reset_parameters(seeded())


def test_gradients_accumulate_over_uses() -> None:
    layer = layer_of(6, 6, compute="csr")
    x = randn(3, 6)
    layer(layer(x)).sum().backward()
    weight, bias = layer.weight.detach().requires_grad_(), layer.bias.detach()
    functional.linear(functional.linear(x, weight, bias), weight, bias).sum().backward()
    torch.testing.assert_close(layer.values.grad, weight.grad.reshape(-1)[layer.topology.positions])


@pytest.mark.parametrize("compute", ["csr", "dense"])
def test_a_second_derivative_is_refused_not_wrong(compute: str) -> None:
    layer = layer_of(compute=compute)
    x = randn(3, 6).requires_grad_()
    y = layer(x).square().sum()
    (grad,) = torch.autograd.grad(y, x, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        (y + grad.square().sum()).backward()  # a gradient penalty


@pytest.mark.parametrize(
    ("x", "error", "sentence"),
    [
        (torch.ones(2, 5), ValueError, "must have 6 features in its last axis, got shape (2, 5)"),
        (torch.ones(6, 1), ValueError, "must have 6 features in its last axis, got shape (6, 1)"),
        (torch.tensor(1.0), ValueError, "must have 6 features in its last axis, got shape ()"),
        (
            torch.ones(2, 6, dtype=torch.float64),
            TypeError,
            "must be torch.float32 as its values are, got torch.float64",
        ),
        (
            torch.ones(2, 6, dtype=torch.int64),
            TypeError,
            "must be torch.float32 as its values are, got torch.int64",
        ),
    ],
)
@pytest.mark.parametrize("compute", COMPUTES)
def test_bad_inputs_are_refused(x: Tensor, error: type, sentence: str, compute: str) -> None:
    layer = layer_of(dtype=torch.float32, compute=compute)
    with pytest.raises(error, match=re.escape(f"input of SparseLinear {sentence}")):
        layer(x)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({}, "SparseLinear needs a density or a topology, not both or neither"),
        (
            {"density": 0.5, "topology": Topology((4, 6), torch.tensor([0]))},
            "SparseLinear needs a density or a topology, not both or neither",
        ),
        ({"density": 0.0}, "density of SparseLinear must be in (0, 1], got 0.0"),
        ({"density": 1.5}, "density of SparseLinear must be in (0, 1], got 1.5"),
        ({"density": float("nan")}, "density of SparseLinear must be in (0, 1], got nan"),
        (
            {"topology": Topology((6, 4), torch.tensor([0]))},
            "topology of SparseLinear must have shape (4, 6), got (6, 4)",
        ),
        (
            {"density": 0.5, "compute": "coo"},
            "compute of SparseLinear must be one of auto, csr, dense, block, nm, got 'coo'",
        ),
    ],
)
def test_bad_options_are_refused(options: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        SparseLinear(6, 4, **options)


def test_compute_is_checked_when_set() -> None:
    layer = layer_of()
    assert layer.compute == "auto"
    with pytest.raises(ValueError, match="compute of SparseLinear must be one of"):
        layer.compute = "fast"
    assert layer.compute == "auto"


def test_start_of_values_and_bias() -> None:
    layer = SparseLinear(400, 300, density=0.1, generator=seeded())
    bound = 1 / math.sqrt(layer.topology.nnz / 300)
    assert layer.fan_in == 40
    assert layer.values.abs().max() <= bound
    assert layer.bias.abs().max() <= bound
    # Uniform: sd bound / sqrt(3), estimated from 12,000 draws within 6 standard errors.
    assert abs(layer.values.std() / (bound / math.sqrt(3)) - 1) < 6 * 0.45 / math.sqrt(12_000)
    again = SparseLinear(400, 300, density=0.1, generator=seeded())
    assert again.topology == layer.topology
    assert torch.equal(again.values, layer.values)
    assert torch.equal(again.bias, layer.bias)
    topology = layer.topology
    layer.reset_parameters(seeded(5))
    assert layer.topology is topology
    assert not torch.equal(again.values, layer.values)


def test_printed_form() -> None:
    assert repr(layer_of(bias=False, compute="csr")) == (
        "SparseLinear(6 -> 4, density=0.4167, connections=10, bias=False, compute=csr)"
    )


class Sizes(TorchDispatchMode):
    """Notes the largest tensor that any operator makes."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(out):
            if isinstance(tensor, Tensor):
                self.largest = max(self.largest, tensor.numel())
        return out


class Peak:
    """Notes the largest tensor made inside the opaque operator, where no mode looks."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, module: object) -> None:
        self.scattered = False

        def scatter(*_: object) -> None:
            self.scattered = True
            raise AssertionError("a dense weight was made")

        monkeypatch.setattr(module, "scatter", scatter)


def test_nothing_dense_is_made_in_csr_compute(
    kernels: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_in, n_out, batch = 300, 200, 4
    chosen = native if kernels == "native" else reference
    monkeypatch.setattr(reference, "CHUNK", 4096)
    Peak(monkeypatch, chosen)
    layer = SparseLinear(n_in, n_out, density=0.01, compute="csr", generator=seeded())
    optimizer = torch.optim.Adam(layer.parameters())
    saved = []
    with (
        Sizes() as sizes,
        torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: saved.append(tensor.numel()) or tensor, lambda tensor: tensor
        ),
    ):
        for _ in range(2):
            layer(torch.ones(batch, n_in)).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
    with Sizes() as inside:  # the kernels themselves, called in the open
        operands = layer.topology.operands()
        x, values = torch.ones(batch, n_in), layer.values.detach()
        chosen.linear_forward(x, values, operands)
        chosen.linear_backward(torch.ones(batch, n_out), x, values, operands)
    assert max(saved) <= batch * n_in
    assert max(sizes.largest, inside.largest) <= 4096 < n_in * n_out
    state = [t for entry in optimizer.state.values() for t in entry.values()]
    assert max(tensor.numel() for tensor in state) == layer.topology.nnz


def test_nothing_dense_is_kept_in_dense_compute() -> None:
    layer = SparseLinear(30, 20, density=0.1, compute="dense", generator=seeded())
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: saved.append(tensor.numel()) or tensor, lambda tensor: tensor
    ):
        y = layer(torch.ones(2, 30))
    assert max(saved) < 30 * 20
    y.sum().backward()
    assert layer.values.grad.shape == (60,)


OPTIMIZERS = {
    "sgd": (torch.optim.SGD, {"lr": 0.1}),
    "momentum": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-3}),
    "nesterov": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    "sgd-foreach": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "foreach": True}),
    "sgd-fused": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "fused": True}),
    "adam": (torch.optim.Adam, {"lr": 0.01}),
    "adam-foreach": (torch.optim.Adam, {"lr": 0.01, "foreach": True}),
    "adam-fused": (torch.optim.Adam, {"lr": 0.01, "fused": True}),
    "amsgrad": (torch.optim.Adam, {"lr": 0.01, "amsgrad": True}),
    "adamw": (torch.optim.AdamW, {"lr": 0.01}),
    "adamw-fused": (torch.optim.AdamW, {"lr": 0.01, "fused": True}),
    "rmsprop": (torch.optim.RMSprop, {"lr": 0.01}),
    "rmsprop-all": (torch.optim.RMSprop, {"lr": 0.01, "centered": True, "momentum": 0.5}),
    "adagrad": (torch.optim.Adagrad, {"lr": 0.1, "initial_accumulator_value": 0.1}),
    "adagrad-fused": (torch.optim.Adagrad, {"lr": 0.1, "fused": True}),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("compute", ["csr", "dense"])
def test_optimisers_of_torch_train_the_values_as_they_train_a_dense_weight(
    name: str, compute: str
) -> None:
    make, options = OPTIMIZERS[name]
    sparse = layer_of(compute=compute)
    dense = nn.Linear(6, 4, dtype=torch.float64)
    with torch.no_grad():
        dense.weight.copy_(sparse.weight)
        dense.bias.copy_(sparse.bias)
    mask = sparse.topology.mask()
    optimizers = make(sparse.parameters(), **options), make(dense.parameters(), **options)
    for step in range(5):
        x = randn(7, 6, seed=step)
        for model, optimizer in zip((sparse, dense), optimizers, strict=True):
            model(x).square().sum().backward()
            if model is dense:
                dense.weight.grad *= mask
            optimizer.step()
            optimizer.zero_grad()
    torch.testing.assert_close(sparse.weight, dense.weight * mask)
    torch.testing.assert_close(sparse.bias, dense.bias)


@pytest.mark.parametrize("compute", ["csr", "dense"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_autocast_gives_what_a_dense_layer_gives(compute: str, dtype: torch.dtype) -> None:
    sparse = layer_of(60, 40, 0.2, dtype=dtype, compute=compute)
    dense = nn.Linear(60, 40, dtype=dtype)
    with torch.no_grad():
        dense.weight.copy_(sparse.weight)
        dense.bias.copy_(sparse.bias)
    x, same = (randn(5, 60, dtype=dtype).requires_grad_() for _ in range(2))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, expected = sparse(x), dense(same)
    assert y.dtype == expected.dtype == (torch.bfloat16 if dtype == torch.float32 else dtype)
    y.float().square().sum().backward()
    expected.float().square().sum().backward()
    assert x.grad.dtype == same.grad.dtype == dtype
    assert sparse.values.grad.dtype == sparse.bias.grad.dtype == dtype
    near = {"rtol": 0.05, "atol": 0.05}
    torch.testing.assert_close(y, expected, **near)
    torch.testing.assert_close(x.grad, same.grad, **near)
    gathered = dense.weight.grad.reshape(-1)[sparse.topology.positions]
    torch.testing.assert_close(sparse.values.grad, gathered, rtol=0.05, atol=0.2)


def test_autocast_takes_half_inputs_and_can_be_off_inside() -> None:
    layer = layer_of(dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(torch.ones(2, 6, dtype=torch.bfloat16)).dtype == torch.bfloat16
        with torch.autocast("cpu", enabled=False):
            assert layer(torch.ones(2, 6)).dtype == torch.float32


@pytest.mark.parametrize("compute", COMPUTES)
def test_layers_of_low_precision_work(compute: str) -> None:
    layer = layer_of(60, 40, 0.2, dtype=torch.bfloat16, compute=compute)
    x = randn(5, 60, dtype=torch.bfloat16)
    y = layer(x)
    assert y.dtype == torch.bfloat16
    expected = functional.linear(x.double(), layer.weight.double(), layer.bias.double())
    torch.testing.assert_close(y.double(), expected, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("compute", ["csr", "dense", "auto"])
def test_a_layer_may_hand_on_its_output_feature_major(compute: str) -> None:
    outcomes = []
    for feature_major in (False, True):
        g = torch.Generator().manual_seed(0)
        first = SparseLinear(
            60, 40, density=0.2, compute=compute, feature_major=feature_major, generator=g
        )
        second = SparseLinear(40, 50, density=0.2, compute=compute, generator=g)
        x = randn(48, 60, dtype=torch.float32).requires_grad_()
        hidden = first(x)
        if compute == "csr":
            assert hidden.is_contiguous() is not feature_major
        y = second(functional.relu(hidden))
        assert y.is_contiguous()
        y.square().sum().backward()
        assert x.grad.is_contiguous()
        outcomes.append([y, x.grad, first.values.grad, first.bias.grad, second.values.grad])
    for one, other in zip(*outcomes, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_what_cannot_lie_feature_major_does_not() -> None:
    layer = layer_of(60, 40, 0.2, compute="csr", feature_major=True)
    assert layer(randn(48, 60)).stride() == (1, 48)
    assert layer(randn(20, 60)).is_contiguous()
    assert layer(randn(3, 16, 60)).shape == (3, 16, 40)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    assert compiled(randn(48, 60)).is_contiguous()


@pytest.mark.parametrize("batch", [5, 40])
@pytest.mark.parametrize("compute", COMPUTES)
@pytest.mark.parametrize("lowered", ["layer", "autocast"])
def test_layers_of_low_precision_train_as_their_dense_twin(
    lowered: str, compute: str, batch: int
) -> None:
    dispatch.forget()
    layer = layer_of(60, 40, 0.2, dtype=torch.float32, compute=compute)
    x, grad = (randn(batch, n, dtype=torch.bfloat16) for n in (60, 40))
    with torch.no_grad():
        layer.values.copy_(layer.values.bfloat16())  # so that both have the same numbers
        layer.bias.copy_(layer.bias.bfloat16())
    weight, bias, same = (t.detach().double() for t in (layer.weight, layer.bias, x))
    given = [t.requires_grad_() for t in (weight, bias, same)]
    functional.linear(same, weight, bias).backward(grad.double())
    if lowered == "layer":
        layer.to(torch.bfloat16)
    x.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=lowered == "autocast"):
        y = layer(x)
    y.backward(grad)
    assert y.dtype == x.grad.dtype == torch.bfloat16
    assert layer.values.grad.dtype == layer.bias.grad.dtype == layer.values.dtype
    gathered = given[0].grad.reshape(-1)[layer.topology.positions]
    expected = (functional.linear(same, weight, bias), same.grad, gathered, bias.grad)
    for mine, theirs in zip((y, x.grad, layer.values.grad, layer.bias.grad), expected, strict=True):
        # Sums in float32, and their results rounded once; torch's own are told more freely.
        near = 2.0**-7 if compute == "csr" else 0.02
        torch.testing.assert_close(mine.double(), theirs, rtol=near, atol=4 * near)
    assert len(dispatch.decisions()) == (compute == "auto")
    dispatch.forget()


@pytest.mark.parametrize("compute", ["csr", "dense"])
def test_flops_are_those_of_the_connections(compute: str) -> None:
    layer = layer_of(60, 40, 0.1, compute=compute)
    x = randn(8, 60).requires_grad_()
    with FlopCounterMode(display=False) as counter:
        y = layer(x)
    assert counter.get_total_flops() == 2 * layer.topology.nnz * 8
    with FlopCounterMode(display=False) as counter:
        y.sum().backward()
    assert counter.get_total_flops() == 4 * layer.topology.nnz * 8
    with FlopCounterMode(display=False) as counter:
        layer(x.detach()).sum().backward()
    assert counter.get_total_flops() == 4 * layer.topology.nnz * 8


class Mlp(nn.Module):
    def __init__(self, compute: str, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.first = layer_of(6, 8, 0.4, dtype, compute=compute)
        self.last = layer_of(8, 3, 0.5, dtype, compute=compute)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.first(x)))


@pytest.fixture
def _fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what a compiler of torch warns of is its own affair
        yield
    torch._dynamo.reset()


def same_step(compiled: nn.Module, model: nn.Module, x: Tensor) -> None:
    """Output and gradients of a compiled model are those of the plain one."""
    results = []
    for form in (compiled, model):
        model.zero_grad()
        y = form(x)
        y.square().sum().backward()
        results.append([y.detach(), *(p.grad.clone() for p in model.parameters())])
    for fast, plain in zip(*results, strict=True):
        torch.testing.assert_close(fast, plain)


@pytest.mark.parametrize("compute", COMPUTES)
@pytest.mark.usefixtures("_fresh_compiler")
def test_compiles_without_a_graph_break_also_after_updates(compute: str) -> None:
    dispatch.forget()
    model = Mlp(compute)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    x = randn(5, 6, dtype=torch.float32)
    same_step(compiled, model, x)
    generator = seeded(9)
    # More updates than the compiler would forgive if each meant a new compilation.
    for _ in range(torch._dynamo.config.recompile_limit + 2):
        for layer in regrow.sparse_layers(model).values():
            moved = torch.randperm(layer.topology.shape.numel(), generator=generator)
            topology = Topology(layer.topology.shape, moved[: layer.topology.nnz])
            layer.set_topology(topology, layer.values.detach().clone())
        same_step(compiled, model, x)
    same_step(compiled, model, randn(9, 6, dtype=torch.float32))


@pytest.mark.parametrize("compute", ["csr", "dense"])
@pytest.mark.usefixtures("_fresh_compiler")
def test_compiles_in_bfloat16(compute: str) -> None:
    model = Mlp(compute, torch.bfloat16)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    x = randn(40, 6, dtype=torch.bfloat16)
    y = compiled(x)
    assert (y.dtype, y.shape) == (torch.bfloat16, (40, 3))
    same_step(compiled, model, x)


@pytest.mark.skipif(shutil.which("g++") is None, reason="no compiler for inductor")
@pytest.mark.usefixtures("_fresh_compiler")
def test_compiles_with_inductor() -> None:
    model = Mlp("csr")
    same_step(torch.compile(model, fullgraph=True), model, randn(5, 6, dtype=torch.float32))
