"""Calibration, strange inputs and adversarial inputs, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.nn import functional

from regrow import SparseLinear
from regrow.data import load
from regrow.measure import calibration, detection, fgsm


def outputs(*sure: float) -> torch.Tensor:
    """Two classes, the first with these probabilities."""
    first = torch.tensor(sure, dtype=torch.float64)
    return torch.stack([first, 1 - first], 1).log()


def test_a_calibrated_classifier_has_no_error() -> None:
    # Right in 6 of 10 where it is sure to 0.6, in 9 of 10 where to 0.9.
    targets = torch.tensor([0] * 6 + [1] * 4 + [0] * 9 + [1])
    found = calibration(outputs(*[0.6] * 10, *[0.9] * 10), targets)
    assert found.error == pytest.approx(0)
    assert found.counts.sum() == 20
    # 0.6 is the upper edge of bin 8 of 15, and belongs to it; 0.9 lies inside bin 13.
    assert found.counts[[8, 13]].tolist() == [10, 10]
    assert found.confidence[[8, 13]] == pytest.approx([0.6, 0.9])
    assert found.accuracy[[8, 13]] == pytest.approx([0.6, 0.9])
    assert np.isnan(found.accuracy[0])


def test_a_known_error() -> None:
    # Bins of a half: 0.6 twice, one right; 1.0 twice, one right; all in the upper bin.
    targets = torch.tensor([0, 1, 0, 1])
    both = calibration(outputs(0.6, 0.6, 1.0, 1.0), targets, bins=2)
    assert both.error == pytest.approx(abs(0.8 - 0.5))
    # Apart, the gaps are 0.1 and 0.5.
    apart = calibration(outputs(0.6, 0.6, 1.0, 1.0), targets, bins=5)
    assert apart.error == pytest.approx((2 * 0.1 + 2 * 0.5) / 4)


def test_the_log_loss() -> None:
    found = calibration(outputs(0.5, 0.25), torch.tensor([0, 1]))
    assert found.log_loss == pytest.approx(-(math.log(0.5) + math.log(0.75)) / 2)


def test_outputs_need_not_be_normalised() -> None:
    some = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    targets = torch.arange(50) % 4
    one, other = calibration(some, targets), calibration(some + 7, targets)
    assert one.error == pytest.approx(other.error, abs=1e-6)
    assert one.log_loss == pytest.approx(functional.cross_entropy(some, targets).item(), rel=1e-5)


def test_bad_input_to_calibration() -> None:
    with pytest.raises(ValueError, match=r"targets must be one class id for each of the 2 outp"):
        calibration(outputs(0.5, 0.6), torch.tensor([0]))
    with pytest.raises(ValueError, match=r"outputs must be \[samples, classes\].* got \[0, 3\]"):
        calibration(torch.empty(0, 3), torch.empty(0, dtype=torch.long))
    with pytest.raises(ValueError, match="bins of a calibration must be at least 1, got 0"):
        calibration(outputs(0.5), torch.tensor([0]), bins=0)
    with pytest.raises(ValueError, match="outputs must be numbers, got some that are not"):
        calibration(torch.tensor([[math.nan, 1.0]]), torch.tensor([0]))


@given(
    st.lists(st.sampled_from([0.5, 0.6, 0.75, 0.9]), min_size=1, max_size=12),
    st.lists(st.sampled_from([0.5, 0.6, 0.75, 0.9]), min_size=1, max_size=12),
)
def test_detection_is_the_area_under_the_curve(known: list[float], strange: list[float]) -> None:
    expected = roc_auc_score([1] * len(known) + [0] * len(strange), known + strange)
    assert detection(outputs(*known), outputs(*strange)) == pytest.approx(expected)


def test_detection_looks_at_the_confidence_alone() -> None:
    assert detection(outputs(0.1, 0.9), outputs(0.6, 0.4)) == 1
    assert detection(outputs(0.6), outputs(0.4)) == 0.5
    with pytest.raises(ValueError, match="outputs must be"):
        detection(outputs(0.1), torch.empty(0, 2))


def classifier(compute: str = "dense") -> nn.Sequential:
    generator = torch.Generator().manual_seed(0)
    return nn.Sequential(
        SparseLinear(6, 8, density=0.5, generator=generator, compute=compute),
        nn.Tanh(),
        nn.Dropout(0.5),
        SparseLinear(8, 3, density=0.8, generator=generator, compute=compute),
    )


@pytest.mark.parametrize("compute", ["dense", "csr"])
def test_every_input_moves_by_eps_up_the_loss(compute: str) -> None:
    model = classifier(compute)
    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(1))
    targets = torch.tensor([0, 1, 2, 0, 1])
    moved = fgsm(model, x, targets, 0.01, bounds=None)
    asked = x.clone().requires_grad_()
    functional.cross_entropy(model.eval()(asked), targets).backward()
    assert torch.allclose(moved - x, 0.01 * asked.grad.sign(), atol=1e-6)
    before, after = (functional.cross_entropy(model(each), targets) for each in (x, moved))
    assert after > before


def test_nothing_stays_behind() -> None:
    model = classifier().train()
    model[2].eval()
    x = torch.randn(5, 6)
    kept = x.clone()
    fgsm(model, x, torch.zeros(5, dtype=torch.long), 0.1)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert [module.training for module in model] == [True, True, False, True]
    assert torch.equal(x, kept)
    assert not x.requires_grad
    with torch.no_grad():
        fgsm(model, torch.randn(5, 6), torch.zeros(5, dtype=torch.long), 0.1)


def test_eps_and_bounds_are_of_the_raw_inputs() -> None:
    # The first class loses by the first input falling and the second rising.
    model = nn.Linear(2, 2, bias=False)
    model.weight.data.copy_(torch.eye(2))
    raw = torch.tensor([[0.5, 0.99], [0.01, 0.5]])
    mean, deviation = 0.3, 0.25
    moved = fgsm(
        model, (raw - mean) / deviation, torch.tensor([0, 0]), 8 / 255, scale=(mean, deviation)
    )
    expected = torch.tensor([[0.5 - 8 / 255, 1.0], [0.0, 0.5 + 8 / 255]])
    assert torch.allclose(moved * deviation + mean, expected, atol=1e-6)


def test_pixels_of_a_data_set_stay_pixels() -> None:
    data = load("digits")
    mean, deviation = data.pixel_scale
    model = nn.Linear(64, 10)
    moved = fgsm(model, data.x_test, data.y_test, 2 / 255, scale=data.pixel_scale)
    before, after = (x * deviation + mean for x in (data.x_test, moved))
    assert before.min().item() == pytest.approx(0, abs=1e-6)
    assert before.max().item() == pytest.approx(1, abs=1e-6)
    assert after.min() >= -1e-6
    assert after.max() <= 1 + 1e-6
    assert (after - before).abs().max().item() == pytest.approx(2 / 255, abs=1e-6)


def test_bad_input_to_fgsm() -> None:
    model, x, y = nn.Linear(2, 2), torch.zeros(1, 2), torch.tensor([0])
    with pytest.raises(ValueError, match="eps of fgsm must be at least 0, got -1"):
        fgsm(model, x, y, -1)
    with pytest.raises(ValueError, match="deviation in scale of fgsm must be above 0, got 0"):
        fgsm(model, x, y, 0.1, scale=(0.5, 0.0))
    with pytest.raises(ValueError, match="bounds of fgsm must be a lower and a higher number"):
        fgsm(model, x, y, 0.1, bounds=(1.0, 0.0))
