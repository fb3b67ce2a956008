"""What the gate is told besides the report, and what it answers.

Owns: the shape of history, checks and verdict.
Does not know: any rule.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from jupiter.ledger import LedgerEntry
from jupiter.records import Record, SharedRecord

__all__ = ["Check", "Decision", "History", "Look", "Outcome", "Verdict", "Wants"]

Decision = Literal["PROMOTE", "HOLD", "REJECT", "INVALID"]
Outcome = Literal["passed", "hold", "reject", "invalid", "left_out"]
Wants = Literal["nothing", "confirmation", "shadow"]


def _unset(value: object) -> bool:
    return value is None


class Check(SharedRecord):
    """One line of a verdict."""

    name: str
    figure: str
    """What was measured, as a person reads it."""
    bound: str
    outcome: Outcome
    """`left_out`: it failed its own probes and counts neither for nor against the candidate."""
    value: float | None = None
    """The figure as a number, where it is one."""

    @property
    def line(self) -> str:
        return f"{self.name}: {self.figure} (needs {self.bound}) — {self.outcome.replace('_', ' ')}"


class Look(Record):
    """An earlier verdict in this domain."""

    evaluation_id: str
    generator_version: int
    benchmark_digest: str
    decision: Decision
    p_value: float | None


class History(Record):
    """What was decided before, and what stands in the way now.

    A field that came later is not serialised where it is unset, so that all older inputs keep their bytes.
    """

    ledger: tuple[LedgerEntry, ...] = ()
    """All of it, oldest first: which version is live, and every opening of a sealed half."""
    looks: tuple[Look, ...] = ()
    """In the order the verdicts were reached."""
    alarms: tuple[str, ...] = ()
    """The open diversity alarms, one sentence each."""
    newer: str | None = None
    """The evaluation that takes this one's turn at the sealed half: both wait for it, and only the newest goes on."""
    withdrawn: str | None = Field(default=None, exclude_if=_unset)
    """What the candidate was trained on that a rollback took back; None: nothing of the kind."""


class Verdict(SharedRecord):
    """The decision with every check; stored beside the report as `verdict.json`.

    A field that came later is not serialised where it is unset, so that every older verdict keeps its bytes.
    """

    schema_version: Literal[1] = 1
    evaluation_id: str
    checkpoint_id: str
    step: int
    generator_version: int
    benchmark_digest: str
    decision: Decision
    checks: tuple[Check, ...]
    wants: Wants = "nothing"
    """What must be found out before this is settled. Until then the decision is HOLD, and not final."""
    p_value: float | None = None
    """Of the sealed half once it was opened, else of the development half; None where the test was not reached."""
    difference: float | None
    """Of the sealed half once it was opened, else of the development half; None where nothing was measured."""
    lower: float | None = None
    """One-sided lower bound of the sealed half's difference at the configured confidence."""
    opening: int | None = None
    """k: which opening against this generator the sealed half is, or would be; None where it was not reached."""
    alpha: float | None = None
    """The error that this opening may spend."""
    ledger_sequence: int
    """The flip that was live when this was decided: once another follows, a PROMOTE is no longer acted on by itself."""
    look: int
    """How many looks this makes on this benchmark's development half."""
    inputs_sha256: str | None = Field(default=None, exclude_if=_unset)
    """Of `inputs.json`, once it is stored. None: there is none, or the verdict is older than this field."""

    @property
    def reasons(self) -> tuple[str, ...]:
        """Return the lines of the checks that did not pass, or of all when all did."""
        if all(check.outcome in ("passed", "left_out") for check in self.checks):
            return tuple(check.line for check in self.checks)
        return tuple(check.line for check in self.checks if check.outcome != "passed")
