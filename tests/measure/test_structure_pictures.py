"""Pictures of topologies show what they are given, and survive what data can hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from regrow import Topology
from regrow.measure import degree_law, pictures
from regrow.topology import random_topology

NAN = float("nan")


def empty(rows: int, columns: int) -> Topology:
    return Topology((rows, columns), torch.empty(0, dtype=torch.int64))


@pytest.mark.parametrize("shape", [(3, 5), (160, 1), (1, 160)])
def test_small_topologies_are_drawn_position_by_position(shape: tuple[int, int]) -> None:
    topology = random_topology(shape, 3)
    figure = pictures.adjacency(topology, title="t")
    shown = figure.axes[0].images[0].get_array()
    assert (np.asarray(shown) == topology.mask().double().numpy()).all()


def test_large_topologies_are_drawn_in_fields_by_density() -> None:
    topology = random_topology((1000, 330), 20_000, generator=torch.Generator().manual_seed(0))
    shown = np.asarray(pictures.adjacency(topology, title="t").axes[0].images[0].get_array())
    assert shown.shape == (143, 110)  # 7 rows and 3 columns to a field
    mask = topology.mask().double()
    assert shown[0, 0] == mask[:7, :3].mean()
    assert shown[-1, -1] == mask[994:, 327:].mean()
    assert shown.mean() == pytest.approx(topology.density, rel=0.02)


@pytest.mark.parametrize("topology", [empty(2, 3), Topology((1, 1), torch.tensor([0]))])
def test_topologies_of_little(tmp_path: Path, topology: Topology) -> None:
    figure = pictures.adjacency(topology, title="t")
    assert pictures.save_png(figure, tmp_path / "x.png").stat().st_size > 1000


def test_a_convolution_is_drawn_with_its_kernel_in_the_columns() -> None:
    topology = random_topology((4, 3, 3, 3), 20)
    shown = pictures.adjacency(topology, title="t").axes[0].images[0].get_array()
    assert np.asarray(shown).shape == (4, 27)


def test_share_of_neurons_over_degrees() -> None:
    figure = pictures.degree_law_curve([0, 1, 1, 2, 8], title="t")
    (line,) = figure.axes[0].lines
    assert list(line.get_xdata()) == [1, 2, 8]
    assert list(line.get_ydata()) == [1, 0.5, 0.25]


def test_a_law_goes_through_the_start_of_its_tail() -> None:
    pytest.importorskip("scipy")
    degrees = np.random.default_rng(1).zipf(2.5, 2000) + 2
    law = degree_law(degrees)
    figure = pictures.degree_law_curve(degrees, law, title="t")
    dots, line = figure.axes[0].lines
    assert line.get_xdata()[0] == law.minimum
    at = list(dots.get_xdata()).index(law.minimum)
    assert line.get_ydata()[0] == pytest.approx(dots.get_ydata()[at])
    labels = {text.get_text() for text in figure.axes[0].texts}
    assert labels == {"degrees", f"k^\N{MINUS SIGN}{law.exponent:.2f}"}


@pytest.mark.parametrize("degrees", [[], [0], [1], [5] * 9])
def test_degrees_of_little(tmp_path: Path, degrees: list[int]) -> None:
    figure = pictures.degree_law_curve(degrees, title="t")
    assert pictures.save_png(figure, tmp_path / "x.png").stat().st_size > 1000


def test_numbers_of_a_heat_map() -> None:
    figure = pictures.heat_map([[1, 0.25], [NAN, 0.004]], ["a", "b"], title="t", top=2)
    assert [text.get_text() for text in figure.axes[0].texts] == ["1", ".25", "0"]
    assert figure.axes[0].images[0].get_clim() == (0, 2)
    many = pictures.heat_map(np.ones((20, 20)), [f"rule {i}" for i in range(20)], title="t")
    assert not many.axes[0].texts
    assert len(many.axes[0].get_yticklabels()) == 20


@pytest.mark.parametrize("matrix", [[[0.0]], [[NAN]], [[0.0, 0.0], [0.0, 0.0]]])
def test_heat_maps_of_little(tmp_path: Path, matrix: list[list[float]]) -> None:
    figure = pictures.heat_map(matrix, ["a name"] * len(matrix), title="t")
    assert pictures.save_png(figure, tmp_path / "x.png").stat().st_size > 1000


def test_singular_values_and_their_bound() -> None:
    figure = pictures.singular_values({"a": [3, 2, 1], "b": [2, 1]}, title="t", bound=1.5)
    rule, first, second = figure.axes[0].lines
    assert set(rule.get_ydata()) == {1.5}
    assert list(first.get_xdata()) == [1, 2, 3]
    assert list(second.get_ydata()) == [2, 1]
    assert {text.get_text() for text in figure.axes[0].texts} == {"a", "b", "bound"}
    assert figure.axes[0].get_ylim()[0] == 0


@pytest.mark.parametrize("values", [[], [0.0], [1.0]])
def test_singular_values_of_little(tmp_path: Path, values: list[float]) -> None:
    figure = pictures.singular_values({"a": values}, title="t")
    assert pictures.save_png(figure, tmp_path / "x.png").stat().st_size > 1000
