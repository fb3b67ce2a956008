"""The code runner of the `code` filter: `jupiter.sandbox`, failing closed.

Owns: the limits of one run and the counter names of its failures. Does not know: how code is enclosed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from jupiter.sandbox import Limits, Sandbox, SandboxUnavailable

__all__ = ["SandboxedRunner"]

log = logging.getLogger(__name__)

# A function with its assertions takes milliseconds. The processor's time decides about an endless loop, so that a busy
# machine gives the same verdict as an idle one; the clock only bounds what sleeps.
RUN_LIMITS = Limits(cpu_s=3, wall_s=30, step_wall_s=20)


def _make_sandbox() -> Sandbox:
    return Sandbox(limits=RUN_LIMITS)


class SandboxedRunner:
    """See `filters.base.CodeRunner`. The sandbox is made, and proves itself, when the first code comes."""

    def __init__(self, make_sandbox: Callable[[], Sandbox] = _make_sandbox) -> None:
        self._make_sandbox = make_sandbox
        self._sandbox: Sandbox | None = None
        self._unavailable = False

    def __call__(self, code: str, test: str) -> str | None:
        if self._sandbox is None and not self._unavailable:
            self._open()
        if self._sandbox is None:
            return "sandbox_unavailable"
        result = self._sandbox.run_python(code, test=test)
        if not result.passed:
            return "code_fails_test"
        # Code that merely ran proves nothing: something must have been compared.
        return None if result.checks else "code_test_checks_nothing"

    def _open(self) -> None:
        try:
            self._sandbox = self._make_sandbox()
        except SandboxUnavailable as error:
            self._unavailable = True
            log.warning("no sandbox: samples with a test are dropped, not trusted (%s)", error)
