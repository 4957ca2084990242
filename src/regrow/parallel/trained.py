"""What comes out of a parallel training."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from regrow.parallel.server import Tally


@dataclass(frozen=True)
class Trained:
    """What came out.

    Attributes:
        model: The trained model, in one piece.
        tally: What was counted.
    """

    model: nn.Module
    tally: Tally
