"""When updates are due, and where in the course of training a step stands."""

from __future__ import annotations

from dataclasses import dataclass

from regrow.evolution.methods import Method


@dataclass(frozen=True)
class Horizon:
    """The parts of a method that are about time, in optimiser steps.

    Attributes:
        every: Steps between updates; None for no updates.
        begin: Step after which updates begin.
        until: Last step at which an update may happen; None for no end.
        end: Where schedules end; None where that is unknown.

    Example:
        >>> horizon = Horizon.of(Method("mine", every=10, begin=0.1, until=0.75), None, 400)
        >>> horizon.begin, horizon.until, horizon.due(300), horizon.due(310)
        (40, 300, True, False)
    """

    every: int | None
    begin: int
    until: int | None
    end: int | None

    @classmethod
    def of(cls, method: Method, steps_per_epoch: int | None, total_steps: int | None) -> Horizon:
        """From the parts of a method.

        Raises:
            ValueError: A part is out of range, or needs a number that is not given.
        """
        until = method.until
        begin = _steps(method, "begin", method.begin, total_steps)
        last = None if until is None else _steps(method, "until", until, total_steps)
        if last is not None and last < begin:
            raise ValueError(
                f"until of {method.name} must not be before begin ({begin}), got {last}"
            )
        every = _interval(method, steps_per_epoch)
        return cls(every, begin, last, total_steps if last is None else last)

    def due(self, step: int) -> bool:
        """Whether an update follows this optimiser step."""
        if self.every is None or step <= self.begin or step % self.every:
            return False
        return self.until is None or step <= self.until

    def due_within(self, step: int, steps: int) -> bool:
        """Whether an update follows one of the optimiser steps after this one."""
        return any(self.due(step + ahead) for ahead in range(1, steps + 1))

    def place(self, step: int) -> tuple[int, int | None]:
        """The step and the end as schedules count them, from ``begin``."""
        end = None if self.end is None else self.end - self.begin
        return max(0, step - self.begin), end


def _steps(method: Method, part: str, given: int | float, total_steps: int | None) -> int:
    if isinstance(given, int) and not isinstance(given, bool) and given >= 0:
        return given
    if not isinstance(given, float) or not 0 <= given <= 1:
        raise ValueError(
            f"{part} of {method.name} must be a number of optimiser steps or a share of the "
            f"training in [0, 1], got {given!r}"
        )
    if total_steps is None:
        raise ValueError(
            f"{part} of {method.name} is a share of the training ({given}) and needs total_steps, "
            f"or give it as a number of optimiser steps"
        )
    return round(given * total_steps)


def _interval(method: Method, steps_per_epoch: int | None) -> int | None:
    every = method.every
    if every == "epoch":
        if steps_per_epoch is None:
            raise ValueError(
                f'every="epoch" of {method.name} needs steps_per_epoch=len(loader), '
                f"or give every as a number of optimiser steps"
            )
        every = steps_per_epoch
    if every is not None and (not isinstance(every, int) or every < 1):
        raise ValueError(
            f'every of {method.name} must be a positive number of steps, "epoch" or None, '
            f"got {every!r}"
        )
    return every
