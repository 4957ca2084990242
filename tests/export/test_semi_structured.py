"""torch's semi-structured product: refusals everywhere, agreement where there is a GPU."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import regrow
from regrow.export import to_semi_structured


def network(**options: object) -> nn.Sequential:
    return regrow.sparsify(nn.Sequential(nn.Linear(128, 128), nn.ReLU()), **options)


def test_a_model_without_groups_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^model must have a SparseLinear whose topology is 2:4"):
        to_semi_structured(network(density=0.5))
    with pytest.raises(ValueError, match=r"^model must have a SparseLinear whose topology is 2:4"):
        to_semi_structured(network(pattern=regrow.NofM(1, 4)))


def test_a_model_elsewhere_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^values of 0 must be on a GPU for .*, got cpu$"):
        to_semi_structured(network(pattern=regrow.NofM(2, 4)).half())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_it_computes_the_same() -> None:
    model = network(pattern=regrow.NofM(2, 4)).half().cuda()
    x = torch.randn(64, 128, device="cuda", dtype=torch.float16)
    with torch.no_grad():
        torch.testing.assert_close(to_semi_structured(model)(x), model(x), rtol=1e-2, atol=1e-2)
    with pytest.raises(TypeError, match="must be float16 or bfloat16"):
        to_semi_structured(model.float())
