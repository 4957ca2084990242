"""A linear layer that stores and computes its connections only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from regrow.kernels import dispatch, native, ops, structured
from regrow.kernels.operator import watched
from regrow.layers import weight_gradient
from regrow.layers.base import SparseLayer, given_topology
from regrow.layers.conversion import Start, register, take_bias, take_weight
from regrow.topology import Topology


class SparseLinear(SparseLayer):
    """``y = x W^T + b`` with a sparse ``W``; stands where ``torch.nn.Linear`` stood.

    No mask, dense weight, dense gradient or dense optimiser state exists in ``csr`` compute; in
    ``dense`` compute a dense weight exists only while a product is formed, and on a CPU only some
    of its rows at a time. Values start uniform in ``±1/sqrt(mean fan-in)``, which is torch's own
    start corrected for the missing connections.

    Args:
        in_features: Size of each input sample.
        out_features: Size of each output sample.
        bias: Whether to add a learned bias.
        density: Kept fraction of the connections, in (0, 1], placed uniformly at random; rounded
            to a whole number of connections, at least one.
        topology: Instead of a density, the connections: shape ``(out_features, in_features)``.
        compute: ``auto`` (measured, the default), ``csr`` or ``dense``; ``block`` or ``nm`` for a
            topology that is declared to have such a structure.
        activation: ``relu`` for the positive part of the output, as ``torch.nn.ReLU`` behind the
            layer would give it, but formed where the product is: the output is written once, not
            read and written again, and so is its gradient. None (the default) for none.
        feature_major: Whether the output may lie in the memory with the samples of a feature next
            to each other, as the kernels want their operands: for a layer whose output goes to
            sparse layers only, element by element operations between them included. ``csr``
            compute then spares both layers turning it, in both passes. Every layer takes such an
            input as it is. It holds on a CPU, in float32 and float64, for batches that are a
            multiple of 16 above 16, and outside ``torch.compile``; shapes and results are the same
            but for the last bits, and what wants contiguous tensors copies it. `sparsify` sets it
            where it sees that nothing else is between two such layers.
        generator: CPU generator for places and values; torch's default one if None.
        device: Of values and bias.
        dtype: Of values and bias, float32 by default.

    Shape:
        Input ``(*, in_features)``, output ``(*, out_features)``.

    Raises:
        ValueError: A density outside (0, 1], both or neither of density and topology, a topology
            of another shape, or an unknown compute or activation.

    Example:
        >>> layer = SparseLinear(784, 1000, density=0.05)
        >>> layer
        SparseLinear(784 -> 1000, density=0.05, connections=39200, bias=True, compute=auto)
        >>> layer(torch.ones(32, 784)).shape
        torch.Size([32, 1000])
        >>> sum(p.numel() for p in layer.parameters())
        40200
    """

    computes = (*ops.COMPUTES, *structured.COMPUTES)
    activation: Literal["relu"] | None = None
    feature_major: bool = False

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        density: float | None = None,
        topology: Topology | None = None,
        compute: str = "auto",
        activation: Literal["relu"] | None = None,
        feature_major: bool = False,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if activation not in ("relu", None):
            raise ValueError(
                f"activation of {type(self).__name__} must be relu or None, got {activation!r}"
            )
        shape = (out_features, in_features)
        topology = given_topology(type(self).__name__, shape, density, topology, generator)
        super().__init__(topology, torch.empty(topology.nnz, device=device, dtype=dtype), compute)
        self.in_features = in_features
        self.out_features = out_features
        self.activation = activation
        self.feature_major = feature_major
        self._add_bias(bias)
        self.reset_parameters(generator)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(*, in_features)`` to ``(*, out_features)``.

        Under autocast the result has autocast's dtype, as a dense layer's has; ``csr`` compute
        sums in the dtype of the values inside, with native kernels at least in float32.

        Raises:
            ValueError: The last axis of the input is not ``in_features``.
            TypeError: Input and values differ in dtype, and autocast does not lower the input.
        """
        if x.dim() == 0 or x.shape[-1] != self.in_features:
            raise ValueError(
                f"input of SparseLinear must have {self.in_features} features in its last axis, "
                f"got shape {tuple(x.shape)}"
            )
        values = self.values
        x = self._ready(x, values)
        training = torch.is_grad_enabled() and (x.requires_grad or values.requires_grad)
        if x.dim() == 2:
            # A traced operator takes its operands for contiguous.
            free = (self.feature_major or not x.is_contiguous()) and not watched()
            x = x if free and native.by_features(x) else x.contiguous()
            return self._product(x, values, training, self.feature_major and free)
        flat = x.reshape(-1, self.in_features).contiguous()
        return self._product(flat, values, training).view(*x.shape[:-1], self.out_features)

    def situation(self, x: Tensor) -> dispatch.Situation:
        """Where ``auto`` files its decision on training steps with inputs like this one."""
        form = structured.form_of(self.topology.structure)
        if form is None:
            return super().situation(x)
        flat, nnz = x.reshape(-1, self.in_features), self.topology.nnz
        return structured.situation(flat, self.out_features, nnz, *form, True)

    def operands(self) -> tuple[Tensor, ...]:
        """Index tensors of the operator; empty where the structure tells all."""
        if self._compute not in structured.COMPUTES:
            return super().operands()
        pointers = torch.empty(0, dtype=torch.int64, device=self.values.device)
        indices = pointers.to(torch.int32)
        return pointers, indices, pointers, indices, indices

    def _product(
        self, x: Tensor, values: Tensor, training: bool, feature_major: bool = False
    ) -> Tensor:
        form = structured.form_of(self.topology.structure)
        given, compute = (x, values, self.bias, self.operands()), self._compute
        if form is None or compute not in ("auto", form.kind):
            relu = self.activation == "relu"
            y: Tensor = ops.linear(*given, compute, training, relu, feature_major)
            return y
        y = structured.structured(*given, self.topology.parts(), *form, compute, training)
        return y.relu() if self.activation == "relu" else y

    def _place(self, topology: Topology) -> None:
        super()._place(topology)
        if self._compute in structured.COMPUTES:
            self.topology.forget_rows()
        else:
            self.topology.parts()

    def _check_compute(self, compute: str, topology: Topology) -> None:
        if compute not in structured.COMPUTES:
            return
        form = structured.form_of(topology.structure)
        if form is None or form.kind != compute:
            wanted = "blocks" if compute == "block" else "N of M connections"
            raise ValueError(
                f"topology of {type(self).__name__} must be of {wanted} for compute {compute!r}, "
                f"got {topology.structure or 'one without a structure'}"
            )

    def gradient_block(self, x: Tensor, grad: Tensor, rows: slice) -> Tensor:
        """Gradient of rows, from input ``[batch, in]`` and output gradient ``[batch, out]``."""
        return weight_gradient.block(x, grad, rows, self.values.dtype)

    def gradient_pairs(self, x: Tensor, grad: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """Gradient of the weight at single positions: a sampled product."""
        return weight_gradient.pairs(x, grad, rows, columns, self.values.dtype)

    def extra_repr(self) -> str:
        """Sizes, density and compute."""
        return (
            f"{self.in_features} -> {self.out_features}, density={self.density:.4g}, "
            f"connections={self.topology.nnz}, bias={self.bias is not None}, "
            f"compute={self.compute}"
            + (f", activation={self.activation}" if self.activation else "")
        )


def with_activation(dense: nn.Module, layer: SparseLinear) -> nn.Module:
    """The dense counterpart of a layer, and behind it what the layer's activation does."""
    return nn.Sequential(dense, nn.ReLU()) if layer.activation == "relu" else dense


class _LinearConversion:
    layout = "rows"

    def shapes(self, module: nn.Linear) -> dict[str, tuple[int, ...]]:
        return {"": tuple(module.weight.shape)}

    def parameters(self, module: nn.Linear) -> tuple[str]:
        return ("weight",)

    def weights(self, module: nn.Linear) -> dict[str, Tensor]:
        return {"": module.weight.detach()}

    def sparse(
        self, module: nn.Linear, topologies: Mapping[str, Topology], start: Start
    ) -> SparseLinear:
        layer = SparseLinear(
            module.in_features,
            module.out_features,
            module.bias is not None,
            topology=topologies[""],
            compute=start.compute,
            generator=start.generator,
            device=module.weight.device,
            dtype=module.weight.dtype,
        )
        take_weight(layer, module.weight, topologies[""], start)
        take_bias(layer, module, start)
        return layer

    def dense(self, layer: SparseLinear) -> nn.Module:
        dense = nn.Linear(
            layer.in_features,
            layer.out_features,
            layer.bias is not None,
            device=layer.values.device,
            dtype=layer.values.dtype,
        )
        with torch.no_grad():
            dense.weight.copy_(layer.weight)
        dense.weight.requires_grad_(layer.values.requires_grad)
        take_bias(dense, layer)
        return with_activation(dense, layer)


register(nn.Linear, SparseLinear, _LinearConversion())
