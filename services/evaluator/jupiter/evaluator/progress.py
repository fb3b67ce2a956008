"""How far the work is, from the thread that does it.

Owns: counting items and saying so now and then. Does not know: what an item is, nor who is told.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

__all__ = ["ProgressLine", "ReportProgress"]


class ReportProgress(Protocol):
    """Shows how far the work is; called in the worker thread."""

    def __call__(self, *, done: int, total: int, rate_per_s: float | None) -> None: ...


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
