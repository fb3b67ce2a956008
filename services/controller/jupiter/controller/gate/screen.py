"""The development half: is the candidate worth an opening of the sealed one?

Owns: the checks that may be made at every look, because none of them proves anything for good.
Does not know: the sealed half.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import NormalDist

from jupiter.controller.gate.case import Case
from jupiter.controller.gate.verdict import Check
from jupiter.reports import DIMENSIONS, Scores
from jupiter.statistics import Flipped, Table, bootstrap, detectable

__all__ = ["improvement", "inconclusive", "may_be_worse", "screen_checks", "surely_worse"]

POWER = 0.8
"""The chance of finding a difference that "detectable" speaks of."""


def screen_checks(case: Case) -> Iterator[Check]:
    """Yield the screen's checks; a test only where the one before it leaves a question."""
    report, config = case.report, case.config
    yield _minimum_steps(case)
    better = improvement("development", case.development, (report.candidate, report.generator), case)
    # Most looks at a candidate that is no better end here, without a test.
    maybe_worse = may_be_worse(case.development)
    worse = surely_worse("development", case.development, case.development_flips, case) if maybe_worse else None
    yield worse or better
    if better.outcome == "passed":
        p_value = case.development_flips.better
        significant = p_value < config.screen_alpha
        yield Check(
            name="development sign-flip test",
            figure=f"p = {p_value:.4f}",
            bound=f"< {config.screen_alpha:.4f}",
            outcome="passed" if significant else "hold",
            value=p_value,
        )
        yield from _dimension_lost(case)
    else:
        significant = False
    if not significant and worse is None:
        yield inconclusive("development", case.development, config.screen_alpha, case)
    yield _alarms(case)


def _minimum_steps(case: Case) -> Check:
    steps, least = case.report.step, case.config.min_steps_before_replace
    return Check(
        name="minimum steps",
        figure=f"{steps} steps",
        bound=f">= {least}",
        outcome="passed" if steps >= least else "hold",
        value=steps,
    )


def improvement(half: str, table: Table, scores: tuple[Scores, Scores], case: Case) -> Check:
    """Binary fractions must not decide whether .65 + .05 reaches .70: the difference is rounded to a billionth."""
    candidate, generator = scores
    difference, least = table.difference(), case.config.improvement_threshold
    return Check(
        name=f"{half} improvement",
        figure=f"{difference:+.4f} ({generator.composite:.4f} → {candidate.composite:.4f})",
        bound=f">= {least:+.4f}",
        outcome="passed" if round(difference - least, 9) >= 0 else "hold",
        value=difference,
    )


def surely_worse(half: str, table: Table, flips: Flipped, case: Case) -> Check | None:
    """Return the REJECT of a candidate that does worse than chance would make an equal one do, or None."""
    alpha = 1 - case.config.confidence
    if flips.worse >= alpha:
        return None
    return Check(
        name=f"{half} improvement",
        figure=f"{table.difference():+.4f}, worse with p = {flips.worse:.4f}",
        bound=f">= {case.config.improvement_threshold:+.4f}, and not worse with p < {alpha:.4f}",
        outcome="reject",
        value=table.difference(),
    )


def may_be_worse(table: Table) -> bool:
    """Whether a sign-flip test could say so at 5 %.

    Random signs carry a sum beyond minus its own norm with a chance of 1/20 or more (Oleszkiewicz 1996), so a loss
    within the norm never has a smaller p.
    """
    pull = table.pull()
    return float(pull.sum()) < -math.sqrt(float(pull @ pull))


def _dimension_lost(case: Case) -> Iterator[Check]:
    """A dimension that is lost for certain needs no sealed half to be told."""
    least = -case.config.dimension_loss_max
    # The upper bound lies above the figure itself but for the rarest skew: most looks need no bootstrap.
    if min(case.development.differences()) >= least:
        return
    drawn = bootstrap(case.development, seed=case.seed)
    lost = [name for name in DIMENSIONS if drawn[name].upper(0.90) < least]
    if lost:
        yield Check(
            name="development dimension lost",
            figure=", ".join(f"{name} {drawn[name].upper(0.90):+.4f}" for name in lost),
            bound=f"every 90 % upper bound >= {least:+.2f}",
            outcome="reject",
        )


def inconclusive(half: str, table: Table, alpha: float, case: Case) -> Check:
    """Say whether the items could have told: only after a test that did not, so more spread never turns one away."""
    threshold = case.config.improvement_threshold
    least = detectable(table, alpha=alpha, power=POWER)
    items = int(table.counts.sum())
    possible = table.difference() + NormalDist().inv_cdf(case.config.confidence) * table.standard_error()
    open_question = least > threshold and possible >= threshold
    more = math.ceil(items * (least / threshold) ** 2) if threshold and math.isfinite(least) else None
    figure = f"{items} items find {least:+.4f} or more in {POWER:.0%} of cases"
    if open_question:
        figure = f"INCONCLUSIVE: {figure}" + (f"; more items needed, about {more} in this half" if more else "")
    return Check(
        name=f"{half} resolution",
        figure=figure,
        bound=f"<= {threshold:+.4f}, or a gain that large ruled out",
        outcome="hold" if open_question else "passed",
        value=least if math.isfinite(least) else None,
    )


def _alarms(case: Case) -> Check:
    alarms = case.history.alarms
    return Check(
        name="diversity alarms",
        figure="; ".join(alarms) or "none open",
        bound="none open",
        outcome="hold" if alarms else "passed",
        value=len(alarms),
    )
