"""W3C trace context: which chain of work a message and a log line belong to.

Owns: the `traceparent` header and the current trace of a task. Does not know: how it is logged or sent.
"""

from __future__ import annotations

import re
import secrets
from contextvars import ContextVar
from dataclasses import dataclass

__all__ = ["TRACEPARENT", "Trace", "current", "enter"]

TRACEPARENT = "traceparent"
_FORMAT = re.compile(r"^00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})$")


@dataclass(frozen=True, kw_only=True)
class Trace:
    """One span: `trace_id` is shared by everything that one document or request caused."""

    trace_id: str
    span_id: str

    @classmethod
    def new(cls) -> Trace:
        return cls(trace_id=secrets.token_hex(16), span_id=secrets.token_hex(8))

    @classmethod
    def parse(cls, header: str | None) -> Trace | None:
        """Return the trace that a `traceparent` header names; None when it is absent or malformed.

        A malformed header starts a new trace, as the W3C recommendation asks: it never fails a message.
        """
        found = _FORMAT.match(header or "")
        if found is None or set(found[1]) == {"0"} or set(found[2]) == {"0"}:
            return None
        return cls(trace_id=found[1], span_id=found[2])

    def child(self) -> Trace:
        return Trace(trace_id=self.trace_id, span_id=secrets.token_hex(8))

    def header(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-01"


_current: ContextVar[Trace | None] = ContextVar("jupiter_trace", default=None)


def current() -> Trace | None:
    """Return the trace of the running task."""
    return _current.get()


def enter(header: str | None) -> Trace:
    """Make the running task a child of the trace in `header`, or the root of a new one."""
    parent = Trace.parse(header)
    trace = parent.child() if parent else Trace.new()
    _current.set(trace)
    return trace
