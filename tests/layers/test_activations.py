"""Activations by hand, and their gradients."""

import pytest
import torch

import regrow
from regrow.layers.activations import AllReLU, SReLU
from regrow.matrixform import activations as matrixform


def with_numbers(left: float, left_slope: float, right: float, right_slope: float) -> SReLU:
    unit = SReLU(1).double()
    numbers = (left, left_slope, right, right_slope)
    with torch.no_grad():
        for parameter, number in zip(unit.parameters(), numbers, strict=True):
            parameter.fill_(number)
    return unit


def test_srelu_by_hand() -> None:
    unit = with_numbers(-1.0, 0.5, 2.0, 0.1)
    x = torch.tensor([[-3.0], [-1.0], [0.5], [2.0], [4.0]], dtype=torch.float64)
    assert unit(x).flatten().tolist() == pytest.approx([-2.0, -1.0, 0.5, 2.0, 2.2])


def test_srelu_starts_as_a_relu() -> None:
    x = torch.randn(7, 5)
    assert torch.equal(SReLU(5)(x), x.relu())
    leaky = torch.nn.functional.leaky_relu(x, 0.2)
    torch.testing.assert_close(SReLU(5, left_slope=0.2)(x), leaky)


def test_srelu_has_the_gradients_of_its_formula() -> None:
    unit = with_numbers(-1.0, 0.5, 2.0, 0.1)
    x = torch.tensor([[-3.0], [0.5], [4.0]], dtype=torch.float64, requires_grad=True)
    unit(x).sum().backward()
    assert x.grad is not None
    assert x.grad.flatten().tolist() == pytest.approx([0.5, 1.0, 0.1])
    found = [parameter.grad.item() for parameter in unit.parameters() if parameter.grad is not None]
    assert found == pytest.approx([0.5, -2.0, 0.9, 2.0])


def test_srelu_on_images_has_one_unit_a_channel() -> None:
    unit = SReLU(2, left_slope=0.1)
    with torch.no_grad():
        unit.left_slope[1] = 0.5
    out = unit(torch.full((1, 2, 3, 4), -1.0))
    assert out[0, 0].flatten().tolist() == pytest.approx([-0.1] * 12)
    assert out[0, 1].flatten().tolist() == pytest.approx([-0.5] * 12)


def test_srelu_needs_a_neuron() -> None:
    with pytest.raises(ValueError, match="features of SReLU must be at least 1, got 0"):
        SReLU(0)


@pytest.mark.parametrize("layer", [1, 2])
def test_allrelu_is_that_of_the_matrix_form(layer: int) -> None:
    x = torch.tensor([-2.0, -0.5, 0.0, 0.5], dtype=torch.float64, requires_grad=True)
    unit, written_out = AllReLU(0.6, layer), matrixform.AllReLU(0.6, layer)
    torch.autograd.gradcheck(unit, (x.detach() + 0.1).requires_grad_())
    unit(x).sum().backward()
    assert x.grad is not None
    z = x.detach().numpy()
    assert unit(x).tolist() == pytest.approx(written_out.forward(z).tolist())
    assert x.grad.tolist() == pytest.approx(written_out.derivative(z).tolist())


def test_allrelu_alternates() -> None:
    x = torch.tensor([-1.0])
    assert [AllReLU(0.25, layer)(x).item() for layer in (1, 2, 3, 4)] == [0.25, -0.25] * 2


@pytest.mark.parametrize(("slope", "layer"), [(0.0, 1), (-0.6, 1), (float("nan"), 1), (0.6, 0)])
def test_allrelu_refuses(slope: float, layer: int) -> None:
    with pytest.raises(ValueError, match="of AllReLU must be"):
        AllReLU(slope, layer)


def test_compact_follows_allrelu() -> None:
    model = torch.nn.Sequential(
        torch.nn.Linear(8, 40), AllReLU(0.6, 1), torch.nn.Linear(40, 40), AllReLU(0.6, 2)
    )
    model = regrow.sparsify(torch.nn.Sequential(*model, torch.nn.Linear(40, 3)), density=0.03)
    x = torch.randn(5, 8)
    before = model(x)
    small = regrow.compact(model, x)
    assert small[2].in_features < 40
    torch.testing.assert_close(small(x), before)
