"""How much real data stands beside the synthetic in one shard.

Owns: the choice, as a pure function of token counts and earlier uses. Does not know: texts, stores, shards.

Laws (tests/unit/curator/test_mix.py): the real share by tokens of a shard that is not empty is within 30-40 %; no real
sample is used more often than allowed over the run, nor twice in a shard; unused real samples come first; the same
input gives the same shard; nothing is in the shard that was not offered.

Real data that is used up is missing for every batch, so a batch waits for more. Where real samples are there and no
choice of them fits, most often because each is too long, the batch is too small: the next one may be larger, and one
that waited would hold up all others, those of a bad version too, which is rolled back for what became of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ["RATIO_PERCENT_MAX", "RATIO_PERCENT_MIN", "Mixed", "Portion", "mix"]

RATIO_PERCENT_MIN, RATIO_PERCENT_MAX = 30, 40
"""The customer's bounds. Whole percents, so that the check is exact in integers."""


@dataclass(frozen=True)
class Portion:
    """One sample as far as mixing is concerned."""

    sample_id: str
    tokens: int


@dataclass(frozen=True, kw_only=True)
class Mixed:
    """What goes into the shard.

    `empty`: no synthetic sample was offered. `hold`: so much of the real data is used up that the rest is too little
    for even the best of them; mix again later. `nothing_fits`: no choice of the rest gives a share within bounds.
    """

    outcome: Literal["mixed", "empty", "hold", "nothing_fits"]
    synthetic: tuple[str, ...] = ()
    real: tuple[str, ...] = ()
    trimmed: tuple[str, ...] = ()
    """Synthetic samples left out so that the ratio holds."""


def mix(
    synthetic: Sequence[Portion],
    real: Sequence[Portion],
    *,
    uses: Mapping[str, int],
    target: float,
    repeats_max: int,
) -> Mixed:
    """Choose real samples for the synthetic ones, which come best first: the last are trimmed when real is short.

    `target` is the real share aimed at (0.30-0.40); `uses` counts how often each real sample was used before.
    """
    if not synthetic:
        return Mixed(outcome="empty")
    available = sorted(
        (portion for portion in real if uses.get(portion.sample_id, 0) < repeats_max),
        key=lambda portion: (uses.get(portion.sample_id, 0), _shuffled(portion.sample_id)),
    )
    if not available or (_suffices(real, synthetic[0]) and not _suffices(available, synthetic[0])):
        return Mixed(outcome="hold")
    orders = _orders(available)
    kept = list(synthetic)
    while kept:
        synthetic_tokens = sum(portion.tokens for portion in kept)
        chosen = _fill(orders, synthetic_tokens, target)
        if chosen is not None:
            trimmed = tuple(portion.sample_id for portion in synthetic[len(kept) :])
            return Mixed(
                outcome="mixed",
                synthetic=tuple(portion.sample_id for portion in kept),
                real=tuple(portion.sample_id for portion in chosen),
                trimmed=trimmed,
            )
        kept.pop()
    return Mixed(outcome="nothing_fits", trimmed=tuple(portion.sample_id for portion in synthetic))


def _shuffled(sample_id: str) -> bytes:
    """Order samples of equal use as if by chance, the same everywhere: neighbours in a manual are alike."""
    return hashlib.sha256(f"mix:{sample_id}".encode()).digest()


def _suffices(real: Sequence[Portion], synthetic: Portion) -> bool:
    """Return whether all of the real samples together reach the least share beside one synthetic sample."""
    return _share_at_least_min(sum(portion.tokens for portion in real), synthetic.tokens)


def _orders(available: Sequence[Portion]) -> tuple[Sequence[Portion], ...]:
    """Return the orders in which a choice is tried: least used first, longest first, shortest first.

    The longest first find the one long sample that fits where several short ones leave a gap that none of the rest fits
    into; the shortest first find the several where a long one leaves such a gap.
    """
    return (
        available,
        sorted(available, key=lambda portion: -portion.tokens),
        sorted(available, key=lambda portion: portion.tokens),
    )


def _fill(orders: Sequence[Sequence[Portion]], synthetic_tokens: int, target: float) -> list[Portion] | None:
    """Return real samples that bring the share within bounds; None when no choice was found in any of the orders."""
    choices = (_greedy(ordered, synthetic_tokens, target) for ordered in orders)
    return next((chosen for chosen in choices if chosen is not None), None)


def _greedy(ordered: Sequence[Portion], synthetic_tokens: int, target: float) -> list[Portion] | None:
    goal = synthetic_tokens * target / (1 - target)
    chosen: list[Portion] = []
    tokens = 0
    for portion in ordered:
        if tokens >= goal:
            break
        if _share_at_most_max(tokens + portion.tokens, synthetic_tokens):
            chosen.append(portion)
            tokens += portion.tokens
    return chosen if _share_at_least_min(tokens, synthetic_tokens) else None


def _share_at_least_min(real_tokens: int, synthetic_tokens: int) -> bool:
    return 100 * real_tokens >= RATIO_PERCENT_MIN * (real_tokens + synthetic_tokens)


def _share_at_most_max(real_tokens: int, synthetic_tokens: int) -> bool:
    return 100 * real_tokens <= RATIO_PERCENT_MAX * (real_tokens + synthetic_tokens)
