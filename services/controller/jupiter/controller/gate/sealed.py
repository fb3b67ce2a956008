"""The sealed half: the only test that a promotion rests on.

Owns: whether it may be opened, the error that an opening may spend, and the checks on it.
Does not know: who opens it.

The error of all openings against one generator together stays below 1 − confidence, whatever their number and however
they depend on each other: opening k may spend (1 − confidence) · 6 / (π² k²), and those add up to 1 − confidence.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from jupiter.controller.gate.case import Case
from jupiter.controller.gate.screen import improvement, inconclusive, may_be_worse, surely_worse
from jupiter.controller.gate.verdict import Check, Outcome
from jupiter.ledger import openings
from jupiter.reports import DIMENSIONS, Confirmation
from jupiter.statistics import FLIPS, Flipped, flip_signs

__all__ = ["alpha_of", "availability", "sealed_checks"]

_PASSED: Outcome = "passed"
_HOLD: Outcome = "hold"

_RENEW = (
    "build a benchmark from new held-out documents: `jupiter publish --split held_out FILES`, "
    "then `jupiter benchmark renew`"
)

FLIPS_MAX = 1_000_000
# A p near alpha is then known to a sixth of itself.
FLIPS_BEYOND_ALPHA = 40


def alpha_of(opening: int, *, confidence: float) -> float:
    """Return the error that opening k may spend."""
    return (1 - confidence) * 6 / (math.pi**2 * opening**2)


def availability(case: Case) -> Check:
    """May the sealed half be opened for this evaluation? If it was, that is spent and asked no more."""
    most = case.config.sealed_openings_max
    used = len(openings(case.history.ledger, benchmark_digest=case.report.benchmark_digest))
    bound, outcome = f"< {most} openings of this benchmark", _PASSED
    if case.opening is not None:
        figure = f"opened: {case.opening_number} against v{case.report.generator_version}"
    elif case.history.newer is not None:
        figure, outcome = f"overtaken in the queue by evaluation {case.history.newer[:10]}", _HOLD
        bound = "the newest evaluation that waits for it"
    elif used >= most:
        figure, outcome = f"used up: {used} openings; {_RENEW}", _HOLD
    else:
        figure = f"{used} openings"
    return Check(name="sealed half", figure=figure, bound=bound, outcome=outcome)


def sealed_checks(case: Case, confirmation: Confirmation) -> Iterator[Check]:
    """Yield the checks on the sealed half; dimensions only where the improvement is proven."""
    alpha = alpha_of(case.opening_number, confidence=case.config.confidence)
    flips = _flips(case, alpha)
    better = improvement("sealed", case.sealed, (confirmation.candidate, confirmation.generator), case)
    worse = surely_worse("sealed", case.sealed, flips, case) if may_be_worse(case.sealed) else None
    yield worse or better
    test = Check(
        name="sealed sign-flip test",
        figure=f"p = {flips.better:.6f} at opening {case.opening_number}",
        bound=f"< {alpha:.6f}",
        outcome="passed" if flips.better < alpha else "hold",
        value=flips.better,
    )
    yield test
    if {better.outcome, test.outcome} == {"passed"}:
        yield _no_dimension_lost(case)
    elif worse is None:
        yield inconclusive("sealed", case.sealed, alpha, case)


def _flips(case: Case, alpha: float) -> Flipped:
    """Draw so many signs as the level needs, unless a first few thousand show that p is nowhere near it."""
    first = flip_signs(case.sealed, seed=case.seed)
    wanted = min(FLIPS_MAX, math.ceil(FLIPS_BEYOND_ALPHA / alpha))
    if wanted <= FLIPS or first.better >= 1 - case.config.confidence:
        return first
    return flip_signs(case.sealed, seed=case.seed, flips=wanted)


def _no_dimension_lost(case: Case) -> Check:
    drawn, least = case.both_halves_drawn, -case.config.dimension_loss_max
    lower = {name: drawn[name].lower(0.90) for name in DIMENSIONS}
    worst = min(lower.values())
    # Lost for certain: even the upper bound lies beyond what may be lost.
    lost = any(drawn[name].upper(0.90) < least for name in DIMENSIONS)
    return Check(
        name="no dimension lost",
        figure=", ".join(f"{name} {value:+.4f}" for name, value in lower.items()),
        bound=f"every 90 % lower bound over both halves >= {least:+.2f}",
        outcome="passed" if worst >= least else "reject" if lost else "hold",
        value=worst,
    )
