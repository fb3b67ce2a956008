"""Computing in a worker thread by turns, interruptible.

Owns: giving the compute lease to others between items, and ending early when the service stops.
Does not know: what is computed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Protocol

from jupiter.compute import ComputeLease, Turn

__all__ = ["Interrupted", "ProgressLine", "ReportProgress", "Turns"]


class Interrupted(Exception):
    """The service stops: the work is given back and done again by whoever gets it next."""


class ReportProgress(Protocol):
    """Shows how far the work is; called in the worker thread."""

    def __call__(self, *, done: int, total: int, rate_per_s: float | None) -> None: ...


class Turns:
    """Holds the compute lease inside the block, but for the pauses in `between`."""

    def __init__(self, lease: ComputeLease, *, purpose: str, interrupted: threading.Event) -> None:
        self._lease = lease
        self._purpose = purpose
        self._interrupted = interrupted
        self._held = ExitStack()
        self._turn: Turn | None = None

    def __enter__(self) -> Turns:
        self._take()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held.close()

    def between(self) -> None:
        """Let others compute if it is their turn. Raises Interrupted when the service stops."""
        if self._interrupted.is_set():
            raise Interrupted
        if self._turn is not None and self._turn.should_yield():
            self._held.close()
            self._take()

    def _take(self) -> None:
        self._turn = self._held.enter_context(self._lease.turn_in_thread(self._purpose))
        if self._interrupted.is_set():
            self._held.close()
            raise Interrupted


class ProgressLine:
    """Counts what is done and reports it, at most every `interval_s`."""

    def __init__(
        self, report: ReportProgress, *, total: int, between: Callable[[], None], interval_s: float = 1.0
    ) -> None:
        self._report, self._total, self._between, self._interval_s = report, total, between, interval_s
        self._done = 0
        self._began = self._reported = time.monotonic()

    def __call__(self, count: int) -> None:
        self._done += count
        now = time.monotonic()
        if now - self._reported >= self._interval_s:
            self._reported = now
            self._report(done=self._done, total=self._total, rate_per_s=self._done / (now - self._began))
        self._between()
