"""The program that runs inside the enclosure, given to the interpreter as text (`-c`), never imported by a service.

Owns: the rlimits, one process per unit, one time limit per step, and reporting values as plain data.
Does not know: what is expected. It uses the standard library only, and nothing of Jupiter.
"""

from __future__ import annotations

import builtins
import contextlib
import io
import json
import os
import resource
import select
import signal
import sys
from pathlib import Path
from typing import Any

DEPTH_MAX = 20
ITEMS_MAX = 100_000
ATOMS: tuple[tuple[type, str], ...] = (
    (int, "int"),
    (float, "float"),
    (complex, "complex"),
    (str, "str"),
    (bytes, "bytes"),
)
SEQUENCES: tuple[tuple[Any, str], ...] = ((list, "list"), (tuple, "tuple"), (set, "set"), (frozenset, "frozenset"))


class StepTimeoutError(BaseException):
    """A step's time is over. Not an Exception, so that `except Exception` in the code does not swallow it."""


class Capture(io.TextIOBase):
    """Standard output of one step: the first `chars_max` characters are kept."""

    def __init__(self, chars_max: int) -> None:
        self.left = chars_max
        self.parts: list[str] = []
        self.truncated = False

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if len(text) > self.left:
            self.truncated = True
        if self.left > 0 and text:
            self.parts.append(text[: self.left])
            self.left -= len(self.parts[-1])
        return len(text)

    def getvalue(self) -> str:
        return "".join(self.parts)


class Opaque(Exception):
    """The value is not plain data."""


def encode(value: Any, budget: list[int], depth: int = 0) -> list[Any]:
    """Return `[tag, content]`, using only the builtin types' own methods, or raise Opaque."""
    budget[0] -= 1
    kind = type(value)
    if depth > DEPTH_MAX or budget[0] < 0:
        raise Opaque
    if value is None:
        return ["none", None]
    if kind is bool:
        return ["bool", value]
    for base, tag in ATOMS:
        if issubclass(kind, base):
            return [tag, atom(value, tag)]
    for base, tag in SEQUENCES:
        if issubclass(kind, base):
            return [tag, [encode(item, budget, depth + 1) for item in base.__iter__(value)]]
    if issubclass(kind, dict):
        pairs = list(dict.items(value))
        return ["dict", [[encode(k, budget, depth + 1), encode(v, budget, depth + 1)] for k, v in pairs]]
    raise Opaque


def atom(value: Any, tag: str) -> str:
    """Return the text of a number or string; numbers in forms that lose nothing."""
    if tag == "int":
        return int.__format__(value, "x")
    if tag == "float":
        return float.hex(value)
    if tag == "complex":
        return complex.__repr__(value)
    if tag == "bytes":
        return bytes.hex(value)
    return str.__str__(value)


def limit(limits: dict[str, Any]) -> None:
    """Lower this process's rlimits for good, and offer it first to the kernel's out-of-memory killer."""
    for name, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_AS, limits["memory_bytes"]),
        (resource.RLIMIT_CPU, limits["cpu_s"]),
        (resource.RLIMIT_NOFILE, limits["open_files_max"]),
        (resource.RLIMIT_FSIZE, limits["disk_bytes"]),
        # The enclosure's own first process, this one, and the unit's: then those that the code may start.
        (resource.RLIMIT_NPROC, limits["processes_max"] + 2),
    ):
        resource.setrlimit(name, (value, value))
    with contextlib.suppress(OSError), Path("/proc/self/oom_score_adj").open("w") as score:
        score.write("1000")


def on_alarm(_signum: int, _frame: object) -> None:
    raise StepTimeoutError


def run_step(step: dict[str, str], space: dict[str, Any], limits: dict[str, Any]) -> dict[str, Any]:
    """Run one step and return its report."""
    capture = Capture(limits["step_output_chars"])
    report: dict[str, Any] = {"status": "returned", "error": "", "value": None}
    sys.stdout = sys.stderr = capture
    # An interval too: code that swallows the first alarm meets the next.
    signal.setitimer(signal.ITIMER_REAL, limits["step_wall_s"], limits["step_wall_s"])
    try:
        compiled = compile(step["source"], "<sandbox>", step["mode"], dont_inherit=True)
        result = eval(compiled, space)  # noqa: S307 - this is what the sandbox is for
        if step["mode"] == "eval":
            with contextlib.suppress(Opaque):
                report["value"] = encode(result, [ITEMS_MAX])
    except StepTimeoutError:
        report.update(status="timed_out", error=f"over {limits['step_wall_s']} s")
    except BaseException as error:  # noqa: BLE001 - SystemExit and all: nothing the code raises ends the runner
        report.update(status="raised", error=describe(error))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
    return {**report, "stdout": capture.getvalue(), "truncated": capture.truncated}


def describe(error: BaseException) -> str:
    """Return `TypeName: message` as the last line of a traceback has it."""
    kind = type(error)
    name = (
        kind.__qualname__ if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}.{kind.__qualname__}"
    )
    try:
        text = str(error)
    except BaseException:  # noqa: BLE001 - its __str__ is the code's
        text = "<unprintable>"
    return (f"{name}: {text}" if text else name)[:2000]


def run_unit(number: int, unit: list[dict[str, str]], job: dict[str, Any], report_fd: int) -> None:
    """Run a unit's steps in order in a namespace of its own, reporting after each."""
    signal.signal(signal.SIGALRM, on_alarm)
    space: dict[str, Any] = {"__name__": "__main__", "__builtins__": builtins}
    for index, step in enumerate(unit):
        report = run_step(step, space, job["limits"])
        line = f"\n{job['nonce']} {json.dumps({'unit': number, 'step': index, **report})}\n".encode()
        while line:
            line = line[os.write(report_fd, line) :]
        if report["status"] == "timed_out":
            break


def wait_for(child: int, seconds: float) -> None:
    """Wait for the unit's process, at most so long; then kill everything inside but this process."""
    handle = os.pidfd_open(child)
    poller = select.poll()
    poller.register(handle, select.POLLIN)
    poller.poll(seconds * 1000)
    os.close(handle)
    with contextlib.suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)


def main() -> None:
    """Read the job, run each unit in a process of its own, and end."""
    job = json.load(sys.stdin)
    report_fd = os.dup(1)
    null = os.open("/dev/null", os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    os.close(null)
    limit(job["limits"])
    for number, unit in enumerate(job["units"]):
        child = os.fork()
        if child == 0:
            try:
                run_unit(number, unit, job, report_fd)
            finally:
                os._exit(0)
        # A step may be cut off by its alarm only: what ignores alarms is killed here.
        wait_for(child, job["limits"]["step_wall_s"] * (len(unit) + 1))


if __name__ == "__main__":
    main()
