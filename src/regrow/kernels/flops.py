"""FLOPs of torch's operators for CPUs that its counter takes for nothing.

With them ``torch.utils.flop_counter.FlopCounterMode`` is right for attention and for dense LSTMs on
a CPU, as it is on a GPU. An operator that torch has a formula for by now keeps that one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import (
    flop_registry,
    register_flop_formula,
    sdpa_backward_flop_count,
    sdpa_flop_count,
)


def _attention(query, key, value, *args, **kwargs) -> int:  # type: ignore[no-untyped-def]
    """Two products; the forbidden half of causal ones counts, as torch counts it."""
    return int(sdpa_flop_count(query, key, value))


def _attention_backward(grad, query, key, value, *args, **kwargs) -> int:  # type: ignore[no-untyped-def]
    """Five products, one of them done again."""
    return int(sdpa_backward_flop_count(grad, query, key, value))


def _lstm(x, into, onward, *args, **kwargs) -> int:  # type: ignore[no-untyped-def]
    """Products of all steps with both weights of one layer and direction."""
    return int(2 * x[0] * x[1] * (into[0] * into[1] + onward[0] * onward[1]))


def _lstm_backward(x, into, onward, *args, **kwargs) -> int:  # type: ignore[no-untyped-def]
    return 2 * _lstm(x, into, onward)


def _register(name: str, formula: Callable[..., Any]) -> None:
    operator = getattr(torch.ops.aten, name, None)
    if operator is not None and operator not in flop_registry:
        register_flop_formula(operator)(formula)


_register("_scaled_dot_product_flash_attention_for_cpu", _attention)
_register("_scaled_dot_product_flash_attention_for_cpu_backward", _attention_backward)
_register("mkldnn_rnn_layer", _lstm)
_register("mkldnn_rnn_layer_backward", _lstm_backward)
