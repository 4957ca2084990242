"""The cells of recurrent layers: one step forward, and one step back.

A sequence is held packed: the rows of step 0, then those of step 1, and so on, with fewer rows
where shorter sequences have ended. A walk cuts its buffers into steps once, and a step then writes
into views, since at the sizes of recurrent layers what costs is the number of small operations.
Backward, the derivatives of the gates are formed for all steps at once; what is left for a step is
a product with the gradient of its state.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, Protocol

import torch
from torch import Tensor

Back = Callable[[Tensor], Tensor]


class Walk(Protocol):
    """A cell along one sequence, forward.

    Attributes:
        y: The states ``[rows, hidden]``.
        kept: What else a backward walk needs: the gates, and the memory (LSTM) or the hidden part
            of the new state (GRU).
    """

    gates: ClassVar[int]
    y: Tensor
    kept: tuple[Tensor, Tensor]

    def __init__(self, projected: Tensor, sizes: Sequence[int]) -> None:
        """Take the input's part of the gates, ``[rows, gates * hidden]``."""

    def step(self, t: int, raw: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """The next state and memory, from the recurrent part ``raw`` ``[rows of t, gates * h]``."""


class Return(Protocol):
    """A cell along one sequence, backward.

    Attributes:
        into_raw: Gradient of the recurrent part ``[rows, gates * hidden]``, filled by the steps.
    """

    into_raw: Tensor

    @property
    def into_projected(self) -> Tensor:
        """Gradient of the input's part."""

    def __init__(
        self,
        y: Tensor,
        kept: tuple[Tensor, Tensor],
        h: Tensor,
        c: Tensor,
        sizes: Sequence[int],
    ) -> None:
        """Take what the walk kept, and the state and memory that each row started from."""

    def step(self, t: int, dh: Tensor, dc: Tensor, back: Back) -> Tensor:
        """Gradient of the state before step ``t``; ``dc`` is changed to that of the memory."""


class _Elman:
    gates: ClassVar[int] = 1
    activate: ClassVar[Callable[..., Tensor]]

    def __init__(self, projected: Tensor, sizes: Sequence[int]) -> None:
        self.y = torch.empty_like(projected)
        self.kept = (projected.new_empty(0), projected.new_empty(0))
        self._steps = self.y.split(sizes)
        self._given = projected.split(sizes)

    def step(self, t: int, raw: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        y = torch.add(raw, self._given[t], out=self._steps[t])
        return type(self).activate(y), c


class Tanh(_Elman):
    """``h' = tanh(given + raw)``."""

    activate = torch.tanh_


class Relu(_Elman):
    """``h' = relu(given + raw)``."""

    activate = torch.relu_


class _ElmanReturn:
    def __init__(
        self,
        y: Tensor,
        kept: tuple[Tensor, Tensor],
        h: Tensor,
        c: Tensor,
        sizes: Sequence[int],
    ) -> None:
        self.into_raw = self.into_projected = self.slope(y)
        self._steps = self.into_raw.split(sizes)

    @staticmethod
    def slope(y: Tensor) -> Tensor:
        raise NotImplementedError

    def step(self, t: int, dh: Tensor, dc: Tensor, back: Back) -> Tensor:
        return back(self._steps[t].mul_(dh))


class TanhReturn(_ElmanReturn):
    """Back through ``Tanh``."""

    @staticmethod
    def slope(y: Tensor) -> Tensor:
        """Derivative of the activation, from its result."""
        return 1 - y * y


class ReluReturn(_ElmanReturn):
    """Back through ``Relu``."""

    @staticmethod
    def slope(y: Tensor) -> Tensor:
        """Derivative of the activation, from its result."""
        return (y > 0).to(y.dtype)


class GRU:
    """``h' = n + z (h - n)``; gates r, z, n in torch's order, r applied to the recurrent part."""

    gates: ClassVar[int] = 3

    def __init__(self, projected: Tensor, sizes: Sequence[int]) -> None:
        hidden = projected.shape[1] // 3
        gates = torch.empty_like(projected)
        recurrent = projected.new_empty(projected.shape[0], hidden)
        self.y, self.kept = torch.empty_like(recurrent), (gates, recurrent)
        self._steps = self.y.split(sizes)
        self._recurrent = recurrent.split(sizes)
        self._given = _parts(projected, hidden, 2, sizes)
        self._switches = _parts(gates, hidden, 2, sizes)
        self._reset = gates[:, :hidden].split(sizes)
        self._update = gates[:, hidden : 2 * hidden].split(sizes)
        self._hidden = hidden

    def step(self, t: int, raw: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """One step; there is no memory beside the state."""
        switches, new = self._switches[0][t], self._switches[1][t]
        torch.add(raw[:, : 2 * self._hidden], self._given[0][t], out=switches).sigmoid_()
        self._recurrent[t].copy_(raw[:, 2 * self._hidden :])
        torch.addcmul(self._given[1][t], self._reset[t], self._recurrent[t], out=new).tanh_()
        return torch.lerp(new, h, self._update[t], out=self._steps[t]), c


class GRUReturn:
    """Back through ``GRU``."""

    def __init__(
        self,
        y: Tensor,
        kept: tuple[Tensor, Tensor],
        h: Tensor,
        c: Tensor,
        sizes: Sequence[int],
    ) -> None:
        gates, recurrent = kept
        reset, update, new = gates.chunk(3, 1)
        into_new = (1 - update) * (1 - new * new)
        slopes = torch.empty_like(gates)
        slope_reset, slope_update, slope_recurrent = slopes.chunk(3, 1)
        torch.mul(into_new * recurrent, reset * (1 - reset), out=slope_reset)
        torch.mul(h - new, update * (1 - update), out=slope_update)
        torch.mul(into_new, reset, out=slope_recurrent)
        self.into_raw, self._into_new = slopes, into_new
        self._raw = slopes.split(sizes)
        self._parts = slopes.view(-1, 3, y.shape[1]).split(sizes)
        self._new = into_new.split(sizes)
        self._update = update.split(sizes)

    def step(self, t: int, dh: Tensor, dc: Tensor, back: Back) -> Tensor:
        """One step back."""
        self._parts[t].mul_(dh.unsqueeze(1))
        self._new[t].mul_(dh)
        return back(self._raw[t]).addcmul_(dh, self._update[t])

    @property
    def into_projected(self) -> Tensor:
        """As for the recurrent part, but past the reset gate."""
        hidden = self._into_new.shape[1]
        return torch.cat([self.into_raw[:, : 2 * hidden], self._into_new], 1)


class LSTM:
    """``c' = f c + i g``, ``h' = o tanh(c')``; gates i, f, g, o in torch's order."""

    gates: ClassVar[int] = 4

    def __init__(self, projected: Tensor, sizes: Sequence[int]) -> None:
        hidden = projected.shape[1] // 4
        gates = torch.empty_like(projected)
        memory = projected.new_empty(projected.shape[0], hidden)
        self.y, self.kept = torch.empty_like(memory), (gates, memory)
        self._steps, self._memory = self.y.split(sizes), memory.split(sizes)
        self._given, self._gates = projected.split(sizes), gates.split(sizes)
        self._two = gates[:, : 2 * hidden].split(sizes)
        self._parts = [part.split(sizes) for part in gates.chunk(4, 1)]

    def step(self, t: int, raw: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """One step."""
        torch.add(raw, self._given[t], out=self._gates[t])
        enter, keep, new, out = (part[t] for part in self._parts)
        self._two[t].sigmoid_()
        new.tanh_()
        out.sigmoid_()
        memory = torch.mul(keep, c, out=self._memory[t]).addcmul_(enter, new)
        return torch.tanh(memory, out=self._steps[t]).mul_(out), memory


class LSTMReturn:
    """Back through ``LSTM``."""

    def __init__(
        self,
        y: Tensor,
        kept: tuple[Tensor, Tensor],
        h: Tensor,
        c: Tensor,
        sizes: Sequence[int],
    ) -> None:
        gates, memory = kept
        enter, keep, new, out = gates.chunk(4, 1)
        squashed = memory.tanh()
        slopes = torch.empty_like(gates)
        slope_enter, slope_keep, slope_new, slope_out = slopes.chunk(4, 1)
        torch.mul(new, enter * (1 - enter), out=slope_enter)
        torch.mul(c, keep * (1 - keep), out=slope_keep)
        torch.mul(enter, 1 - new * new, out=slope_new)
        torch.mul(squashed, out * (1 - out), out=slope_out)
        self.into_raw = self.into_projected = slopes
        self._raw = slopes.split(sizes)
        parts = slopes.view(-1, 4, y.shape[1])
        self._three, self._out = parts[:, :3].split(sizes), parts[:, 3].split(sizes)
        self._into_memory = (out * (1 - squashed * squashed)).split(sizes)
        self._keep = keep.split(sizes)

    def step(self, t: int, dh: Tensor, dc: Tensor, back: Back) -> Tensor:
        """One step back."""
        dc.addcmul_(dh, self._into_memory[t])
        self._three[t].mul_(dc.unsqueeze(1))
        self._out[t].mul_(dh)
        dc.mul_(self._keep[t])
        return back(self._raw[t])


def _parts(
    stacked: Tensor, hidden: int, first: int, sizes: Sequence[int]
) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
    """The first gates, and the rest, cut into steps."""
    cut = first * hidden
    return stacked[:, :cut].split(sizes), stacked[:, cut:].split(sizes)


CELLS: dict[str, tuple[type[Walk], type[Return]]] = {
    "tanh": (Tanh, TanhReturn),
    "relu": (Relu, ReluReturn),
    "gru": (GRU, GRUReturn),
    "lstm": (LSTM, LSTMReturn),
}
