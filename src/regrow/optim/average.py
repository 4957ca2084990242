"""The average of a model whose topology changes."""

from __future__ import annotations

from torch import nn
from torch.optim import swa_utils

from regrow.layers.align import align


class AveragedModel(swa_utils.AveragedModel):
    """``torch.optim.swa_utils.AveragedModel`` that follows the topology of its model.

    Torch's own averages the values of one model with those of the other, slot by slot; after an
    update of the topology these belong to other connections. Here ``update_parameters`` first
    brings the average onto the model's connections: those that both have keep their average, and
    one that is new starts at its value. Arguments and everything else are as in torch.

    Example:
        >>> import torch, regrow
        >>> model = nn.Sequential(regrow.SparseLinear(8, 4, density=0.5))
        >>> average = AveragedModel(model, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(0.9))
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> evolution = regrow.Evolution(model, optimizer, "set", every=1)
        >>> model(torch.ones(2, 8)).sum().backward(); optimizer.step()
        >>> _ = evolution.step()
        >>> average.update_parameters(model)
        >>> average.module[0].topology == model[0].topology
        True
    """

    def update_parameters(self, model: nn.Module) -> None:
        """Take the parameters of the model into the average."""
        align(self.module, model)
        super().update_parameters(model)
