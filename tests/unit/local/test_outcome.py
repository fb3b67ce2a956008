"""What counts as a demo, or as a control, that showed what it was for."""

from __future__ import annotations

from typing import Any

import pytest

from jupiter.local.outcome import judged


def evaluation(verdict: str | None, *reasons: str) -> dict[str, Any]:
    return {"evaluation_id": "e" * 64, "verdict": verdict, "reasons": list(reasons)}


def report(**changes: Any) -> dict[str, Any]:
    return {
        "promoted": False,
        "rolled_back_to": None,
        "evaluations": [],
        "not_evaluated": [],
        "lost": 0,
        "lost_by_kind": {"requests": 0, "batches": 0},
        **changes,
    }


PROMOTED = {"promoted": True, "rolled_back_to": 1, "evaluations": [evaluation("PROMOTE", "screen: passed")]}
HELD = {"evaluations": [evaluation("HOLD", "screen: 0.01 (needs 0.05) — failed")]}
LOST = {"lost": 2, "lost_by_kind": {"requests": 0, "batches": 2}}


@pytest.mark.parametrize(
    ("control", "found", "says"),
    [
        ("none", PROMOTED, "promoted, reloaded, generated and rolled back (verdicts: PROMOTE; lost: 0)"),
        ("none", {**PROMOTED, **LOST}, "work was lost or done twice (batches: 2)"),
        ("none", {**PROMOTED, "rolled_back_to": None}, "promoted, but not rolled back"),
        ("none", HELD, "no promotion: see the gate's reasons (verdicts: HOLD; lost: 0)"),
        ("none", {}, "no promotion: see the gate's reasons (verdicts: none; lost: 0)"),
        ("shuffled", HELD, "the gate refused a student trained on shuffled answers (verdicts: HOLD; lost: 0)"),
        ("shuffled", {"evaluations": [evaluation("REJECT", "worse")]}, "the gate refused a student"),
        ("shuffled", {"evaluations": [*HELD["evaluations"], evaluation(None)]}, "the gate refused a student"),
        ("shuffled", {**HELD, **LOST}, "work was lost or done twice (batches: 2)"),
        ("shuffled", PROMOTED, "this control must not promote (verdicts: PROMOTE; lost: 0)"),
        ("shuffled", {}, "the gate has decided nothing"),
        ("shuffled", {"evaluations": [evaluation(None)]}, "the gate has decided nothing"),
        (
            "shuffled",
            {"evaluations": [evaluation("INVALID", "no report")]},
            "evaluation eeeeeeeeee is no refusal: INVALID",
        ),
        (
            "shuffled",
            {"evaluations": [*HELD["evaluations"], evaluation("INVALID", "no report")]},
            "is no refusal: INVALID",
        ),
        (
            "shuffled",
            {**HELD, "not_evaluated": [evaluation("INVALID", "corrupt")]},
            "eeeeeeeeee is no refusal: INVALID",
        ),
        (
            "none",
            {"not_evaluated": [evaluation("INVALID", "corrupt")]},
            "no promotion: see the gate's reasons (verdicts: I",
        ),
        ("shuffled", {"evaluations": [evaluation("PROMOTE", "better")]}, "is no refusal: PROMOTE"),
        ("shuffled", {"evaluations": [evaluation("HOLD")]}, "is no refusal: HOLD, 0 reasons"),
    ],
)
def test_a_run_shows_what_it_was_for_or_says_what_is_missing(control: str, found: dict[str, Any], says: str) -> None:
    outcome = judged(report(**found), control=control)
    good = says.startswith(("promoted, reloaded", "the gate refused"))
    assert says in outcome.summary
    assert outcome.as_expected is good
    assert outcome.report["as_expected"] is good
    assert bool(outcome.report["not_as_expected"]) is not good


@pytest.mark.parametrize(("control", "found"), [("none", PROMOTED), ("shuffled", HELD)])
def test_a_run_that_waited_in_vain_never_showed_it(control: str, found: dict[str, Any]) -> None:
    outcome = judged(report(**found), control=control, never_happened="waited 600 s for a batch made by v2, in vain")
    assert not outcome.as_expected
    assert outcome.report["never_happened"] == "waited 600 s for a batch made by v2, in vain"
    assert outcome.report["as_expected"] is False
    assert outcome.summary.startswith("waited 600 s for a batch made by v2, in vain")
