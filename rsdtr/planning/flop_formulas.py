"""FLOPs of operations that torch's own counter has no formula for: 2 for a multiply-accumulate.

Each takes the arguments of the operation, with shapes in place of tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch

aten = torch.ops.aten
Shape = Sequence[int]


def _trilinear(one: Shape, weight: Shape, *_: Any, **__: Any) -> int:
    """nn.Bilinear: (B, I), (O, I, J), (B, J)."""
    return 2 * one[0] * prod(weight)


def _attention(query: Shape, key: Shape, value: Shape, *_: Any, **__: Any) -> int:
    """Scores and sums of (…, L, E), (…, S, E), (…, S, V)."""
    return 2 * prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def _self_attention(query: Shape, *_: Any, **__: Any) -> int:
    """A whole nn.MultiheadAttention of (B, L, E): four projections, scores and sums."""
    batch, length, width = query
    return 2 * batch * (4 * length * width**2 + 2 * length**2 * width)


def _encoder_layer(source: Shape, *args: Any, **__: Any) -> int:
    """A whole nn.TransformerEncoderLayer: attention, and linear layers to `hidden` and back."""
    batch, length, width = source
    (hidden, _) = args[13]
    return _self_attention(source) + 2 * batch * length * 2 * width * hidden


def _recurrent(source: Shape, inner: Shape, hidden: Shape, *_: Any, **__: Any) -> int:
    """One layer and direction of an nn.LSTM over (L, B, I)."""
    return 2 * source[0] * source[1] * (prod(inner) + prod(hidden))


FORMULAS: dict[Any, Callable[..., int]] = {
    aten._trilinear: _trilinear,
    aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    aten._native_multi_head_attention: _self_attention,
    aten._transformer_encoder_layer_fwd: _encoder_layer,
    aten.mkldnn_rnn_layer: _recurrent,
}
# Of which the product with one layer's kernel is only a part.
SEVERAL_PRODUCTS = (aten._native_multi_head_attention, aten._transformer_encoder_layer_fwd)
