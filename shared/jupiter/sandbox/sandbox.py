"""The sandbox as curator and evaluator use it.

Owns: the verdict on code with a hidden test, and batches of doctest sessions. Does not know: why the code is run.
"""

from __future__ import annotations

import doctest
import functools
import secrets
from collections.abc import Sequence
from dataclasses import asdict, replace
from importlib.resources import files
from pathlib import Path

from jupiter.sandbox import assertions, values
from jupiter.sandbox.assertions import Check, Plan, UndecidableTest
from jupiter.sandbox.enclosure import Enclosure, SandboxUnavailable, find_enclosure
from jupiter.sandbox.execution import Execution, execute
from jupiter.sandbox.limits import Limits
from jupiter.sandbox.runs import Example, Outcome, SandboxResult, Session, Step, encode_job, read_outcomes

__all__ = ["Sandbox", "available"]

DEFAULT_LIMITS = Limits()
_PROBE_LIMITS = Limits(wall_s=60, step_wall_s=30)


class Sandbox:
    """Runs foreign code enclosed. Thread-safe; every call blocks until its run has ended."""

    def __init__(self, *, limits: Limits = DEFAULT_LIMITS, interpreter: Path | None = None) -> None:
        """Find the enclosure and prove it by one run. Raises SandboxUnavailable: no code is ever run without."""
        self.limits = limits
        self._enclosure: Enclosure = find_enclosure(interpreter)
        self._program = ("-I", "-S", "-B", "-c", files("jupiter.sandbox").joinpath("inside.py").read_text())
        self._probe()

    def run_python(
        self,
        code: str,
        *,
        test: str | None = None,
        wall_s: float | None = None,
        memory_bytes: int | None = None,
        output_bytes: int | None = None,
    ) -> SandboxResult:
        """Return whether `code` runs and, with a `test` (assertions or a doctest), whether it passes it.

        Without a test, `passed` says only that the module ran to its end without an exception.
        """
        limits = self._limited(wall_s, memory_bytes, output_bytes)
        try:
            made = assertions.plan(code, test) if test else Plan(checks=())
        except UndecidableTest as error:
            return SandboxResult(passed=False, reason=f"the test cannot be decided: {error}")
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            return SandboxResult(passed=False, reason=f"the test is not valid Python: {error}")
        steps = [Step(source=code, mode="exec"), *(_step(check) for check in made.checks)]
        (outcomes,), execution = self._run([steps], limits)
        expected = self._expected(made, limits)
        reason = _verdict(outcomes, made, expected)
        return SandboxResult(
            passed=not reason,
            reason=reason,
            checks=sum(check.kind != "run" for check in made.checks),
            stdout=outcomes[0].stdout,
            wall_s=execution.wall_s,
            outcomes=tuple(outcomes),
        )

    def run_sessions(self, sessions: Sequence[Session], *, wall_s: float | None = None) -> list[tuple[Outcome, ...]]:
        """Run the doctest sessions of one document in one enclosure, each in a process and namespace of its own.

        Returns the outcome of every example, in order. Compare `stdout` (or `error`) with what the document says
        outside. `wall_s` bounds them all together; each example has `limits.step_wall_s`.
        """
        if not sessions:
            return []
        units = [
            [
                Step(source=session.setup or "pass", mode="exec"),
                *(Step(source=_ended(example), mode="single") for example in session.examples),
            ]
            for session in sessions
        ]
        found, _ = self._run(units, self._limited(wall_s, None, None))
        return [tuple(outcomes[1:]) for outcomes in found]

    def evaluate(self, code: str, expressions: Sequence[str], *, wall_s: float | None = None) -> tuple[Outcome, ...]:
        """Run `code`, then return the outcome of each expression in its namespace: plain values, to compare outside."""
        steps = [Step(source=code, mode="exec"), *(Step(source=text, mode="eval") for text in expressions)]
        (outcomes,), _ = self._run([steps], self._limited(wall_s, None, None))
        if outcomes[0].status != "returned":
            return tuple(replace(outcomes[0], value=None, is_plain=False) for _ in expressions)
        return tuple(outcomes[1:])

    def _limited(self, wall_s: float | None, memory_bytes: int | None, output_bytes: int | None) -> Limits:
        limits = self.limits
        return replace(
            limits,
            wall_s=limits.wall_s if wall_s is None else wall_s,
            memory_bytes=limits.memory_bytes if memory_bytes is None else memory_bytes,
            output_bytes=limits.output_bytes if output_bytes is None else output_bytes,
        )

    def _run(self, units: Sequence[Sequence[Step]], limits: Limits) -> tuple[list[list[Outcome]], Execution]:
        nonce = secrets.token_hex(16)
        execution = execute(
            self._enclosure.command(self._program, limits),
            stdin=encode_job(nonce=nonce, units=units, limits=asdict(limits)),
            wall_s=limits.wall_s,
            output_bytes=limits.output_bytes,
        )
        lengths = [len(unit) for unit in units]
        return read_outcomes(execution.stdout, nonce=nonce, units=lengths, ended=execution.reason), execution

    def _expected(self, made: Plan, limits: Limits) -> dict[int, Outcome]:
        """Compute the expected sides that are no literals, in a run that never sees the code under test."""
        wanted = [(index, check.expected_source) for index, check in enumerate(made.checks) if check.expected_source]
        if not wanted:
            return {}
        steps = [Step(source=source, mode="exec") for source in made.prelude]
        steps += [Step(source=source, mode="eval") for _, source in wanted if source]
        (outcomes,), _ = self._run([steps], limits)
        return dict(zip([index for index, _ in wanted], outcomes[len(made.prelude) :], strict=True))

    def _probe(self) -> None:
        """Refuse to exist where bubblewrap does not work (no user namespaces, a seccomp profile, …)."""
        step = Step(source="6 * 7", mode="eval")
        (outcomes,), execution = self._run([[step]], _PROBE_LIMITS)
        if outcomes[0].value != 42:
            said = execution.stderr.decode(errors="replace").strip().splitlines()
            raise SandboxUnavailable(
                f"bubblewrap ({self._enclosure.bwrap}) cannot enclose {self._enclosure.interpreter} here: "
                f"{said[-1] if said else execution.reason}. It needs unprivileged user namespaces "
                "(user.max_user_namespaces > 0, on Ubuntu kernel.apparmor_restrict_unprivileged_userns = 0; in a "
                "container, a profile that allows them)"
            )


@functools.cache
def available() -> str | None:
    """Return None where foreign code can be enclosed, else the reason why not. Asks once per process."""
    try:
        Sandbox()
    except SandboxUnavailable as error:
        return str(error)
    return None


def _step(check: Check) -> Step:
    if check.kind == "run":
        return Step(source=check.source, mode="exec")
    return Step(source=check.source, mode="single" if check.kind in ("prints", "raises") else "eval")


def _ended(example: Example) -> str:
    """Return the source as the prompt compiles it: a compound statement needs its closing newline."""
    return example.source if example.source.endswith("\n") else example.source + "\n"


def _verdict(outcomes: Sequence[Outcome], made: Plan, expected: dict[int, Outcome]) -> str:
    """Return why the code fails, or the empty string."""
    if outcomes[0].status != "returned":
        return _failed("the code", outcomes[0])
    for index, (check, outcome) in enumerate(zip(made.checks, outcomes[1:], strict=True)):
        reason = _judge(check, outcome, expected.get(index))
        if reason:
            return reason
    return ""


def _judge(check: Check, outcome: Outcome, computed: Outcome | None) -> str:
    what = f"`{check.source.strip()}`"
    if check.kind == "raises" and outcome.status != "raised":
        return f"{what} raised nothing, expected {_short(check.want)}"
    if check.kind in ("prints", "raises") and outcome.status == {"prints": "returned", "raises": "raised"}[check.kind]:
        seen = outcome.stdout if check.kind == "prints" else outcome.error + "\n"
        matches = doctest.OutputChecker().check_output(check.want, seen, check.options)
        return "" if matches else f"{what} gave {_short(seen)}, expected {_short(check.want)}"
    if outcome.status != "returned":
        return _failed(what, outcome)
    if check.kind == "run":
        return ""
    if not outcome.is_plain:
        return f"{what} gave an object that is not plain data"
    if check.kind == "truth":
        return "" if outcome.value else f"{what} is not true: {_short(outcome.value)}"
    wanted = check.expected
    if check.expected_source is not None:
        if computed is None or not computed.is_plain:
            return f"the test cannot be decided: `{check.expected_source}` gave no plain value without the code"
        wanted = computed.value
    return "" if values.equal(outcome.value, wanted) else f"{what} gave {_short(outcome.value)}"


def _failed(what: str, outcome: Outcome) -> str:
    return f"{what} {outcome.status.replace('_', ' ')}: {outcome.error}"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
