"""Doctest sessions of the documents, run in the sandbox.

Owns: what a document's examples may take for granted. Does not know: which of them become items (`items`).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence

from jupiter.evaluator.items.item import SessionRunner
from jupiter.records import Document
from jupiter.sandbox import Example, Limits, Sandbox, SandboxUnavailable, Session

__all__ = ["open_session_runner"]

log = logging.getLogger(__name__)

SESSION_LIMITS = Limits(wall_s=30, step_wall_s=5, cpu_s=20)
"""A documented example takes milliseconds; five seconds, even on a busy machine, are an endless loop."""
_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


def open_session_runner(limits: Limits = SESSION_LIMITS) -> SessionRunner | None:
    """Return a runner, or None where nothing can be enclosed: then no example becomes an item (fail closed)."""
    try:
        sandbox = Sandbox(limits=limits)
    except SandboxUnavailable as error:
        log.warning("no sandbox, so the benchmark gets no executed examples: %s", error)
        return None

    def run_session(document: Document, sources: Sequence[str]) -> list[str | None]:
        """Return what each statement printed, None where it raised, timed out or was not reached."""
        session = Session(examples=tuple(Example(source=source) for source in sources), setup=_setup(document.group))
        (outcomes,) = sandbox.run_sessions([session])
        return [
            outcome.stdout if outcome.status == "returned" and not outcome.truncated else None for outcome in outcomes
        ]

    return run_session


def _setup(group: str) -> str:
    """Return the imports that examples of a module's documentation leave out."""
    if not _MODULE.fullmatch(group):
        return ""
    return f"try:\n    import {group}\n    from {group} import *\nexcept Exception:\n    pass\n"
