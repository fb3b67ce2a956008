"""Masked attention for inference on a CPU, by plain matrix products.

Owns: an attention implementation for `transformers` and when it may be used. Does not know: which model it serves.

PyTorch's CPU kernel for scaled dot-product attention copies grouped keys and values once per query head, and is slow
for short queries: for one new token in each of 64 rows with 190 tokens behind it, 6.8 ms a layer in bfloat16, where
products over the groups take 0.6 ms (docs/decisions/0008).
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

__all__ = ["GROUPED", "attend_grouped", "grouped_attention", "use_grouped_attention"]

log = logging.getLogger(__name__)

GROUPED = "jupiter_grouped"

# Features that some models ask of their attention and that this one does not have. A sliding window comes in the mask.
_UNSUPPORTED = ("softcap", "s_aux", "position_bias")


def grouped_attention(
    module: Any,  # noqa: ARG001 - transformers' interface
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Attend; tensors are (batch, heads, tokens, width), the mask is added to the scores.

    Raises NotImplementedError for a model that asks for more.
    """
    asked = [name for name in _UNSUPPORTED if options.get(name) is not None]
    if asked:
        raise NotImplementedError(f"grouped attention has no {', '.join(asked)}")
    attended = attend_grouped(query, key, value, attention_mask, scaling=scaling, dropout=dropout)
    return attended.transpose(1, 2).contiguous(), None


def attend_grouped(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
) -> torch.Tensor:
    """Return softmax(query · key + mask) · value, (batch, heads, tokens, width).

    Keys and values may have fewer heads than the query: each serves a group of them.
    """
    batch, heads, tokens, width = query.shape
    groups = key.shape[1]
    scale = width**-0.5 if scaling is None else scaling
    # The queries of one group lie behind each other, so that one product serves them all.
    together = (query * scale).reshape(batch, groups, heads // groups * tokens, width)
    scores = torch.matmul(together, key.transpose(-1, -2)).view(batch, heads, tokens, -1)
    if mask is not None:
        scores = scores + mask[..., : scores.shape[-1]]
    weights = scores.softmax(dim=-1, dtype=torch.float32).to(value.dtype)
    if dropout:
        weights = torch.nn.functional.dropout(weights, dropout)
    grouped = weights.view(batch, groups, heads // groups * tokens, -1)
    return torch.matmul(grouped, value).view(batch, heads, tokens, width)


def use_grouped_attention(model: Any) -> bool:
    """Switch `model` to grouped attention if it asks for nothing more; return whether it does.

    What runs as `sdpa` is softmax(q · k + mask) · v and nothing else, or passes an option that is refused here.
    """
    before = model.config._attn_implementation
    if before != "sdpa":
        return False
    try:
        model.set_attn_implementation(GROUPED)
        with torch.inference_mode():
            model(input_ids=torch.zeros((1, 2), dtype=torch.long, device=model.device), use_cache=False)
    except (NotImplementedError, TypeError, ValueError) as error:
        log.info("attention stays %s: %s", before, error)
        model.set_attn_implementation(before)
        return False
    return True


AttentionInterface.register(GROUPED, grouped_attention)
AttentionMaskInterface.register(GROUPED, eager_mask)
