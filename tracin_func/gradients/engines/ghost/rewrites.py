"""Operations of several steps, written out as steps that have rules, with the items first."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    training: bool = True,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Tensor | None = None,
    k_proj_weight: Tensor | None = None,
    v_proj_weight: Tensor | None = None,
    static_k: Tensor | None = None,
    static_v: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor | None] | None:
    """`F.multi_head_attention_forward`, which takes positions first; None for its rare settings.

    query [positions, items, features] -> output alike, and weights [items, (heads,) positions, positions of the key].
    """
    rare = add_zero_attn or any(extra is not None for extra in (bias_k, bias_v, static_k, static_v))
    if query.ndim != 3 or rare or (training and dropout_p > 0) or (is_causal and attn_mask is None):
        return None
    first = [part.transpose(0, 1) for part in (query, key, value)]
    if in_proj_weight is not None and not use_separate_proj_weight and query is key is value:
        projected: Iterable[Tensor] = F.linear(first[0], in_proj_weight, in_proj_bias).chunk(3, dim=-1)
    else:
        weights: Sequence[Any] = (q_proj_weight, k_proj_weight, v_proj_weight)
        if in_proj_weight is not None and not use_separate_proj_weight:
            weights = in_proj_weight.chunk(3)
        biases: Sequence[Any] = (None, None, None) if in_proj_bias is None else in_proj_bias.chunk(3)
        projected = [F.linear(*parts) for parts in zip(first, weights, biases, strict=True)]
    q, k, v = (part.unflatten(-1, (num_heads, -1)).transpose(1, 2) for part in projected)
    mask = _added(attn_mask, key_padding_mask, num_heads, q)
    if need_weights:
        logits = (q * math.sqrt(1 / q.shape[-1])) @ k.transpose(2, 3)
        attended = torch.softmax(logits if mask is None else logits + mask, dim=-1)
        mixed = attended @ v
        seen = attended.mean(dim=1) if average_attn_weights else attended
    else:
        mixed, seen = F.scaled_dot_product_attention(q, k, v, mask), None
    return F.linear(mixed.transpose(1, 2).flatten(2), out_proj_weight, out_proj_bias).transpose(0, 1), seen


def _added(attn_mask: Tensor | None, padded: Tensor | None, heads: int, like: Tensor) -> Tensor | None:
    """What is added to the logits [items, heads, positions, positions of the key]; −inf hides a position."""
    mask = None if attn_mask is None else _as_float(attn_mask, like)
    if mask is not None and mask.ndim == 3:
        mask = mask.unflatten(0, (-1, heads)) if len(mask) != 1 else mask[None]
    if padded is None:
        return mask
    hidden = _as_float(padded, like)[:, None, None, :]
    return hidden if mask is None else mask + hidden


def _as_float(mask: Tensor, like: Tensor) -> Tensor:
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill(mask, -math.inf)


REWRITES: dict[Any, Callable[..., Any]] = {F.multi_head_attention_forward: attention}
