"""What goes into a sandbox run and what comes out.

Owns: the plain data and the wire format's reading side. Does not know: how a run is enclosed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from jupiter.sandbox import values

__all__ = ["Example", "Outcome", "SandboxResult", "Session", "Status", "Step", "encode_job", "read_outcomes"]

Status = Literal["returned", "raised", "timed_out", "died", "skipped"]
_REPORTED: frozenset[str] = frozenset({"returned", "raised", "timed_out"})


@dataclass(frozen=True, kw_only=True)
class Step:
    """One thing to run: `exec` a block, `single` as the prompt does, or `eval` an expression for its value."""

    source: str
    mode: Literal["exec", "single", "eval"]


@dataclass(frozen=True, kw_only=True)
class Example:
    """One doctest example without its expected output, which stays outside."""

    source: str


@dataclass(frozen=True, kw_only=True)
class Session:
    """Examples that share one namespace, run in order in a process of their own."""

    examples: tuple[Example, ...]
    setup: str = ""
    """Code run first, e.g. the imports that the document takes for granted."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one step did."""

    status: Status
    stdout: str = ""
    """What it printed; for `single` steps also the repr of the value, as the prompt shows it."""
    error: str = ""
    """`TypeName: message` for `raised`; how it ended otherwise."""
    value: values.Plain | None = None
    """The value of an `eval` step where it is plain data, else None: see `is_plain`."""
    is_plain: bool = False
    truncated: bool = False
    """It printed more than `step_output_chars`."""


@dataclass(frozen=True, kw_only=True)
class SandboxResult:
    """The verdict on one piece of code."""

    passed: bool
    reason: str
    """Why not; empty when passed."""
    checks: int = 0
    """Assertions and examples that were decided."""
    stdout: str = ""
    wall_s: float = 0.0
    outcomes: tuple[Outcome, ...] = field(default=(), repr=False)


def encode_job(*, nonce: str, units: Sequence[Sequence[Step]], limits: dict[str, Any]) -> bytes:
    """Return the job as `inside` reads it from its standard input."""
    steps = [[{"source": step.source, "mode": step.mode} for step in unit] for unit in units]
    return json.dumps({"nonce": nonce, "limits": limits, "units": steps}).encode()


def read_outcomes(output: bytes, *, nonce: str, units: Sequence[int], ended: str) -> list[list[Outcome]]:
    """Return the outcome of every step of every unit (`units`: steps in each), the first report of a step counting.

    Lines without the nonce, malformed ones and second reports are ignored. A step nobody reported has `died` if it is
    the first such of its unit, and was `skipped` otherwise; `ended` says how the run ended.
    """
    found: dict[tuple[int, int], Outcome] = {}
    for line in output.split(b"\n"):
        if line.startswith(nonce.encode() + b" "):
            report = _report(line[len(nonce) + 1 :])
            if report is not None:
                found.setdefault(report[0], report[1])
    return [_unit(found, unit, steps, ended) for unit, steps in enumerate(units)]


def _unit(found: dict[tuple[int, int], Outcome], unit: int, steps: int, ended: str) -> list[Outcome]:
    outcomes: list[Outcome] = []
    broken = ""
    for step in range(steps):
        outcome = found.get((unit, step))
        if broken:
            outcome = Outcome(status="skipped", error=broken)
        elif outcome is None:
            outcome = Outcome(status="died", error=ended)
        if outcome.status in ("died", "timed_out"):
            broken = f"an earlier step {outcome.status.replace('_', ' ')}"
        outcomes.append(outcome)
    return outcomes


def _report(line: bytes) -> tuple[tuple[int, int], Outcome] | None:
    try:
        data = json.loads(line)
        unit, step, status = int(data["unit"]), int(data["step"]), data["status"]
        if status not in _REPORTED:
            return None
        encoded = data.get("value")
        is_plain = encoded is not None
        return (unit, step), Outcome(
            status=status,
            stdout=str(data["stdout"]),
            error=str(data["error"]),
            value=values.decode(encoded) if is_plain else None,
            is_plain=is_plain,
            truncated=bool(data["truncated"]),
        )
    except (ValueError, KeyError, TypeError, RecursionError):  # whatever runs inside may write anything
        return None
