"""Multi-head attention whose projections are sparse layers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from regrow.layers.conversion import Start, register
from regrow.layers.linear import SparseLinear
from regrow.topology import Topology, random_topology
from regrow.topology.allocation import check_density

_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "out_proj")


class SparseMultiheadAttention(nn.Module):
    """Multi-head attention with sparse weights; stands where ``torch.nn.MultiheadAttention`` stood.

    The projections are layers of their own, ``q_proj``, ``k_proj``, ``v_proj`` and ``out_proj``,
    each sparse, or dense if it is to have every connection. torch packs the first three into one
    tensor where the sizes allow; here each keeps its budget in every method, and each meets only
    the sequence that it is for. Values start as in ``SparseLinear``, biases at zero.

    Args:
        embed_dim: Features of the queries and of the output.
        num_heads: Number of heads; must divide ``embed_dim``.
        dropout: Probability of dropping an attention weight, in training.
        bias: Whether the projections have biases.
        add_bias_kv: Whether a learned key and value is added to the sequences.
        add_zero_attn: Whether a key and value of zeros is added.
        kdim: Features of the keys; as the queries if None.
        vdim: Features of the values; as the queries if None.
        batch_first: Whether the batch is the first axis.
        density: Kept fraction of each projection, in (0, 1].
        topologies: Instead of a density, the connections by name of the projection; those that
            are missing are dense.
        compute: ``auto``, ``csr`` or ``dense``.
        generator: CPU generator for places and values; torch's default one if None.
        device: Of all parameters.
        dtype: Of all parameters.

    Raises:
        ValueError: A size, density or compute that cannot be, or both or neither of density and
            topologies.

    Example:
        >>> layer = SparseMultiheadAttention(32, 4, batch_first=True, density=0.25)
        >>> x = torch.ones(2, 5, 32)
        >>> y, weights = layer(x, x, x)
        >>> y.shape, weights.shape
        (torch.Size([2, 5, 32]), torch.Size([2, 5, 5]))
        >>> layer.q_proj
        SparseLinear(32 -> 32, density=0.25, connections=256, bias=True, compute=auto)
    """

    # What torch's transformer modules ask before they call a fused kernel for dense weights.
    in_proj_bias = None
    _qkv_same_embed_dim = False

    q_proj: SparseLinear | nn.Linear
    k_proj: SparseLinear | nn.Linear
    v_proj: SparseLinear | nn.Linear
    out_proj: SparseLinear | nn.Linear
    bias_k: nn.Parameter | None
    bias_v: nn.Parameter | None

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        *,
        density: float | None = None,
        topologies: Mapping[str, Topology] | None = None,
        compute: str = "auto",
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        if num_heads < 1 or embed_dim < 1 or embed_dim % num_heads:
            raise ValueError(
                f"num_heads of {name} must divide embed_dim, got {num_heads} and {embed_dim}"
            )
        self.embed_dim, self.num_heads, self.head_dim = embed_dim, num_heads, embed_dim // num_heads
        self.kdim = embed_dim if kdim is None else kdim
        self.vdim = embed_dim if vdim is None else vdim
        self.dropout, self.bias = dropout, bias
        self.add_zero_attn, self.batch_first = add_zero_attn, batch_first
        shapes = _shapes(self)
        topologies = _given(name, shapes, density, topologies, generator)
        place: dict[str, Any] = {"device": device, "dtype": dtype}
        for projection, (rows, columns) in shapes.items():
            layer: SparseLinear | nn.Linear
            if projection in topologies:
                layer = SparseLinear(
                    columns,
                    rows,
                    bias,
                    topology=topologies[projection],
                    compute=compute,
                    generator=generator,
                    **place,
                )
            else:
                layer = nn.Linear(columns, rows, bias, **place)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
            self.add_module(projection, layer)
        self.bias_k = self.bias_v = None
        if add_bias_kv:
            self.bias_k = nn.Parameter(torch.empty(1, 1, embed_dim, **place))
            self.bias_v = nn.Parameter(torch.empty(1, 1, embed_dim, **place))
            nn.init.xavier_normal_(self.bias_k, generator=generator)
            nn.init.xavier_normal_(self.bias_v, generator=generator)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend; arguments and results as torch's, whose shapes are those below.

        Args:
            query: ``[targets, batch, embed_dim]``, batch and targets exchanged with
                ``batch_first``, or without a batch.
            key: ``[sources, batch, kdim]``, likewise.
            value: ``[sources, batch, vdim]``, likewise.
            key_padding_mask: Keys to ignore, ``[batch, sources]``, true or minus infinity.
            need_weights: Whether to return the attention weights too; without is faster.
            attn_mask: ``[targets, sources]``, or one for each sample and head
                ``[batch * heads, targets, sources]``; true or minus infinity forbids.
            average_attn_weights: Whether the returned weights are those of all heads averaged.
            is_causal: Says that ``attn_mask`` is the causal one, which is then not looked at.

        Returns:
            Output ``[targets, batch, embed_dim]`` in the form of the query, and the weights
            ``[batch, targets, sources]``, with an axis of heads after the batch where they are not
            averaged; None where they were not asked for.

        Raises:
            ValueError: Inputs or masks are of another shape, or a causal hint comes without a mask.
        """
        batched = query.dim() == 3
        query, key, value = (self._batch_first(x, batched) for x in (query, key, value))
        self._check(query, key, value)
        if is_causal and attn_mask is None:
            raise ValueError("attn_mask of attention must be given where is_causal is, got None")
        q = self._heads(self.q_proj(query))
        k, v = self._with_bias(self.k_proj(key), self.v_proj(value))
        k, v = self._with_zeros(self._heads(k), self._heads(v))
        extra = k.shape[2] - key.shape[1]
        hinted = is_causal and key_padding_mask is None and not need_weights and not extra
        mask = None
        if not hinted:
            if key_padding_mask is not None and not batched:
                key_padding_mask = key_padding_mask.unsqueeze(0)
            mask = self._mask(attn_mask, key_padding_mask, q, key.shape[1], extra)
        dropout = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            scores = (q / math.sqrt(self.head_dim)) @ k.transpose(-2, -1)
            weights = torch.softmax(scores if mask is None else scores + mask, -1)
            weights = functional.dropout(weights, dropout)
            y = weights @ v
            weights = weights.mean(1) if average_attn_weights else weights
        else:
            y = functional.scaled_dot_product_attention(q, k, v, mask, dropout, is_causal=hinted)
        y = self.out_proj(y.transpose(1, 2).flatten(2))
        if not batched:
            return y.squeeze(0), None if weights is None else weights.squeeze(0)
        return y if self.batch_first else y.transpose(0, 1), weights

    def _batch_first(self, x: Tensor, batched: bool) -> Tensor:
        if x.is_nested or x.dim() != (3 if batched else 2):
            form = "nested" if x.is_nested else f"shape {tuple(x.shape)}"
            raise ValueError(
                f"query, key and value of {type(self).__name__} must all have a batch or all have "
                f"none, and not be nested, got {form}"
            )
        if not batched:
            return x.unsqueeze(0)
        return x if self.batch_first else x.transpose(0, 1)

    def _check(self, query: Tensor, key: Tensor, value: Tensor) -> None:
        sizes = (self.embed_dim, self.kdim, self.vdim)
        features = tuple(x.shape[-1] for x in (query, key, value))
        if features != sizes:
            raise ValueError(
                f"query, key and value of {type(self).__name__} must have {sizes} features, "
                f"got {features}"
            )
        if key.shape[:2] != value.shape[:2] or query.shape[0] != key.shape[0]:
            shapes = ", ".join(str(tuple(x.shape[:2])) for x in (query, key, value))
            raise ValueError(
                f"query, key and value of {type(self).__name__} must have one batch size, and key "
                f"and value one length, got (batch, length) {shapes}"
            )

    def _heads(self, x: Tensor) -> Tensor:
        """``[batch, length, embed_dim]`` as ``[batch, heads, length, head_dim]``."""
        return x.view(*x.shape[:-1], self.num_heads, self.head_dim).transpose(1, 2)

    def _with_bias(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        if self.bias_k is None or self.bias_v is None:
            return k, v
        batch = k.shape[0]
        return (
            torch.cat([k, self.bias_k.to(k.dtype).expand(batch, -1, -1)], 1),
            torch.cat([v, self.bias_v.to(v.dtype).expand(batch, -1, -1)], 1),
        )

    def _with_zeros(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        if not self.add_zero_attn:
            return k, v
        return functional.pad(k, (0, 0, 0, 1)), functional.pad(v, (0, 0, 0, 1))

    def _mask(
        self,
        attention: Tensor | None,
        padding: Tensor | None,
        q: Tensor,
        sources: int,
        extra: int,
    ) -> Tensor | None:
        """What is added to the scores ``[batch, heads, targets, sources]``, or None."""
        batch, heads, targets, _ = q.shape
        total: Tensor | None = None
        if attention is not None:
            single = (targets, sources)
            if attention.shape not in (single, (batch * heads, *single)):
                raise ValueError(
                    f"attn_mask of {type(self).__name__} must have shape {single} or "
                    f"{(batch * heads, *single)}, got {tuple(attention.shape)}"
                )
            total = _additive(attention, q.dtype)
            if total.dim() == 3:
                total = total.view(batch, heads, *single)
        if padding is not None:
            if padding.shape != (batch, sources):
                raise ValueError(
                    f"key_padding_mask of {type(self).__name__} must have shape "
                    f"{(batch, sources)}, got {tuple(padding.shape)}"
                )
            ignored = _additive(padding, q.dtype)[:, None, None, :]
            total = ignored if total is None else total + ignored
        return functional.pad(total, (0, extra)) if total is not None and extra else total

    def extra_repr(self) -> str:
        """Sizes and options that are not torch's defaults."""
        options = {
            "dropout": (self.dropout, 0.0),
            "bias": (self.bias, True),
            "add_bias_kv": (self.bias_k is not None, False),
            "add_zero_attn": (self.add_zero_attn, False),
            "kdim": (self.kdim, self.embed_dim),
            "vdim": (self.vdim, self.embed_dim),
            "batch_first": (self.batch_first, False),
        }
        told = [f", {name}={value}" for name, (value, usual) in options.items() if value != usual]
        return f"{self.embed_dim}, num_heads={self.num_heads}{''.join(told)}"


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    if mask.is_floating_point():
        return mask.to(dtype)
    zeros = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
    return zeros.masked_fill(mask, -torch.inf)


def _shapes(module: Any) -> dict[str, tuple[int, int]]:
    """Dense shape of every projection, of torch's module or the sparse one."""
    rows = module.embed_dim
    columns = (rows, module.kdim, module.vdim, rows)
    return {name: (rows, n) for name, n in zip(_PROJECTIONS, columns, strict=True)}


def _given(
    name: str,
    shapes: Mapping[str, tuple[int, int]],
    density: float | None,
    topologies: Mapping[str, Topology] | None,
    generator: torch.Generator | None,
) -> Mapping[str, Topology]:
    if (density is None) == (topologies is None):
        raise ValueError(f"{name} needs a density or topologies, not both or neither")
    if topologies is not None:
        if unknown := set(topologies) - set(shapes):
            raise ValueError(
                f"topologies of {name} must be of {', '.join(shapes)}, got {min(unknown)}"
            )
        return topologies
    assert density is not None
    check_density(density, name)
    return {
        projection: random_topology(
            shape, max(1, round(density * math.prod(shape))), generator=generator
        )
        for projection, shape in shapes.items()
    }


class _AttentionConversion:
    layout = None

    def shapes(self, module: nn.MultiheadAttention) -> dict[str, tuple[int, ...]]:
        return dict(_shapes(module))

    def parameters(self, module: nn.MultiheadAttention) -> tuple[str, ...]:
        if module.in_proj_weight is not None:
            return ("in_proj_weight",)
        return tuple(f"{name}_weight" for name in _PROJECTIONS[:3])

    def weights(self, module: nn.MultiheadAttention) -> dict[str, Tensor]:
        return {name: part.weight.detach() for name, part in _torch_parts(module).items()}

    def sparse(
        self, module: nn.MultiheadAttention, topologies: Mapping[str, Topology], start: Start
    ) -> SparseMultiheadAttention:
        weight = module.out_proj.weight
        layer = SparseMultiheadAttention(
            **_options(module),
            add_bias_kv=module.bias_k is not None,
            bias=module.in_proj_bias is not None,
            topologies=topologies,
            compute=start.compute,
            generator=start.generator,
            device=weight.device,
            dtype=weight.dtype,
        )
        new = start.values == "init"
        for name, theirs in _torch_parts(module).items():
            part: SparseLinear | nn.Linear = getattr(layer, name)
            if isinstance(part, SparseLinear):
                _fill(part.values, start.kept(theirs.weight, topologies[name]))
                part.values.requires_grad_(theirs.trained)
            else:
                _fill(part.weight, None if new else theirs.weight)
                part.weight.requires_grad_(theirs.trained)
            if theirs.bias is not None and part.bias is not None:
                _fill(part.bias, None if new else theirs.bias)
                part.bias.requires_grad_(theirs.bias_trained)
        layer.bias_k, layer.bias_v = _parameter(module.bias_k), _parameter(module.bias_v)
        return layer

    def dense(self, layer: SparseMultiheadAttention) -> nn.MultiheadAttention:
        first = next(layer.parameters())
        dense = nn.MultiheadAttention(
            **_options(layer), bias=layer.bias, device=first.device, dtype=first.dtype
        )
        trained: dict[str, bool] = {}
        for name, theirs in _torch_parts(dense).items():
            part: SparseLinear | nn.Linear = getattr(layer, name)
            held = part.values if isinstance(part, SparseLinear) else part.weight
            _fill(theirs.weight, part.weight)
            trained[theirs.weight_name] = (
                trained.get(theirs.weight_name, False) | held.requires_grad
            )
            if theirs.bias is not None and part.bias is not None:
                _fill(theirs.bias, part.bias)
                known = trained.get(theirs.bias_name, False)
                trained[theirs.bias_name] = known | part.bias.requires_grad
        # One parameter of torch's may hold those of three projections: frozen if all of them are.
        for name, parameter in dense.named_parameters():
            if name in trained:
                parameter.requires_grad_(trained[name])
        dense.bias_k, dense.bias_v = layer.bias_k, layer.bias_v
        return dense


@dataclass
class _Part:
    """One projection of torch's module: its weight and bias, as views of the parameters."""

    weight_name: str
    weight: Tensor
    trained: bool
    bias_name: str
    bias: Tensor | None
    bias_trained: bool


def _torch_parts(module: nn.MultiheadAttention) -> dict[str, _Part]:
    width = module.embed_dim
    packed = module.in_proj_weight is not None
    found = {}
    for i, name in enumerate(_PROJECTIONS):
        rows = slice(i * width, (i + 1) * width)
        if name == "out_proj":
            rows = slice(None)
            weight_name, bias_name = "out_proj.weight", "out_proj.bias"
            weight, bias = module.out_proj.weight, module.out_proj.bias
        else:
            weight_name = "in_proj_weight" if packed else f"{name}_weight"
            weight, bias_name = getattr(module, weight_name), "in_proj_bias"
            bias = module.in_proj_bias
        found[name] = _Part(
            weight_name,
            weight.detach()[rows if packed else slice(None)],
            weight.requires_grad,
            bias_name,
            None if bias is None else bias.detach()[rows],
            bias is not None and bias.requires_grad,
        )
    return found


def _options(module: Any) -> dict[str, Any]:
    """What both kinds take to be made."""
    words = ("embed_dim", "num_heads", "dropout", "add_zero_attn", "kdim", "vdim", "batch_first")
    return {word: getattr(module, word) for word in words}


def _parameter(held: Tensor | None) -> nn.Parameter | None:
    assert held is None or isinstance(held, nn.Parameter)
    return held


def _fill(held: Tensor, content: Tensor | None) -> None:
    if content is not None:
        with torch.no_grad():
            held.copy_(content)


register(nn.MultiheadAttention, SparseMultiheadAttention, _AttentionConversion())
