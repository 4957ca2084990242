"""Whether a classifier knows what it knows: calibration, strange inputs, adversarial inputs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Calibration:
    """What ``calibration`` found.

    Attributes:
        error: Expected calibration error, in [0, 1]: the mean over samples of the gap between
            confidence and accuracy of their bin.
        log_loss: Negative log-likelihood of the true classes, mean over samples, in nats.
        confidence: Mean confidence in each bin ``[bins]``; not a number where a bin is empty.
        accuracy: Share of right answers in each bin ``[bins]``, likewise.
        counts: Samples in each bin ``[bins]``.
    """

    error: float
    log_loss: float
    confidence: Floats
    accuracy: Floats
    counts: NDArray[np.int64]


def calibration(outputs: Tensor, targets: Tensor, *, bins: int = 15) -> Calibration:
    """Compare how sure a classifier is with how often it is right.

    The confidence is the highest class probability. Samples are put into bins of equal width by
    their confidence, each bin with its upper edge.

    Args:
        outputs: Of the network, before softmax, float ``[n, classes]``; logarithms of
            probabilities serve as well.
        targets: Class ids, int64 ``[n]``.
        bins: How many.

    Returns:
        Expected calibration error, log loss, and the bins, for a reliability diagram.

    Raises:
        ValueError: Shapes do not go together, an output is not a number, or there is no sample or
            no bin.

    Example:
        >>> sure = torch.tensor([[0.8, 0.2]]).log().expand(10, 2)
        >>> eight_of_ten = torch.tensor([0] * 8 + [1] * 2)
        >>> round(calibration(sure, eight_of_ten).error, 6)
        0.0
        >>> round(calibration(sure, torch.zeros(10, dtype=torch.long)).error, 6)
        0.2

    References:
        C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger, "On calibration of modern neural networks",
        2017.
    """
    _check(outputs, targets)
    if bins < 1:
        raise ValueError(f"bins of a calibration must be at least 1, got {bins}")
    log_probabilities = outputs.detach().double().log_softmax(1)
    highest, chosen = log_probabilities.max(1)
    sure = highest.exp()
    right = (chosen == targets).double()
    # Bin i holds (i / bins, (i + 1) / bins]; the rounding of softmax moves nothing over an edge.
    place = ((sure - 1e-12) * bins).ceil().long().clamp(1, bins) - 1
    counts = torch.bincount(place, minlength=bins)
    sums = [torch.zeros(bins, dtype=torch.float64, device=place.device) for _ in range(2)]
    confidence, accuracy = (
        total.index_add_(0, place, part) / counts
        for total, part in zip(sums, (sure, right), strict=True)
    )
    gaps = (confidence - accuracy).abs().nan_to_num()
    return Calibration(
        error=float((gaps * counts).sum() / len(sure)),
        log_loss=float(functional.nll_loss(log_probabilities, targets)),
        confidence=confidence.cpu().numpy(),
        accuracy=accuracy.cpu().numpy(),
        counts=counts.cpu().numpy(),
    )


def detection(known: Tensor, strange: Tensor) -> float:
    """How well the confidence tells inputs of the kind that was learned from strange ones.

    Args:
        known: Outputs, before softmax, for inputs like those of the training, float
            ``[n, classes]``.
        strange: Outputs for inputs of another kind, ``[m, classes]``.

    Returns:
        Area under the ROC curve of the highest class probability: the chance that it is higher
        for a known input than for a strange one, equal ones counting half. 1 tells all apart, 0.5
        none.

    Raises:
        ValueError: There are no outputs of a kind, or they are not rows of numbers for classes.

    Example:
        >>> known = torch.tensor([[4.0, 0.0], [2.0, 0.0]])
        >>> detection(known, torch.tensor([[0.0, 1.0], [0.0, 3.0]]))
        0.75

    References:
        D. Hendrycks, K. Gimpel, "A baseline for detecting misclassified and out-of-distribution
        examples in neural networks", 2017.
    """
    for outputs in (known, strange):
        _check(outputs)
    inside, outside = (
        outputs.detach().double().softmax(1).amax(1).cpu() for outputs in (known, strange)
    )
    ordered = outside.sort().values
    below = torch.searchsorted(ordered, inside, right=False)
    not_above = torch.searchsorted(ordered, inside, right=True)
    return float((below + not_above).double().mean() / 2 / len(outside))


def fgsm(
    model: nn.Module,
    x: Tensor,
    targets: Tensor,
    eps: float,
    *,
    scale: tuple[float, float] = (0.0, 1.0),
    bounds: tuple[float, float] | None = (0.0, 1.0),
) -> Tensor:
    """Adversarial inputs of the fast gradient sign method, one step of ``eps`` up the loss.

    ``eps`` and ``bounds`` count in the units of the raw inputs, such as pixels in [0, 1], also
    where the network sees them standardised; ``scale`` says how. For a ``Dataset`` of images it is
    ``dataset.pixel_scale``.

    Args:
        model: Maps ``x`` to outputs before softmax; it is asked in evaluation mode, and left as
            it was, its gradients included.
        x: Inputs as the network sees them, float ``[n, ...]``.
        targets: Class ids, int64 ``[n]``.
        eps: How far each raw input moves, >= 0; an input whose gradient is 0 does not move.
        scale: Mean and deviation that raw inputs were standardised by.
        bounds: Least and greatest raw input; None for inputs without bounds.

    Returns:
        The inputs that were moved, as the network sees them, in the shape of ``x``.

    Raises:
        ValueError: ``eps`` is negative, the deviation is not positive, or the bounds are in the
            wrong order.

    Example:
        >>> model = nn.Linear(2, 2, bias=False)
        >>> _ = model.weight.data.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
        >>> fgsm(model, torch.tensor([[0.5, 0.95]]), torch.tensor([0]), eps=0.125)
        tensor([[0.3750, 1.0000]])

    References:
        I. J. Goodfellow, J. Shlens, C. Szegedy, "Explaining and harnessing adversarial examples",
        2015.
    """
    mean, deviation = scale
    if not eps >= 0:
        raise ValueError(f"eps of fgsm must be at least 0, got {eps}")
    if not deviation > 0:
        raise ValueError(f"deviation in scale of fgsm must be above 0, got {deviation}")
    if bounds is not None and not bounds[0] < bounds[1]:
        raise ValueError(f"bounds of fgsm must be a lower and a higher number, got {bounds}")
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.enable_grad():
            asked = x.detach().clone().requires_grad_()
            loss = functional.cross_entropy(model(asked), targets, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, [asked])
    finally:
        for module, mode in training.items():
            module.training = mode
    moved = x.detach() + eps / deviation * gradient.sign()
    if bounds is None:
        return moved
    low, high = ((bound - mean) / deviation for bound in bounds)
    return moved.clamp(low, high)


def _check(outputs: Tensor, targets: Tensor | None = None) -> None:
    if outputs.dim() != 2 or not outputs.numel():
        raise ValueError(
            f"outputs must be [samples, classes], one at least of each, got {list(outputs.shape)}"
        )
    if bool(outputs.isnan().any()):
        raise ValueError("outputs must be numbers, got some that are not (nan)")
    if targets is not None and targets.shape != outputs.shape[:1]:
        raise ValueError(
            f"targets must be one class id for each of the {len(outputs)} outputs, "
            f"got shape {list(targets.shape)}"
        )
