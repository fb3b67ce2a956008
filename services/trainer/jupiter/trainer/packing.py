"""Pack tokenised samples into rows without padding, and rows into optimizer steps.

Owns: which token stands where, its position inside its own sample, and which positions carry a loss.
Does not know: text, tokenizers, tensors. All functions are pure.

A row is several samples end to end. Each keeps positions 0, 1, 2 … of its own, from which the model derives that a
token sees only its own sample; so a packed sample's loss equals its loss alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Encoded", "Row", "divide", "pack"]


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """One sample as tokens. Tokens before `learned_from` are read but not learned; at least one is learned."""

    sample_id: str
    piece: int = 0
    """A document longer than the sequence length is several pieces."""
    tokens: tuple[int, ...]
    learned_from: int = 1

    def __post_init__(self) -> None:
        assert 1 <= self.learned_from < len(self.tokens), (self.learned_from, len(self.tokens))  # noqa: S101


@dataclass(frozen=True, kw_only=True)
class Row:
    """One micro-batch: samples end to end."""

    tokens: tuple[int, ...]
    positions: tuple[int, ...]
    lengths: tuple[int, ...]
    """Tokens of each sample, in order."""
    loss_at: tuple[int, ...]
    """Places in the row whose next token is learned."""
    targets: tuple[int, ...]
    """That next token, for each place of `loss_at`."""


def divide(samples: Sequence[Encoded], *, tokens_per_step: int) -> tuple[tuple[Encoded, ...], ...]:
    """Cut `samples`, in order, into steps of about `tokens_per_step` tokens, all nearly equal.

    Nearly equal, so that the last step of a shard is no scrap with a noisy gradient and a full learning rate.
    """
    total = sum(len(sample.tokens) for sample in samples)
    count = max(1, round(total / tokens_per_step))
    steps: list[list[Encoded]] = [[] for _ in range(count)]
    before = 0
    for sample in samples:
        middle = before + len(sample.tokens) / 2
        steps[int(middle * count / total)].append(sample)
        before += len(sample.tokens)
    return tuple(tuple(step) for step in steps if step)


def pack(samples: Sequence[Encoded], *, length: int) -> tuple[Row, ...]:
    """Put `samples`, in order, into rows of at most `length` tokens. Raises ValueError for a sample that is longer."""
    rows: list[list[Encoded]] = []
    room = 0
    for sample in samples:
        if len(sample.tokens) > length:
            raise ValueError(f"sample {sample.sample_id} has {len(sample.tokens)} tokens, a row holds {length}")
        if len(sample.tokens) > room:
            rows.append([])
            room = length
        rows[-1].append(sample)
        room -= len(sample.tokens)
    return tuple(_row(row) for row in rows)


def _row(samples: Sequence[Encoded]) -> Row:
    tokens: list[int] = []
    positions: list[int] = []
    loss_at: list[int] = []
    for sample in samples:
        begin = len(tokens)
        tokens += sample.tokens
        positions += range(len(sample.tokens))
        loss_at += range(begin + sample.learned_from - 1, len(tokens) - 1)
    return Row(
        tokens=tuple(tokens),
        positions=tuple(positions),
        lengths=tuple(len(sample.tokens) for sample in samples),
        loss_at=tuple(loss_at),
        targets=tuple(tokens[place + 1] for place in loss_at),
    )
