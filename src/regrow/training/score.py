"""Loss and score of a network on one part of the data."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Score:
    """Loss and score on one part of the data.

    Attributes:
        loss: Mean loss.
        score: Accuracy, R2 for regression, or bits per character for text.
        rising: Whether a higher score is a better one.
    """

    loss: float
    score: float
    rising: bool = True

    def better_than(self, other: Score | None) -> bool:
        """Whether the score is better, or equal at a lower loss."""
        return other is None or self._order > other._order

    @property
    def _order(self) -> tuple[float, float]:
        return (self.score if self.rising else -self.score, -self.loss)


def loss_of(output: Tensor, y: Tensor, task: str) -> Tensor:
    """Mean cross-entropy, or mean squared error, of outputs ``[n, outputs]``.

    Text has outputs ``[n, context, characters]`` and targets ``[n, context]``.
    """
    if task == "regression":
        return functional.mse_loss(output.squeeze(1), y)
    if task == "language":
        output, y = output.flatten(0, 1), y.flatten()
    return functional.cross_entropy(output, y)


def score_of(output: Tensor, y: Tensor, task: str) -> Score:
    """Loss and score of outputs against targets, of the shapes that `loss_of` takes.

    R2 of a constant target is 1 for a perfect prediction and 0 for any other.

    Example:
        >>> import torch
        >>> score_of(torch.tensor([[1.0], [2.0]]), torch.tensor([1.0, 3.0]), "regression")
        Score(loss=0.5, score=0.5, rising=True)
    """
    loss = loss_of(output, y, task).item()
    if task == "language":
        return Score(loss, loss / math.log(2), rising=False)
    if task != "regression":
        return Score(loss, (output.argmax(1) == y).double().mean().item())
    predicted, target = output.squeeze(1).double(), y.double()
    residual = (predicted - target).square().sum().item()
    spread = (target - target.mean()).square().sum().item()
    if spread == 0:
        return Score(loss, float(residual == 0))
    return Score(loss, 1 - residual / spread)
