"""After the flip: does what the new version makes fall behind what the old one made?

Owns: the comparison of a promoted version's first shards with the last ones of the version before, and the record that
justifies a rollback. Pure.
Does not know: how a rollback is written (`flips`), nor whether anybody serves the version (`watch`).

Looked at are the first `aftermath_shards` shards and no later ones, so that the answer never changes afterwards: a
version is rolled back for how it began or not at all by this rule; what comes later is the breaker's.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from jupiter.config.sections import DiversitySection
from jupiter.controller.diversity import SHARDS_MIN, Figure, compare, measured
from jupiter.events import ShardCurated
from jupiter.ledger import LedgerEntry
from jupiter.records import SharedRecord

__all__ = ["Acceptance", "Failure", "failure_of"]

CERTAIN_SD = 1.645
"""One-sided 95 %."""


class Acceptance(SharedRecord):
    """What the curator accepted of one version's shards."""

    accepted: int
    eligible: int
    """Samples judged by what they say: not turned away because a cap was full, nor because earlier ones say it too."""
    share: float
    standard_error: float
    """The larger of the binomial one and the one between shards: documents of a batch cluster."""


class Failure(SharedRecord):
    """Why a promoted version must go: the evidence of the rollback."""

    reason: str
    version: int
    previous_version: int
    shards: tuple[str, ...]
    """The new version's first shards."""
    previous_shards: tuple[str, ...]
    acceptance: Acceptance
    previous_acceptance: Acceptance
    acceptance_drop_lower: float
    """What acceptance has dropped by at least, at 95 %."""
    figures: tuple[Figure, ...]
    """The new version's figures beside the old one's."""


def failure_of(shards: Sequence[ShardCurated], live: LedgerEntry, settings: DiversitySection) -> Failure | None:
    """Return why the live promotion must be rolled back; None while there are too few shards, and when all is well.

    `shards` in stream order; of the live version only those that were made since this flip.
    """
    if live.action != "promoted" or live.previous_version is None:
        return None
    carrying = [shard for shard in shards if measured(shard)]
    first = next((place for place, one in enumerate(carrying) if one.generator_version == live.version), None)
    if first is None:
        return None
    size = settings.aftermath_shards
    new = [shard for shard in carrying[first:] if shard.generator_version == live.version][:size]
    # What the old version delivers after the new one began would make the answer depend on when it is asked.
    old = [shard for shard in carrying[:first] if shard.generator_version == live.previous_version]
    if len(new) < size or len(old) < SHARDS_MIN:
        return None
    accepted, accepted_before = _acceptance(new), _acceptance(old[-size:])
    drop = accepted_before.share - accepted.share
    lower = drop - CERTAIN_SD * math.hypot(accepted.standard_error, accepted_before.standard_error)
    figures = compare(new, old[-size:], before=old, settings=settings, adjacent=True)
    past = _past_running(new, old, settings)
    reasons = [figure.line for figure in figures if figure.name in past]
    if lower > settings.acceptance_drop_max:
        reasons.insert(
            0,
            f"{accepted.share:.1%} of its samples are accepted, of version {live.previous_version} "
            f"{accepted_before.share:.1%} were: at least {lower:.1%} less (bound {settings.acceptance_drop_max:.1%})",
        )
    if not reasons:
        return None
    return Failure(
        reason=f"the first {size} shards of version {live.version} fall behind: {'; '.join(reasons)}",
        version=live.version,
        previous_version=live.previous_version,
        shards=tuple(shard.shard_id for shard in new),
        previous_shards=tuple(shard.shard_id for shard in old[-size:]),
        acceptance=accepted,
        previous_acceptance=accepted_before,
        acceptance_drop_lower=round(lower, 6),
        figures=figures,
    )


def _past_running(new: Sequence[ShardCurated], old: Sequence[ShardCurated], settings: DiversitySection) -> set[str]:
    """Return the figures past their bounds at the last `shards_running_rollback` of the new version's shards."""
    ends = range(len(new), max(SHARDS_MIN, len(new) - settings.shards_running_rollback + 1) - 1, -1)
    size = settings.aftermath_shards
    running = [compare(new[:end], old[-size:], before=old, settings=settings, adjacent=True) for end in ends]
    if len(running) < settings.shards_running_rollback:
        return set()
    return set.intersection(*({figure.name for figure in figures if figure.past} for figures in running))


def _acceptance(shards: Sequence[ShardCurated]) -> Acceptance:
    counts = [_counts(shard) for shard in shards]
    accepted, eligible = (sum(side) for side in zip(*counts, strict=True))
    share = accepted / eligible if eligible else 0.0
    # One more of either outcome: none of eight is not a certain 0.
    smoothed = (accepted + 1) / (eligible + 2)
    binomial = math.sqrt(smoothed * (1 - smoothed) / max(1, eligible))
    shares = [one / all_ for one, all_ in counts if all_]
    between = statistics.stdev(shares) / math.sqrt(len(shares)) if len(shares) > 1 else 0.0
    return Acceptance(
        accepted=accepted, eligible=eligible, share=round(share, 6), standard_error=round(max(binomial, between), 6)
    )


def _counts(shard: ShardCurated) -> tuple[int, int]:
    eligible = round(shard.diversity.get("eligible", shard.candidates))
    share = shard.diversity.get("acceptance", shard.accepted / max(1, shard.candidates))
    return round(share * eligible), eligible
