"""The order in which shards are trained: a pure function of the seed and of the shards consumed.

Owns: which shards take part in a round, and the steps of it. Does not know: when a shard arrives, models, stores.

Each shard that arrives begins one round. It is trained on in `passes` rounds: its own and, `spacing` shards apart,
later ones, where its samples mix with newer ones (repetition that is spaced is forgotten less than repetition at once).
With `spacing` 0 all passes follow each other in its own round.

    passes 3, spacing 1:   round 1: A    round 2: B A    round 3: C B A    round 4: D C B    …
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jupiter.records import Record, digest_of
from jupiter.trainer.packing import Encoded, Row, divide, pack

__all__ = ["ConsumedShard", "RoundPlan", "keep_window", "laps_of", "plan_round", "shards_of_round"]


class ConsumedShard(Record):
    """One shard of the log: enough to fetch it again after a restart."""

    sequence: int
    """Its sequence in the stream: the trainer's offset."""
    shard_id: str
    manifest_key: str
    manifest_sha256: str


@dataclass(frozen=True, kw_only=True)
class RoundPlan:
    """The optimizer steps of one round, each a tuple of rows."""

    steps: tuple[tuple[Row, ...], ...]


def shards_of_round(
    window: Sequence[ConsumedShard], *, passes: int, spacing: int
) -> tuple[tuple[ConsumedShard, int], ...]:
    """Return the shards of the round that the newest of `window` begins, newest first, with the passes each makes."""
    if spacing == 0:
        return ((window[-1], passes),)
    return tuple((shard, 1) for shard in tuple(window)[::-1][::spacing][:passes])


def keep_window(window: Sequence[ConsumedShard], *, passes: int, spacing: int) -> tuple[ConsumedShard, ...]:
    """Return the newest shards that a later round may still need."""
    return tuple(window)[-((passes - 1) * spacing + 1) :]


def laps_of(shards: Sequence[tuple[ConsumedShard, int]]) -> tuple[tuple[str, ...], ...]:
    """Return the shard ids of each lap: samples mix inside a lap, and no lap holds a shard twice."""
    laps = max((passes for _, passes in shards), default=0)
    return tuple(tuple(shard.shard_id for shard, passes in shards if lap < passes) for lap in range(laps))


def plan_round(
    laps: Sequence[Sequence[str]],
    samples: Mapping[str, Sequence[Encoded]],
    *,
    seed: int,
    tokens_per_step: int,
    sequence_length: int,
) -> RoundPlan:
    """Return the steps of a round. `laps` names shards whose `samples` are given by shard id."""
    order: list[Encoded] = []
    for number, lap in enumerate(laps):
        drawn = [
            (digest_of(seed, number, lap[0], shard, s.sample_id, s.piece), s) for shard in lap for s in samples[shard]
        ]
        order += [sample for _, sample in sorted(drawn, key=lambda pair: pair[0])]
    steps = divide(order, tokens_per_step=tokens_per_step)
    return RoundPlan(steps=tuple(pack(step, length=sequence_length) for step in steps))
