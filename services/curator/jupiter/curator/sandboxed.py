"""The code runner of the `code` filter: `jupiter.sandbox`, failing closed.

Owns: the limits of one run and the counter names of its failures. Does not know: how code is enclosed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from jupiter.sandbox import Sandbox, SandboxUnavailable

__all__ = ["SandboxedRunner"]

log = logging.getLogger(__name__)

RUN_WALL_S = 5.0
"""A function with its assertions takes milliseconds; five seconds is an endless loop on a busy machine."""


class SandboxedRunner:
    """See `filters.base.CodeRunner`. The sandbox is made, and proves itself, when the first code comes."""

    def __init__(self, make_sandbox: Callable[[], Sandbox] = Sandbox) -> None:
        self._make_sandbox = make_sandbox
        self._sandbox: Sandbox | None = None
        self._unavailable = False

    def __call__(self, code: str, test: str) -> str | None:
        if self._sandbox is None and not self._unavailable:
            self._open()
        if self._sandbox is None:
            return "sandbox_unavailable"
        result = self._sandbox.run_python(code, test=test, wall_s=RUN_WALL_S)
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
