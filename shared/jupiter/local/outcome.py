"""What a run of the demo set out to show, and whether its report shows it.

Owns: that judgement and its words. Does not know: how the run went about it (`demo`), nor where a figure comes from
(`report`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["DemoOutcome", "judged"]

REFUSALS = frozenset({"HOLD", "REJECT"})
"""What the gate says of a candidate that it measured and found wanting. INVALID says that nothing could be measured."""


@dataclass(frozen=True, kw_only=True)
class DemoOutcome:
    """What happened, and whether it is what this run set out to show."""

    report: Mapping[str, Any]
    as_expected: bool
    summary: str


def judged(report: Mapping[str, Any], *, control: str, never_happened: str | None = None) -> DemoOutcome:
    """Return the outcome of a run; `never_happened` is what it waited for in vain."""
    missing = list(_missing(report, control=control, never_happened=never_happened))
    shown = {
        "none": "promoted, reloaded, generated and rolled back",
        "shuffled": "the gate refused a student trained on shuffled answers",
    }[control]
    verdicts = ", ".join(str(one["verdict"]) for one in _verdicts(report)) or "none"
    summary = f"{'; '.join(missing) or shown} (verdicts: {verdicts}; lost: {report['lost']})"
    whole = {**report, "as_expected": not missing, "not_as_expected": missing, "never_happened": never_happened}
    return DemoOutcome(report=whole, as_expected=not missing, summary=summary)


def _missing(report: Mapping[str, Any], *, control: str, never_happened: str | None) -> Iterator[str]:
    """Yield what keeps the report from showing what the run was for."""
    if never_happened is not None:
        yield never_happened
    if report["lost"] != 0:
        found = ", ".join(f"{kind}: {count}" for kind, count in report["lost_by_kind"].items() if count)
        yield f"work was lost or done twice ({found})"
    if control == "none":
        yield from _no_turn(report)
    else:
        yield from _no_refusal(report)


def _no_turn(report: Mapping[str, Any]) -> Iterator[str]:
    if not report["promoted"]:
        yield "no promotion: see the gate's reasons"
    elif report["rolled_back_to"] is None:
        yield "promoted, but not rolled back"


def _no_refusal(report: Mapping[str, Any]) -> Iterator[str]:
    """A control is refused by the gate, or it shows nothing: that no promotion came is not enough."""
    decided = [one for one in _verdicts(report) if one["verdict"] is not None]
    if report["promoted"]:
        yield "this control must not promote"
    elif not decided:
        yield "the gate has decided nothing"
    for one in decided:
        if not report["promoted"] and not (one["verdict"] in REFUSALS and one["reasons"]):
            yield (
                f"evaluation {one['evaluation_id'][:10]} is no refusal: {one['verdict']}, "
                f"{len(one['reasons'])} reasons (a control needs HOLD or REJECT, with reasons)"
            )


def _verdicts(report: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [*report["evaluations"], *report["not_evaluated"]]
