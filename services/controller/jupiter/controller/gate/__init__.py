"""The gate: may this candidate replace the generator?

A pure function of a report, the history and the settings: no clock, no server, no torch; the same inputs always get
the same verdict. `report_of` makes a report of plain lists, so that anyone can put figures of their own before the
gate; `jupiter gate power` does so thousands of times. docs/verdict.md explains the whole decision.
"""

from __future__ import annotations

from jupiter.controller.gate.decision import decide
from jupiter.controller.gate.own_scores import Row, confirmed, first_history, opened, report_of
from jupiter.controller.gate.verdict import Check, Decision, History, Look, Outcome, Verdict, Wants

__all__ = [
    "Check",
    "Decision",
    "History",
    "Look",
    "Outcome",
    "Row",
    "Verdict",
    "Wants",
    "confirmed",
    "decide",
    "first_history",
    "opened",
    "report_of",
]
