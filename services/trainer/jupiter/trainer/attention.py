"""Attention inside each sample of a packed row, and nothing computed between samples.

Owns: an attention implementation for `transformers`, and the proof, for a given model, that it changes no result.
Does not know: training.

`sdpa` with a block-diagonal mask is exact as well, but computes a row's whole square: with samples of a hundred tokens
in rows of 512, five times the work. Here each sample is its own causal call. Measured: docs/decisions/0007.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv

from jupiter.trainer.packing import Encoded, Row, pack

__all__ = ["PER_SAMPLE", "probe_row", "sample_attention"]

PER_SAMPLE = "jupiter_per_sample"

# Features that some models ask of their attention and that this one does not have.
_UNSUPPORTED = ("sliding_window", "softcap", "s_aux", "position_bias")


def sample_attention(
    module: Any,  # noqa: ARG001 - transformers' interface
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    sample_lengths: tuple[int, ...],
    scaling: float | None = None,
    dropout: float = 0.0,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Attend causally inside each of the consecutive samples of one row; tensors are (1, heads, tokens, width).

    Raises NotImplementedError for a model that asks for more than causal attention.
    """
    asked = [name for name in _UNSUPPORTED if options.get(name) is not None]
    if asked or attention_mask is not None:
        raise NotImplementedError(f"attention per sample has no {', '.join(asked) or 'mask'}")
    lengths = list(sample_lengths)
    groups = query.shape[1] // key.shape[1]
    pieces = zip(
        torch.split(query, lengths, dim=2),
        torch.split(repeat_kv(key, groups), lengths, dim=2),
        torch.split(repeat_kv(value, groups), lengths, dim=2),
        strict=True,
    )
    outputs = [
        functional.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True, scale=scaling)
        for q, k, v in pieces
    ]
    return torch.cat(outputs, dim=2).transpose(1, 2).contiguous(), None


def probe_row() -> Row:
    """Return a small row of unequal samples, on which an implementation can be compared with another."""
    samples = [
        Encoded(sample_id=str(length), tokens=tuple((3 * length + place) % 61 + 3 for place in range(length)))
        for length in (5, 2, 11, 7)
    ]
    (row,) = pack(samples, length=32)
    return row


def _no_mask(*_: Any, **__: Any) -> None:
    """Samples are kept apart by their lengths."""


AttentionInterface.register(PER_SAMPLE, sample_attention)
AttentionMaskInterface.register(PER_SAMPLE, _no_mask)
