"""Convolutions that store and compute their connections only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from regrow.kernels import convolution, dense_convolution, dispatch
from regrow.kernels.geometry import Geometry
from regrow.layers.base import SparseLayer, given_topology
from regrow.layers.conversion import Start, register, take_bias, take_weight
from regrow.topology import Topology

Sizes = int | Sequence[int]
Device = torch.device | str | None


class _SparseConv(SparseLayer):
    axes: ClassVar[int]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes,
        stride: Sizes = 1,
        padding: Sizes | str = 0,
        dilation: Sizes = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        *,
        density: float | None = None,
        topology: Topology | None = None,
        compute: str = "auto",
        generator: torch.Generator | None = None,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        name = type(self).__name__
        _check_channels(name, in_channels, out_channels, groups)
        if padding_mode != "zeros":
            raise ValueError(f"padding_mode of {name} must be 'zeros', got {padding_mode!r}")
        geometry = _geometry(name, self.axes, kernel_size, stride, padding, dilation, groups)
        shape = (out_channels, in_channels // groups, *geometry.kernel)
        topology = given_topology(name, shape, density, topology, generator)
        super().__init__(topology, torch.empty(topology.nnz, device=device, dtype=dtype), compute)
        self.geometry = geometry
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size, self.stride = geometry.kernel, geometry.stride
        self.padding = padding if isinstance(padding, str) else geometry.before
        self.dilation, self.groups, self.padding_mode = geometry.dilation, groups, padding_mode
        self._add_bias(bias)
        self.reset_parameters(generator)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve a batch ``(batch, in_channels, *size)``, or one sample without its first axis.

        Under autocast the result has autocast's dtype, as a dense layer's has; ``csr`` compute
        works in the dtype of the values inside, with native kernels at least in float32.

        Raises:
            ValueError: An input of another form, or too small for the kernel.
            TypeError: Input and values differ in dtype, and autocast does not lower the input.
        """
        self._check_input(x)
        x = self._ready(x, self.values)
        training = torch.is_grad_enabled() and (x.requires_grad or self.values.requires_grad)
        batched = x.dim() == self.axes + 2
        geometry = self.geometry
        y = convolution.conv(
            (x if batched else x.unsqueeze(0)).contiguous(),
            self.values,
            self.bias,
            *self.topology.csr(),
            geometry.kernel,
            geometry.stride,
            geometry.padding,
            geometry.dilation,
            geometry.groups,
            self._compute,
            training,
        )
        return y if batched else y.squeeze(0)

    def _check_input(self, x: Tensor) -> None:
        name, axes = type(self).__name__, self.axes
        if x.dim() not in (axes + 1, axes + 2) or x.shape[-axes - 1] != self.in_channels:
            sizes = ", ".join(("depth", "height", "width")[-axes:])
            raise ValueError(
                f"input of {name} must have shape (batch, {self.in_channels}, {sizes}) or "
                f"({self.in_channels}, {sizes}), got {tuple(x.shape)}"
            )
        size = tuple(x.shape[-axes:])
        if min(size) < 1 or min(self.geometry.out_size(size)) < 1:
            raise ValueError(
                f"input of {name} must be large enough for its kernel {self.geometry}, "
                f"got size {size}"
            )

    def situation(self, x: Tensor) -> dispatch.Situation:
        """Where ``auto`` files its decision on training steps with inputs like this one."""
        x = x if x.dim() == self.axes + 2 else x.unsqueeze(0)
        indptr, nnz = self.topology.csr()[0], self.topology.nnz
        return convolution.situation(x, indptr, nnz, self.geometry, True)

    def gradient_block(self, x: Tensor, grad: Tensor, rows: slice) -> Tensor:
        """Gradient of rows, from input and output gradient ``[batch, channels, *size]``."""
        grad, x = grad.to(self.values.dtype), x.to(self.values.dtype)
        return dense_convolution.weight_rows(grad, x, rows, self.geometry)

    def gradient_pairs(self, x: Tensor, grad: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """Gradient of the weight at single positions."""
        grad, x = grad.to(self.values.dtype), x.to(self.values.dtype)
        return convolution.pair_products(grad, x, rows, columns, self.geometry)

    def extra_repr(self) -> str:
        """Sizes, density and compute."""
        return (
            f"{self.in_channels} -> {self.out_channels}, {self.geometry}, "
            f"density={self.density:.4g}, connections={self.topology.nnz}, "
            f"bias={self.bias is not None}, compute={self.compute}"
        )


class SparseConv1d(_SparseConv):
    """A convolution over sequences with a sparse kernel; stands where ``torch.nn.Conv1d`` stood.

    See ``SparseConv2d``, which differs only in the number of axes.

    Example:
        >>> layer = SparseConv1d(16, 32, 5, padding="same", density=0.1)
        >>> layer(torch.ones(8, 16, 100)).shape
        torch.Size([8, 32, 100])
    """

    axes = 1


class SparseConv2d(_SparseConv):
    """A convolution over images with a sparse kernel; stands where ``torch.nn.Conv2d`` stood.

    A connection is one number of the kernel ``(out_channels, in_channels / groups, *kernel_size)``.
    No mask, dense weight, dense gradient or dense optimiser state exists in ``csr`` compute; in
    ``dense`` compute a dense weight exists only while a product is formed. Values start uniform in
    ``±1/sqrt(mean fan-in)``, which is torch's own start corrected for the missing connections.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: One number, or one an axis.
        stride: Steps of the kernel, likewise.
        padding: Zeros on both sides, likewise, or ``"same"`` or ``"valid"``.
        dilation: Distance of neighbouring places of the kernel, likewise.
        groups: Groups of channels that do not see each other; must divide both numbers of channels.
        bias: Whether to add a learned bias.
        padding_mode: ``zeros``, the only one.
        density: Kept fraction of the connections, in (0, 1], placed uniformly at random; rounded
            to a whole number of connections, at least one.
        topology: Instead of a density, the connections, in the shape of the kernel.
        compute: ``auto`` (measured, the default), ``csr`` or ``dense``.
        generator: CPU generator for places and values; torch's default one if None.
        device: Of values and bias.
        dtype: Of values and bias, float32 by default.

    Shape:
        Input ``(batch, in_channels, height, width)`` or ``(in_channels, height, width)``, output
        likewise; contiguous whatever the memory format of the input.

    Raises:
        ValueError: An argument out of its range; the sentence says which, and what it must be.

    Example:
        >>> layer = SparseConv2d(64, 128, 3, density=0.05)
        >>> layer
        SparseConv2d(64 -> 128, 3x3, density=0.04999, connections=3686, bias=True, compute=auto)
        >>> layer(torch.ones(2, 64, 8, 8)).shape
        torch.Size([2, 128, 6, 6])
    """

    axes = 2


class SparseConv3d(_SparseConv):
    """A convolution over volumes with a sparse kernel; stands where ``torch.nn.Conv3d`` stood.

    See ``SparseConv2d``, which differs only in the number of axes.

    Example:
        >>> layer = SparseConv3d(4, 8, (1, 3, 3), density=0.2)
        >>> layer(torch.ones(2, 4, 5, 6, 7)).shape
        torch.Size([2, 8, 5, 4, 5])
    """

    axes = 3


def _check_channels(name: str, in_channels: int, out_channels: int, groups: int) -> None:
    sizes = {"in_channels": in_channels, "out_channels": out_channels, "groups": groups}
    for what, size in sizes.items():
        if size < 1:
            raise ValueError(f"{what} of {name} must be at least 1, got {size}")
    if in_channels % groups or out_channels % groups:
        raise ValueError(
            f"groups of {name} must divide {in_channels} and {out_channels} channels, got {groups}"
        )


def _geometry(
    name: str,
    axes: int,
    kernel_size: Sizes,
    stride: Sizes,
    padding: Sizes | str,
    dilation: Sizes,
    groups: int,
) -> Geometry:
    kernel = _sizes(name, "kernel_size", kernel_size, axes, 1)
    steps = _sizes(name, "stride", stride, axes, 1)
    spread = _sizes(name, "dilation", dilation, axes, 1)
    if padding == "same":
        if set(steps) != {1}:
            raise ValueError(f"stride of {name} must be 1 where padding is 'same', got {stride}")
        totals = [d * (k - 1) for d, k in zip(spread, kernel, strict=True)]
        pairs = tuple(zeros for total in totals for zeros in (total // 2, total - total // 2))
    elif isinstance(padding, str) and padding != "valid":
        raise ValueError(f"padding of {name} must be numbers, 'same' or 'valid', got {padding!r}")
    else:
        zeros = 0 if isinstance(padding, str) else padding
        pairs = tuple(n for n in _sizes(name, "padding", zeros, axes, 0) for _ in range(2))
    return Geometry(kernel, steps, pairs, spread, groups)


def _sizes(name: str, what: str, sizes: Sizes, axes: int, least: int) -> tuple[int, ...]:
    given = (sizes,) * axes if isinstance(sizes, int) else tuple(sizes)
    if len(given) != axes or not all(isinstance(n, int) and n >= least for n in given):
        count = "a whole number" if axes == 1 else f"a whole number or {axes} of them"
        raise ValueError(f"{what} of {name} must be {count}, each at least {least}, got {sizes}")
    return given


class _ConvConversion:
    layout = None

    def __init__(self, dense: type[nn.Module], sparse: type[_SparseConv]) -> None:
        self._dense, self._sparse = dense, sparse

    def parameters(self, module: nn.Conv2d) -> tuple[str]:
        return ("weight",)

    def weights(self, module: nn.Conv2d) -> dict[str, Tensor]:
        return {"": module.weight.detach()}

    def shapes(self, module: nn.Conv2d) -> dict[str, tuple[int, ...]]:
        if module.padding_mode != "zeros":
            raise ValueError(
                f"a convolution to make sparse must have padding_mode='zeros', "
                f"got {module.padding_mode!r}; exclude it from sparsify"
            )
        return {"": tuple(module.weight.shape)}

    def sparse(
        self, module: nn.Conv2d, topologies: Mapping[str, Topology], start: Start
    ) -> _SparseConv:
        layer = self._sparse(
            module.in_channels,
            module.out_channels,
            module.kernel_size,
            module.stride,
            module.padding,
            module.dilation,
            module.groups,
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

    def dense(self, layer: _SparseConv) -> nn.Module:
        dense: nn.Conv2d = self._dense(  # type: ignore[assignment]
            layer.in_channels,
            layer.out_channels,
            layer.kernel_size,
            layer.stride,
            layer.padding,
            layer.dilation,
            layer.groups,
            layer.bias is not None,
            device=layer.values.device,
            dtype=layer.values.dtype,
        )
        with torch.no_grad():
            dense.weight.copy_(layer.weight)
        dense.weight.requires_grad_(layer.values.requires_grad)
        take_bias(dense, layer)
        return dense


for _dense, _sparse in (
    (nn.Conv1d, SparseConv1d),
    (nn.Conv2d, SparseConv2d),
    (nn.Conv3d, SparseConv3d),
):
    register(_dense, _sparse, _ConvConversion(_dense, _sparse))
