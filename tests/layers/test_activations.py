"""Activations by hand, and their gradients."""

import pytest
import torch

from regrow.layers.activations import SReLU


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
