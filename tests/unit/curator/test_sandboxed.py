"""The code runner with the real sandbox, and without one."""

from __future__ import annotations

import pytest

from jupiter.curator.sandboxed import SandboxedRunner
from jupiter.sandbox import Sandbox, SandboxUnavailable

CODE = "def double(x):\n    return 2 * x\n"


def test_only_code_that_passes_a_real_test_is_kept() -> None:
    run = SandboxedRunner()
    assert run(CODE, "assert double(2) == 4") is None
    assert run(CODE, "assert double(2) == 5") == "code_fails_test"
    assert run("import sys\nsys.exit(0)", "assert double(2) == 4") == "code_fails_test"
    assert run(CODE, "double(2)") in {"code_test_checks_nothing", "code_fails_test"}


def test_without_a_sandbox_nothing_passes(caplog: pytest.LogCaptureFixture) -> None:
    attempts = []

    def none() -> Sandbox:
        attempts.append(1)
        raise SandboxUnavailable("there is no bubblewrap")

    run = SandboxedRunner(none)
    assert run(CODE, "assert double(2) == 4") == "sandbox_unavailable"
    assert run(CODE, "assert double(2) == 4") == "sandbox_unavailable"
    assert len(attempts) == 1
    assert "no bubblewrap" in caplog.text
