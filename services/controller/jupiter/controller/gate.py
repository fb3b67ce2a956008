"""The gate: may this candidate replace the generator?

Owns: the checks, their bounds and the verdict. A pure function of a report, the history and the configuration:
no clock, no server, no torch; the same report always gets the same verdict.
Does not know: how a report comes about (evaluator) nor what a verdict sets off (`promotion`).

Adding a check is adding a function to `_CHECKS`. The history carries the looks already taken, which is where
sequential error spending (DESIGN §9) will read its k.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from jupiter.config.sections import SelfImprovementSection
from jupiter.ledger import LedgerEntry, current
from jupiter.records import Record
from jupiter.reports import DIMENSIONS, EvaluationReport, ItemResult, Scores, deciding, seed_of
from jupiter.statistics import Paired, paired, scores

__all__ = ["Check", "Decision", "History", "Look", "Outcome", "Verdict", "decide"]

Decision = Literal["PROMOTE", "HOLD", "REJECT", "INVALID"]
Outcome = Literal["passed", "hold", "reject", "invalid"]

# Whole clusters fall into one half by a hash, so the confirmation half is seldom exactly half of the benchmark.
CONFIRMATION_SHARE_MIN = 0.4
# DESIGN §9: a candidate that may be five points worse in any dimension is not better.
DIMENSION_LOSS_MAX = 0.05
# Reported composites are recomputed from the same items; more than rounding means another set of items.
COMPOSITE_TOLERANCE = 1e-6
# A bootstrap over fewer clusters does not know its own tails.
CLUSTERS_MIN = 4


class Check(Record):
    """One line of a verdict."""

    name: str
    figure: str
    """What was measured, as a person reads it."""
    bound: str
    outcome: Outcome
    value: float | None = None
    """The figure as a number, where it is one."""


class Look(Record):
    """An earlier opening of the confirmation half in this domain."""

    evaluation_id: str
    generator_version: int
    benchmark_digest: str
    decision: Decision
    p_value: float | None


class History(Record):
    """What was decided before: the ledger, and the verdicts in the order they were reached."""

    ledger: tuple[LedgerEntry, ...] = ()
    looks: tuple[Look, ...] = ()


class Verdict(Record):
    """The decision with every check; stored beside the report as `verdict.json`."""

    schema_version: Literal[1] = 1
    evaluation_id: str
    checkpoint_id: str
    step: int
    generator_version: int
    benchmark_digest: str
    decision: Decision
    checks: tuple[Check, ...]
    p_value: float | None = None
    difference: float
    lower: float | None = None
    """One-sided lower bound of the difference at the configured confidence."""
    ledger_sequence: int
    """The flip that was live when this was decided: once another follows, a PROMOTE is no longer acted on by itself."""
    look: int
    """How many looks this makes, on this benchmark: what error spending will divide by."""

    @property
    def reasons(self) -> tuple[str, ...]:
        """Return one line per check that did not pass, or per check when all did."""
        wanted = [check for check in self.checks if check.outcome != "passed"] or self.checks
        return tuple(f"{check.name}: {check.figure} (needs {check.bound}) — {check.outcome}" for check in wanted)


@dataclass(frozen=True, kw_only=True)
class _Case:
    """What the checks look at. The last three are None when a dimension has no items."""

    report: EvaluationReport
    history: History
    config: SelfImprovementSection
    items: tuple[ItemResult, ...]
    recomputed: tuple[Scores, Scores] | None
    statistics: Paired | None
    whole: Paired | None
    """Over both halves: prompts were chosen for both models alike, and a bound on losses needs all items there are."""


def decide(report: EvaluationReport, history: History, config: SelfImprovementSection) -> Verdict:
    """Return the verdict: INVALID before REJECT before HOLD, and PROMOTE only when every check passed."""
    items = deciding(report.items)
    measured = {item.dimension for item in items} == set(DIMENSIONS)
    seed = seed_of(report.evaluation_id, report.benchmark_digest)
    case = _Case(
        report=report,
        history=history,
        config=config,
        items=items,
        recomputed=scores(items) if measured else None,
        statistics=paired(items, seed=seed, confidence=config.confidence) if measured else None,
        whole=paired(report.items, seed=seed, confidence=config.confidence) if measured else None,
    )
    checks = tuple(check(case) for check in _CHECKS)
    earlier = {look.evaluation_id for look in history.looks if look.benchmark_digest == report.benchmark_digest}
    return Verdict(
        evaluation_id=report.evaluation_id,
        checkpoint_id=report.checkpoint_id,
        step=report.step,
        generator_version=report.generator_version,
        benchmark_digest=report.benchmark_digest,
        decision=_decision(checks),
        checks=checks,
        p_value=case.statistics.p_value if case.statistics else None,
        difference=case.statistics.difference if case.statistics else report.difference,
        lower=case.statistics.lower if case.statistics else None,
        ledger_sequence=len(history.ledger),
        look=len(earlier | {report.evaluation_id}),
    )


def _decision(checks: tuple[Check, ...]) -> Decision:
    outcomes = {check.outcome for check in checks}
    if "invalid" in outcomes:
        return "INVALID"
    if "reject" in outcomes:
        return "REJECT"
    return "HOLD" if "hold" in outcomes else "PROMOTE"


def _current_generator(case: _Case) -> Check:
    """A report against a generator that is no longer live compares with the past."""
    live = current(case.history.ledger)
    same = (
        live is not None
        and case.report.domain == live.domain
        and case.report.generator_version == live.version
        and case.report.generator_manifest_sha256 == live.manifest_sha256
    )
    return Check(
        name="compared with the current generator",
        figure=f"v{case.report.generator_version} ({case.report.generator_manifest_sha256[:8]})",
        bound=f"v{live.version} ({live.manifest_sha256[:8]})" if live else "a ledger with a generator",
        outcome="passed" if same else "invalid",
    )


def _minimum_steps(case: _Case) -> Check:
    steps, least = case.report.step, case.config.min_steps_before_replace
    return Check(
        name="minimum steps",
        figure=f"{steps} steps",
        bound=f">= {least}",
        outcome="passed" if steps >= least else "hold",
        value=steps,
    )


def _enough_items(case: _Case) -> Check:
    least = math.ceil(case.config.benchmark_samples * CONFIRMATION_SHARE_MIN)
    clusters = len({item.cluster for item in case.items})
    enough = len(case.items) >= least and clusters >= CLUSTERS_MIN
    return Check(
        name="enough items",
        figure=f"{len(case.items)} confirmation items from {clusters} sources",
        bound=f">= {least} items (benchmark_samples {case.config.benchmark_samples}) from >= {CLUSTERS_MIN} sources",
        outcome="passed" if enough else "hold",
        value=len(case.items),
    )


def _same_items(case: _Case) -> Check:
    """Each item once, in every dimension; an evaluator that gives one score to everything is broken."""
    ids = [item.item_id for item in case.report.items]
    faults: list[str] = []
    if len(set(ids)) < len(ids):
        faults.append(f"{len(ids) - len(set(ids))} item ids occur twice")
    missing = [dimension for dimension in DIMENSIONS if dimension not in {item.dimension for item in case.items}]
    if missing:
        faults.append(f"no item measures {', '.join(missing)}")
    faults += [
        f"every score of the {model} is the same"
        for model in ("candidate", "generator")
        if len({getattr(item, model) for item in case.items}) < 2
    ]
    return Check(
        name="items sound",
        figure="; ".join(faults) or f"{len(ids)} items, each once, scores vary",
        bound="each item once for both models, all dimensions, scores that vary",
        outcome="invalid" if faults else "passed",
    )


def _composites_agree(case: _Case) -> Check:
    report, off = case.report, math.inf
    if case.recomputed:
        pairs = [
            (getattr(reported, field), getattr(recomputed, field))
            for reported, recomputed in zip((report.candidate, report.generator), case.recomputed, strict=True)
            for field in ("composite", *DIMENSIONS)
        ]
        pairs.append((report.difference, case.recomputed[0].composite - case.recomputed[1].composite))
        off = max(abs(reported - recomputed) for reported, recomputed in pairs)
    return Check(
        name="scores recomputed",
        figure=f"off by {off:.1e}" if math.isfinite(off) else "cannot be recomputed",
        bound=f"<= {COMPOSITE_TOLERANCE:.0e}",
        outcome="passed" if off <= COMPOSITE_TOLERANCE else "invalid",
        value=off if math.isfinite(off) else None,
    )


def _improvement(case: _Case) -> Check:
    """Rounded to a billionth: binary fractions must not decide whether .65 + .05 reaches .70."""
    difference = case.statistics.difference if case.statistics else case.report.difference
    least = case.config.improvement_threshold
    return Check(
        name="improvement",
        figure=f"{difference:+.4f} ({case.report.generator.composite:.4f} → {case.report.candidate.composite:.4f})",
        bound=f">= {least:+.4f}",
        outcome="passed" if round(difference - least, 9) >= 0 else "hold",
        value=difference,
    )


def _lower_bound(case: _Case) -> Check:
    """The paired lower bound must be above 0; when even the upper one is below 0 the candidate is worse."""
    if case.statistics is None:
        return _unmeasured("paired lower bound", "> 0")
    lower, upper = case.statistics.lower, case.statistics.upper
    return Check(
        name="paired lower bound",
        figure=f"{lower:+.4f} at {case.config.confidence:.0%} over {case.statistics.clusters} sources",
        bound="> 0",
        outcome="passed" if lower > 0 else "reject" if upper < 0 else "hold",
        value=lower,
    )


def _sign_flip(case: _Case) -> Check:
    if case.statistics is None:
        return _unmeasured("sign-flip test", "p below 1 − confidence")
    alpha = 1 - case.config.confidence
    return Check(
        name="sign-flip test",
        figure=f"p = {case.statistics.p_value:.4f}",
        bound=f"< {alpha:.4f}",
        outcome="passed" if case.statistics.p_value < alpha else "hold",
        value=case.statistics.p_value,
    )


def _no_dimension_worse(case: _Case) -> Check:
    if case.whole is None:
        return _unmeasured("no dimension worse", f">= {-DIMENSION_LOSS_MAX:+.2f}")
    lower = case.whole.dimension_lower
    worst = min(DIMENSIONS, key=lambda dimension: lower[dimension])
    # Worse for certain: even the upper bound lies beyond what may be lost.
    lost = [name for name in DIMENSIONS if case.whole.dimension_upper[name] < -DIMENSION_LOSS_MAX]
    return Check(
        name="no dimension worse",
        figure=", ".join(f"{name} {lower[name]:+.4f}" for name in DIMENSIONS),
        bound=f"every 90 % lower bound >= {-DIMENSION_LOSS_MAX:+.2f}",
        outcome="passed" if lower[worst] >= -DIMENSION_LOSS_MAX else "reject" if lost else "hold",
        value=lower[worst],
    )


def _unmeasured(name: str, bound: str) -> Check:
    return Check(name=name, figure="not measured: a dimension has no items", bound=bound, outcome="invalid")


_CHECKS: tuple[Callable[[_Case], Check], ...] = (
    _current_generator,
    _same_items,
    _composites_agree,
    _enough_items,
    _minimum_steps,
    _improvement,
    _lower_bound,
    _sign_flip,
    _no_dimension_worse,
)
