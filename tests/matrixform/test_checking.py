"""The check of the equations finds what is wrong."""

import numpy as np
import pytest

from regrow import matrixform as mf

SHAPES = [(3, 4, 5), (1, 2, 1), (2, 1, 1)]


def test_all_equations_are_right() -> None:
    found = mf.check_equations(SHAPES, np.random.default_rng(0))
    assert len(found) == 18
    for name, errors in found.items():
        assert errors.autograd < 1e-12, name
        assert errors.differences < 1e-7, name
        assert errors.entries > 0, name


def test_a_wrong_derivative_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(self: mf.LeakyReLU, z: np.ndarray) -> np.ndarray:
        return np.where(z > 0, 1, self.alpha + 1e-3).astype(z.dtype)

    monkeypatch.setattr(mf.LeakyReLU, "derivative", wrong)
    found = mf.check_equations(SHAPES, np.random.default_rng(0))
    assert found["leaky ReLU"].autograd > 1e-5
    assert found["leaky ReLU"].differences > 1e-5
    assert found["ReLU"].autograd < 1e-12


def test_a_kink_is_left_out_of_the_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    def jump(self: mf.SquaredError, y: np.ndarray, t: np.ndarray) -> float:
        return float(np.sum((y - t) ** 2) + (y.flat[0] > 0.5))

    monkeypatch.setattr(mf.SquaredError, "value", jump)

    class Half:
        """Draws 0.5 for everything uniform."""

        def __init__(self) -> None:
            self._rng = np.random.default_rng(0)

        def __getattr__(self, name: str) -> object:
            return getattr(self._rng, name)

        def uniform(self, low: float, high: float, size: tuple[int, ...]) -> np.ndarray:
            return np.full(size, 0.5)

    found = mf.check_equations([(2, 2, 2)], Half())  # type: ignore[arg-type]
    assert found["squared error"].kinks == 1
    assert found["squared error"].differences < 1e-7
