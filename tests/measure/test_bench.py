"""The bench: what it times, what it concludes, and how it says so. No time decides a test."""

from __future__ import annotations

import json
import math
import re

import pytest
import torch
from torch import Tensor

from regrow.measure import _peers, bench, pictures
from regrow.measure.bench import Bench, Curve, Point


def point(density: float, csr: float, dense: float = 1.0, best: float = 1.0) -> Point:
    times = {"dense": dense, "csr": csr, "auto": min(csr, dense)}
    return Point(density, times, {"dense": best, "csr": csr}, "csr" if csr < dense else "dense")


MACHINE = {"processor": "Some CPU", "kernels": "avx2"}


def test_break_even_lies_between_the_densities_around_it() -> None:
    curve = Curve(8, 8, [point(1.0, 4.0), point(0.25, 2.0), point(0.0625, 0.5)])
    assert curve.break_even == 0.125
    assert Curve(8, 8, list(reversed(curve.points))).break_even == 0.125


def test_break_even_at_the_ends_of_what_was_measured() -> None:
    assert Curve(8, 8, [point(1.0, 0.5), point(0.1, 0.1)]).break_even == 1.0
    assert Curve(8, 8, [point(1.0, 9.0), point(0.1, 2.0)]).break_even is None
    assert Curve(8, 8, [point(0.5, 1.0)]).break_even == 0.5


def test_a_lucky_high_density_is_not_break_even() -> None:
    lucky = Curve(8, 8, [point(1.0, 0.9), point(0.5, 1.5), point(0.125, 1 / 1.5)])
    assert lucky.break_even == 0.25


def test_everything_is_timed_and_said() -> None:
    found = bench.bench(["20x30", "16"], densities=[0.1, 1.0, 0.1], batch=4, threads=1, seconds=0)
    assert [(curve.n_out, curve.n_in) for curve in found.curves] == [(20, 30), (16, 16)]
    for curve in found.curves:
        assert [p.density for p in curve.points] == [1.0, 0.1]
        full, low = curve.points
        assert list(full.milliseconds) == ["dense", "masked", "csr", "auto"]
        assert full.chosen == "dense"
        assert low.chosen in ("csr", "dense")
        assert "torch csr" in low.milliseconds
        assert all(p.best[name] <= ms for p in curve.points for name, ms in p.milliseconds.items())
    text = str(found)
    assert "1 thread(s)" in text
    assert re.search(r"^ +20x30 +dense +masked +csr +auto +torch csr", text, re.MULTILINE)
    assert (
        len(re.findall(r"^break-even at .*; auto at its worst \d+\.\d\dx dense$", text, re.M)) == 2
    )
    stored = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert stored["shapes"]["16x16"]["points"][0]["density"] == 1.0
    assert stored["threads"] == 1


def test_threads_and_random_numbers_are_left_as_they_were() -> None:
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    bench.bench(["8"], densities=[0.5], batch=2, threads=threads + 1, seconds=0)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"shapes": ["12y"]},
            "shape must be outputs x inputs, such as 1024x784 or 1024, got '12y'",
        ),
        ({"shapes": ["0x5"]}, "shape must be outputs x inputs, .* got '0x5'"),
        ({"shapes": ["2x3x4"]}, "shape must be outputs x inputs, .* got '2x3x4'"),
        ({"densities": [1.5]}, r"density must be in \(0, 1\], got 1.5"),
        ({"densities": [math.nan]}, r"density must be in \(0, 1\], got nan"),
        ({"batch": 0}, "batch must be a whole number >= 1, got 0"),
        ({"threads": 0}, "threads must be a whole number >= 1, got 0"),
    ],
)
def test_what_cannot_be_timed_is_refused(options: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        bench.bench(**options)


def test_a_busy_machine_and_what_is_missing_are_said() -> None:
    curve = Curve(8, 8, [point(0.5, 1.0, best=0.25)])
    text = str(Bench([curve], 128, 2, MACHINE, ("sparselab",)))
    assert text.startswith("Some CPU, 2 thread(s), kernels avx2, batch 128\n")
    assert "median rounds took up to 4.0 times as long as the best; run this again" in text
    assert "sparselab is not installed and is left out" in text
    quiet = str(Bench([Curve(8, 8, [point(0.5, 1.0)])], 128, 2, MACHINE))
    assert "busy" not in quiet
    assert "not installed" not in quiet


def test_peers_that_are_not_installed_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_peers, "find_spec", lambda name: None)
    makers, missing = _peers.available()
    assert list(makers) == ["torch csr"]
    assert missing == ("scipy", "sparselab")


def test_a_step_makes_both_gradients() -> None:
    seen: list[Tensor] = []
    weight = torch.ones(3, 2, requires_grad=True)

    def layer(x: Tensor) -> Tensor:
        seen.append(x)
        return x @ weight.t()

    work = _peers.step(layer, torch.ones(4, 2), weight)
    work()
    work()
    assert torch.equal(weight.grad, torch.full((3, 2), 4.0))
    assert torch.equal(seen[-1].grad, torch.full((4, 2), 3.0))


@pytest.mark.parametrize("name", ["torch csr", "scipy", "sparselab"])
def test_every_peer_runs(name: str) -> None:
    makers, missing = _peers.available()
    if name in missing:
        pytest.skip(f"{name} is not installed")
    weight = torch.randn(24, 16) * (torch.rand(24, 16) < 0.3)
    for _ in range(3):
        makers[name](weight, torch.randn(4, 16))()


def test_the_picture_has_a_line_for_each_shape_and_a_rule() -> None:
    curves = [Curve(n, n, [point(1.0, 2.0), point(0.1, 0.1)]) for n in range(1, 10)]
    figure = pictures.break_even_curves(Bench(curves, 128, 1, MACHINE))
    axes = figure.axes[0]
    assert len(axes.lines) == 2 * len(curves) + 1
    assert [text.get_text() for text in axes.texts][:2] == ["1x1", "2x2"]
    assert len(axes.texts) == 7
    left, right = axes.get_xlim()
    assert left > right
