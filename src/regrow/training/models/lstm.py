"""An LSTM for characters."""

from __future__ import annotations

from torch import Tensor, nn

from regrow.data import Dataset
from regrow.training.options import TrainOptions

_WIDTH, _DEPTH = 256, 1


def build(options: TrainOptions, dataset: Dataset) -> nn.Module:
    """Characters as vectors, LSTM layers, and a linear layer to the scores of the next character.

    Every sample starts from a state of zeros.

    Args:
        options: ``width``: features of a state and of a character, by default 256; ``depth``:
            layers, by default 1; ``dropout`` after each layer.
        dataset: Text.
    """
    return CharacterLSTM(
        dataset.n_classes or 1, options.width or _WIDTH, options.depth or _DEPTH, options.dropout
    )


class CharacterLSTM(nn.Module):
    """Scores of the next character at every position.

    Args:
        n_characters: How many differ.
        width: Features of a state and of a character.
        depth: Layers.
        dropout: After each layer.

    Example:
        >>> import torch
        >>> model = CharacterLSTM(65, width=16, depth=1, dropout=0.0)
        >>> model(torch.zeros(2, 8, dtype=torch.int64)).shape
        torch.Size([2, 8, 65])
    """

    def __init__(self, n_characters: int, width: int, depth: int, dropout: float) -> None:
        super().__init__()
        self.characters = nn.Embedding(n_characters, width)
        between = dropout if depth > 1 else 0.0
        self.lstm = nn.LSTM(width, width, depth, dropout=between)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(width, n_characters)

    def forward(self, x: Tensor) -> Tensor:
        """Map characters, int64 ``[batch, context]``, to ``[batch, context, characters]``."""
        states, _ = self.lstm(self.characters(x.transpose(0, 1)))
        scores: Tensor = self.output(self.dropout(states)).transpose(0, 1)
        return scores
