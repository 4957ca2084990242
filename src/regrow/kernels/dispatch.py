"""Choosing how a layer computes, by measurement.

A situation (shape, connections, batch, dtype, device, threads) is timed once on a machine and
remembered, by later processes too (see `remembered`). Since two computes differ in the last bits, a
run that must be repeatable elsewhere fixes them: set ``layer.compute``, or store ``decisions()``
and give them to ``load_decisions()`` later.
"""

from __future__ import annotations

import math
import os
import threading
import time
from bisect import insort
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from regrow.kernels import native, remembered

Trials = Mapping[str, Callable[[], object]]

CANDIDATES = ("csr", "dense", "block", "nm")
"""What a decision may be for."""

# Below this density the dense product loses on a CPU with native kernels at any batch size: it
# does more than 50 times the work at less than 10 times the speed.
_CERTAIN_DENSITY = 0.02
# No dense weight above this many bytes is made for a trial.
_TRIAL_BYTES = 2**30
# Candidates are timed in turns: so often, and more often while the outcome is not clear.
_ROUNDS, _MOST_ROUNDS = 3, 12
_CLOSE = 1.2
_LONG_SECONDS = 2.0
# What is slower than others by the factor, and by more than a busy core costs, is not timed again.
_HOPELESS, _HOPELESS_MS = 4, 20


@dataclass(frozen=True)
class Situation:
    """Where a decision holds.

    Attributes:
        n_out: Rows of the weight.
        n_in: Columns of the weight.
        nnz: Connections, rounded to about nine percent; all of them only where it is all.
        batch: Rows of the input, rounded up to a power of two.
        dtype: Of the input.
        device: ``cpu``, ``cuda``, ...
        threads: Threads of torch.
        training: Whether a backward pass is to follow.
        work: What is done with the weight: one product, or what an operator of another kind says.
        structured: Whether kernels for a structure of the connections are a candidate too.
    """

    n_out: int
    n_in: int
    nnz: int
    batch: int
    dtype: str
    device: str
    threads: int
    training: bool
    work: str = "product"
    structured: bool = False

    @classmethod
    def of(
        cls,
        x: Tensor,
        n_out: int,
        nnz: int,
        training: bool,
        work: str = "product",
        structured: bool = False,
    ) -> Situation:
        """The situation of an input ``[batch, in]`` meeting ``nnz`` connections."""
        where = x.dtype, x.device.type, torch.get_num_threads()
        return _situation(n_out, *x.shape, nnz, *where, training, work, structured)

    @property
    def key(self) -> str:
        """One string for it, as in stored decisions."""
        step = "training" if self.training else "inference"
        key = (
            f"{self.n_out}x{self.n_in} nnz={self.nnz} batch={self.batch} {self.dtype} "
            f"{self.device} threads={self.threads} {step}"
        )
        return key if self.work == "product" else f"{key} {self.work}"


@lru_cache(maxsize=1024)  # it is asked for in every pass of every layer
def _situation(
    n_out: int,
    batch: int,
    n_in: int,
    nnz: int,
    dtype: torch.dtype,
    device: str,
    threads: int,
    training: bool,
    work: str,
    structured: bool,
) -> Situation:
    return Situation(
        n_out=n_out,
        n_in=n_in,
        nnz=_rounded(nnz, n_out * n_in),
        batch=1 << (batch - 1).bit_length() if batch else 0,
        dtype=str(dtype).removeprefix("torch."),
        device=device,
        threads=threads,
        training=training,
        work=work,
        structured=structured,
    )


@dataclass(frozen=True)
class Decision:
    """What was chosen, why, and the milliseconds of one step with each candidate."""

    compute: str
    reason: str
    milliseconds: dict[str, float]


_decisions: dict[str, Decision] = {}
# Timing one candidate while another thread times one would tell nothing of either.
_measuring = threading.RLock()


def _unlock_in_child() -> None:
    global _measuring
    _measuring = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlock_in_child)


def choose(situation: Situation, trials: Callable[[], Trials]) -> str:
    """The compute for a situation; the candidates are timed if it is new to this machine.

    Args:
        situation: What the choice depends on.
        trials: Makes the work to time, by compute; called for a new situation only.

    Returns:
        One of ``CANDIDATES``.
    """
    key = situation.key
    if key not in _decisions:
        with _measuring:
            if key not in _decisions:
                _decisions[key] = _without_trial(situation) or _recalled(key, trials)
    return _decisions[key].compute


def lookup(situation: Situation) -> Decision | None:
    """The decision for a situation, or None if it has not come up."""
    return _decisions.get(situation.key)


def decisions() -> dict[str, dict[str, Any]]:
    """All decisions of this process by situation, ready for JSON."""
    return {key: asdict(decision) for key, decision in _decisions.items()}


def load_decisions(stored: Mapping[str, Mapping[str, Any]]) -> None:
    """Take over decisions of an earlier process instead of timing anew.

    Args:
        stored: What ``decisions()`` returned.

    Raises:
        ValueError: An entry is no decision.
    """
    _decisions.update({key: _checked(key, entry) for key, entry in stored.items()})


def forget() -> None:
    """Drop all decisions, those stored for later processes too, so that all is timed again."""
    _decisions.clear()
    remembered.forget()


def _checked(key: str, entry: Mapping[str, Any]) -> Decision:
    if set(entry) != {"compute", "reason", "milliseconds"}:
        raise ValueError(
            f"decision for {key!r} must have compute, reason and milliseconds, "
            f"got {', '.join(sorted(entry))}"
        )
    if entry["compute"] not in CANDIDATES:
        raise ValueError(
            f"decision for {key!r} must be one of {', '.join(CANDIDATES)}, got {entry['compute']!r}"
        )
    times = entry["milliseconds"]
    if not isinstance(times, Mapping) or not all(
        isinstance(ms, (int, float)) and math.isfinite(ms) for ms in times.values()
    ):
        raise ValueError(f"milliseconds of the decision for {key!r} must be numbers, got {times!r}")
    return Decision(entry["compute"], str(entry["reason"]), dict(times))


def _recalled(key: str, trials: Callable[[], Trials]) -> Decision:
    """The decision of an earlier process, or a new one, which later processes will find."""
    entry = remembered.recall(key)
    if entry is not None:
        with suppress(ValueError):
            return _checked(key, entry)
    decision = _measured(trials())
    remembered.store(key, asdict(decision))
    return decision


def _rounded(nnz: int, positions: int) -> int:
    if nnz in (0, positions):
        return nnz
    return min(positions - 1, round(2 ** (round(8 * math.log2(nnz)) / 8)))


def _without_trial(situation: Situation) -> Decision | None:
    if situation.nnz >= situation.n_out * situation.n_in:
        return Decision("dense", "every position is connected", {})
    if situation.structured:
        return None
    reason = without_dense(situation)
    if reason is not None:
        return Decision("csr", reason, {})
    if situation.device != "cpu":
        return Decision("dense", f"no sparse kernels for {situation.device}", {})
    return None


def without_dense(situation: Situation) -> str | None:
    """Why the dense product is no candidate, so that it is not even tried; None if it is one."""
    positions = situation.n_out * situation.n_in
    dense_bytes = positions * torch.empty(0, dtype=getattr(torch, situation.dtype)).itemsize
    if dense_bytes > _TRIAL_BYTES:
        return f"a dense weight would take {dense_bytes / 2**30:.1f} GiB"
    fast = native.available() and situation.device == "cpu"
    if fast and situation.nnz < _CERTAIN_DENSITY * positions:
        return f"density below {_CERTAIN_DENSITY}, where csr always wins"
    return None


def _measured(trials: Trials) -> Decision:
    times: dict[str, list[float]] = {name: [] for name in trials}
    end = time.perf_counter() + _LONG_SECONDS
    with torch.no_grad():
        for work in trials.values():
            work()  # warms caches and allocators
        for round_ in range(_MOST_ROUNDS):
            if round_ >= _ROUNDS and (_clear(times) or time.perf_counter() > end):
                break
            best = min((taken[0] for taken in times.values() if taken), default=math.inf)
            for name, work in trials.items():
                if times[name] and times[name][0] > max(_HOPELESS * best, _HOPELESS_MS):
                    continue
                start = time.perf_counter()
                work()
                insort(times[name], 1e3 * (time.perf_counter() - start))
    found = {name: taken[0] for name, taken in times.items()}
    winner = min(found, key=lambda name: found[name])
    said = " against ".join(f"{name} {ms:.3g} ms" for name, ms in sorted(found.items()))
    return Decision(winner, f"measured: {said}", found)


def _clear(times: Mapping[str, list[float]]) -> bool:
    """Whether the fastest is ahead by enough, with times that another round has confirmed."""
    first, *others = sorted(times.values())
    confirmed = all(taken[1] <= _CLOSE * taken[0] for taken in times.values() if len(taken) > 1)
    return confirmed and all(taken[0] >= _CLOSE * first[0] for taken in others)
