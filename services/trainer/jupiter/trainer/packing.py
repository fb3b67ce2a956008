"""Pack tokenised samples into rows without padding, rows into optimizer steps, and deal a step's rows to ranks.

Owns: which token stands where, its position inside its own sample, and which positions carry a loss.
Does not know: text, tokenizers, tensors. All functions are pure.

A row is several samples end to end. Each keeps positions 0, 1, 2 … of its own, from which the model derives that a
token sees only its own sample; so a packed sample's loss equals its loss alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

__all__ = ["Encoded", "Row", "deal", "divide", "pack"]


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


def deal(rows: Sequence[Row], *, ranks: int) -> tuple[tuple[Row, ...], ...]:
    """Give each rank its part of a step: equally many rows, about equally many tokens, every sample in one of them.

    Ranks meet in every forward and backward pass, so none may have a row more. Who has fewer cuts the longest between
    two samples; where nothing can be cut, there is a row on which nothing is learned.
    """
    if ranks == 1:
        return (tuple(rows),)
    length = max(_size(row) for row in rows)
    samples = [_part(row, place, place + 1) for row in rows for place in range(len(row.lengths))]
    total, before = sum(map(_size, samples)), 0
    hands: list[list[Row]] = [[] for _ in range(ranks)]
    for sample in samples:
        hand = hands[int((before + _size(sample) / 2) * ranks / total)]
        before += _size(sample)
        if hand and _size(hand[-1]) + _size(sample) <= length:
            hand[-1] = _joined(hand[-1], sample)
        else:
            hand.append(sample)
    most = max(map(len, hands))
    return tuple(_stretched(hand, most) for hand in hands)


_IDLE = Row(tokens=(0, 0), positions=(0, 1), lengths=(2,), loss_at=(), targets=())


def _size(row: Row) -> int:
    return len(row.tokens)


def _stretched(rows: Sequence[Row], count: int) -> tuple[Row, ...]:
    """Return the same samples in so many rows."""
    stretched = list(rows)
    while len(stretched) < count:
        cuttable = [row for row in stretched if len(row.lengths) > 1]
        if cuttable:
            longest = max(cuttable, key=_size)
            place = stretched.index(longest)
            stretched[place : place + 1] = _halves(longest)
        else:
            stretched.append(_IDLE)
    return tuple(stretched)


def _halves(row: Row) -> tuple[Row, Row]:
    """Cut a row between the two samples that are nearest to its middle."""
    ends = list(accumulate(row.lengths))
    place = min(range(1, len(ends)), key=lambda place: abs(2 * ends[place - 1] - ends[-1]))
    return _part(row, 0, place), _part(row, place, len(ends))


def _part(row: Row, first: int, last: int) -> Row:
    """Return the samples `first` up to `last`, which is not among them."""
    begin, end = sum(row.lengths[:first]), sum(row.lengths[:last])
    learned = [(at - begin, target) for at, target in zip(row.loss_at, row.targets, strict=True) if begin <= at < end]
    return Row(
        tokens=row.tokens[begin:end],
        positions=row.positions[begin:end],
        lengths=row.lengths[first:last],
        loss_at=tuple(at for at, _ in learned),
        targets=tuple(target for _, target in learned),
    )


def _joined(row: Row, other: Row) -> Row:
    return Row(
        tokens=row.tokens + other.tokens,
        positions=row.positions + other.positions,
        lengths=row.lengths + other.lengths,
        loss_at=row.loss_at + tuple(_size(row) + at for at in other.loss_at),
        targets=row.targets + other.targets,
    )


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
