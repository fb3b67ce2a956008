"""Was the candidate trained on what a rollback took back? Then it is not promoted, whatever it scores.

Owns: the check that the training data still stand.
Does not know: what was taken back, nor what a checkpoint was trained on (`controller.withdrawals`).
"""

from __future__ import annotations

from collections.abc import Iterator

from jupiter.controller.gate.case import Case
from jupiter.controller.gate.verdict import Check

__all__ = ["withdrawal_checks"]


def withdrawal_checks(case: Case) -> Iterator[Check]:
    """Yield the fault, if there is one: verdicts from before this check have no line of it."""
    if case.history.withdrawn is not None:
        yield Check(
            name="training data not withdrawn",
            figure=case.history.withdrawn,
            bound="nothing that a rollback took back",
            outcome="reject",
        )
