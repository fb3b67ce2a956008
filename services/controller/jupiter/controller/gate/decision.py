"""The order of the checks, and what they add up to.

Owns: the stages. A later stage is looked at only when the one before it passed, so that what is dear (openings of the
sealed half, a shadow batch, thousands of draws) is spent on candidates that are worth it.
Does not know: any check.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from jupiter.config.sections import SelfImprovementSection
from jupiter.controller.gate.case import Case
from jupiter.controller.gate.contamination import contamination_checks
from jupiter.controller.gate.general import general_checks
from jupiter.controller.gate.screen import screen_checks
from jupiter.controller.gate.sealed import alpha_of, availability, sealed_checks
from jupiter.controller.gate.shadow import shadow_checks
from jupiter.controller.gate.validity import confirmation_checks, report_checks
from jupiter.controller.gate.verdict import Check, Decision, History, Verdict, Wants
from jupiter.controller.gate.withdrawn import withdrawal_checks
from jupiter.reports import EvaluationReport
from jupiter.statistics import bootstrap

__all__ = ["decide"]


def decide(report: EvaluationReport, history: History, config: SelfImprovementSection) -> Verdict:
    """Return the verdict: INVALID before REJECT before HOLD, and PROMOTE only when every check passed."""
    case = Case(report, history, config)
    checks: list[Check] = []
    wants: Wants = "nothing"
    for stage in _STAGES:
        found, wants = stage(case)
        checks += found
        if wants != "nothing" or _decision(checks) != "PROMOTE":
            break
    return _verdict(case, tuple(checks), wants)


def _evidence(case: Case) -> tuple[Sequence[Check], Wants]:
    return (*report_checks(case), *contamination_checks(case), *withdrawal_checks(case)), "nothing"


def _screen(case: Case) -> tuple[Sequence[Check], Wants]:
    return (*screen_checks(case), *general_checks(case)), "nothing"


def _open(case: Case) -> tuple[Sequence[Check], Wants]:
    available = availability(case)
    if available.outcome == "passed" and case.confirmation is None:
        return (available, _waits("sealed scores", f"opening {case.opening_number} is to be scored")), "confirmation"
    return (available,), "nothing"


def _sealed_evidence(case: Case) -> tuple[Sequence[Check], Wants]:
    return tuple(confirmation_checks(case, case.confirmation)) if case.confirmation else (), "nothing"


def _sealed(case: Case) -> tuple[Sequence[Check], Wants]:
    return tuple(sealed_checks(case, case.confirmation)) if case.confirmation else (), "nothing"


def _shadow(case: Case) -> tuple[Sequence[Check], Wants]:
    if not case.config.shadow_check:
        return (), "nothing"
    if case.report.shadow is None:
        return (_waits("shadow batch", "is to be generated and judged"),), "shadow"
    return tuple(shadow_checks(case, case.report.shadow)), "nothing"


def _waits(name: str, figure: str) -> Check:
    return Check(name=name, figure=figure, bound="scores of both models in the same run", outcome="hold")


_STAGES: tuple[Callable[[Case], tuple[Sequence[Check], Wants]], ...] = (
    _evidence,
    _screen,
    _open,
    _sealed_evidence,
    _sealed,
    _shadow,
)


def _decision(checks: Sequence[Check]) -> Decision:
    outcomes = {check.outcome for check in checks}
    if "invalid" in outcomes:
        return "INVALID"
    if "reject" in outcomes:
        return "REJECT"
    return "HOLD" if "hold" in outcomes else "PROMOTE"


def _verdict(case: Case, checks: tuple[Check, ...], wants: Wants) -> Verdict:
    report, figures = case.report, {check.name: check.value for check in checks}
    seen = {look.evaluation_id for look in case.history.looks if look.benchmark_digest == report.benchmark_digest}
    opened = "sealed half" in figures
    decision = _decision(checks)
    tests = ("sealed sign-flip test", "development sign-flip test")
    differences = ("sealed improvement", "development improvement")
    return Verdict(
        evaluation_id=report.evaluation_id,
        checkpoint_id=report.checkpoint_id,
        step=report.step,
        generator_version=report.generator_version,
        benchmark_digest=report.benchmark_digest,
        decision=decision,
        checks=checks,
        wants=wants,
        p_value=next((figures[name] for name in tests if name in figures), None),
        difference=next((value for name in differences if (value := figures.get(name)) is not None), report.difference),
        lower=bootstrap(case.sealed, seed=case.seed)["composite"].lower(case.config.confidence)
        if decision == "PROMOTE"
        else None,
        opening=case.opening_number if opened else None,
        alpha=round(alpha_of(case.opening_number, confidence=case.config.confidence), 12) if opened else None,
        ledger_sequence=case.live.sequence if case.live else 0,
        look=len(seen | {report.evaluation_id}),
    )
