"""Criteria: which weights of a dense model to keep, judged before training."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from regrow.topology import Topology
from regrow.topology.allocation import Allocation, Shapes

Weights = Callable[[], Mapping[str, Tensor]]
Batches = Iterable[tuple[Tensor, Tensor]]
Loss = Callable[[Tensor, Tensor], Tensor]


class Criterion(ABC):
    """Gives every weight of a dense model a score; the highest are kept.

    As ``allocation`` of ``sparsify`` it says how many connections each layer has: as many as it
    has among the highest scores of all layers. As ``pattern`` it says which ones: the highest of
    each layer. As both it keeps the highest scores of the model. Nothing of it stays: no mask, and
    the model it looks at is a copy.
    """

    @abstractmethod
    def scores(self, model: nn.Module, weights: Weights, density: float) -> Mapping[str, Tensor]:
        """Score every weight.

        Args:
            model: A copy, of which anything may be changed.
            weights: The weights in question, by path, as views of the parameters as they are now.
            density: Share of them that is to be kept.

        Returns:
            By path, one score for each entry of the weight.
        """


@dataclass(frozen=True)
class Magnitude(Criterion):
    """The size of the weight, as it is: the largest of a trained, or of an untrained, model.

    Example:
        >>> import regrow
        >>> model = nn.Sequential(nn.Linear(3, 2, bias=False))
        >>> _ = model[0].weight.data.copy_(torch.tensor([[1.0, -5.0, 0.0], [2.0, 4.0, -3.0]]))
        >>> regrow.sparsify(model, 0.5, pattern="magnitude", values="keep")[0].weight.detach()
        tensor([[ 0., -5.,  0.],
                [ 0.,  4., -3.]])
    """

    def scores(self, model: nn.Module, weights: Weights, density: float) -> Mapping[str, Tensor]:
        """The size: ``|w|``."""
        return {path: weight.abs() for path, weight in weights().items()}


@dataclass(frozen=True)
class Snip(Criterion):
    """How much the loss changes, to first order, when a weight goes: ``|w g|``.

    Attributes:
        loss: Of the model's output and a target.
        batches: Pairs of input and target; the gradient is that of their sum.

    Example:
        >>> import regrow
        >>> model = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2))
        >>> batch = torch.randn(8, 6), torch.randint(2, (8,))
        >>> snip = Snip(nn.functional.cross_entropy, [batch])
        >>> regrow.sparsify(model, 0.5, allocation=snip, pattern=snip)[0].density < 1
        True

    References:
        N. Lee, T. Ajanthan, P. H. S. Torr, "SNIP: single-shot network pruning based on connection
        sensitivity", 2019.
    """

    loss: Loss
    batches: Batches

    def scores(self, model: nn.Module, weights: Weights, density: float) -> Mapping[str, Tensor]:
        """The product: ``|w g|``."""
        for x, y in self.batches:
            self.loss(model(x), y).backward()
        _put(model, [_product(p, p.grad).abs() for p in model.parameters()])
        return _copied(weights)


@dataclass(frozen=True)
class Grasp(Criterion):
    """How much the norm of the gradient falls when a weight goes: w (H g), H the Hessian.

    Attributes:
        loss: Of the model's output and a target.
        batches: Pairs of input and target; all of them are gone through twice.
        temperature: The output is divided by it before the loss.

    References:
        C. Wang, G. Zhang, R. Grosse, "Picking winning tickets before training by preserving
        gradient flow", 2020.
    """

    loss: Loss
    batches: Sequence[tuple[Tensor, Tensor]]
    temperature: float = 200.0

    def scores(self, model: nn.Module, weights: Weights, density: float) -> Mapping[str, Tensor]:
        """The product of w and H g; the gradient flow falls least without the highest."""
        parameters = [p for p in model.parameters() if p.requires_grad]
        total = [torch.zeros_like(p) for p in parameters]
        for x, y in self.batches:
            for kept, g in zip(total, self._gradient(model, x, y, parameters), strict=True):
                kept += g.detach()
        for x, y in self.batches:
            gradient = self._gradient(model, x, y, parameters, create_graph=True)
            flow = sum((kept * g).sum() for kept, g in zip(total, gradient, strict=True))
            assert isinstance(flow, Tensor)
            flow.backward()
        _put(model, [_product(p, p.grad) for p in model.parameters()])
        return _copied(weights)

    def _gradient(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        parameters: list[nn.Parameter],
        create_graph: bool = False,
    ) -> tuple[Tensor, ...]:
        loss = self.loss(model(x) / self.temperature, y)
        return torch.autograd.grad(
            loss, parameters, create_graph=create_graph, allow_unused=True, materialize_grads=True
        )


@dataclass(frozen=True)
class SynFlow(Criterion):
    """What a weight passes on, without data: ``|w dR/dw|``, R the output of the net of ``|w|``.

    The model is pruned in rounds on its way to the density, so that no layer is emptied.

    Attributes:
        inputs: What goes in: ones in the form of one sample, such as ``torch.ones(1, 784)``.
        rounds: Number of rounds; after the i-th, ``density ** (i / rounds)`` is left.

    References:
        H. Tanaka, D. Kunin, D. L. K. Yamins, S. Ganguli, "Pruning neural networks without any data
        by iteratively conserving synaptic flow", 2020.
    """

    inputs: Tensor
    rounds: int = 100

    def scores(self, model: nn.Module, weights: Weights, density: float) -> Mapping[str, Tensor]:
        """The scores of the last round; weights that went before have 0."""
        model.eval().double()
        parameters = list(model.parameters())
        _put(model, [p.detach().abs() for p in parameters])
        x = self.inputs.double() if self.inputs.is_floating_point() else self.inputs
        scores: Mapping[str, Tensor] = {}
        for i in range(1, self.rounds + 1):
            model.zero_grad()
            model(x).sum().backward()
            held = [p.data for p in parameters]
            _put(model, [_product(p, p.grad).abs() for p in parameters])
            scores = _copied(weights)
            _put(model, held)
            total = sum(score.numel() for score in scores.values())
            keep = _highest(scores, round(density ** (i / self.rounds) * total))
            for path, weight in weights().items():
                weight.mul_(keep[path])
        return scores


CRITERIA: dict[str, Criterion] = {"magnitude": Magnitude()}


def scores_of(
    criterion: Criterion,
    model: nn.Module,
    weights: Callable[[nn.Module], Mapping[str, Tensor]],
    density: float,
) -> dict[str, Tensor]:
    """Scores of the weights of a model, which is left as it is.

    Args:
        criterion: That gives them.
        model: A dense model.
        weights: From the model, or a copy of it, to the weights in question, by path, as views.
        density: Share of them that is to be kept.

    Raises:
        ValueError: A score is not a finite number.
    """
    twin = copy.deepcopy(model)
    scores = criterion.scores(twin, lambda: weights(twin), density)
    for path, score in scores.items():
        if not bool(score.isfinite().all()):
            raise ValueError(
                f"scores of {type(criterion).__name__} in {path or 'the layer'} must be finite, "
                f"got {int((~score.isfinite()).sum())} others"
            )
    return dict(scores)


def highest_of_all(scores: Mapping[str, Tensor]) -> Allocation:
    """The allocation that gives each layer as many as it has among the highest scores of all.

    Example:
        >>> from regrow.topology import allocate
        >>> scores = {"a": torch.tensor([[5.0, 1.0]]), "b": torch.tensor([[4.0, 3.0], [0.0, 2.0]])}
        >>> allocate({"a": (1, 2), "b": (2, 2)}, density=0.5, allocation=highest_of_all(scores))
        {'a': 1, 'b': 2}
    """

    def allocation(shapes: Shapes, density: float) -> dict[str, float]:
        total = sum(score.numel() for score in scores.values())
        keep = _highest(scores, round(density * total))
        return {path: float(kept.sum()) for path, kept in keep.items()}

    return allocation


def highest(score: Tensor, connections: int) -> Topology:
    """The topology of the highest scores of a layer; of equal ones the first."""
    order = score.reshape(-1).sort(descending=True, stable=True).indices
    return Topology(score.shape, order[:connections])


def _highest(scores: Mapping[str, Tensor], count: int) -> dict[str, Tensor]:
    """Which entries are among the highest of all, bool in the shape of each."""
    flat = torch.cat([score.reshape(-1).double() for score in scores.values()])
    keep = torch.zeros(flat.numel(), dtype=torch.bool, device=flat.device)
    keep[flat.sort(descending=True, stable=True).indices[:count]] = True
    parts = keep.split([score.numel() for score in scores.values()])
    return {
        path: part.view(score.shape)
        for (path, score), part in zip(scores.items(), parts, strict=True)
    }


def _product(parameter: nn.Parameter, other: Tensor | None) -> Tensor:
    if other is None:  # it takes no part in the loss
        return torch.zeros_like(parameter.data)
    return parameter.detach() * other


def _put(model: nn.Module, contents: Sequence[Tensor]) -> None:
    for parameter, content in zip(model.parameters(), contents, strict=True):
        parameter.data = content


def _copied(weights: Weights) -> dict[str, Tensor]:
    return {path: weight.clone() for path, weight in weights().items()}
