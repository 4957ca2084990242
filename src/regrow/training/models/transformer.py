"""A decoder-only transformer for characters."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from regrow.data import Dataset
from regrow.training.options import TrainOptions

_WIDTH, _DEPTH, _HEADS = 128, 4, 4


def build(options: TrainOptions, dataset: Dataset) -> nn.Module:
    """Pre-norm blocks of causal attention and a wide layer with GELU, with learned positions.

    Args:
        options: ``width``: features of a position, a multiple of 4, by default 128; ``depth``:
            blocks, by default 4; ``dropout``.
        dataset: Text.

    References:
        A. Radford, J. Wu, R. Child, D. Luan, D. Amodei, I. Sutskever, "Language models are
        unsupervised multitask learners", 2019.
    """
    return Transformer(
        dataset.n_classes or 1,
        dataset.n_features,
        options.width or _WIDTH,
        options.depth or _DEPTH,
        options.dropout,
    )


class Transformer(nn.Module):
    """Scores of the next character at every position.

    Args:
        n_characters: How many differ.
        context: Positions at most.
        width: Features of a position, a multiple of 4.
        depth: Blocks.
        dropout: In every block, after attention and after the wide layer.

    Raises:
        ValueError: The width is not a multiple of the four heads.

    Example:
        >>> import torch
        >>> model = Transformer(65, context=8, width=16, depth=1, dropout=0.0)
        >>> model(torch.zeros(2, 8, dtype=torch.int64)).shape
        torch.Size([2, 8, 65])
    """

    def __init__(
        self, n_characters: int, context: int, width: int, depth: int, dropout: float
    ) -> None:
        super().__init__()
        if width % _HEADS:
            raise ValueError(f"width of a transformer must be a multiple of {_HEADS}, got {width}")
        self.characters = nn.Embedding(n_characters, width)
        self.positions = nn.Embedding(context, width)
        self.blocks = nn.ModuleList(Block(width, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, n_characters)
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map characters, int64 ``[batch, context]``, to ``[batch, context, characters]``."""
        x = self.characters(x) + self.positions.weight[: x.shape[1]]
        for block in self.blocks:
            x = block(x)
        scores: Tensor = self.output(self.norm(x))
        return scores


class Block(nn.Module):
    """Attention over the positions so far, and a wide layer, each beside a shortcut.

    Args:
        width: Features of a position.
        dropout: After attention and after the wide layer.
    """

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value, self.mix = (nn.Linear(width, width) for _ in range(4))
        self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[batch, context, width]``."""
        x = x + self.dropout(self._attend(self.norm1(x)))
        wide = functional.gelu(self.widen(self.norm2(x)))
        out: Tensor = x + self.dropout(self.narrow(wide))
        return out

    def _attend(self, x: Tensor) -> Tensor:
        query, key, value = (
            layer(x).unflatten(-1, (_HEADS, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        y = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        mixed: Tensor = self.mix(y.transpose(1, 2).flatten(-2))
        return mixed
