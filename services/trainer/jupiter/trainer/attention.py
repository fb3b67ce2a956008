"""Attention inside each sample of a packed row, and nothing computed between samples.

Owns: an attention implementation for `transformers`, and the proof, for a given model, that it changes no result.
Does not know: training.

`sdpa` with a block-diagonal mask is exact as well, but computes a row's whole square: with samples of a hundred tokens
in rows of 512, five times the work. Here samples of like length become a batch, padded to the longest, of causal
attention by plain matrix products. Measured: docs/decisions/0007, 0008.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface

from jupiter.modeling.attention import attend_grouped
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
    batches, back = _layout(sample_lengths, query.device)
    attended = [_attend(query, key, value, batch, scaling=scaling, dropout=dropout) for batch in batches]
    return torch.cat(attended)[back].unsqueeze(0), None


@dataclass(frozen=True)
class _Batch:
    """Samples of a row that are attended together, padded behind to the longest, where causality hides the padding."""

    gather: torch.Tensor
    """The place in the row of each token of the batch, samples x longest."""
    kept: torch.Tensor
    """The tokens of the flat batch that are not padding."""
    blocked: torch.Tensor
    """Which keys a query must not see, longest x longest."""


def _attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, batch: _Batch, *, scaling: float | None, dropout: float
) -> torch.Tensor:
    """Return the attended tokens of one batch, (tokens, heads, width), sample after sample."""
    # (1, heads, tokens, width) -> (samples, heads, longest, width)
    queries, keys, values = (part[0].transpose(0, 1)[batch.gather].transpose(1, 2) for part in (query, key, value))
    mask = query.new_zeros(batch.blocked.shape).masked_fill_(batch.blocked, float("-inf"))
    attended = attend_grouped(queries, keys, values, mask, scaling=scaling, dropout=dropout)
    return attended.transpose(1, 2).flatten(0, 1)[batch.kept]


@lru_cache(maxsize=64)
def _layout(lengths: tuple[int, ...], device: torch.device) -> tuple[tuple[_Batch, ...], torch.Tensor]:
    """Return the batches of a row, and for each place of the row where its token is in their concatenation.

    Samples of like length go together (by powers of two), so padding at most quadruples a product of two lengths.
    """
    alike: dict[int, list[int]] = {}
    for number, length in enumerate(lengths):
        alike.setdefault((length - 1).bit_length(), []).append(number)
    counts = torch.tensor(lengths)
    begins = counts.cumsum(0) - counts
    batches, places = [], []
    for _, members in sorted(alike.items()):
        longest = max(lengths[number] for number in members)
        within = torch.arange(longest)
        gather = (begins[members, None] + within).clamp(max=int(counts.sum()) - 1)
        kept = (within < counts[members, None]).flatten().nonzero()[:, 0]
        blocked = torch.ones((longest, longest), dtype=torch.bool).triu(diagonal=1)
        batches.append(_Batch(gather.to(device), kept.to(device), blocked.to(device)))
        places.append(gather.flatten()[kept])
    return tuple(batches), torch.cat(places).argsort().to(device)


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
