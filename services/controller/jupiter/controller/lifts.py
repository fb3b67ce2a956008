"""What would raise the ceiling, read off figures that were measured.

Owns: the diagnoses, one function each, and their bounds. Does not know: whether there is a plateau (`plateau`), nor
where the figures come from.

Adding a diagnosis is adding a function to `_DIAGNOSES`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Literal

from pydantic import Field

from jupiter.config.sections import SelfImprovementSection
from jupiter.controller.trends import rise_p_value, slope
from jupiter.records import Record

__all__ = ["Facts", "Lift", "Stall", "lifts"]

REAL_USES_LOW = 0.10
"""Share of the allowed uses of real samples: with less left, the curator soon holds for want of real data."""
ACCEPTANCE_LOW = 0.25
"""Three of four generated samples are thrown away."""
REPEATS_SHARE = 0.30
"""Of the refused samples: so many repeat what is there already."""
REPEATS = ("exact_duplicate", "near_duplicate", "not_novel", "document_cap")
"""Reasons, by their beginning, that say: nothing new is left to make of these documents."""
LOSS_CHANGE_MIN = 0.01
"""Relative change of the training loss over the window under which it is level."""
HINT_P = 0.10
"""Of a trend in it."""
LOSSES_MIN = 4
DETECTABLE = (1.645 + 0.842) / 1.960
"""Smallest effect found with power .8 at a one-sided level of .05, in half-widths of a two-sided 95 % interval."""

_DOCUMENTS = "publish more documents"
_RENEWAL = "another benchmark (`jupiter publish --split held_out FILES`, then `jupiter benchmark renew`)"
_STUDENT = "a larger student (trainer.student)"
_UNEXPLAINED = "a larger student (trainer.student), or documents of another kind"


class Facts(Record):
    """What was measured meanwhile. None or empty: not known, and nothing is concluded from it."""

    training_documents: int = Field(ge=0)
    real_uses_left: int | None = None
    """Uses of real samples that the curator may still make."""
    real_uses_allowed: int | None = None
    """Real samples x `curator.real_repeats_max`."""
    candidates: int = 0
    """Samples of this generator that the curator judged."""
    accepted: int = 0
    dropped: Mapping[str, int] = Field(default_factory=dict)
    """Refused ones by reason."""
    student_is_base: bool = False
    """The student began as the base model, so it has its size."""
    losses: tuple[float, ...] = ()
    """Training loss of the run's checkpoints, oldest first."""
    benchmark_items: int | None = None
    sealed_openings: int = 0
    """Of this benchmark's sealed half, so far."""


class Lift(Record):
    """What would raise the ceiling, and the figures that say so."""

    action: str
    because: str


@dataclass(frozen=True, kw_only=True)
class Stall:
    """A plateau as the diagnoses see it."""

    facts: Facts
    settings: SelfImprovementSection
    best: float
    trend: float
    noise: float


@dataclass(frozen=True, kw_only=True)
class _Course:
    """How the training loss went over the window."""

    kind: Literal["falls", "level", "rises"]
    start: float
    end: float


def lifts(stall: Stall) -> tuple[Lift, ...]:
    """Return the actions, each once with all its reasons, in the order of the diagnoses."""
    reasons: dict[str, list[str]] = {}
    for diagnose in _DIAGNOSES:
        found = diagnose(stall)
        if found is not None:
            reasons.setdefault(found.action, []).append(found.because)
    if not reasons:
        return (Lift(action=_UNEXPLAINED, because="no measured figure stands out"),)
    return tuple(Lift(action=action, because="; ".join(because)) for action, because in reasons.items())


def _sealed_half_used_up(stall: Stall) -> Lift | None:
    """Then no candidate is promoted, however good."""
    most = stall.settings.sealed_openings_max
    if stall.facts.sealed_openings < most:
        return None
    return Lift(
        action=_RENEWAL,
        because=f"all {most} openings of the sealed half are used (sealed_openings_max): no candidate can be confirmed",
    )


def _threshold_met(stall: Stall) -> Lift | None:
    threshold = stall.settings.improvement_threshold
    if stall.best < threshold:
        return None
    return Lift(
        action="read the other checks of the last verdicts",
        because=f"the best difference {stall.best:+.3f} reaches improvement_threshold {threshold:+.3f}, so the score "
        "is not what holds it back",
    )


def _getting_worse(stall: Stall) -> Lift | None:
    if stall.trend >= -stall.noise:
        return None
    return Lift(
        action="train more gently (trainer.learning_rate, trainer.passes_per_shard)",
        because=f"the student gets worse, by {-stall.trend:.3f} over these evaluations",
    )


def _real_data_spent(stall: Stall) -> Lift | None:
    left, allowed = stall.facts.real_uses_left, stall.facts.real_uses_allowed
    if left is None or not allowed or left >= REAL_USES_LOW * allowed:
        return None
    return Lift(action=_DOCUMENTS, because=f"{left:,} of {allowed:,} uses of real samples are left")


def _repeats_itself(stall: Stall) -> Lift | None:
    dropped = stall.facts.dropped
    refused = sum(dropped.values())
    repeated = sum(count for reason, count in dropped.items() if reason.startswith(REPEATS))
    if not refused or repeated < REPEATS_SHARE * refused:
        return None
    return Lift(
        action=_DOCUMENTS,
        because=f"{repeated / refused:.0%} of the refused samples only repeat what the "
        f"{stall.facts.training_documents:,} documents gave before",
    )


def _learned_by_heart(stall: Stall) -> Lift | None:
    course = _loss_course(stall)
    if course is None or course.kind != "falls":
        return None
    return Lift(
        action=_DOCUMENTS,
        because=f"the training loss still falls ({course.start:.2f} → {course.end:.2f}) and the score does not follow: "
        "the student learns its data by heart",
    )


def _thrown_away(stall: Stall) -> Lift | None:
    """Repeats are another matter; here the samples are bad."""
    facts = stall.facts
    bad = {reason: count for reason, count in facts.dropped.items() if not reason.startswith(REPEATS)}
    if not facts.candidates or not bad or facts.accepted >= ACCEPTANCE_LOW * facts.candidates:
        return None
    most = max(sorted(bad), key=lambda reason: bad[reason])
    return Lift(
        action="a stronger base generator (generator.base_model), or other tasks in the domain",
        because=f"the curator accepts {facts.accepted / facts.candidates:.0%} of the samples; "
        f"most are refused as {most} ({bad[most]:,})",
    )


def _student_full(stall: Stall) -> Lift | None:
    course = _loss_course(stall)
    if course is None or course.kind != "level":
        return None
    size = ", and the student has the size of the base model" if stall.facts.student_is_base else ""
    return Lift(action=_STUDENT, because=f"the training loss has levelled off at {course.end:.2f}{size}")


def _benchmark_too_coarse(stall: Stall) -> Lift | None:
    """A difference of the threshold's size must be detectable, or the gate cannot see what it waits for."""
    threshold, detectable = stall.settings.improvement_threshold, DETECTABLE * stall.noise
    if not threshold or detectable <= threshold:
        return None
    factor = (detectable / threshold) ** 2
    items = stall.facts.benchmark_items
    wanted = f": about {math.ceil(items * factor):,} items instead of {items:,}" if items else ""
    return Lift(
        action=f"a larger benchmark (benchmark_samples{wanted})",
        because=f"a difference under {detectable:.3f} is seldom found with this one, improvement_threshold is "
        f"{threshold:.3f}",
    )


def _loss_course(stall: Stall) -> _Course | None:
    """Return how the loss went; None when too few were measured."""
    losses = [loss for loss in stall.facts.losses[-stall.settings.plateau_evaluations :] if math.isfinite(loss)]
    if len(losses) < LOSSES_MIN:
        return None
    middle, change = median(losses), slope(losses) * (len(losses) - 1)
    falls = rise_p_value([-loss for loss in losses]) < HINT_P
    rises = rise_p_value(losses) < HINT_P
    if abs(change) < LOSS_CHANGE_MIN * abs(middle) or not (falls or rises):
        return _Course(kind="level", start=middle, end=middle)
    return _Course(kind="falls" if falls else "rises", start=middle - change / 2, end=middle + change / 2)


_DIAGNOSES: tuple[Callable[[Stall], Lift | None], ...] = (
    _sealed_half_used_up,
    _threshold_met,
    _getting_worse,
    _real_data_spent,
    _repeats_itself,
    _learned_by_heart,
    _thrown_away,
    _student_full,
    _benchmark_too_coarse,
)
