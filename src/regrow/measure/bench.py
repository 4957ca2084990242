"""Where sparse layers begin to pay on this machine: one layer's training step at many densities.

Everything that is compared is run in turns in one process, so that what else the machine does meets
all of it, and medians are compared. A step is the forward pass and the gradients of input and
weight; no figure holds an optimiser.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import Any

import torch
from torch import nn

from regrow.kernels import dispatch
from regrow.kernels.machine import describe_machine
from regrow.layers import SparseLinear
from regrow.measure import _peers
from regrow.measure._peers import Makers, Step, step

SHAPES = ("512x512", "1024x1024", "2048x2048")
DENSITIES = (1.0, 0.5, 0.25, 0.1, 0.05, 0.02, 0.01)
# Formats that are made for few connections take long at many.
_PEERS_FROM = 0.25
_ROUNDS = 3
# A median so many times above the best round tells of somebody else at work.
_BUSY = 1.5


@dataclass(frozen=True)
class Point:
    """One density.

    Attributes:
        density: Kept fraction.
        milliseconds: Median time of a step, by what was timed.
        best: Shortest time of a step, likewise.
        chosen: What ``auto`` computed with.
    """

    density: float
    milliseconds: dict[str, float]
    best: dict[str, float]
    chosen: str

    def against_dense(self, name: str) -> float:
        """How many times faster than the dense layer something was."""
        return self.milliseconds["dense"] / self.milliseconds[name]


@dataclass(frozen=True)
class Curve:
    """One shape, ``n_out`` x ``n_in``, at falling densities."""

    n_out: int
    n_in: int
    points: list[Point]

    @property
    def slowdown(self) -> float:
        """How much longer the median round of the dense layer took than its best one, at worst."""
        return max(p.milliseconds["dense"] / p.best["dense"] for p in self.points)

    @property
    def name(self) -> str:
        """The shape as it is written."""
        return f"{self.n_out}x{self.n_in}"

    @property
    def break_even(self) -> float | None:
        """The density from which on downwards the sparse kernels are as fast as the dense layer.

        Interpolated between two densities measured; None where they never are.

        Example:
            >>> slow = Point(0.5, {"dense": 1.0, "csr": 2.0}, {}, "dense")
            >>> fast = Point(0.125, {"dense": 1.0, "csr": 0.5}, {}, "csr")
            >>> Curve(64, 64, [slow, fast]).break_even
            0.25
        """
        found: Point | None = None
        for point in sorted(self.points, key=lambda point: point.density):
            if point.against_dense("csr") < 1:
                return None if found is None else _crossing(found, point)
            found = point
        return None if found is None else found.density


@dataclass(frozen=True)
class Bench:
    """All curves of a machine; ``str()`` gives the tables."""

    curves: list[Curve]
    batch: int
    threads: int
    machine: dict[str, Any] = field(default_factory=describe_machine)
    missing: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            "machine": self.machine,
            "regrow": version("regrow"),
            "torch": torch.__version__,
            "batch": self.batch,
            "threads": self.threads,
            "missing": list(self.missing),
            "shapes": {
                curve.name: {
                    "break_even": curve.break_even,
                    "points": [asdict(point) for point in curve.points],
                }
                for curve in self.curves
            },
        }

    def __str__(self) -> str:
        """A table for each shape, and what follows from it."""
        head = (
            f"{self.machine['processor']}, {self.threads} thread(s), kernels "
            f"{self.machine['kernels']}, batch {self.batch}\n"
            f"milliseconds of a training step of one layer: forward pass and both gradients"
        )
        lines = [f"{name} is not installed and is left out" for name in self.missing]
        slowdown = max((curve.slowdown for curve in self.curves), default=1.0)
        if slowdown > _BUSY:
            lines.append(
                f"the machine was busy: median rounds took up to {slowdown:.1f} times as long as "
                f"the best; run this again when it is idle"
            )
        return "\n\n".join([head, *map(_table, self.curves), *lines])


def bench(
    shapes: Sequence[str] = SHAPES,
    *,
    densities: Sequence[float] = DENSITIES,
    batch: int = 128,
    threads: int | None = None,
    seconds: float = 1.0,
    progress: Callable[[str], object] = lambda text: None,
) -> Bench:
    """Time a training step of dense and sparse layers at several densities.

    Args:
        shapes: Shapes of the weight, such as ``1024x784`` (outputs x inputs) or ``1024``.
        densities: Kept fractions, each in (0, 1].
        batch: Rows of the input, at least 1.
        threads: Threads of torch meanwhile; default: as many as there are now.
        seconds: How long each density of a shape is timed, three rounds at least.
        progress: Told what is being timed.

    Raises:
        ValueError: A shape, a density, the batch or the threads cannot be.

    Example:
        >>> found = bench(["32x16"], densities=[0.5, 0.1], batch=4, seconds=0)
        >>> [point.density for point in found.curves[0].points]
        [0.5, 0.1]
    """
    sizes = [_size(shape) for shape in shapes]
    for density in densities:
        if not 0 < density <= 1:
            raise ValueError(f"density must be in (0, 1], got {density}")
    for name, number in (("batch", batch), ("threads", threads)):
        if number is not None and number < 1:
            raise ValueError(f"{name} must be a whole number >= 1, got {number}")
    ordered = sorted(set(densities), reverse=True)
    peers, missing = _peers.available()
    curves = []
    with _threads(threads) as used, torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for n_out, n_in in sizes:
            points = []
            for density in ordered:
                progress(f"{n_out}x{n_in} at density {density:g}")
                points.append(_point(n_out, n_in, density, batch, seconds, peers))
            curves.append(Curve(n_out, n_in, points))
    return Bench(curves, batch, used, missing=missing)


def _point(
    n_out: int, n_in: int, density: float, batch: int, seconds: float, peers: Makers
) -> Point:
    x = torch.randn(batch, n_in)
    layer = SparseLinear(n_in, n_out, bias=False, density=density, compute="csr")
    auto = SparseLinear(n_in, n_out, bias=False, topology=layer.topology)
    weight = layer.weight.detach()
    dense, masked = (nn.Parameter(weight.clone()) for _ in range(2))
    mask = layer.topology.mask()
    steps: dict[str, Step] = {
        "dense": step(lambda x: nn.functional.linear(x, dense), x, dense),
        "masked": step(lambda x: nn.functional.linear(x, mask * masked), x, masked),
        "csr": step(layer, x, layer.values),
        "auto": step(auto, x, auto.values),
    }
    if density <= _PEERS_FROM:
        steps |= {name: make(weight, x) for name, make in peers.items()}
    times = _timed(steps, seconds)
    decision = dispatch.lookup(auto.situation(x))
    return Point(
        density=density,
        milliseconds={name: statistics.median(taken) for name, taken in times.items()},
        best={name: min(taken) for name, taken in times.items()},
        chosen=decision.compute if decision else "",
    )


def _timed(steps: dict[str, Step], seconds: float) -> dict[str, list[float]]:
    """Milliseconds of each step, run in turns."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for work in steps.values():
        work()
    end = time.perf_counter() + seconds
    while len(times["dense"]) < _ROUNDS or time.perf_counter() < end:
        # There and back: what ran before leaves its mark on the caches.
        forth = len(times["dense"]) % 2 == 0
        for name, work in steps.items() if forth else reversed(steps.items()):
            start = time.perf_counter()
            work()
            times[name].append(1e3 * (time.perf_counter() - start))
    return times


def _crossing(below: Point, above: Point) -> float:
    """Where csr equals dense: on a straight line in the logarithms of density and ratio."""
    low, high = (math.log(point.against_dense("csr")) for point in (below, above))
    ratio = above.density / below.density
    return float(f"{below.density * ratio ** (low / (low - high)):.3g}")


def _table(curve: Curve) -> str:
    names = list(dict.fromkeys(name for point in curve.points for name in point.milliseconds))
    head = [curve.name, *names, "auto takes", "csr faster"]
    lines = ["".join(f"{name:>11}" for name in head)]
    for point in curve.points:
        times = (
            f"{point.milliseconds[name]:.3g}" if name in point.milliseconds else "-"
            for name in names
        )
        cells = [f"{point.density:g}", *times, point.chosen, f"{point.against_dense('csr'):.2f}x"]
        lines.append("".join(f"{cell:>11}" for cell in cells))
    even = curve.break_even
    said = "at no density measured" if even is None else f"at density {even:g}"
    worst = min(point.against_dense("auto") for point in curve.points)
    return "\n".join([*lines, f"break-even {said}; auto at its worst {worst:.2f}x dense"])


def _size(shape: str) -> tuple[int, int]:
    parts = shape.split("x")
    if len(parts) in (1, 2) and all(part.isdecimal() and int(part) > 0 for part in parts):
        return int(parts[0]), int(parts[-1])
    raise ValueError(f"shape must be outputs x inputs, such as 1024x784 or 1024, got {shape!r}")


@contextmanager
def _threads(number: int | None) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(before if number is None else number)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)
