"""What scores are asked about, and registering ones of one's own."""

from __future__ import annotations

import re

import pytest
import torch

from regrow import SparseLinear, Topology
from regrow.evolution import Candidates, Site, drop_score, grow, grow_score, scores
from regrow.kernels.capture import Pass


def site_of(values: list[float], shape: tuple[int, int] = (3, 4), compute: str = "csr") -> Site:
    layer = SparseLinear(
        shape[1], shape[0], topology=Topology(shape, torch.arange(len(values))), compute=compute
    )
    with torch.no_grad():
        layer.values.copy_(torch.tensor(values))
    return Site("body.0", layer, torch.Generator().manual_seed(0))


def test_candidates_one_by_one_and_in_blocks() -> None:
    single = Candidates(4, positions=torch.tensor([7, 0, 11]))
    assert (single.rows.tolist(), single.columns.tolist()) == ([1, 0, 2], [3, 0, 3])
    assert single.block is None
    block = Candidates(4, block=slice(1, 3))
    assert block.positions.tolist() == list(range(4, 12))
    assert block.rows.tolist() == [1] * 4 + [2] * 4
    assert block.columns.tolist() == [0, 1, 2, 3] * 2
    assert (len(single), len(block)) == (3, 8)
    for both in ({}, {"positions": torch.tensor([0]), "block": slice(0, 1)}):
        with pytest.raises(ValueError, match="candidates need positions or a block of rows"):
            Candidates(4, **both)


@pytest.mark.parametrize("compute", ["csr", "dense"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradient_at_candidates_is_the_dense_gradient(compute: str, dtype: torch.dtype) -> None:
    site = site_of([1.0, 2.0, 3.0], compute=compute)
    site.layer.to(dtype)
    pairs = [(torch.randn(n, 4, dtype=dtype), torch.randn(n, 3, dtype=dtype)) for n in (5, 2)]
    site = Site(site.path, site.layer, site.generator, [Pass(*pair) for pair in pairs])
    dense = sum(grad.t() @ x for x, grad in pairs)
    block = Candidates(4, block=slice(1, 3))
    torch.testing.assert_close(site.gradient(block), dense[1:3].reshape(-1))
    single = Candidates(4, positions=torch.tensor([7, 0, 11]))
    torch.testing.assert_close(site.gradient(single), dense.reshape(-1)[[7, 0, 11]])
    torch.testing.assert_close(grow.gradient(site, single), dense.reshape(-1)[[7, 0, 11]].abs())
    for x, grad in pairs:  # what was kept is not written to
        assert x.isfinite().all()
        assert grad.isfinite().all()
    torch.testing.assert_close(site.gradient(block), dense[1:3].reshape(-1))


def test_gradient_without_a_backward_pass_is_refused() -> None:
    sentence = (
        "growth by gradient in body.0 needs a backward pass before the optimiser step of an "
        "update, got none since the last one"
    )
    with pytest.raises(RuntimeError, match=re.escape(sentence)):
        site_of([1.0]).gradient(Candidates(4, block=slice(0, 1)))


def test_free_positions_are_counted() -> None:
    assert site_of([1.0, 2.0]).free == 10


def test_scores_are_registered_once() -> None:
    for register, registry in (
        (drop_score, scores.DROP_SCORES),
        (grow_score, scores.GROW_SCORES),
    ):
        register("mine")(function := lambda *_: None)
        assert registry.pop("mine").score is function
        known = next(iter(registry))
        sentence = f"score name must be new, got '{known}', which is registered already"
        with pytest.raises(ValueError, match=sentence):
            register(known)(function)
