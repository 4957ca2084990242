"""How a convolution moves its kernel over an input."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Geometry:
    """Everything of a convolution but its weight.

    Attributes:
        kernel: Size of the kernel, one number an axis, one to three axes.
        stride: Steps of the kernel.
        padding: Zeros before and behind each axis: ``(before, behind, before, behind, ...)``.
        dilation: Distance of neighbouring places of the kernel.
        groups: Groups of channels that do not see each other.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    @classmethod
    def of(
        cls,
        kernel: Sequence[int],
        stride: Sequence[int],
        padding: Sequence[int],
        dilation: Sequence[int],
        groups: int,
    ) -> Geometry:
        """From the lists that an operator takes."""
        return cls(tuple(kernel), tuple(stride), tuple(padding), tuple(dilation), groups)

    @property
    def axes(self) -> int:
        """Number of spatial axes."""
        return len(self.kernel)

    @property
    def places(self) -> int:
        """Places of the kernel."""
        return math.prod(self.kernel)

    @property
    def before(self) -> tuple[int, ...]:
        """Zeros before each axis."""
        return self.padding[::2]

    @property
    def behind(self) -> tuple[int, ...]:
        """Zeros behind each axis."""
        return self.padding[1::2]

    @property
    def even(self) -> bool:
        """Whether there are as many zeros before as behind, as torch's own convolution wants."""
        return self.before == self.behind

    @property
    def pad(self) -> tuple[int, ...]:
        """The padding as ``torch.nn.functional.pad`` takes it: last axis first."""
        pairs = zip(self.before, self.behind, strict=True)
        return tuple(zeros for pair in reversed(list(pairs)) for zeros in pair)

    def out_size(self, size: Sequence[Any]) -> tuple[Any, ...]:
        """Spatial size of the output for that of an input; below 1 where the kernel does not fit.

        Example:
            >>> Geometry((3, 3), (2, 1), (1, 1, 0, 0), (1, 1), 1).out_size((8, 8))
            (4, 6)
        """
        return tuple(
            (
                size[i]
                + self.before[i]
                + self.behind[i]
                - self.dilation[i] * (self.kernel[i] - 1)
                - 1
            )
            // self.stride[i]
            + 1
            for i in range(self.axes)
        )

    def __str__(self) -> str:
        """Compact, with what is not at its default only."""
        parts = ["x".join(map(str, self.kernel))]
        if set(self.stride) != {1}:
            parts.append(f"stride={','.join(map(str, self.stride))}")
        if any(self.padding):
            shown = self.before if self.even else self.padding
            parts.append(f"padding={','.join(map(str, shown))}")
        if set(self.dilation) != {1}:
            parts.append(f"dilation={','.join(map(str, self.dilation))}")
        if self.groups != 1:
            parts.append(f"groups={self.groups}")
        return " ".join(parts)
